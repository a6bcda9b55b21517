package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
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
	stores := map[string][]any{}
	if err := until(w.collected); err != nil {
		// kube-controller-manager's collector does leave some behind when the API
		// goes away and comes back without a history: that is its own row.
		fmt.Println(err)
		stores["uncollected"] = []any{"Pods"}
	}
	for _, f := range w.followed {
		kept := cache.NewStore(cache.MetaNamespaceKeyFunc)
		for _, object := range f.informer.GetStore().List() {
			orphan, err := w.isOrphan(object)
			if err != nil {
				return err
			}
			if orphan {
				continue
			}
			if err := kept.Add(object); err != nil {
				return err
			}
		}
		stores[f.name] = sorted(kept)
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

// isOrphan tells whether an object is a Pod whose ReplicaSet is gone.
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
	return err == nil && found.UID != owner.UID, err
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

// sorted are the objects of a store in an order that made-up names do not
// change.
func sorted(store cache.Store) []any {
	objects := store.List()
	key := func(object any) string {
		accessor, err := meta.Accessor(object)
		if err != nil {
			return ""
		}
		if made := accessor.GetGenerateName(); made != "" {
			return made
		}
		return accessor.GetName()
	}
	sort.SliceStable(objects, func(a, b int) bool { return key(objects[a]) < key(objects[b]) })
	for at, object := range objects {
		if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
			// The order of endpoints is open, and how often a controller wrote.
			slice = slice.DeepCopy()
			slice.Generation = 0
			sort.Slice(slice.Endpoints, func(a, b int) bool {
				return fmt.Sprint(slice.Endpoints[a].Addresses) < fmt.Sprint(slice.Endpoints[b].Addresses)
			})
			objects[at] = slice
		}
	}
	return objects
}
