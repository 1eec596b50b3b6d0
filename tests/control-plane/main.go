// A Kubernetes control plane in one binary: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and
// kubectl, by its first argument. Built from the released Go modules, so that the tests need nothing but a Go
// toolchain and its module proxy. KWOK, the kubelet that runs nothing, stays a binary of its own (the `tool` in
// go.mod): its flags clash with Kubernetes's.
package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

var components = map[string]func(){
	"etcd":                    runEtcd,
	"kube-apiserver":          func() { run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() { run(controllers.NewControllerManagerCommand()) },
	"kube-scheduler":          func() { run(scheduler.NewSchedulerCommand()) },
	"kubectl":                 func() { run(kubectl.NewDefaultKubectlCommand()) },
}

func main() {
	if len(os.Args) < 2 {
		fail("name a component: " + names())
	}
	component, ok := components[os.Args[1]]
	if !ok {
		fail(fmt.Sprintf("unknown component %q: write one of %s", os.Args[1], names()))
	}
	// Each command is to find its own flags, and its own name in its help and logs.
	os.Args = os.Args[1:]
	component()
}

func run(command *cobra.Command) { os.Exit(cli.Run(command)) }

// One member, loopback only, and no fsync: the data is not to outlive the test run.
func runEtcd() {
	dir := flag.String("data-dir", "", "where to keep the data")
	client := flag.Int("client-port", 0, "port for clients, on 127.0.0.1")
	peer := flag.Int("peer-port", 0, "port for peers, on 127.0.0.1")
	flag.Parse()
	if *dir == "" || *client == 0 || *peer == 0 {
		fail("etcd needs --data-dir, --client-port and --peer-port")
	}
	config := embed.NewConfig()
	config.Dir = *dir
	config.UnsafeNoFsync = true
	config.LogLevel = "error"
	config.ListenClientUrls, config.AdvertiseClientUrls = loopback(*client), loopback(*client)
	config.ListenPeerUrls, config.AdvertisePeerUrls = loopback(*peer), loopback(*peer)
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		fail("etcd: " + err.Error())
	}
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(60 * time.Second):
		fail("etcd is not ready after 60 s")
	}
	select {
	case <-server.Server.StopNotify():
	case err := <-server.Err():
		fail("etcd: " + err.Error())
	}
}

func loopback(port int) []url.URL {
	return []url.URL{{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}}
}

func names() string {
	var all []string
	for name := range components {
		all = append(all, name)
	}
	sort.Strings(all)
	return strings.Join(all, ", ")
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(2)
}
