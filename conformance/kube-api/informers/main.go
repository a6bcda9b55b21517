// Command informers follows Pods, Services, EndpointSlices and Deployments
// with client-go's shared informers, through a proxy that can be cut, while it
// creates, changes and deletes them:
//
//	churn        and the server is restarted in between
//	gone         cut off while the server forgets its history: 410, list again
//	paging       pages of one list, while objects come and go; an old token
//	bookmarks    an idle informer goes on where a bookmark was
//	raw          initial events, a revision of the future, one of the past
//
// When the server is to be restarted it prints RESTART and waits for a line on
// its standard input; after that a server has no history from before. It
// succeeds when, after each phase, each informer's store, and what its handlers
// were told, equal a fresh list. The stores go to --dump, so that two servers
// can be compared.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/features"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	namespace = "informers"
	node      = "informers-node"
	// Operations in each round of churn.
	operations = 150
	// A server that was restarted has its clients back within this; client-go
	// backs off for up to half a minute, and bookmarks come once a minute.
	settle = 150 * time.Second
	poll   = 200 * time.Millisecond
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the cluster")
	seed := flag.Int64("seed", 1, "of the churn")
	dump := flag.String("dump", "", "where the stores go at the end, as JSON")
	flag.Parse()
	if err := run(*kubeconfig, *seed, *dump); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// world is what the phases share.
type world struct {
	context context.Context
	// client goes straight to the server, cut goes through the proxy.
	client, cut kubernetes.Interface
	proxy       *proxy
	record      *record
	random      *rand.Rand
	// removed counts the Deployments of each number that are no more.
	removed  map[int]int
	followed []*followed
	input    *bufio.Reader
}

func run(kubeconfig string, seed int64, dump string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w, err := newWorld(ctx, kubeconfig, seed)
	if err != nil {
		return err
	}
	if err := w.prepare(); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := w.follow(); err != nil {
		return err
	}
	for _, phase := range []struct {
		name string
		run  func() error
	}{
		{"churn", w.rounds},
		{"gone", w.gone},
		{"paging", w.paging},
		{"bookmarks", w.bookmarks},
		{"initial events", w.initialEvents},
		{"revision of the future", w.future},
	} {
		begin := time.Now()
		if err := phase.run(); err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
		fmt.Printf("%s: fine, %.0f s\n", phase.name, time.Since(begin).Seconds())
	}
	if err := w.asked(); err != nil {
		return err
	}
	if err := w.equal(); err != nil {
		return err
	}
	for _, f := range w.followed {
		fmt.Printf("%s: %d equal\n", f.name, len(f.told))
	}
	if err := w.dump(dump); err != nil {
		return err
	}
	return w.leave()
}

// leave removes everything, so that the program can run again.
func (w *world) leave() error {
	spaces := w.client.CoreV1().Namespaces()
	if err := spaces.Delete(w.context, namespace, metav1.DeleteOptions{}); err != nil {
		return err
	}
	zero := int64(0)
	return until(func() error {
		_, err := spaces.Get(w.context, namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		// Nobody runs their Node, so that they would wait for ever.
		now := metav1.DeleteOptions{GracePeriodSeconds: &zero}
		if err := w.client.CoreV1().Pods(namespace).DeleteCollection(w.context, now, metav1.ListOptions{}); err != nil {
			return err
		}
		return fmt.Errorf("the Namespace is still there: %v", err)
	})
}

func newWorld(ctx context.Context, kubeconfig string, seed int64) (*world, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 500, 500
	// The record reads bodies.
	config.ContentType = runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	between, err := newProxy(strings.TrimPrefix(config.Host, "https://"))
	if err != nil {
		return nil, err
	}
	record := &record{}
	through := rest.CopyConfig(config)
	through.Host = "https://" + between.address
	through.Wrap(record.wrap)
	cut, err := kubernetes.NewForConfig(through)
	if err != nil {
		return nil, err
	}
	return &world{
		context: ctx, client: client, cut: cut, proxy: between, record: record,
		random: rand.New(rand.NewSource(seed)), removed: map[int]int{}, input: bufio.NewReader(os.Stdin),
	}, nil
}

func (w *world) prepare() error {
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	_, err := w.client.CoreV1().Namespaces().Create(w.context, space, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	machine := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	_, err = w.client.CoreV1().Nodes().Create(w.context, machine, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return until(func() error {
		_, err := w.client.CoreV1().ServiceAccounts(namespace).Get(w.context, "default", metav1.GetOptions{})
		return err
	})
}

// follow starts the informers, all through the proxy.
func (w *world) follow() error {
	all := metav1.ListOptions{}
	factory := informers.NewSharedInformerFactoryWithOptions(w.cut, 0, informers.WithNamespace(namespace))
	w.followed = []*followed{
		follow("pods", factory.Core().V1().Pods().Informer(), func() (runtime.Object, error) {
			return w.client.CoreV1().Pods(namespace).List(w.context, all)
		}),
		follow("services", factory.Core().V1().Services().Informer(), func() (runtime.Object, error) {
			return w.client.CoreV1().Services(namespace).List(w.context, all)
		}),
		follow("endpointslices", factory.Discovery().V1().EndpointSlices().Informer(), func() (runtime.Object, error) {
			return w.client.DiscoveryV1().EndpointSlices(namespace).List(w.context, all)
		}),
		follow("deployments", factory.Apps().V1().Deployments().Informer(), func() (runtime.Object, error) {
			return w.client.AppsV1().Deployments(namespace).List(w.context, all)
		}),
	}
	factory.Start(w.context.Done())
	for kind, synced := range factory.WaitForCacheSync(w.context.Done()) {
		if !synced {
			return fmt.Errorf("%v did not sync", kind)
		}
	}
	return nil
}

// restart asks for a restart of the server and waits for it.
func (w *world) restart() error {
	fmt.Println("RESTART")
	_, err := w.input.ReadString('\n')
	return err
}

// rounds are three of churn, with the server restarted between them.
func (w *world) rounds() error {
	for round := range 3 {
		if err := w.churn(); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := w.equal(); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if round < 2 {
			if err := w.restart(); err != nil {
				return err
			}
		}
	}
	return nil
}

// asked checks that the informers asked in the way that is being tried.
func (w *world) asked() error {
	on := features.FeatureGates().Enabled(features.WatchListClient)
	if asked := w.record.initialEvents(); (asked > 0) != on {
		return fmt.Errorf("WatchListClient is %t, and %d watches asked for initial events", on, asked)
	}
	return nil
}
