package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// Lists taken while objects come and go, and what they select by.
	lists    = 20
	pageRole = "page"
	// ConfigMaps at a time.
	maps = 40
)

// paging takes lists in pages while ConfigMaps come, change and go. The union
// of the pages must be exactly what there was at the revision of the list,
// which a watch from the beginning tells.
func (w *world) paging() error {
	configMaps := w.client.CoreV1().ConfigMaps(namespace)
	selector := metav1.ListOptions{LabelSelector: "role=" + pageRole}
	begin, err := configMaps.List(w.context, selector)
	if err != nil {
		return err
	}
	follow := selector
	follow.ResourceVersion = begin.ResourceVersion
	stream, err := configMaps.Watch(w.context, follow)
	if err != nil {
		return err
	}
	defer stream.Stop()
	// So that the first list has pages too.
	for number := range maps {
		if _, err := configMaps.Create(w.context, pageMap(strconv.Itoa(number)), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(w.context)
	defer stop()
	churned := make(chan error, 1)
	go func() { churned <- w.churnMaps(ctx) }()
	var taken []*corev1.ConfigMapList
	var pages int
	for range lists {
		list, count, err := w.inPages(selector)
		if err != nil {
			return err
		}
		pages += count
		taken = append(taken, list)
	}
	stop()
	if err := <-churned; err != nil {
		return err
	}
	if pages < 2*lists {
		return fmt.Errorf("%d pages of %d lists", pages, lists)
	}
	last, err := configMaps.Create(w.context, pageMap("last"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	history, err := events(stream, last.Name)
	if err != nil {
		return err
	}
	for _, list := range taken {
		if err := sameAsHistory(list, history); err != nil {
			return fmt.Errorf("at %s: %w", list.ResourceVersion, err)
		}
	}
	return configMaps.DeleteCollection(w.context, metav1.DeleteOptions{}, selector)
}

func (w *world) churnMaps(ctx context.Context) error {
	configMaps := w.client.CoreV1().ConfigMaps(namespace)
	for number := 0; ctx.Err() == nil; number++ {
		// Multiplied so that names do not come in their order.
		object := pageMap(strconv.Itoa(number * 17 % maps))
		_, err := configMaps.Create(w.context, object, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			if number%3 > 0 {
				object.Data = map[string]string{"number": strconv.Itoa(number)}
				_, err = configMaps.Update(w.context, object, metav1.UpdateOptions{})
			} else {
				err = configMaps.Delete(w.context, object.Name, metav1.DeleteOptions{})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func pageMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name: "page-" + name, Labels: map[string]string{"role": pageRole},
	}}
}

func (w *world) inPages(options metav1.ListOptions) (*corev1.ConfigMapList, int, error) {
	options.Limit = pageSize
	var whole *corev1.ConfigMapList
	for pages := 1; ; pages++ {
		page, err := w.client.CoreV1().ConfigMaps(namespace).List(w.context, options)
		if err != nil {
			return nil, 0, err
		}
		if whole == nil {
			whole = page
		} else if whole.Items = append(whole.Items, page.Items...); page.ResourceVersion != whole.ResourceVersion {
			return nil, 0, fmt.Errorf("page %d is of revision %s, not %s", pages, page.ResourceVersion, whole.ResourceVersion)
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return whole, pages, nil
		}
	}
}

// events are those of a watch until the named object was added.
func events(stream watch.Interface, last string) ([]watch.Event, error) {
	var found []watch.Event
	timeout := time.After(settle)
	for {
		select {
		case event, open := <-stream.ResultChan():
			if !open {
				return nil, fmt.Errorf("the watch ended after %d events", len(found))
			}
			found = append(found, event)
			if object, ok := event.Object.(*corev1.ConfigMap); !ok {
				return nil, fmt.Errorf("%s: %v", event.Type, event.Object)
			} else if object.Name == last {
				return found, nil
			}
		case <-timeout:
			return nil, fmt.Errorf("the watch stopped after %d events", len(found))
		}
	}
}

func sameAsHistory(list *corev1.ConfigMapList, history []watch.Event) error {
	revision, err := strconv.ParseUint(list.ResourceVersion, 10, 64)
	if err != nil {
		return err
	}
	truth := map[string]string{}
	for _, event := range history {
		object := event.Object.(*corev1.ConfigMap)
		at, err := strconv.ParseUint(object.ResourceVersion, 10, 64)
		if err != nil {
			return err
		}
		if at > revision {
			break
		}
		key, version := describe(object)
		if truth[key] = version; event.Type == watch.Deleted {
			delete(truth, key)
		}
	}
	found := map[string]string{}
	for at := range list.Items {
		key, version := describe(&list.Items[at])
		if _, twice := found[key]; twice {
			return fmt.Errorf("%s twice", key)
		}
		found[key] = version
	}
	return same(found, truth)
}
