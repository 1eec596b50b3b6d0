package informerd

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// heldObject is what a digest is of: names of n, with uid and version.
type heldObject struct{ name, uid, version string }

func digestOf(objects ...heldObject) (sum uint64) {
	for _, it := range objects {
		sum += number(Key{Namespace: "n", Name: it.name}, it.uid, it.version)
	}
	return sum
}

// proving gives a mark the digest of what there is at informerd.
func proving(message *pb.WatchObjectsResponse, objects ...heldObject) *pb.WatchObjectsResponse {
	position := message.GetMark().GetFreshness().GetPositions()[0]
	position.Digest, position.HasDigest = digestOf(objects...), true
	return message
}

var (
	firstA = heldObject{"a", "a1", "1"}
	firstB = heldObject{"b", "b1", "2"}
)

// proven is the initial state with its digest, and what comes behind it.
func proven(messages ...*pb.WatchObjectsResponse) []*pb.WatchObjectsResponse {
	all := []*pb.WatchObjectsResponse{begin(), upsert("a", "a1", 1), upsert("b", "b1", 2)}
	return append(append(all, proving(resetEnd(2), firstA, firstB)), messages...)
}

func bookmark(revision uint64) *pb.WatchObjectsResponse {
	return marked(pb.MarkType_MARK_TYPE_BOOKMARK, revision)
}

func TestTheDocumentedVectorsHold(t *testing.T) {
	text, err := os.ReadFile("../../docs/digest.md")
	if err != nil {
		t.Skip("only in a checkout: ", err)
	}
	_, vectors, _ := strings.Cut(string(text), "## Test vectors")
	rows := 0
	for line := range strings.Lines(vectors) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || strings.HasPrefix(cells[0], "---") || strings.Contains(cells[0], "key") {
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		want, err := strconv.ParseUint(cells[3], 16, 64)
		if err != nil {
			t.Fatal(line, err)
		}
		namespace, name, namespaced := strings.Cut(cells[0], "/")
		key := Key{Namespace: namespace, Name: name}
		if !namespaced {
			key = Key{Name: namespace}
		}
		if got := number(key, cells[1], cells[2]); got != want {
			t.Errorf("%s: %x, expected %x", line, got, want)
		}
		rows++
	}
	if rows != 5 {
		t.Errorf("%d rows", rows)
	}
}

func TestAWatchThatWasNotToldOfAChangeBeginsAnewByItself(t *testing.T) {
	now := []heldObject{firstA, {"b", "b1", "3"}, {"c", "c1", "4"}}
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			// The change of b is lost on the way.
			plays(proven(upsert("c", "c1", 4), proving(progress(4), now...))...),
			plays(begin(), upsert("a", "a1", 1), upsert("b", "b1", 3), upsert("c", "c1", 4),
				proving(resetEnd(5), now...)),
		}}
		events, mirror := follow(t, f, "5")
		cut := cuts(events)
		if len(cut) != 1 || !errors.Is(cut[0].Err, ErrDiffers) {
			t.Errorf("%v", cut)
		}
		expect(t, "tokens", f.seen(), "", "")
		expect(t, "held", versions(mirror), "a a1 1", "b b1 3", "c c1 4")
		for _, asked := range f.asked {
			if !asked.GetDigests() {
				t.Error("it asks for digests by itself")
			}
		}
	})
}

func TestDigestsThatAgreeOrAreNotThereChangeNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{plays(proven(
			// One of another uid is not the one that is held.
			deletion("b", "b9", 3, pb.DeleteCause_DELETE_CAUSE_DELETED),
			proving(progress(3), firstA, firstB),
			progress(4),
			deletion("b", "b1", 5, pb.DeleteCause_DELETE_CAUSE_DELETED),
			proving(bookmark(5), firstA),
		)...)}}
		events, _ := follow(t, f, "5")
		if cut := cuts(events); len(cut) != 0 {
			t.Errorf("%v", cut)
		}
	})
}

func TestToBeginAnewIsTriedOnceAndAgainOnlyAfterTheyAgreed(t *testing.T) {
	wrong := func(messages ...*pb.WatchObjectsResponse) script[pb.WatchObjectsResponse] {
		all := []*pb.WatchObjectsResponse{begin(), upsert("a", "a1", 1), proving(resetEnd(2))}
		return plays(append(all, messages...)...)
	}
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			wrong(),
			wrong(proving(bookmark(3)), proving(bookmark(4), firstA), proving(bookmark(5))),
			plays(begin(), upsert("a", "a1", 1), proving(resetEnd(6), firstA)),
		}}
		events, _ := follow(t, f, "6")
		if cut := cuts(events); len(cut) != 2 {
			t.Errorf("%v", cut)
		}
		expect(t, "tokens", f.seen(), "", "", "")
	})
}

func TestAWatchThatWasToLeaveNothingOutEndsWhereSomethingIsMissing(t *testing.T) {
	for _, request := range []*pb.WatchObjectsRequest{
		{Scope: pods.Scope, Delivery: pb.Delivery_DELIVERY_EVERY},
		{Scope: pods.Scope, OnGap: pb.OnGap_ON_GAP_FAIL},
	} {
		bubble(t, func(t *testing.T) {
			f := &fake{objects: []script[pb.WatchObjectsResponse]{plays(proven(proving(bookmark(3)))...)}}
			var last error
			for _, err := range serve(t, f).Watch(t.Context(), request) {
				last = err
			}
			if !errors.Is(last, ErrDiffers) || len(f.seen()) != 1 {
				t.Errorf("%v after calls %v", last, f.seen())
			}
		})
	}
}

func TestEachShardIsHeldAgainstItsOwnDigest(t *testing.T) {
	l := newLedger()
	at := func(namespace string, digest uint64) *pb.ShardPosition {
		return &pb.ShardPosition{Namespace: namespace, Digest: digest, HasDigest: true}
	}
	a, b, c := Key{Namespace: "x", Name: "a"}, Key{Namespace: "y", Name: "b"}, Key{Namespace: "y", Name: "c"}
	l.begin(nil)
	l.upsert(a, "1", "1")
	l.upsert(b, "2", "2")
	l.end(nil)
	l.begin([]string{"y"})
	l.upsert(c, "3", "3")
	l.end([]string{"y"})
	x, y := number(a, "1", "1"), number(c, "3", "3")
	for _, test := range []struct {
		positions []*pb.ShardPosition
		differs   bool
	}{
		{[]*pb.ShardPosition{at("x", x), at("y", y)}, false},
		{[]*pb.ShardPosition{at("x", x), at("y", number(b, "2", "2"))}, true},
		{[]*pb.ShardPosition{at("", x+y), at("z", 0)}, false},
		{[]*pb.ShardPosition{{Namespace: "x"}}, false},
	} {
		if differs, _ := l.differs(&pb.Freshness{Positions: test.positions}); differs != test.differs {
			t.Errorf("%v: %v", test.positions, differs)
		}
	}
}

func TestAFollowerCountsWhatDidNotAgree(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			plays(proven(proving(bookmark(3), firstA))...),
			plays(begin(), upsert("a", "a1", 1), proving(resetEnd(4), firstA)),
		}}
		follower := serve(t, f).FollowObjects(pods)
		follower.Mode = WatchOnly
		gone := errors.New("b is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		var told []string
		err := follower.Run(ctx, func(change Change[*pb.Object]) {
			told = append(told, change.Type.String()+" "+change.Key.Name)
			if change.Type == Deleted {
				cancel(gone)
			}
		})
		if !errors.Is(err, gone) || follower.Status().Mismatches != 1 {
			t.Errorf("%v, %+v", err, follower.Status())
		}
		if len(told) != 3 || told[2] != "Deleted b" {
			t.Errorf("%v", told)
		}
	})
}
