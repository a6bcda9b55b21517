package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// Controllers have come to rest when nothing has changed for so long.
const calm = 3 * time.Second

// dump writes the stores once the controllers have come to rest.
func (w *world) dump(path string) error {
	if path == "" {
		return nil
	}
	last, since := "", time.Now()
	if err := until(func() error {
		now := ""
		for _, f := range w.followed {
			now += fmt.Sprint(f.versions())
		}
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < calm {
			return fmt.Errorf("controllers do not come to rest")
		}
		return nil
	}); err != nil {
		return err
	}
	stores := map[string]map[string]any{}
	if err := until(w.collected); err != nil {
		// kube-controller-manager's collector does leave some behind when the API
		// goes away and comes back without a history: that is its own row.
		fmt.Println(err)
		stores["uncollected"] = map[string]any{"pods": true}
	}
	for _, f := range w.followed {
		var kept []any
		for _, object := range f.informer.GetStore().List() {
			orphan, err := w.isOrphan(object)
			if err != nil {
				return err
			}
			if !orphan {
				kept = append(kept, object)
			}
		}
		keyed, err := byKey(kept)
		if err != nil {
			return err
		}
		stores[f.name] = keyed
	}
	text, err := json.MarshalIndent(stores, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// collected looks for Pods of Deployments that are gone: the garbage collector
// may take its time.
func (w *world) collected() error {
	wanted, found := 0, 0
	for _, object := range w.store("deployments").List() {
		if deployment, ok := object.(*appsv1.Deployment); ok && deployment.Spec.Replicas != nil {
			wanted += int(*deployment.Spec.Replicas)
		}
	}
	for _, object := range w.store("pods").List() {
		if pod, ok := object.(*corev1.Pod); ok && len(pod.OwnerReferences) > 0 {
			found++
		}
	}
	if found != wanted {
		return fmt.Errorf("Deployments want %d Pods and have %d", wanted, found)
	}
	return nil
}

// isOrphan tells whether an object is a Pod whose ReplicaSet or Deployment is
// gone.
func (w *world) isOrphan(object any) (bool, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return false, nil
	}
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return false, nil
	}
	found, err := w.client.AppsV1().ReplicaSets(namespace).Get(w.context, owner.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil || found.UID != owner.UID {
		return err == nil, err
	}
	owner = metav1.GetControllerOf(found)
	if owner == nil {
		return true, nil
	}
	_, held, err := w.store("deployments").GetByKey(namespace + "/" + owner.Name)
	return !held, err
}

func (w *world) store(name string) cache.Store {
	for _, f := range w.followed {
		if f.name == name {
			return f.informer.GetStore()
		}
	}
	panic(name)
}

func (f *followed) versions() map[string]string {
	f.lock.Lock()
	defer f.lock.Unlock()
	copied := map[string]string{}
	for key, version := range f.told {
		copied[key] = version
	}
	return copied
}

// byKey names objects so that two servers can be compared: by their name, or,
// if that was made up, by what it was made from and a number.
func byKey(objects []any) (map[string]any, error) {
	keyed := map[string]any{}
	sort.SliceStable(objects, func(a, b int) bool { return shape(objects[a]) < shape(objects[b]) })
	for _, object := range objects {
		accessor, err := meta.Accessor(object)
		if err != nil {
			return nil, err
		}
		key := accessor.GetName()
		if made := accessor.GetGenerateName(); made != "" {
			if hash := accessor.GetLabels()[appsv1.DefaultDeploymentUniqueLabelKey]; hash != "" {
				made = strings.Replace(made, hash, "hash", 1)
			}
			number := 0
			for key = fmt.Sprint(made, number); keyed[key] != nil; key = fmt.Sprint(made, number) {
				number++
			}
		}
		if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
			// The order of endpoints is open, and how often a controller wrote.
			slice = slice.DeepCopy()
			slice.Generation = 0
			sort.Slice(slice.Endpoints, func(a, b int) bool {
				return fmt.Sprint(slice.Endpoints[a].Addresses) < fmt.Sprint(slice.Endpoints[b].Addresses)
			})
			object = slice
		}
		keyed[key] = object
	}
	return keyed, nil
}

// shape tells apart the slices of one Service, a placeholder from one in use.
func shape(object any) string {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return ""
	}
	shape := fmt.Sprint(len(slice.Endpoints))
	for _, port := range slice.Ports {
		shape += fmt.Sprint(" ", ptr.Deref(port.Name, ""), ptr.Deref(port.Port, 0))
	}
	return shape
}
