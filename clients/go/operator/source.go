package operator

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
)

// Objects is a source of what happens to objects of one kind. While informerd cannot be relied on it goes on by its
// fallback's poll; no change is lost on the way there and back (see [informerd.Follower]).
//
// The object's type is one to decode into: *corev1.Pod, *unstructured.Unstructured, or *metav1.PartialObjectMetadata
// with a request for VIEW_METADATA. It keeps objects as they were sent, and decodes them for each event: that takes less
// memory than an informer's cache, which keeps them decoded.
type Objects[object client.Object, request comparable] struct {
	Client *informerd.Client
	// Which objects, and how much of them.
	Request    *pb.WatchObjectsRequest
	Handler    handler.TypedEventHandler[object, request]
	Predicates []predicate.TypedPredicate[object]
	Mode       informerd.Mode
	// Its Poll may be made by [List].
	Fallback informerd.Fallback[*pb.Object]

	running running[*pb.Object]
}

// Start is for the controller to call.
func (s *Objects[object, request]) Start(
	ctx context.Context, queue workqueue.TypedRateLimitingInterface[request],
) error {
	if s.Client == nil || s.Request == nil || s.Handler == nil {
		return errors.New("operator.Objects needs a Client, a Request and a Handler")
	}
	if _, err := blank[object](); err != nil {
		return err
	}
	follower := s.Client.FollowObjects(s.Request)
	follower.Mode, follower.Fallback = s.Mode, s.Fallback
	sink := sink[object, request]{s.Handler, s.Predicates, queue}
	s.running.start(ctx, s.String(), follower, func(change informerd.Change[*pb.Object]) {
		told, err := decodeChange[object](change)
		if err != nil {
			log.FromContext(ctx).Error(err, "an object cannot be decoded", "source", s.String(), "key", change.Key.String())
			return
		}
		sink.tell(ctx, told)
	})
	return nil
}

// WaitForSync waits until the first complete state has been handled, by whatever way it came.
func (s *Objects[object, request]) WaitForSync(ctx context.Context) error { return s.running.wait(ctx) }

// Status is where it stands, once it has been started.
func (s *Objects[object, request]) Status() informerd.Status { return s.running.status() }

func (s *Objects[object, request]) String() string {
	return "informerd objects: " + s.Request.GetScope().GetResource()
}

// Verdicts is a source of readiness: an event when a verdict comes, changes or goes. While informerd cannot be relied on
// it goes on by its fallback's poll.
type Verdicts[request comparable] struct {
	Client *informerd.Client
	// Whose, and which changes of them.
	Request *pb.WatchReadinessRequest
	// For example [EnqueueTarget].
	Handler    handler.TypedEventHandler[*pb.Verdict, request]
	Predicates []predicate.TypedPredicate[*pb.Verdict]
	Mode       informerd.Mode
	// Its Poll judges by the caller's own means; or it is made by [Targets], with Every, where reconciling does that.
	Fallback informerd.Fallback[*pb.Verdict]

	running running[*pb.Verdict]
}

// Start is for the controller to call.
func (s *Verdicts[request]) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[request]) error {
	if s.Client == nil || s.Request == nil || s.Handler == nil {
		return errors.New("operator.Verdicts needs a Client, a Request and a Handler")
	}
	follower := s.Client.FollowVerdicts(s.Request)
	follower.Mode, follower.Fallback = s.Mode, s.Fallback
	sink := sink[*pb.Verdict, request]{s.Handler, s.Predicates, queue}
	s.running.start(ctx, s.String(), follower, func(change informerd.Change[*pb.Verdict]) { sink.tell(ctx, change) })
	return nil
}

// WaitForSync waits until the first complete state has been handled, by whatever way it came.
func (s *Verdicts[request]) WaitForSync(ctx context.Context) error { return s.running.wait(ctx) }

// Status is where it stands, once it has been started.
func (s *Verdicts[request]) Status() informerd.Status { return s.running.status() }

func (s *Verdicts[request]) String() string {
	return fmt.Sprintf("informerd verdicts: %v", s.Request.GetScope().GetResources())
}

// EnqueueTarget asks to reconcile what a verdict is about, by namespace and name.
func EnqueueTarget() handler.TypedEventHandler[*pb.Verdict, reconcile.Request] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, verdict *pb.Verdict) []reconcile.Request {
		target := verdict.GetTarget()
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: target.GetNamespace(), Name: target.GetName()}}}
	})
}

var (
	_ source.SyncingSource = &Objects[client.Object, reconcile.Request]{}
	_ source.SyncingSource = &Verdicts[reconcile.Request]{}
)

// running is a follower on its way.
type running[T proto.Message] struct {
	name     string
	follower *informerd.Follower[T]
	// ended has why it ended.
	ended chan error
}

func (r *running[T]) start(
	ctx context.Context, name string, follower *informerd.Follower[T], tell func(informerd.Change[T]),
) {
	r.name, r.follower, r.ended = name, follower, make(chan error, 1)
	logger := log.FromContext(ctx).WithValues("source", name)
	var last informerd.Status
	follower.OnStatus = func(now informerd.Status) {
		switch {
		case now.Err != nil && last.Err == nil:
			logger.Info("informerd cannot be relied on", "why", now.Err.Error(), "polling", now.Polling)
		case now.Err == nil && last.Err != nil:
			logger.Info("informerd can be relied on again", "polls", now.Polls)
		}
		if now.FailedPolls > last.FailedPolls {
			logger.Error(now.PollErr, "a poll has failed")
		}
		last = now
	}
	go func() { r.ended <- follower.Run(ctx, tell) }()
}

func (r *running[T]) wait(ctx context.Context) error {
	select {
	case <-r.follower.Synced():
		return nil
	case err := <-r.ended:
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return fmt.Errorf("%s: %w", r.name, err)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil
		}
		return fmt.Errorf("%s: not complete in time: %w", r.name, errors.Join(ctx.Err(), r.status().Err))
	}
}

func (r *running[T]) status() informerd.Status {
	if r.follower == nil {
		return informerd.Status{}
	}
	return r.follower.Status()
}

// sink is where changes go: through the predicates to the handler, as controller-runtime's own sources do.
type sink[object any, request comparable] struct {
	handler    handler.TypedEventHandler[object, request]
	predicates []predicate.TypedPredicate[object]
	queue      workqueue.TypedRateLimitingInterface[request]
}

func (s sink[object, request]) tell(ctx context.Context, change informerd.Change[object]) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	switch change.Type {
	case informerd.Added:
		it := event.TypedCreateEvent[object]{Object: change.New, IsInInitialList: change.Initial}
		if s.all(func(p predicate.TypedPredicate[object]) bool { return p.Create(it) }) {
			s.handler.Create(ctx, it, s.queue)
		}
	case informerd.Modified:
		it := event.TypedUpdateEvent[object]{ObjectOld: change.Old, ObjectNew: change.New}
		if s.all(func(p predicate.TypedPredicate[object]) bool { return p.Update(it) }) {
			s.handler.Update(ctx, it, s.queue)
		}
	case informerd.Deleted:
		// What is known of it may not be its last version.
		unknown := change.Cause != pb.DeleteCause_DELETE_CAUSE_DELETED
		it := event.TypedDeleteEvent[object]{Object: change.Old, DeleteStateUnknown: unknown}
		if s.all(func(p predicate.TypedPredicate[object]) bool { return p.Delete(it) }) {
			s.handler.Delete(ctx, it, s.queue)
		}
	}
}

func (s sink[object, request]) all(says func(predicate.TypedPredicate[object]) bool) bool {
	for _, p := range s.predicates {
		if !says(p) {
			return false
		}
	}
	return true
}
