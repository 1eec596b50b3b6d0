package informerd

import (
	"context"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// script is what the server does in one call of WatchObjects or WatchReadiness. When it returns, so does the call.
type script[M any] func(t *testing.T, send func(*M)) error

// fake is an informerd with a script for each call; one call more than there are scripts waits for its end.
type fake struct {
	pb.UnimplementedCacheServiceServer
	pb.UnimplementedReadinessServiceServer
	t        *testing.T
	objects  []script[pb.WatchObjectsResponse]
	verdicts []script[pb.WatchReadinessResponse]
	list     []*pb.ListObjectsResponse
	wait     []func(*pb.WaitReadinessRequest, func(*pb.WaitReadinessResponse)) error
	// Beside the usual ones.
	served []grpc.ServerOption
	dialed []grpc.DialOption

	lock sync.Mutex
	// The tokens that watches began with, and when.
	tokens []string
	begun  []time.Time
	// What WatchObjects was asked for.
	asked []*pb.WatchObjectsRequest
	// Refuses connections.
	down bool
	// Of all connections made.
	connections []net.Conn
}

func (f *fake) WatchObjects(
	request *pb.WatchObjectsRequest, stream grpc.ServerStreamingServer[pb.WatchObjectsResponse],
) error {
	f.lock.Lock()
	f.asked = append(f.asked, request)
	f.lock.Unlock()
	return play(f, request.GetToken(), f.objects, stream)
}

func (f *fake) WatchReadiness(
	request *pb.WatchReadinessRequest, stream grpc.ServerStreamingServer[pb.WatchReadinessResponse],
) error {
	return play(f, request.GetToken(), f.verdicts, stream)
}

func play[M any](f *fake, token []byte, scripts []script[M], stream grpc.ServerStreamingServer[M]) error {
	f.lock.Lock()
	call := len(f.tokens)
	f.tokens = append(f.tokens, string(token))
	f.begun = append(f.begun, time.Now())
	f.lock.Unlock()
	if call < len(scripts) {
		// What a cut connection does not take is lost, as in life.
		return scripts[call](f.t, func(message *M) { _ = stream.Send(message) })
	}
	<-stream.Context().Done()
	return nil
}

func (f *fake) ListObjects(_ *pb.ListObjectsRequest, stream grpc.ServerStreamingServer[pb.ListObjectsResponse]) error {
	for _, page := range f.list {
		if err := stream.Send(page); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) WaitReadiness(
	request *pb.WaitReadinessRequest, stream grpc.ServerStreamingServer[pb.WaitReadinessResponse],
) error {
	if len(f.wait) == 0 {
		f.t.Error("one wait too many")
		return nil
	}
	f.lock.Lock()
	next := f.wait[0]
	f.wait = f.wait[1:]
	f.lock.Unlock()
	return next(request, func(answer *pb.WaitReadinessResponse) { _ = stream.Send(answer) })
}

// seen is the tokens so far.
func (f *fake) seen() []string {
	f.lock.Lock()
	defer f.lock.Unlock()
	return append([]string(nil), f.tokens...)
}

// cut breaks all connections, and lets no new ones be made while it is down.
func (f *fake) cut(down bool) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.down = down
	for _, connection := range f.connections {
		connection.Close()
	}
	f.connections = nil
}

// serve starts the fake and a client of it. In a synctest bubble, whose end shows that no goroutine is left.
func serve(t *testing.T, f *fake) *Client {
	t.Helper()
	f.t = t
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(append(f.served, grpc.WaitForHandlers(true), grpc.KeepaliveEnforcementPolicy(
		keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))...)
	pb.RegisterCacheServiceServer(server, f)
	pb.RegisterReadinessServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		f.lock.Lock()
		defer f.lock.Unlock()
		if f.down {
			return nil, status.Error(codes.Unavailable, "connection refused")
		}
		connection, err := listener.DialContext(ctx)
		if err == nil {
			f.connections = append(f.connections, connection)
		}
		return connection, err
	}
	client, err := New("passthrough:fake", append(f.dialed, grpc.WithContextDialer(dial))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Stop()
	})
	return client
}

// bubble runs a test by a clock of its own, which moves on when everybody waits.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// plays sends messages and then waits for the end of the call.
func plays(messages ...*pb.WatchObjectsResponse) script[pb.WatchObjectsResponse] {
	return func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
		for _, message := range messages {
			send(message)
		}
		<-t.Context().Done()
		return nil
	}
}

// fails sends messages and then ends the call with this error.
func fails(err error, messages ...*pb.WatchObjectsResponse) script[pb.WatchObjectsResponse] {
	return func(_ *testing.T, send func(*pb.WatchObjectsResponse)) error {
		for _, message := range messages {
			send(message)
		}
		return err
	}
}

var errCut = status.Error(codes.Unavailable, "cut")

func live(revision uint64) *pb.Freshness {
	return &pb.Freshness{
		State:     pb.KindState_KIND_STATE_LIVE,
		Positions: []*pb.ShardPosition{{Revision: revision}},
	}
}

// aged is live, with proof that is old.
func aged(revision uint64, age time.Duration) *pb.Freshness {
	freshness := live(revision)
	freshness.Age = durationpb.New(age)
	return freshness
}

func upsert(name, uid string, revision uint64) *pb.WatchObjectsResponse {
	return &pb.WatchObjectsResponse{Events: []*pb.Event{{
		Type: pb.EventType_EVENT_TYPE_UPSERT, Namespace: "n", Name: name, Uid: uid, Revision: revision,
		ResourceVersion: strconv.FormatUint(revision, 10),
	}}}
}

func deletion(name, uid string, revision uint64, cause pb.DeleteCause) *pb.WatchObjectsResponse {
	return &pb.WatchObjectsResponse{Events: []*pb.Event{{
		Type: pb.EventType_EVENT_TYPE_DELETE, Namespace: "n", Name: name, Uid: uid, Revision: revision, Cause: cause,
	}}}
}

// marked is a mark at a revision, with a token that says the same.
func marked(kind pb.MarkType, revision uint64) *pb.WatchObjectsResponse {
	mark := &pb.Mark{Type: kind, Freshness: live(revision)}
	if kind != pb.MarkType_MARK_TYPE_RESET {
		mark.Token = []byte(strconv.FormatUint(revision, 10))
	}
	return &pb.WatchObjectsResponse{Mark: mark}
}

func begin() *pb.WatchObjectsResponse { return marked(pb.MarkType_MARK_TYPE_RESET, 0) }

func resetEnd(revision uint64) *pb.WatchObjectsResponse {
	return marked(pb.MarkType_MARK_TYPE_RESET_END, revision)
}

func progress(revision uint64) *pb.WatchObjectsResponse {
	return marked(pb.MarkType_MARK_TYPE_PROGRESS, revision)
}

// initial is a state at revision 2: n/a (uid a1, version 1) and n/b (uid b1, version 2).
func initial() []*pb.WatchObjectsResponse {
	return []*pb.WatchObjectsResponse{begin(), upsert("a", "a1", 1), upsert("b", "b1", 2), resetEnd(2)}
}

// then is the initial state and what comes behind it.
func then(messages ...*pb.WatchObjectsResponse) []*pb.WatchObjectsResponse {
	return append(initial(), messages...)
}
