package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
)

// server is an informerd that serves these pods, and messages of a watch as they are given to it.
type server struct {
	pb.UnimplementedCacheServiceServer
	pb.UnimplementedReadinessServiceServer
	lock      sync.Mutex
	objects   []*pb.Object
	freshness *pb.Freshness
	// Fails all calls.
	err error
	// The last requests.
	get      *pb.GetObjectRequest
	list     *pb.ListObjectsRequest
	messages chan *pb.WatchObjectsResponse
	verdicts chan *pb.WatchReadinessResponse
}

func (s *server) GetObject(_ context.Context, request *pb.GetObjectRequest) (*pb.GetObjectResponse, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.get = request
	for _, it := range s.objects {
		if it.GetName() == request.GetScope().GetName() && s.err == nil {
			return &pb.GetObjectResponse{Object: it, Freshness: s.freshness}, nil
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	missing, err := status.New(codes.NotFound, "no such pod").WithDetails(&errdetails.ErrorInfo{Reason: "OBJECT_NOT_FOUND"})
	if err != nil {
		return nil, err
	}
	return nil, missing.Err()
}

func (s *server) ListObjects(
	request *pb.ListObjectsRequest, stream grpc.ServerStreamingServer[pb.ListObjectsResponse],
) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.list = request
	var objects []*pb.Object
	for _, it := range s.objects {
		if name := request.GetScope().GetName(); name == "" || name == it.GetName() {
			objects = append(objects, it)
		}
	}
	end := &pb.ListEnd{Count: uint64(len(objects)), Freshness: s.freshness}
	return errors.Join(s.err, stream.Send(&pb.ListObjectsResponse{Objects: objects, End: end}))
}

func (s *server) WatchObjects(_ *pb.WatchObjectsRequest, stream grpc.ServerStreamingServer[pb.WatchObjectsResponse]) error {
	return relay(s.messages, stream)
}

func (s *server) WatchReadiness(
	_ *pb.WatchReadinessRequest, stream grpc.ServerStreamingServer[pb.WatchReadinessResponse],
) error {
	return relay(s.verdicts, stream)
}

// relay sends what comes; nil cuts the stream.
func relay[M any](messages <-chan *M, stream grpc.ServerStreamingServer[M]) error {
	for {
		select {
		case message := <-messages:
			if message == nil {
				return status.Error(codes.Unavailable, "cut")
			}
			if err := stream.Send(message); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func serve(t *testing.T) (*server, *informerd.Client) {
	t.Helper()
	s := &server{
		freshness: live(7), messages: make(chan *pb.WatchObjectsResponse), verdicts: make(chan *pb.WatchReadinessResponse),
	}
	listener := bufconn.Listen(1 << 20)
	it := grpc.NewServer(grpc.WaitForHandlers(true))
	pb.RegisterCacheServiceServer(it, s)
	pb.RegisterReadinessServiceServer(it, s)
	go func() { _ = it.Serve(listener) }()
	client, err := informerd.New("passthrough:fake", grpc.WithContextDialer(
		func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		it.Stop()
	})
	return s, client
}

func live(revision uint64) *pb.Freshness {
	return &pb.Freshness{
		State: pb.KindState_KIND_STATE_LIVE, Positions: []*pb.ShardPosition{{Revision: revision}},
	}
}

// pod is one as it is sent: its phase and version are all that there is to it.
func pod(name, uid, version, phase string) *pb.Object {
	json := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"n","name":%q,"uid":%q,"resourceVersion":%q},`+
		`"status":{"phase":%q}}`, name, uid, version, phase)
	return &pb.Object{Namespace: "n", Name: name, Uid: uid, ResourceVersion: version, Object: []byte(json)}
}

func upsert(it *pb.Object) *pb.WatchObjectsResponse {
	revision, _ := strconv.ParseUint(it.GetResourceVersion(), 10, 64)
	return &pb.WatchObjectsResponse{Events: []*pb.Event{{
		Type: pb.EventType_EVENT_TYPE_UPSERT, Revision: revision, Namespace: it.GetNamespace(), Name: it.GetName(),
		Uid: it.GetUid(), ResourceVersion: it.GetResourceVersion(), Object: it.GetObject(),
	}}}
}

func deletion(it *pb.Object, cause pb.DeleteCause) *pb.WatchObjectsResponse {
	return &pb.WatchObjectsResponse{Events: []*pb.Event{{
		Type: pb.EventType_EVENT_TYPE_DELETE, Namespace: it.GetNamespace(), Name: it.GetName(), Uid: it.GetUid(), Cause: cause,
	}}}
}

func mark(kind pb.MarkType, token string) *pb.WatchObjectsResponse {
	return &pb.WatchObjectsResponse{Mark: &pb.Mark{Type: kind, Token: []byte(token), Freshness: live(7)}}
}

const (
	reset    = pb.MarkType_MARK_TYPE_RESET
	resetEnd = pb.MarkType_MARK_TYPE_RESET_END
	progress = pb.MarkType_MARK_TYPE_PROGRESS
)

// events is a handler that notes what it is told.
type events struct {
	lock sync.Mutex
	told []string
}

func (e *events) note(format string, arguments ...any) {
	e.lock.Lock()
	defer e.lock.Unlock()
	e.told = append(e.told, fmt.Sprintf(format, arguments...))
}

// expect waits until everybody waits, and checks what was told since the last time.
func (e *events) expect(t *testing.T, when string, told ...string) {
	t.Helper()
	synctest.Wait()
	e.lock.Lock()
	defer e.lock.Unlock()
	if strings.Join(e.told, ", ") != strings.Join(told, ", ") {
		t.Errorf("%s: told %q, expected %q", when, e.told, told)
	}
	e.told = nil
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func (e *events) ofPods() handler.TypedFuncs[*corev1.Pod, reconcile.Request] {
	return handler.TypedFuncs[*corev1.Pod, reconcile.Request]{
		CreateFunc: func(_ context.Context, it event.TypedCreateEvent[*corev1.Pod], _ queue) {
			e.note("create %s %s initial=%v", it.Object.Name, it.Object.Status.Phase, it.IsInInitialList)
		},
		UpdateFunc: func(_ context.Context, it event.TypedUpdateEvent[*corev1.Pod], _ queue) {
			e.note("update %s %s to %s", it.ObjectNew.Name, it.ObjectOld.Status.Phase, it.ObjectNew.Status.Phase)
		},
		DeleteFunc: func(_ context.Context, it event.TypedDeleteEvent[*corev1.Pod], _ queue) {
			e.note("delete %s %s unknown=%v", it.Object.Name, it.Object.Status.Phase, it.DeleteStateUnknown)
		},
	}
}

func requests(t *testing.T) queue {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	t.Cleanup(queue.ShutDown)
	return queue
}

func TestObjectsAreHandledAsControllerRuntimesOwnSourceWould(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, connection := serve(t)
		var told events
		source := &Objects[*corev1.Pod, reconcile.Request]{
			Client:  connection,
			Request: &pb.WatchObjectsRequest{Scope: &pb.Scope{Resource: "pods"}},
			Handler: told.ofPods(),
			Predicates: []predicate.TypedPredicate[*corev1.Pod]{
				predicate.NewTypedPredicateFuncs(func(it *corev1.Pod) bool { return it.Name != "unwanted" }),
			},
		}
		if err := source.Start(t.Context(), requests(t)); err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := source.WaitForSync(soon); err == nil {
			t.Error("complete before anything came")
		}
		for _, message := range []*pb.WatchObjectsResponse{
			mark(reset, ""), upsert(pod("a", "a1", "1", "Pending")), upsert(pod("unwanted", "u", "1", "Pending")),
		} {
			s.messages <- message
		}
		told.expect(t, "before the state is complete")
		s.messages <- mark(resetEnd, "1")
		if err := source.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		told.expect(t, "at first", "create a Pending initial=true")
		broken := pod("a", "a1", "2", "Running")
		broken.Object = []byte(`{"status":"?"}`)
		for _, message := range []*pb.WatchObjectsResponse{
			upsert(pod("a", "a1", "2", "Running")), mark(progress, "2"),
			upsert(pod("unwanted", "u", "3", "Running")), upsert(pod("b", "b1", "3", "Pending")), mark(progress, "3"),
			upsert(&pb.Object{Namespace: "n", Name: "c", Uid: "c1", Object: []byte("{")}), mark(progress, "4"),
			deletion(pod("a", "a1", "", ""), pb.DeleteCause_DELETE_CAUSE_DELETED), mark(progress, "5"),
			deletion(pod("b", "b1", "", ""), pb.DeleteCause_DELETE_CAUSE_REPLACED),
			upsert(pod("b", "b2", "6", "Pending")), mark(progress, "6"),
		} {
			s.messages <- message
		}
		told.expect(t, "then", "update a Pending to Running", "create b Pending initial=false",
			"delete a Running unknown=false", "delete b Pending unknown=true", "create b Pending initial=false")
	})
}

func TestASourceFallsBackToItsPollAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, connection := serve(t)
		var told events
		api := fake.NewClientBuilder().WithObjects(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", UID: types.UID("a1"), ResourceVersion: "5"},
			Status:     corev1.PodStatus{Phase: "Running"},
		}).Build()
		source := &Objects[*corev1.Pod, reconcile.Request]{
			Client:   connection,
			Request:  &pb.WatchObjectsRequest{Scope: &pb.Scope{Resource: "pods"}},
			Handler:  told.ofPods(),
			Fallback: informerd.Fallback[*pb.Object]{Poll: List(api, &corev1.PodList{}, client.InNamespace("n"))},
		}
		if err := source.Start(t.Context(), requests(t)); err != nil {
			t.Fatal(err)
		}
		for _, message := range []*pb.WatchObjectsResponse{
			mark(reset, ""), upsert(pod("a", "a1", "1", "Pending")), upsert(pod("b", "b1", "1", "Pending")), mark(resetEnd, "1"),
		} {
			s.messages <- message
		}
		time.Sleep(time.Second)
		told.told = nil
		for source.Status().Err == nil {
			s.messages <- nil
			synctest.Wait()
		}
		time.Sleep(time.Second)
		if !source.Status().Polling {
			t.Error("it does not poll")
		}
		told.expect(t, "by the poll", "delete b Pending unknown=true", "update a Pending to Running")
		for _, message := range []*pb.WatchObjectsResponse{
			deletion(pod("a", "a1", "", ""), pb.DeleteCause_DELETE_CAUSE_DELETED),
			deletion(pod("b", "b1", "", ""), pb.DeleteCause_DELETE_CAUSE_DELETED), mark(progress, "9"),
		} {
			s.messages <- message
		}
		told.expect(t, "by the watch", "delete a Running unknown=true")
		if source.Status().Polling {
			t.Error("it still polls")
		}
	})
}

func TestVerdictsAskToReconcileTheirTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, connection := serve(t)
		queue := requests(t)
		source := &Verdicts[reconcile.Request]{
			Client:  connection,
			Request: &pb.WatchReadinessRequest{Scope: &pb.ReadinessScope{Resources: []string{"pods"}}},
			Handler: EnqueueTarget(),
			Fallback: informerd.Fallback[*pb.Verdict]{
				Poll: Targets("pods", fake.NewClientBuilder().WithObjects(&corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "polled"},
				}).Build(), &corev1.PodList{}),
				Every: true,
			},
		}
		if err := source.Start(t.Context(), queue); err != nil {
			t.Fatal(err)
		}
		next := func(within time.Duration) string {
			t.Helper()
			began := time.Now()
			for queue.Len() == 0 && time.Since(began) < within {
				time.Sleep(100 * time.Millisecond)
			}
			if queue.Len() == 0 {
				return "nothing"
			}
			request, _ := queue.Get()
			queue.Done(request)
			return request.String()
		}
		expect := func(what string, within time.Duration, want string) {
			t.Helper()
			if got := next(within); got != want {
				t.Errorf("%s: %s, expected %s", what, got, want)
			}
		}
		kinds := []*pb.JudgedKind{{Freshness: live(1)}}
		verdict := &pb.Verdict{Target: &pb.Target{Resource: "pods", Namespace: "n", Name: "web"}}
		s.verdicts <- &pb.WatchReadinessResponse{Mark: &pb.ReadinessMark{Type: reset, Kinds: kinds}}
		s.verdicts <- &pb.WatchReadinessResponse{
			Events: []*pb.ReadinessEvent{{Type: pb.EventType_EVENT_TYPE_UPSERT, Verdict: verdict}},
			Mark:   &pb.ReadinessMark{Type: resetEnd, Token: []byte("1"), Kinds: kinds},
		}
		expect("at first", time.Second, "n/web")
		expect("while nothing happens", time.Second, "nothing")
		// Its kind falls out of date: GONE is told of the one, and each poll of the other.
		kinds = []*pb.JudgedKind{{Freshness: live(1)}, {Freshness: &pb.Freshness{State: pb.KindState_KIND_STATE_BACKING_OFF}}}
		s.verdicts <- &pb.WatchReadinessResponse{Mark: &pb.ReadinessMark{Type: progress, Token: []byte("2"), Kinds: kinds}}
		expect("by the first poll", 6*time.Second, "n/web")
		for range 3 {
			expect("by each poll", 11*time.Second, "n/polled")
		}
	})
}

func TestAWaitRestsOnWhatAWriteHasReturned(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "n", Name: "web-0", UID: "u", Generation: 2, ResourceVersion: "17",
	}}
	wanted := &pb.WaitTarget{
		Target: &pb.Target{Resource: "pods", Namespace: "n", Name: "web-0"},
		Uid:    "u", MinGeneration: 2, MinResourceVersion: "17",
	}
	if target := AsOf("pods", pod); !proto.Equal(target, wanted) {
		t.Errorf("%v", target)
	}
}

func TestAReaderReadsAndSaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, connection := serve(t)
		s.objects = []*pb.Object{pod("a", "a1", "3", "Running"), pod("b", "b1", "5", "Pending")}
		reader := &Reader{Client: connection, Scheme: scheme.Scheme, Mapper: mapper()}
		key := client.ObjectKey{Namespace: "n", Name: "a"}

		var pod corev1.Pod
		raw := &client.GetOptions{Raw: &metav1.GetOptions{ResourceVersion: "3"}}
		if err := reader.Get(t.Context(), key, &pod, raw); err != nil || pod.Status.Phase != "Running" || pod.Kind != "Pod" {
			t.Errorf("%v, %v", pod, err)
		}
		if s.get.GetMinResourceVersion() != "3" || s.get.GetScope().GetResource() != "pods" {
			t.Errorf("asked for %v", s.get)
		}
		of := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod"}}
		if err := reader.Get(t.Context(), key, of); err != nil || of.GetUID() != "a1" {
			t.Errorf("%v, %v", of, err)
		}
		partial := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
		if err := reader.Get(t.Context(), key, partial); err != nil || s.get.GetView() != pb.View_VIEW_METADATA {
			t.Errorf("%v of %v, %v", s.get.GetView(), partial, err)
		}
		key.Name = "nobody"
		if err := reader.Get(t.Context(), key, &pod); !apierrors.IsNotFound(err) {
			t.Errorf("%v", err)
		}

		var pods corev1.PodList
		options := []client.ListOption{
			client.InNamespace("n"),
			client.MatchingLabelsSelector{Selector: labels.SelectorFromSet(labels.Set{"app": "web"})},
			client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("spec.nodeName", "n1")},
		}
		err := reader.List(t.Context(), &pods, options...)
		if err != nil || len(pods.Items) != 2 || pods.Items[1].Name != "b" || pods.ResourceVersion != "7" {
			t.Errorf("%v, %v", pods, err)
		}
		want := &pb.Scope{Resource: "pods", Namespaces: []string{"n"}, LabelSelector: "app=web", FieldSelector: "spec.nodeName=n1"}
		if s.list.GetScope().String() != want.String() {
			t.Errorf("asked for %v", s.list.GetScope())
		}
		list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "PodList"}}
		if err := reader.List(t.Context(), list); err != nil || len(list.Items) != 2 || list.Items[0].GetKind() != "Pod" {
			t.Errorf("%v, %v", list, err)
		}
		metadata := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
		if err := reader.List(t.Context(), metadata); err != nil || len(metadata.Items) != 2 {
			t.Errorf("%v, %v", metadata, err)
		}
		if err := reader.List(t.Context(), &pods, client.Continue("x")); err == nil {
			t.Error("a list goes on that was whole")
		}
	})
}

func TestAReaderWithoutAnswersAsksItsFallback(t *testing.T) {
	old := live(7)
	old.Age = durationpb.New(10 * time.Minute)
	for what, change := range map[string]func(*server){
		"informerd is away":               func(s *server) { s.err = status.Error(codes.Unavailable, "away") },
		"it does not know the kind":       func(s *server) { s.err = status.Error(codes.NotFound, "not configured") },
		"it is not known to be current":   func(s *server) { s.freshness = old },
		"it has another version of it":    func(s *server) { s.objects[0].Object = []byte(`{"apiVersion":"v2","kind":"Pod"}`) },
		"its copy is of before a mistake": func(s *server) { s.objects[0].Stale = true },
	} {
		synctest.Test(t, func(t *testing.T) {
			s, connection := serve(t)
			s.objects = []*pb.Object{pod("a", "a1", "3", "Pending")}
			change(s)
			api := fake.NewClientBuilder().WithObjects(&corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"}, Status: corev1.PodStatus{Phase: "Running"},
			}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "new"}}).Build()
			reader := &Reader{Client: connection, Scheme: scheme.Scheme, Mapper: mapper(), Fallback: api}
			var pod corev1.Pod
			if err := reader.Get(t.Context(), client.ObjectKey{Namespace: "n", Name: "a"}, &pod); err != nil || pod.Status.Phase != "Running" {
				t.Errorf("%s: %v, %v", what, pod.Status, err)
			}
			var pods corev1.PodList
			if err := reader.List(t.Context(), &pods); err != nil || len(pods.Items) != 2 {
				t.Errorf("%s: %d pods, %v", what, len(pods.Items), err)
			}
			// What an old copy lacks may be there by now.
			err := reader.Get(t.Context(), client.ObjectKey{Namespace: "n", Name: "new"}, &pod)
			if found := err == nil; found != (s.err != nil || s.freshness == old) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
}

func mapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, meta.RESTScopeNamespace)
	return mapper
}
