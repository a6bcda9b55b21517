// A process of dubbo-go as people run it: `dubbo-go provide` offers a service,
// registers it on its Pod and tells callers which Pod it is; `dubbo-go serve`
// offers it and registers nothing; `dubbo-go consume` finds providers on Pods,
// calls once a second, and prints who answered.
//
// Built with either version of dubbo-go (go.mod: 1.5, 1.4.mod: 1.4), with its
// registry and its in-cluster configuration as they are.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	_ "github.com/apache/dubbo-go/cluster/cluster_impl"
	_ "github.com/apache/dubbo-go/cluster/loadbalance"
	_ "github.com/apache/dubbo-go/common/proxy/proxy_factory"
	"github.com/apache/dubbo-go/config"
	_ "github.com/apache/dubbo-go/filter/filter_impl"
	_ "github.com/apache/dubbo-go/protocol/dubbo"
	_ "github.com/apache/dubbo-go/registry/kubernetes"
	_ "github.com/apache/dubbo-go/registry/protocol"
)

// The service, as both sides name it.
const (
	service       = "Teller"
	interfaceName = "org.example.Teller"
	port          = "20880"
)

// Teller tells which Pod it is.
type Teller struct{}

func (*Teller) Tell(_ context.Context, _ []interface{}) (string, error) { return os.Hostname() }
func (*Teller) Reference() string                                       { return service }

// caller is filled in by dubbo-go.
type caller struct {
	Tell func(ctx context.Context, arguments []interface{}) (string, error)
}

func (*caller) Reference() string { return service }

func main() {
	if len(os.Args) != 2 {
		fail("usage: dubbo-go provide|serve|consume")
	}
	switch os.Args[1] {
	case "provide":
		provide("kubernetes")
	case "serve":
		provide("")
	case "consume":
		consume()
	default:
		fail("unknown command " + os.Args[1])
	}
}

func provide(registry string) {
	config.SetProviderService(&Teller{})
	offered := config.NewServiceConfig(service, context.Background())
	offered.InterfaceName = interfaceName
	offered.Protocol = "dubbo"
	offered.Registry = registry
	offered.Cluster = "failover"
	offered.Loadbalance = "random"
	offered.Methods = []*config.MethodConfig{{Name: "Tell"}}
	settings := config.ProviderConfig{
		Services:  map[string]*config.ServiceConfig{service: offered},
		Protocols: map[string]*config.ProtocolConfig{"dubbo": {Name: "dubbo", Port: port, Ip: os.Getenv("POD_IP")}},
	}
	settings.ApplicationConfig = application()
	if registry != "" {
		settings.Registries = registries()
	}
	config.SetProviderConfig(settings)
	config.Load()
	fmt.Println("serving")
	select {}
}

func consume() {
	client := &caller{}
	config.SetConsumerService(client)
	check := false
	wanted := config.NewReferenceConfig(service, context.Background())
	wanted.InterfaceName = interfaceName
	wanted.Protocol = "dubbo"
	wanted.Registry = "kubernetes"
	wanted.Cluster = "failover"
	wanted.Loadbalance = "roundrobin"
	wanted.Check = &check
	wanted.Methods = []*config.MethodConfig{{Name: "Tell"}}
	settings := config.ConsumerConfig{
		Check: &check, Request_Timeout: "1s", Connect_Timeout: "1s",
		References: map[string]*config.ReferenceConfig{service: wanted},
	}
	settings.ApplicationConfig = application()
	settings.Registries = registries()
	config.SetConsumerConfig(settings)
	config.Load()
	for ; ; time.Sleep(time.Second) {
		if who, err := client.Tell(context.Background(), nil); err == nil {
			fmt.Println("answered:", who)
		} else {
			fmt.Println("failed:", err)
		}
	}
}

func application() *config.ApplicationConfig {
	return &config.ApplicationConfig{Name: "teller", Module: "judge", Version: "1", Environment: "test"}
}

func registries() map[string]*config.RegistryConfig {
	// The address is not used: it takes the Pod's ServiceAccount.
	return map[string]*config.RegistryConfig{
		"kubernetes": {Protocol: "kubernetes", TimeoutStr: "5s", Address: "127.0.0.1:443"},
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(2)
}
