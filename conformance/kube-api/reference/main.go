// Command reference runs a real Kubernetes API on loopback: etcd in this
// process, kube-apiserver and kube-controller-manager as children that are
// this same binary. Once everything is ready it prints one line of JSON with
// the path of a kubeconfig. It ends, with its children, at SIGTERM, at SIGINT
// and when its standard input closes; SIGUSR1 restarts kube-apiserver on the
// same port with the same store, compacted: nothing of its history is left.
package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

const (
	token = "conformance-admin"
	// etcd is ready in a second; a cold machine gets a minute.
	etcdReady = time.Minute
	// Post-start hooks of the API server (RBAC roles, priority classes) take
	// a few seconds; a machine that compiles beside gets three minutes.
	apiReady = 3 * time.Minute
	poll     = 100 * time.Millisecond
	// A revision is gone within twice this, so that the suite can wait for it;
	// no other scenario needs a revision that is older than a few seconds.
	compaction = 10 * time.Second
)

// What the embedded cluster has controllers for.
var controllers = []string{
	"endpoints-controller",
	"endpointslice-controller",
	"endpointslice-mirroring-controller",
	"garbage-collector-controller",
	"namespace-controller",
	"replicaset-controller",
	"deployment-controller",
	"statefulset-controller",
	"daemonset-controller",
	"serviceaccount-controller",
	"root-ca-certificate-publisher-controller",
	"service-cidr-controller",
}

type settings struct {
	dir, serviceCIDR, podCIDR string
	port                      int
	fsync                     bool
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "kube-apiserver":
			command := apiserver.NewAPIServerCommand()
			command.SetArgs(os.Args[2:])
			os.Exit(cli.Run(command))
		case "kube-controller-manager":
			command := manager.NewControllerManagerCommand()
			command.SetArgs(os.Args[2:])
			os.Exit(cli.Run(command))
		}
	}
	var s settings
	flag.StringVar(&s.dir, "data-dir", "", "where state, certificates and logs go")
	flag.StringVar(&s.serviceCIDR, "service-cidr", "10.96.0.0/16", "addresses of Services, IPv4[,IPv6]")
	flag.StringVar(&s.podCIDR, "pod-cidr", "10.244.0.0/16", "addresses of Pods, IPv4[,IPv6]")
	flag.IntVar(&s.port, "port", 0, "port of the API; 0 takes a free one")
	flag.BoolVar(&s.fsync, "fsync", false, "let etcd sync its writes")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	if s.dir == "" {
		return fmt.Errorf("--data-dir is missing")
	}
	// Paths in the kubeconfig are relative to it.
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return err
	}
	s.dir = dir
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	etcd, endpoint, err := startEtcd(s)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer etcd.Close()
	if s.port == 0 {
		if s.port, err = freePort(); err != nil {
			return err
		}
	}
	kubeconfig, err := prepare(s)
	if err != nil {
		return err
	}
	ended := make(chan string, 4)
	api, err := startAPI(s, endpoint, ended)
	if err != nil {
		return err
	}
	defer func() { stop(api) }()
	if err := waitReady(s); err != nil {
		return err
	}
	controller, err := child(s, "kube-controller-manager", managerFlags(s, kubeconfig), ended)
	if err != nil {
		return err
	}
	defer stop(controller)
	if err := waitFor(s, "/api/v1/namespaces/default/serviceaccounts/default"); err != nil {
		return err
	}
	line, _ := json.Marshal(map[string]any{
		"kubeconfig": kubeconfig,
		"server":     server(s),
		"apiserver":  api.Process.Pid,
		"manager":    controller.Process.Pid,
	})
	fmt.Println(string(line))

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	restarting := false
	for {
		select {
		case <-closed:
			return nil
		case name := <-ended:
			if restarting && name == "kube-apiserver" {
				restarting = false
				continue
			}
			return fmt.Errorf("%s ended; see its log in the data directory", name)
		case signal := <-signals:
			if signal != syscall.SIGUSR1 {
				return nil
			}
			restarting = true
			stop(api)
			if err := compact(etcd); err != nil {
				return fmt.Errorf("compaction: %w", err)
			}
			if api, err = startAPI(s, endpoint, ended); err != nil {
				return err
			}
			if err := waitReady(s); err != nil {
				return err
			}
			fmt.Println(`{"restarted":true}`)
		}
	}
}

func server(s settings) string { return fmt.Sprintf("https://127.0.0.1:%d", s.port) }

func startEtcd(s settings) (*embed.Etcd, string, error) {
	config := embed.NewConfig()
	config.Dir = filepath.Join(s.dir, "etcd")
	config.LogLevel = "error"
	config.LogOutputs = []string{filepath.Join(s.dir, "etcd.log")}
	config.UnsafeNoFsync = !s.fsync
	urls := make([]url.URL, 2)
	for i := range urls {
		port, err := freePort()
		if err != nil {
			return nil, "", err
		}
		urls[i] = url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
	}
	config.ListenClientUrls, config.AdvertiseClientUrls = urls[:1], urls[:1]
	config.ListenPeerUrls, config.AdvertisePeerUrls = urls[1:], urls[1:]
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, "", err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, urls[0].String(), nil
	case err := <-etcd.Err():
		return nil, "", err
	case <-time.After(etcdReady):
		etcd.Close()
		return nil, "", fmt.Errorf("not ready within %s", etcdReady)
	}
}

// compact lets etcd forget everything but the present.
func compact(etcd *embed.Etcd) error {
	_, err := etcd.Server.Compact(context.Background(), &etcdserverpb.CompactionRequest{
		Revision: etcd.Server.KV().Rev(),
		Physical: true,
	})
	return err
}

// prepare writes certificates, the key of ServiceAccounts, the token and the
// kubeconfig.
func prepare(s settings) (string, error) {
	chain, key, err := certutil.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		return "", err
	}
	authority := chain
	for rest := chain; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		authority = pem.EncodeToMemory(block)
	}
	account, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return "", err
	}
	kubeconfig := filepath.Join(s.dir, "kubeconfig")
	texts := map[string][]byte{
		"tls.crt":    chain,
		"tls.key":    key,
		"ca.crt":     authority,
		"sa.key":     account,
		"tokens.csv": []byte(token + `,kubernetes-admin,,"system:masters"` + "\n"),
		"kubeconfig": []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: reference
clusters:
- name: reference
  cluster:
    server: %s
    certificate-authority: %s
contexts:
- name: reference
  context: {cluster: reference, user: admin}
users:
- name: admin
  user: {token: %s}
`, server(s), filepath.Join(s.dir, "ca.crt"), token)),
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			return "", err
		}
	}
	return kubeconfig, nil
}

func startAPI(s settings, etcd string, ended chan<- string) (*exec.Cmd, error) {
	at := func(name string) string { return filepath.Join(s.dir, name) }
	return child(s, "kube-apiserver", []string{
		"--etcd-servers=" + etcd,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", s.port),
		"--tls-cert-file=" + at("tls.crt"),
		"--tls-private-key-file=" + at("tls.key"),
		"--cert-dir=" + at("certs"),
		"--service-cluster-ip-range=" + s.serviceCIDR,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=" + at("sa.key"),
		"--service-account-key-file=" + at("sa.key"),
		"--token-auth-file=" + at("tokens.csv"),
		"--authorization-mode=RBAC",
		"--anonymous-auth=false",
		"--allow-privileged=true",
		// Beta and off in 1.33: what client-go asks for by itself from 1.35 on, and
		// LeaseCandidates with the API version that has them.
		"--feature-gates=WatchList=true,CoordinatedLeaderElection=true",
		"--runtime-config=coordination.k8s.io/v1beta1=true",
		"--etcd-compaction-interval=" + compaction.String(),
		// It refuses to publish a loopback address.
		"--endpoint-reconciler-type=none",
	}, ended)
}

func managerFlags(s settings, kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--controllers=" + strings.Join(controllers, ","),
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--secure-port=0",
		"--root-ca-file=" + filepath.Join(s.dir, "ca.crt"),
		"--service-account-private-key-file=" + filepath.Join(s.dir, "sa.key"),
		"--service-cluster-ip-range=" + s.serviceCIDR,
		"--cluster-cidr=" + s.podCIDR,
	}
}

// child starts this binary in another role; its log goes to the data
// directory, and it dies with us.
func child(s settings, role string, flags []string, ended chan<- string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, role+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, append([]string{role}, flags...)...)
	// Clients in it call themselves by this name, and managedFields shows it.
	command.Args[0] = role
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, err
	}
	_ = log.Close()
	go func() {
		_ = command.Wait()
		ended <- role
	}()
	return command, nil
}

// stop ends a child and waits until its process is gone: the port is needed
// again.
func stop(command *exec.Cmd) {
	_ = command.Process.Kill()
	for i := 0; i < 100 && command.Process.Signal(syscall.Signal(0)) == nil; i++ {
		time.Sleep(poll)
	}
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
