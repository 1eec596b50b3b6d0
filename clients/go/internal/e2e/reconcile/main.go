// reconcile is an operator of a few lines on controller-runtime's manager: it reconciles pods, told of them or of
// verdicts on them by informerd and, while that is away, by its own poll. It prints as JSON lines what it reconciles and
// where its source stands, for tests that stop informerd under it.
//
//	reconcile --server 127.0.0.1:7443 --kubeconfig FILE --interval 2s [--verdicts]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
	"informerd.dev/informerd/operator"
)

// userAgent is how tests find its requests in the API server's log.
const userAgent = "reconcile-e2e"

// line is one thing that happened. Fields that do not apply are absent.
type line struct {
	// "reconcile" or "status".
	What            string `json:"what"`
	Name            string `json:"name,omitempty"`
	UID             string `json:"uid,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Ready           bool   `json:"ready,omitempty"`
	Gone            bool   `json:"gone,omitempty"`
	Polling         bool   `json:"polling,omitempty"`
	Polls           int    `json:"polls,omitempty"`
	Why             string `json:"why,omitempty"`
}

var (
	lock sync.Mutex
	out  = json.NewEncoder(os.Stdout)
)

func say(it line) {
	lock.Lock()
	defer lock.Unlock()
	if err := out.Encode(it); err != nil {
		os.Exit(1)
	}
}

func main() {
	address := flag.String("server", "127.0.0.1:7443", "address of informerd's gRPC port")
	namespace := flag.String("namespace", "default", "of the pods")
	interval := flag.Duration("interval", 10*time.Second, "between polls")
	verdicts := flag.Bool("verdicts", false, "be woken by verdicts, not by the pods themselves")
	// --kubeconfig is controller-runtime's own.
	flag.Parse()
	ctrl.SetLogger(funcr.New(func(_, args string) { fmt.Fprintln(os.Stderr, args) }, funcr.Options{}))
	if err := run(ctrl.SetupSignalHandler(), *address, *namespace, *interval, *verdicts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, namespace string, interval time.Duration, verdicts bool) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.UserAgent = userAgent
	mgr, err := ctrl.NewManager(config, manager.Options{Metrics: server.Options{BindAddress: "0"}})
	if err != nil {
		return err
	}
	connection, err := informerd.New(address)
	if err != nil {
		return err
	}
	defer connection.Close()
	reader := &operator.Reader{
		Client: connection, Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), Fallback: mgr.GetAPIReader(),
	}
	woken := objects(connection, mgr.GetAPIReader(), namespace, interval)
	if verdicts {
		woken = judged(connection, mgr.GetAPIReader(), namespace, interval)
	}
	err = builder.ControllerManagedBy(mgr).Named("pods").WatchesRawSource(woken).Complete(reconcile.Func(
		func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
			return reconcile.Result{}, look(ctx, reader, woken, request)
		}))
	if err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { return report(ctx, woken) })); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// observed is either source.
type observed interface {
	source.Source
	Status() informerd.Status
}

func objects(connection *informerd.Client, api client.Reader, namespace string, interval time.Duration) observed {
	return &operator.Objects[*corev1.Pod, reconcile.Request]{
		Client:  connection,
		Request: &pb.WatchObjectsRequest{Scope: &pb.Scope{Resource: "pods", Namespaces: []string{namespace}}},
		Handler: &handler.TypedEnqueueRequestForObject[*corev1.Pod]{},
		Fallback: informerd.Fallback[*pb.Object]{
			Poll:     operator.List(api, &corev1.PodList{}, client.InNamespace(namespace)),
			Interval: interval,
			Patience: time.Second,
		},
	}
}

func judged(connection *informerd.Client, api client.Reader, namespace string, interval time.Duration) observed {
	return &operator.Verdicts[reconcile.Request]{
		Client: connection,
		Request: &pb.WatchReadinessRequest{
			Scope:   &pb.ReadinessScope{Resources: []string{"pods"}, Namespaces: []string{namespace}},
			Changes: pb.ReadinessChanges_READINESS_CHANGES_TRANSITIONS,
		},
		Handler: operator.EnqueueTarget(),
		Fallback: informerd.Fallback[*pb.Verdict]{
			Poll:     operator.Targets("pods", api, &corev1.PodList{}, client.InNamespace(namespace)),
			Interval: interval,
			Patience: time.Second,
			Every:    true,
		},
	}
}

// look says what there is of a pod.
func look(ctx context.Context, reader client.Reader, source observed, request reconcile.Request) error {
	it := line{What: "reconcile", Name: request.Name, Polling: source.Status().Polling}
	var pod corev1.Pod
	err := reader.Get(ctx, request.NamespacedName, &pod)
	switch {
	case apierrors.IsNotFound(err):
		it.Gone = true
	case err != nil:
		return err
	default:
		it.UID, it.ResourceVersion = string(pod.UID), pod.ResourceVersion
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady {
				it.Ready = condition.Status == corev1.ConditionTrue
			}
		}
	}
	say(it)
	return nil
}

// report says where the source stands whenever that is elsewhere.
func report(ctx context.Context, source observed) error {
	var last line
	for {
		now := source.Status()
		it := line{What: "status", Polling: now.Polling, Polls: now.Polls}
		if now.Err != nil {
			it.Why = now.Err.Error()
		}
		if it != last {
			say(it)
		}
		last = it
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}
