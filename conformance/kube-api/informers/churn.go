package main

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// churn makes, changes and removes objects; each is made at most once. What
// comes of it depends on the seed alone, and not on how fast a server is.
func (w *world) churn() error {
	for range operations {
		number := w.random.Intn(40)
		var err error
		switch w.random.Intn(8) {
		case 0, 1:
			err = w.makePod(number)
		case 2:
			err = w.setReady(number)
		case 3:
			zero := int64(0)
			err = w.client.CoreV1().Pods(namespace).Delete(w.context, podName(number), metav1.DeleteOptions{GracePeriodSeconds: &zero})
		case 4:
			err = w.makeService(number % 8)
		case 5:
			if number%2 == 0 {
				err = w.client.CoreV1().Services(namespace).Delete(w.context, serviceName(number%8), metav1.DeleteOptions{})
			}
		case 6:
			err = w.makeDeployment(number % 4)
		case 7:
			err = w.changeDeployment(number % 4)
		}
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

func podName(number int) string     { return fmt.Sprintf("pod-%d", number) }
func serviceName(number int) string { return fmt.Sprintf("service-%d", number) }

// deploymentName is never used again once its Deployment was removed: what the
// collector has not removed yet of the one before would be in the way, or not.
func (w *world) deploymentName(number int) string {
	return fmt.Sprintf("deployment-%d-%d", number, w.removed[number])
}

func (w *world) makePod(number int) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:   podName(number),
			Labels: map[string]string{"group": fmt.Sprint(number % 8)},
		},
		Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "main", Image: "pause:3.10"}},
		},
	}
	_, err := w.client.CoreV1().Pods(namespace).Create(w.context, pod, metav1.CreateOptions{})
	return err
}

func (w *world) setReady(number int) error {
	ready := "True"
	if w.random.Intn(3) == 0 {
		ready = "False"
	}
	patch := fmt.Sprintf(`{"status":{"phase":"Running","podIP":"10.244.7.%d","podIPs":[{"ip":"10.244.7.%d"}],
		"conditions":[{"type":"Ready","status":%q}]}}`, number+1, number+1, ready)
	_, err := w.client.CoreV1().Pods(namespace).Patch(w.context, podName(number),
		types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	return err
}

func (w *world) makeService(number int) error {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName(number)},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"group": fmt.Sprint(number)},
			Ports:    []corev1.ServicePort{{Port: 80}},
		},
	}
	_, err := w.client.CoreV1().Services(namespace).Create(w.context, service, metav1.CreateOptions{})
	return err
}

// makeDeployment makes one whose Pods nobody runs: they are made and removed.
func (w *world) makeDeployment(number int) error {
	labels := map[string]string{"deployment": w.deploymentName(number)}
	replicas := int32(2)
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: w.deploymentName(number)},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "pause:3.10"}}},
			},
		},
	}
	_, err := w.client.AppsV1().Deployments(namespace).Create(w.context, deployment, metav1.CreateOptions{})
	return err
}

// changeDeployment scales one, or removes it with what it owns.
func (w *world) changeDeployment(number int) error {
	deployments := w.client.AppsV1().Deployments(namespace)
	if replicas := w.random.Intn(4); replicas > 0 {
		patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas)
		_, err := deployments.Patch(w.context, w.deploymentName(number), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
	background := metav1.DeletePropagationBackground
	err := deployments.Delete(w.context, w.deploymentName(number), metav1.DeleteOptions{PropagationPolicy: &background})
	if err == nil {
		w.removed[number]++
	}
	return err
}
