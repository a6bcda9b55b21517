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
