package informerd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// told runs a follower and notes what it tells.
type told struct {
	follower *Follower[*pb.Object]
	lock     sync.Mutex
	// "+a a1 1", "~a a1 2", "-a a1", since they were last looked at; and whether it polled, at each turn.
	changes []string
	turns   []bool
	err     error
	cancel  context.CancelFunc
	ended   chan struct{}
}

func run(t *testing.T, f *fake, mode Mode, fallback Fallback[*pb.Object]) *told {
	t.Helper()
	it := &told{follower: serve(t, f).FollowObjects(pods), ended: make(chan struct{})}
	it.follower.Mode, it.follower.Fallback = mode, fallback
	it.follower.OnStatus = func(status Status) {
		it.lock.Lock()
		defer it.lock.Unlock()
		if len(it.turns) == 0 || it.turns[len(it.turns)-1] != status.Polling {
			it.turns = append(it.turns, status.Polling)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	it.cancel = cancel
	go func() {
		defer close(it.ended)
		it.err = it.follower.Run(ctx, func(change Change[*pb.Object]) {
			it.lock.Lock()
			defer it.lock.Unlock()
			it.changes = append(it.changes, describe(change))
		})
	}()
	t.Cleanup(it.stop)
	return it
}

func describe(change Change[*pb.Object]) string {
	switch change.Type {
	case Added:
		return fmt.Sprint("+", change.Key.Name, " ", change.New.GetUid(), " ", change.New.GetResourceVersion())
	case Modified:
		return fmt.Sprint("~", change.Key.Name, " ", change.New.GetUid(), " ", change.New.GetResourceVersion())
	}
	return fmt.Sprint("-", change.Key.Name, " ", change.Old.GetUid())
}

func (it *told) stop() {
	it.cancel()
	<-it.ended
}

// expect checks what was told since the last time, in any order, once everybody waits.
func (it *told) expect(t *testing.T, when string, changes ...string) {
	t.Helper()
	synctest.Wait()
	it.lock.Lock()
	defer it.lock.Unlock()
	slices.Sort(it.changes)
	slices.Sort(changes)
	expect(t, when, it.changes, changes...)
	it.changes = nil
}

// world is what an API server has, for polls.
type world struct {
	lock    sync.Mutex
	version string
	pods    map[string]string
	polls   int
	err     error
}

// at sets what there is, as "a a1 3".
func (w *world) at(version uint64, pods ...string) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.version = strconv.FormatUint(version, 10)
	w.pods = map[string]string{}
	for _, pod := range pods {
		name, rest, _ := strings.Cut(pod, " ")
		w.pods[name] = rest
	}
}

// fail makes polls fail.
func (w *world) fail(err error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.err = err
}

func (w *world) poll(context.Context) (Snapshot[*pb.Object], error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.polls++
	snapshot := Snapshot[*pb.Object]{ResourceVersion: w.version}
	for name, rest := range w.pods {
		uid, version, _ := strings.Cut(rest, " ")
		snapshot.Items = append(snapshot.Items, &pb.Object{Namespace: "n", Name: name, Uid: uid, ResourceVersion: version})
	}
	return snapshot, w.err
}

// step lets time pass and everything that is due happen.
func step(of time.Duration) {
	time.Sleep(of)
	synctest.Wait()
}

// alive sends messages, then a bookmark each second until the call is cut.
func alive(revision uint64, messages ...*pb.WatchObjectsResponse) script[pb.WatchObjectsResponse] {
	return until(forever, revision, nil, messages...)
}

// until ends with an error after a while.
func until(
	end time.Duration, revision uint64, err error, messages ...*pb.WatchObjectsResponse,
) script[pb.WatchObjectsResponse] {
	return func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
		for _, message := range messages {
			send(message)
		}
		for began := time.Now(); time.Since(began) < end && t.Context().Err() == nil; {
			time.Sleep(time.Second)
			send(marked(pb.MarkType_MARK_TYPE_BOOKMARK, revision))
		}
		return err
	}
}

func TestAWatchThatIsWellIsAllThatIsHeard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w world
		it := run(t, &fake{objects: []script[pb.WatchObjectsResponse]{
			alive(4, then(upsert("a", "a1", 3), deletion("b", "b1", 4, pb.DeleteCause_DELETE_CAUSE_DELETED), progress(4))...),
		}}, WatchAndPoll, Fallback[*pb.Object]{Poll: w.poll})
		<-it.follower.Synced()
		it.expect(t, "told", "+a a1 1", "+b b1 2", "~a a1 3", "-b b1")
		step(time.Hour)
		it.expect(t, "told after an hour")
		if w.polls != 0 || it.follower.Status().Err != nil {
			t.Errorf("%d polls, status %+v", w.polls, it.follower.Status())
		}
	})
}

func TestAShortCutIsNoReasonToPoll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w world
		it := run(t, &fake{objects: []script[pb.WatchObjectsResponse]{
			until(time.Minute, 2, errCut, initial()...), alive(3, upsert("a", "a1", 3), progress(3)),
		}}, WatchAndPoll, Fallback[*pb.Object]{Poll: w.poll})
		step(2 * time.Minute)
		it.expect(t, "told", "+a a1 1", "+b b1 2", "~a a1 3")
		if w.polls != 0 {
			t.Errorf("%d polls", w.polls)
		}
	})
}

// The promise: whatever happens while informerd is away is told once, by the poll or by the watch.
func TestNothingIsLostWhileInformerdIsGoneAndAfterIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w world
		f := &fake{}
		f.objects = []script[pb.WatchObjectsResponse]{
			func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
				defer f.cut(true)
				return until(10*time.Second, 2, nil, initial()...)(t, send)
			},
			// Started anew: its history is another one.
			alive(9, begin(), upsert("b", "b1", 8), upsert("d", "d1", 7), resetEnd(9)),
		}
		it := run(t, f, WatchAndPoll, Fallback[*pb.Object]{Poll: w.poll})
		step(9 * time.Second)
		it.expect(t, "told at first", "+a a1 1", "+b b1 2")

		w.at(4, "a a1 3", "c c1 4")
		step(5 * time.Second)
		it.expect(t, "told while it may still come back")
		step(2 * time.Second)
		it.expect(t, "told by the first poll", "~a a1 3", "-b b1", "+c c1 4")
		step(10 * time.Second)
		it.expect(t, "told by a poll that finds nothing new")
		w.at(6, "a a1 3", "c c2 6")
		step(10 * time.Second)
		it.expect(t, "told of another one by the same name", "-c c1", "+c c2 6")

		// b and d come, a and c go, and nobody polls before informerd is back.
		w.at(8, "b b1 8", "d d1 7")
		polls := w.polls
		f.cut(false)
		step(8 * time.Second)
		if w.polls != polls {
			t.Fatalf("%d polls more", w.polls-polls)
		}
		it.expect(t, "told by the watch", "-a a1", "+b b1 8", "-c c2", "+d d1 7")
		step(time.Hour)
		it.expect(t, "told in the hour after it")
		expect(t, "polling", it.turns, true, false)
		if w.polls != polls {
			t.Errorf("%d polls while the watch is well", w.polls-polls)
		}
	})
}

func TestAWatchThatIsBehindTheLastPollTellsNoOldNews(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w world
		w.at(20, "a a1 15", "b b1 20")
		f := &fake{}
		f.objects = []script[pb.WatchObjectsResponse]{
			func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
				defer f.cut(true)
				return until(20*time.Second, 2, nil, initial()...)(t, send)
			},
			func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
				// c was created and deleted before the poll, which never saw it; a is older than what the poll saw.
				send(progress(8))
				time.Sleep(time.Second)
				for _, message := range []*pb.WatchObjectsResponse{
					upsert("c", "c1", 9), upsert("a", "a1", 10), progress(10),
				} {
					send(message)
				}
				time.Sleep(time.Second)
				for _, message := range []*pb.WatchObjectsResponse{
					deletion("c", "c1", 12, pb.DeleteCause_DELETE_CAUSE_DELETED), upsert("a", "a1", 15), progress(15),
				} {
					send(message)
				}
				time.Sleep(time.Second)
				for _, message := range []*pb.WatchObjectsResponse{
					upsert("b", "b1", 20), upsert("a", "a1", 21), progress(21),
				} {
					send(message)
				}
				<-t.Context().Done()
				return nil
			},
		}
		it := run(t, f, WatchAndPoll, Fallback[*pb.Object]{Poll: w.poll})
		step(19 * time.Second)
		it.expect(t, "told at first", "+a a1 1", "+b b1 2")
		step(10 * time.Second)
		it.expect(t, "told by the poll", "~a a1 15", "~b b1 20")
		f.cut(false)
		for it.follower.Status().Polling {
			step(100 * time.Millisecond)
		}
		for range 2 {
			step(1200 * time.Millisecond)
			it.expect(t, "told by the watch before it is where the poll was")
		}
		step(time.Second)
		it.expect(t, "told by the watch after that", "~a a1 21")
	})
}

func TestProofThatIsTooOldMakesItPollAndFreshProofBringsItBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w world
		w.at(5, "a a1 5", "b b1 2")
		old := progress(2)
		old.Mark.Freshness = aged(2, 80*time.Second)
		it := run(t, &fake{objects: []script[pb.WatchObjectsResponse]{
			func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
				for _, message := range then(old) {
					send(message)
				}
				// Bookmarks come all the time, and with them the age of a proof that is not renewed.
				for second := range time.Duration(40) {
					time.Sleep(time.Second)
					bookmark := marked(pb.MarkType_MARK_TYPE_BOOKMARK, 2)
					bookmark.Mark.Freshness = aged(2, (81+second)*time.Second)
					send(bookmark)
				}
				send(upsert("a", "a1", 5))
				send(progress(5))
				<-t.Context().Done()
				return nil
			},
		}}, WatchAndPoll, Fallback[*pb.Object]{Poll: w.poll, MaxAge: 100 * time.Second})
		step(19 * time.Second)
		it.expect(t, "told at first", "+a a1 1", "+b b1 2")
		step(2 * time.Second)
		it.expect(t, "told by the poll", "~a a1 5")
		if status := it.follower.Status(); !status.Polling || !strings.Contains(fmt.Sprint(status.Err), "no proof") {
			t.Errorf("status %+v", status)
		}
		step(21 * time.Second)
		if status := it.follower.Status(); status.Polling || status.Err != nil {
			t.Errorf("status %+v", status)
		}
		it.expect(t, "told by the watch")
	})
}

func TestAKindThatInformerdDoesNotKnowIsPolled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w world
		w.at(3, "a a1 3")
		syncing := marked(pb.MarkType_MARK_TYPE_STATE, 0)
		syncing.Mark.Token = nil
		syncing.Mark.Freshness = &pb.Freshness{State: pb.KindState_KIND_STATE_SYNCING}
		missing := status.Error(codes.NotFound, "kind not configured")
		it := run(t, &fake{objects: []script[pb.WatchObjectsResponse]{
			fails(missing),
			// Configured meanwhile, and slow.
			until(forever, 4, nil, syncing, begin(), upsert("a", "a1", 4), resetEnd(4)),
		}}, WatchAndPoll, Fallback[*pb.Object]{Poll: w.poll, Interval: time.Minute})
		<-it.follower.Synced()
		it.expect(t, "told by the poll", "+a a1 3")
		step(29 * time.Second)
		it.expect(t, "told by the watch", "~a a1 4")
		expect(t, "polling", it.turns, true, false)
	})
}

func TestAPollThatFailsIsRepeatedAndSweepsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w world
		w.fail(errors.New("the API server is down"))
		f := &fake{objects: []script[pb.WatchObjectsResponse]{until(10*time.Second, 2, errCut, initial()...)}}
		it := run(t, f, WatchAndPoll, Fallback[*pb.Object]{Poll: w.poll})
		step(9 * time.Second)
		f.cut(true)
		it.expect(t, "told at first", "+a a1 1", "+b b1 2")
		step(26 * time.Second)
		it.expect(t, "told by polls that fail")
		w.fail(nil)
		w.at(3, "a a1 3", "b b1 2")
		step(10 * time.Second)
		it.expect(t, "told by one that does not", "~a a1 3")
		if status := it.follower.Status(); status.Polls != 4 || status.FailedPolls != 3 || status.PollErr != nil {
			t.Errorf("status %+v", status)
		}
	})
}

func TestAPollThatHangsHoldsUpNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hangs := func(ctx context.Context) (Snapshot[*pb.Object], error) {
			<-ctx.Done()
			return Snapshot[*pb.Object]{}, ctx.Err()
		}
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			until(10*time.Second, 2, errCut, initial()...),
			fails(errCut), fails(errCut), fails(errCut), fails(errCut), fails(errCut), fails(errCut), fails(errCut),
			alive(3, upsert("a", "a1", 3), progress(3)),
		}}
		it := run(t, f, WatchAndPoll, Fallback[*pb.Object]{Poll: hangs})
		step(40 * time.Second)
		expect(t, "polling", it.turns, true, false)
		it.expect(t, "told", "+a a1 1", "+b b1 2", "~a a1 3")
	})
}

func TestModePollNeverAsksInformerdAndModeWatchNeverPolls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w world
		w.at(3, "a a1 3")
		f := &fake{}
		it := run(t, f, PollOnly, Fallback[*pb.Object]{Poll: w.poll, Every: true})
		step(25 * time.Second)
		it.expect(t, "told each time", "+a a1 3", "~a a1 3", "~a a1 3")
		if len(f.seen()) != 0 {
			t.Errorf("informerd was asked %d times", len(f.seen()))
		}
	})
	bubble(t, func(t *testing.T) {
		var w world
		denied := status.Error(codes.PermissionDenied, "no longer")
		it := run(t, &fake{objects: []script[pb.WatchObjectsResponse]{
			until(10*time.Second, 2, denied, initial()...), alive(4, begin(), upsert("b", "b1", 4), resetEnd(4)),
		}}, WatchOnly, Fallback[*pb.Object]{Poll: w.poll})
		step(16 * time.Second)
		it.expect(t, "told at first", "+a a1 1", "+b b1 2")
		if status := it.follower.Status(); status.Polling || code(status.Err) != codes.PermissionDenied {
			t.Errorf("status %+v", status)
		}
		step(30 * time.Second)
		it.expect(t, "told once the right is given back", "-a a1", "~b b1 4")
		if w.polls != 0 {
			t.Errorf("%d polls", w.polls)
		}
	})
	bubble(t, func(t *testing.T) {
		denied := status.Error(codes.PermissionDenied, "never")
		it := run(t, &fake{objects: []script[pb.WatchObjectsResponse]{fails(denied)}}, WatchOnly, Fallback[*pb.Object]{})
		<-it.ended
		if code(it.err) != codes.PermissionDenied {
			t.Errorf("ended with %v", it.err)
		}
	})
}

func TestVerdictsAreFollowedAndComparedByTheirState(t *testing.T) {
	verdict := func(state, safe pb.ReadinessState, message string) *pb.Verdict {
		return &pb.Verdict{
			Target: &pb.Target{Resource: "deployments.apps", Namespace: "n", Name: "web"}, Uid: "u",
			State: state, Message: message,
			Conditions: []*pb.ReadinessCondition{{Name: "SafeToDisrupt", State: safe}},
		}
	}
	const ready, not = pb.ReadinessState_READINESS_STATE_READY, pb.ReadinessState_READINESS_STATE_NOT_READY
	mark := func(kind pb.MarkType, token string) *pb.WatchReadinessResponse {
		return &pb.WatchReadinessResponse{Mark: &pb.ReadinessMark{
			Type: kind, Token: []byte(token), Kinds: []*pb.JudgedKind{{Freshness: live(1)}},
		}}
	}
	upsert := func(verdict *pb.Verdict) *pb.WatchReadinessResponse {
		return &pb.WatchReadinessResponse{Events: []*pb.ReadinessEvent{{Type: pb.EventType_EVENT_TYPE_UPSERT, Verdict: verdict}}}
	}
	bubble(t, func(t *testing.T) {
		f := &fake{}
		f.verdicts = []script[pb.WatchReadinessResponse]{
			func(t *testing.T, send func(*pb.WatchReadinessResponse)) error {
				send(mark(pb.MarkType_MARK_TYPE_RESET, ""))
				send(upsert(verdict(ready, ready, "1")))
				send(mark(pb.MarkType_MARK_TYPE_RESET_END, "1"))
				send(upsert(verdict(ready, ready, "2")))
				send(mark(pb.MarkType_MARK_TYPE_PROGRESS, "2"))
				time.Sleep(5 * time.Second)
				f.cut(true)
				return nil
			},
			func(t *testing.T, send func(*pb.WatchReadinessResponse)) error {
				send(mark(pb.MarkType_MARK_TYPE_RESET, ""))
				send(mark(pb.MarkType_MARK_TYPE_RESET_END, "3"))
				<-t.Context().Done()
				return nil
			},
		}
		polls := []*pb.Verdict{verdict(ready, ready, "of the poll"), verdict(ready, not, "not safe")}
		follower := serve(t, f).FollowVerdicts(&pb.WatchReadinessRequest{})
		follower.Fallback.Poll = func(context.Context) (Snapshot[*pb.Verdict], error) {
			now := polls[0]
			polls = polls[min(1, len(polls)-1):]
			return Snapshot[*pb.Verdict]{Items: []*pb.Verdict{now}}, nil
		}
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- follower.Run(ctx, func(change Change[*pb.Verdict]) {
				told = append(told, fmt.Sprint(change.Type, " ", change.Key, " ", change.New.GetMessage()))
			})
		}()
		step(30 * time.Second)
		f.cut(false)
		step(10 * time.Second)
		expect(t, "told", told,
			"Added deployments.apps/n/web 1", "Modified deployments.apps/n/web 2",
			"Modified deployments.apps/n/web not safe", "Deleted deployments.apps/n/web ")
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
