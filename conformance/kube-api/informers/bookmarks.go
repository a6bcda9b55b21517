package main

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
)

// What the idle informer asks: nothing has this label.
const idleSelector = "nothing=has-this"

// bookmarks lets an informer idle while others' objects change, until a
// bookmark has brought it a newer revision; when its connection is cut, it
// must go on from there, without a list.
func (w *world) bookmarks() error {
	seconds := int64(20)
	factory := informers.NewSharedInformerFactoryWithOptions(w.cut, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.LabelSelector = idleSelector
			// Servers send a bookmark shortly before a watch ends.
			options.TimeoutSeconds = &seconds
		}))
	informer := factory.Core().V1().Secrets().Informer()
	ctx, stop := context.WithCancel(w.context)
	defer stop()
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(w.context.Done()) {
		if !synced {
			return fmt.Errorf("%v did not sync", kind)
		}
	}
	begin := informer.LastSyncResourceVersion()
	// Revisions pass that the idle informer hears nothing of.
	if err := w.churn(); err != nil {
		return err
	}
	other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "not-selected"}}
	if _, err := w.client.CoreV1().Secrets(namespace).Create(w.context, other, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := until(func() error {
		if informer.LastSyncResourceVersion() == begin {
			return fmt.Errorf("still at %s: no bookmark", begin)
		}
		return nil
	}); err != nil {
		return err
	}
	path := "/api/v1/namespaces/" + namespace + "/secrets"
	before := len(w.record.of(path))
	marked, err := strconv.Atoi(informer.LastSyncResourceVersion())
	if err != nil {
		return err
	}
	w.proxy.cut()
	if err := until(func() error {
		if len(w.record.of(path)) == before {
			return fmt.Errorf("did not come back")
		}
		return nil
	}); err != nil {
		return err
	}
	for _, one := range w.record.of(path)[before:] {
		// Another bookmark may have come just before the cut.
		asked, _ := strconv.Atoi(one.query.Get("resourceVersion"))
		if !one.isWatch() || asked < marked || one.query.Get("sendInitialEvents") != "" {
			return fmt.Errorf("went on with %v, the bookmark was %d", one.query, marked)
		}
		break
	}
	return w.equal()
}
