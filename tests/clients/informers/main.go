// Informers keeps pods as programs written for Kubernetes do, and says what it holds when it is asked: one line of
// JSON for each line of standard input. It knows nothing of informerd; a kubeconfig is all it is given.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientcache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Held is what counts of an object.
type Held struct {
	UID             string `json:"uid"`
	ResourceVersion string `json:"resourceVersion"`
}

// State is what one informer holds.
type State struct {
	Objects map[string]Held `json:"objects"`
	// How many events its handlers, or its controller, have had.
	Events int64 `json:"events"`
}

// holder is something that keeps pods.
type holder interface {
	state(context.Context) (State, error)
}

func main() {
	// A set of its own: controller-runtime adds to the common one.
	flags := flag.NewFlagSet("informers", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig")
	mode := flags.String("mode", "shared-informer", "shared-informer or manager")
	count := flags.Int("count", 1, "how many of them, each on its own connection")
	namespace := flags.String("namespace", "", "only this namespace")
	agent := flags.String("user-agent", "stranger", "User-Agent")
	// It ends the program itself where they are wrong.
	_ = flags.Parse(os.Args[1:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *kubeconfig, *mode, *count, *namespace, *agent); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, mode string, count int, namespace, agent string) error {
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	begun := time.Now()
	var holders []holder
	for range count {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return err
		}
		config.UserAgent = agent
		// Each a program of its own, as far as the server can see.
		config.Dial = dialer()
		config.QPS, config.Burst = 100, 100
		// Warnings are for people.
		config.WarningHandler = rest.NoWarnings{}
		var held holder
		switch mode {
		case "shared-informer":
			held, err = newShared(ctx, config, namespace)
		case "manager":
			held, err = newManaged(ctx, config, namespace)
		default:
			err = fmt.Errorf("no mode %q", mode)
		}
		if err != nil {
			return err
		}
		holders = append(holders, held)
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]any{"synced": count, "seconds": time.Since(begun).Seconds()}); err != nil {
		return err
	}
	// Every line asks for the states of all; the end of the input is the end.
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		states := make([]State, 0, len(holders))
		for _, holder := range holders {
			state, err := holder.state(ctx)
			if err != nil {
				return err
			}
			states = append(states, state)
		}
		if err := out.Encode(map[string]any{"states": states}); err != nil {
			return err
		}
	}
	return lines.Err()
}

// shared is a SharedInformerFactory with one informer.
type shared struct {
	store  clientcache.Store
	events atomic.Int64
}

func newShared(ctx context.Context, config *rest.Config, namespace string) (holder, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(clients, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().Pods().Informer()
	held := &shared{store: informer.GetStore()}
	count := func(any) { held.events.Add(1) }
	if _, err := informer.AddEventHandler(clientcache.ResourceEventHandlerFuncs{
		AddFunc:    count,
		UpdateFunc: func(_, _ any) { held.events.Add(1) },
		DeleteFunc: count,
	}); err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !clientcache.WaitForCacheSync(waiting.Done(), informer.HasSynced) {
		return nil, fmt.Errorf("not synced in time")
	}
	return held, nil
}

func (s *shared) state(context.Context) (State, error) {
	objects := map[string]Held{}
	for _, item := range s.store.List() {
		pod, ok := item.(*corev1.Pod)
		if !ok {
			return State{}, fmt.Errorf("%T is no pod", item)
		}
		objects[pod.Namespace+"/"+pod.Name] = Held{string(pod.UID), pod.ResourceVersion}
	}
	return State{objects, s.events.Load()}, nil
}

// managed is a manager whose controller is triggered by pods, and its cache.
type managed struct {
	manager    manager.Manager
	reconciled atomic.Int64
}

func newManaged(ctx context.Context, config *rest.Config, namespace string) (holder, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	options := cache.Options{}
	if namespace != "" {
		options.DefaultNamespaces = map[string]cache.Config{namespace: {}}
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:  scheme,
		Cache:   options,
		Metrics: server.Options{BindAddress: "0"},
	})
	if err != nil {
		return nil, err
	}
	held := &managed{manager: manager}
	reconciler := reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		held.reconciled.Add(1)
		return reconcile.Result{}, nil
	})
	if err := ctrl.NewControllerManagedBy(manager).For(&corev1.Pod{}).Complete(reconciler); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(ctx) }()
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !manager.GetCache().WaitForCacheSync(waiting) {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the manager ended: %w", err)
		default:
			return nil, fmt.Errorf("not synced in time")
		}
	}
	return held, nil
}

func (m *managed) state(ctx context.Context) (State, error) {
	var pods corev1.PodList
	if err := m.manager.GetClient().List(ctx, &pods, &client.ListOptions{}); err != nil {
		return State{}, err
	}
	objects := map[string]Held{}
	for _, pod := range pods.Items {
		objects[pod.Namespace+"/"+pod.Name] = Held{string(pod.UID), pod.ResourceVersion}
	}
	return State{objects, m.reconciled.Load()}, nil
}
