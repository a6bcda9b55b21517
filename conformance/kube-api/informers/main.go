// Command informers follows Pods, Services and EndpointSlices with client-go's
// shared informers while it creates, changes and deletes them, and while the
// server is restarted (it prints RESTART and waits for a line on its standard
// input). It succeeds when, in the end, each informer's store, and what its
// handlers were told, equal a fresh list.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	namespace = "informers"
	node      = "informers-node"
	// Operations in each of the three rounds.
	operations = 150
	// A server that was restarted has its clients back within this; client-go
	// backs off for up to half a minute.
	settle = 90 * time.Second
	poll   = 200 * time.Millisecond
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the cluster")
	seed := flag.Int64("seed", 1, "of the churn")
	flag.Parse()
	if err := run(*kubeconfig, *seed); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

type world struct {
	context context.Context
	client  kubernetes.Interface
	random  *rand.Rand
}

func run(kubeconfig string, seed int64) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 500, 500
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &world{ctx, client, rand.New(rand.NewSource(seed))}
	if err := w.prepare(); err != nil {
		return err
	}

	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	followed := []*followed{
		follow("pods", factory.Core().V1().Pods().Informer(), func() (runtime.Object, error) {
			return client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		}),
		follow("services", factory.Core().V1().Services().Informer(), func() (runtime.Object, error) {
			return client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
		}),
		follow("endpointslices", factory.Discovery().V1().EndpointSlices().Informer(), func() (runtime.Object, error) {
			return client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{})
		}),
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("%v did not sync", kind)
		}
	}
	input := bufio.NewReader(os.Stdin)
	for round := range 3 {
		if err := w.churn(); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		for _, f := range followed {
			if err := f.equal(); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		if round < 2 {
			fmt.Println("RESTART")
			if _, err := input.ReadString('\n'); err != nil {
				return err
			}
		}
	}
	if err := w.initialEvents(); err != nil {
		return fmt.Errorf("initial events: %w", err)
	}
	if err := w.future(); err != nil {
		return fmt.Errorf("revision of the future: %w", err)
	}
	for _, f := range followed {
		fmt.Printf("%s: %d equal\n", f.name, len(f.told))
	}
	return client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
}

func (w *world) prepare() error {
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := w.client.CoreV1().Namespaces().Create(w.context, space, metav1.CreateOptions{}); err != nil {
		return err
	}
	machine := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	_, err := w.client.CoreV1().Nodes().Create(w.context, machine, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return until(func() error {
		_, err := w.client.CoreV1().ServiceAccounts(namespace).Get(w.context, "default", metav1.GetOptions{})
		return err
	})
}

// churn makes, changes and removes objects; each is made at most once.
func (w *world) churn() error {
	for range operations {
		number := w.random.Intn(40)
		var err error
		switch w.random.Intn(6) {
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
		}
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

func podName(number int) string     { return fmt.Sprintf("pod-%d", number) }
func serviceName(number int) string { return fmt.Sprintf("service-%d", number) }

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

// initialEvents asks for a watch that begins with the present state and marks
// its end with a bookmark.
func (w *world) initialEvents() error {
	yes := true
	list, err := w.client.CoreV1().Pods(namespace).List(w.context, metav1.ListOptions{})
	if err != nil {
		return err
	}
	stream, err := w.client.CoreV1().Pods(namespace).Watch(w.context, metav1.ListOptions{
		SendInitialEvents:    &yes,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		AllowWatchBookmarks:  true,
	})
	if err != nil {
		return err
	}
	defer stream.Stop()
	seen := 0
	timeout := time.After(settle)
	for {
		select {
		case event := <-stream.ResultChan():
			switch event.Type {
			case watch.Added:
				seen++
			case watch.Bookmark:
				pod, _ := event.Object.(*corev1.Pod)
				if pod == nil || pod.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
					return fmt.Errorf("a bookmark without its annotation: %v", event.Object)
				}
				if seen != len(list.Items) {
					return fmt.Errorf("%d events, %d Pods", seen, len(list.Items))
				}
				return nil
			default:
				return fmt.Errorf("%s before the bookmark: %v", event.Type, event.Object)
			}
		case <-timeout:
			return errors.New("no bookmark")
		}
	}
}

// future asks for a revision that there is not yet.
func (w *world) future() error {
	_, err := w.client.CoreV1().Pods(namespace).List(w.context, metav1.ListOptions{
		ResourceVersion: "999999999", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		return fmt.Errorf("not told apart: %v", err)
	}
	return nil
}

// followed is an informer, what its handlers were told, and the truth.
type followed struct {
	name     string
	informer cache.SharedIndexInformer
	list     func() (runtime.Object, error)
	lock     sync.Mutex
	told     map[string]string
}

func follow(name string, informer cache.SharedIndexInformer, list func() (runtime.Object, error)) *followed {
	f := &followed{name: name, informer: informer, list: list, told: map[string]string{}}
	set := func(object any) {
		f.lock.Lock()
		defer f.lock.Unlock()
		key, version := describe(object)
		f.told[key] = version
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, object any) { set(object) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			f.lock.Lock()
			defer f.lock.Unlock()
			key, _ := describe(object)
			delete(f.told, key)
		},
	})
	if err != nil {
		panic(err)
	}
	return f
}

func describe(object any) (string, string) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return "?", err.Error()
	}
	return accessor.GetName(), string(accessor.GetUID()) + "/" + accessor.GetResourceVersion()
}

// equal waits until store, handlers and a fresh list say the same.
func (f *followed) equal() error {
	return until(func() error {
		truth := map[string]string{}
		list, err := f.list()
		if err != nil {
			return err
		}
		if err := meta.EachListItem(list, func(object runtime.Object) error {
			key, version := describe(object)
			truth[key] = version
			return nil
		}); err != nil {
			return err
		}
		stored := map[string]string{}
		for _, object := range f.informer.GetStore().List() {
			key, version := describe(object)
			stored[key] = version
		}
		f.lock.Lock()
		defer f.lock.Unlock()
		if err := same(stored, truth); err != nil {
			return fmt.Errorf("%s: store: %w", f.name, err)
		}
		if err := same(f.told, truth); err != nil {
			return fmt.Errorf("%s: handlers: %w", f.name, err)
		}
		return nil
	})
}

func same(found, truth map[string]string) error {
	for key, version := range truth {
		if found[key] != version {
			return fmt.Errorf("%s is %q, the list says %q", key, found[key], version)
		}
	}
	for key := range found {
		if _, there := truth[key]; !there {
			return fmt.Errorf("%s is not in the list", key)
		}
	}
	return nil
}

func until(check func() error) error {
	var err error
	for deadline := time.Now().Add(settle); time.Now().Before(deadline); time.Sleep(poll) {
		if err = check(); err == nil {
			return nil
		}
	}
	return err
}
