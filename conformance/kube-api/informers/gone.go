package main

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// Few enough that a list of Pods has more than one page.
const pageSize = 3

// gone cuts the informers off while objects change and the server forgets its
// history: each must be told so, list again and end with the truth. A watch
// from before and the second page of a list from before are refused too.
func (w *world) gone() error {
	pods := w.client.CoreV1().Pods(namespace)
	first, err := pods.List(w.context, metav1.ListOptions{Limit: pageSize})
	if err != nil {
		return err
	}
	if first.Continue == "" {
		return fmt.Errorf("%d Pods are no two pages", len(first.Items))
	}
	if err := w.forget(); err != nil {
		return err
	}
	if err := w.oldWatch(first.ResourceVersion); err != nil {
		return fmt.Errorf("watch from before: %w", err)
	}
	return w.oldPage(first.Continue)
}

const (
	// An informer whose watch breaks within its first second lists anew by itself
	// (client-go's VeryShortWatchError), before anybody could tell it.
	watchAge = 2 * time.Second
	// It may do so for other reasons: then all is cut off once more.
	forgetTries = 5
)

func (w *world) forget() error {
	before := w.record.goneCount()
	// Once only: both servers must come to the same end.
	change := w.churn
	for range forgetTries {
		time.Sleep(watchAge)
		w.proxy.close()
		if err := change(); err != nil {
			return err
		}
		if err := w.restart(); err != nil {
			return err
		}
		// The informers' revisions are old now.
		if err := change(); err != nil {
			return err
		}
		change = w.stir
		if err := w.proxy.open(); err != nil {
			return err
		}
		if err := w.equal(); err != nil {
			return err
		}
		if w.record.goneCount() > before {
			return nil
		}
	}
	return errors.New("no informer was told that its revision is gone")
}

// stir makes revisions and changes nothing that is followed.
func (w *world) stir() error {
	maps := w.client.CoreV1().ConfigMaps(namespace)
	for range 3 {
		made, err := maps.Create(w.context, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "stir-"},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if err := maps.Delete(w.context, made.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) oldWatch(revision string) error {
	stream, err := w.client.CoreV1().Pods(namespace).Watch(w.context, metav1.ListOptions{ResourceVersion: revision})
	if err != nil {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return nil
		}
		return err
	}
	defer stream.Stop()
	select {
	case event := <-stream.ResultChan():
		if event.Type != watch.Error || !apierrors.IsResourceExpired(apierrors.FromObject(event.Object)) {
			return fmt.Errorf("%s: %v", event.Type, event.Object)
		}
		return nil
	case <-time.After(settle):
		return errors.New("nothing was said")
	}
}

// oldPage asks for the second page of a list whose revision is gone: it is
// refused, with a token that goes on in the present.
func (w *world) oldPage(token string) error {
	pods := w.client.CoreV1().Pods(namespace)
	_, err := pods.List(w.context, metav1.ListOptions{Limit: pageSize, Continue: token})
	if !apierrors.IsResourceExpired(err) {
		return fmt.Errorf("old token: %v", err)
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Continue == "" {
		return errors.New("old token: no token that goes on")
	}
	whole, err := pods.List(w.context, metav1.ListOptions{})
	if err != nil {
		return err
	}
	rest, err := pods.List(w.context, metav1.ListOptions{Limit: 1000, Continue: status.Status().Continue})
	if err != nil {
		return fmt.Errorf("token that goes on: %w", err)
	}
	// It begins behind the last name of the first page, whatever became of it.
	if len(rest.Items) == 0 || len(rest.Items) > len(whole.Items) {
		return fmt.Errorf("token that goes on: %d of %d", len(rest.Items), len(whole.Items))
	}
	tail := whole.Items[len(whole.Items)-len(rest.Items):]
	for at := range tail {
		if tail[at].UID != rest.Items[at].UID {
			return fmt.Errorf("token that goes on: %s, not %s", rest.Items[at].Name, tail[at].Name)
		}
	}
	return nil
}
