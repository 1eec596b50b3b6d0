package follow

import (
	"context"
	"maps"
	"net"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// A server with a script: one message list for the n-th watch. Tokens are numbers.
type script struct {
	pb.UnimplementedCacheServiceServer
	t       *testing.T
	watches [][]*pb.WatchObjectsResponse
	tokens  []string
}

func (s *script) ListObjects(_ *pb.ListObjectsRequest, stream grpc.ServerStreamingServer[pb.ListObjectsResponse]) error {
	if err := stream.Send(&pb.ListObjectsResponse{Objects: []*pb.Object{{Namespace: "a", Name: "x", Uid: "x1", ResourceVersion: "1"}}}); err != nil {
		return err
	}
	return stream.Send(&pb.ListObjectsResponse{
		Objects: []*pb.Object{{Name: "y", Uid: "y1", ResourceVersion: "2"}},
		End:     &pb.ListEnd{Token: []byte("2"), Count: 2, Freshness: at(2)},
	})
}

func (s *script) WatchObjects(request *pb.WatchObjectsRequest, stream grpc.ServerStreamingServer[pb.WatchObjectsResponse]) error {
	n := len(s.tokens)
	s.tokens = append(s.tokens, string(request.GetToken()))
	if n >= len(s.watches) {
		s.t.Errorf("watch %d was not expected", n)
		return nil
	}
	for _, message := range s.watches[n] {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func at(revision uint64) *pb.Freshness {
	return &pb.Freshness{Positions: []*pb.ShardPosition{{Revision: revision}}}
}

func upsert(name, uid string, revision uint64) *pb.WatchObjectsResponse {
	return &pb.WatchObjectsResponse{Events: []*pb.Event{{
		Type: pb.EventType_EVENT_TYPE_UPSERT, Name: name, Uid: uid, Revision: revision,
		ResourceVersion: strconv.FormatUint(revision, 10),
	}}}
}

func deletion(name, uid string, revision uint64) *pb.WatchObjectsResponse {
	return &pb.WatchObjectsResponse{Events: []*pb.Event{{
		Type: pb.EventType_EVENT_TYPE_DELETE, Name: name, Uid: uid, Revision: revision,
		Cause: pb.DeleteCause_DELETE_CAUSE_DELETED,
	}}}
}

func mark(kind pb.MarkType, token string, revision uint64) *pb.WatchObjectsResponse {
	return &pb.WatchObjectsResponse{Mark: &pb.Mark{Type: kind, Token: []byte(token), Freshness: at(revision)}}
}

func follow(t *testing.T, options Options, watches ...[]*pb.WatchObjectsResponse) (*script, []Line) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, scripted := grpc.NewServer(), &script{t: t, watches: watches}
	pb.RegisterCacheServiceServer(server, scripted)
	go server.Serve(listener)
	defer server.Stop()
	var lines []Line
	options.Print = func(line Line) { lines = append(lines, line) }
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dial := func() (*grpc.ClientConn, error) {
		return grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	if err := Run(ctx, dial, options); err != nil {
		t.Fatal(err)
	}
	return scripted, lines
}

const (
	progress = pb.MarkType_MARK_TYPE_PROGRESS
	reset    = pb.MarkType_MARK_TYPE_RESET
	resetEnd = pb.MarkType_MARK_TYPE_RESET_END
)

func TestACutStreamResumesFromTheLastMark(t *testing.T) {
	server, lines := follow(t, Options{Events: 6, CutAfter: 3},
		// Cut after the third event, with a token from before the second: those two come again.
		[]*pb.WatchObjectsResponse{
			upsert("z", "z1", 3), mark(progress, "3", 3), deletion("y", "y1", 4), upsert("y", "y2", 5),
		},
		// No second cut before another mark. At 4, there is no y.
		[]*pb.WatchObjectsResponse{
			deletion("y", "y1", 4), upsert("v", "v1", 4), upsert("v", "v1", 4), mark(progress, "4", 4),
		},
	)
	expectTokens(t, server, "2", "3")
	expectEnd(t, lines, 4, map[string]Held{"a/x": {"x1", "1"}, "v": {"v1", "4"}, "z": {"z1", "3"}})
}

func TestAResetReplacesEverythingAndHalfOfOneNothing(t *testing.T) {
	server, lines := follow(t, Options{Events: 4, CutAfter: 3},
		[]*pb.WatchObjectsResponse{
			upsert("z", "z1", 3), mark(progress, "3", 3),
			mark(reset, "", 0), upsert("half", "h1", 9), upsert("half", "h1", 9),
		},
		[]*pb.WatchObjectsResponse{mark(reset, "", 0), upsert("w", "w1", 8), mark(resetEnd, "9", 9)},
	)
	expectTokens(t, server, "2", "3")
	expectEnd(t, lines, 9, map[string]Held{"w": {"w1", "8"}})
}

func TestADeletionOfWhatIsNotHeldIsAnError(t *testing.T) {
	f := &follower{objects: map[string]Held{"y": {"y2", "5"}}, pending: deletion("y", "y1", 6).Events}
	if err := f.confirm(); err == nil {
		t.Error("the deletion of another uid was taken")
	}
}

func TestAStreamThatTheServerEndsIsResumed(t *testing.T) {
	server, lines := follow(t, Options{Events: 1},
		[]*pb.WatchObjectsResponse{mark(pb.MarkType_MARK_TYPE_END, "3", 3)},
		[]*pb.WatchObjectsResponse{upsert("z", "z1", 4), mark(progress, "4", 4)},
	)
	expectTokens(t, server, "2", "3")
	expectEnd(t, lines, 4, map[string]Held{"a/x": {"x1", "1"}, "y": {"y1", "2"}, "z": {"z1", "4"}})
}

func expectTokens(t *testing.T, server *script, tokens ...string) {
	t.Helper()
	if len(server.tokens) != len(tokens) {
		t.Fatalf("tokens %q, expected %q", server.tokens, tokens)
	}
	for i, token := range tokens {
		if server.tokens[i] != token {
			t.Errorf("watch %d began at token %q, expected %q", i, server.tokens[i], token)
		}
	}
}

func expectEnd(t *testing.T, lines []Line, revision uint64, objects map[string]Held) {
	t.Helper()
	last := lines[len(lines)-1]
	if last.What != "end" || last.Revision != revision || !maps.Equal(last.Objects, objects) {
		t.Errorf("ended with %+v, expected revision %d and %v", last, revision, objects)
	}
}
