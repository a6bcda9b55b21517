package main

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

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

// equal waits until all followed kinds are told right.
func (w *world) equal() error {
	for _, f := range w.followed {
		if err := f.equal(); err != nil {
			return err
		}
	}
	return nil
}
