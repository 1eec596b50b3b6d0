// operator restarts the pods of AerospikeClusters one by one, each only when the cluster can do without it. Its mode is
// the phase of a move from a 10-second poll to informerd's stream; see README.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
	"informerd.dev/informerd/operator"
)

func main() {
	address := flag.String("informerd", "127.0.0.1:7443", "address of informerd's gRPC port")
	mode := flag.String("mode", "watch-and-poll", "poll, watch-and-poll or watch")
	interval := flag.Duration("interval", 10*time.Second, "between polls")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(*address, *mode, *interval); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, mode string, interval time.Duration) error {
	modes := map[string]informerd.Mode{
		"poll": informerd.PollOnly, "watch-and-poll": informerd.WatchAndPoll, "watch": informerd.WatchOnly,
	}
	phase, known := modes[mode]
	if !known {
		return fmt.Errorf("mode %q is none of poll, watch-and-poll and watch", mode)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, manager.Options{
		// A verdict reserves nothing: only one may act on it. The process ends with the manager.
		LeaderElection: true, LeaderElectionID: "operator.example.org", LeaderElectionNamespace: "default",
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       server.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	connection, err := informerd.New(address)
	if err != nil {
		return err
	}
	defer connection.Close()
	api := mgr.GetAPIReader()

	// Wakes where a cluster becomes safe to disrupt, or is so no more.
	verdicts := &operator.Verdicts[reconcile.Request]{
		Client: connection,
		Request: &pb.WatchReadinessRequest{
			Scope:   &pb.ReadinessScope{Resources: []string{clusters}},
			Changes: pb.ReadinessChanges_READINESS_CHANGES_TRANSITIONS,
		},
		Handler: operator.EnqueueTarget(),
		Mode:    phase,
		Fallback: informerd.Fallback[*pb.Verdict]{
			Poll: operator.Targets(clusters, api, clusterList()), Interval: interval, Every: true,
		},
	}
	// Wakes where there is something new to roll out.
	sets := &operator.Objects[*appsv1.StatefulSet, reconcile.Request]{
		Client:  connection,
		Request: &pb.WatchObjectsRequest{Scope: &pb.Scope{Resource: "statefulsets.apps", LabelSelector: ours}},
		Handler: enqueueCluster(),
		Mode:    phase,
		Fallback: informerd.Fallback[*pb.Object]{
			Poll: operator.List(api, &appsv1.StatefulSetList{}, selected()), Interval: interval,
		},
	}
	reader := &operator.Reader{Client: connection, Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), Fallback: api}
	reconciler := &reconciler{
		reader: reader,
		writer: mgr.GetClient(),
		safe: func() gate {
			if phase == informerd.PollOnly || verdicts.Status().Polling {
				return ownGate{api}
			}
			return verdictGate{connection}
		},
	}
	if phase == informerd.PollOnly {
		reconciler.reader = api
	}
	err = ctrl.NewControllerManagedBy(mgr).Named("restarts").
		WatchesRawSource(verdicts).WatchesRawSource(sets).
		// One cluster that is waited for holds up no other.
		WithOptions(controller.Options{MaxConcurrentReconciles: 8}).
		Complete(reconciler)
	if err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}
