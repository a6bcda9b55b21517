// Command in-cluster is a program as people write them for a cluster: it
// finds the API by client-go's rest.InClusterConfig, lists the Pods of its
// Namespace and follows them with an informer. It tells what it sees, line by
// line, and ends when the Pod "last" has come and gone.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	last          = "last"
	patience      = 2 * time.Minute
)

func main() {
	if err := run(); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func run() error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return err
	}
	namespace := string(text)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var names []string
	for _, pod := range list.Items {
		names = append(names, pod.Name)
	}
	sort.Strings(names)
	fmt.Printf("%s in %s sees %s\n", config.Host, namespace, strings.Join(names, " "))

	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().Pods().Informer()
	came, went := make(chan struct{}, 1), make(chan struct{}, 1)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if pod, ok := object.(*corev1.Pod); ok && pod.Name == last {
				came <- struct{}{}
			}
		},
		DeleteFunc: func(object any) {
			if pod, ok := object.(*corev1.Pod); ok && pod.Name == last {
				went <- struct{}{}
			}
		},
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("not synced")
	}
	fmt.Println("synced")
	for _, wait := range []struct {
		event chan struct{}
		text  string
	}{{came, "came"}, {went, "went"}} {
		select {
		case <-wait.event:
			fmt.Println(last, wait.text)
		case <-ctx.Done():
			return fmt.Errorf("%s never %s", last, wait.text)
		}
	}
	return nil
}
