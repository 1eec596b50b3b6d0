package informerd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

var pods = &pb.WatchObjectsRequest{Scope: &pb.Scope{Resource: "pods"}}

// follow watches until a token, and gives all events and what they fold to.
func follow(t *testing.T, f *fake, token string) ([]Event[*pb.Object], *Mirror[*pb.Object]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var events []Event[*pb.Object]
	var mirror Mirror[*pb.Object]
	for event, err := range serve(t, f).Watch(ctx, pods) {
		if err != nil {
			t.Fatalf("no mark brings token %s: %v after %v", token, err, events)
		}
		events = append(events, event)
		mirror.Apply(event)
		if string(event.Token) == token {
			break
		}
	}
	return events, &mirror
}

// versions is what a copy holds, as name uid version.
func versions(mirror *Mirror[*pb.Object]) []string {
	var all []string
	for key, it := range mirror.All() {
		all = append(all, fmt.Sprint(key.Name, " ", it.GetUid(), " ", it.GetResourceVersion()))
	}
	slices.Sort(all)
	return all
}

func expect[T comparable](t *testing.T, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, expected %v", what, got, want)
	}
}

func cuts(events []Event[*pb.Object]) (all []Event[*pb.Object]) {
	for _, event := range events {
		if event.Type == Reconnecting {
			all = append(all, event)
		}
	}
	return all
}

func TestACutStreamResumesFromTheLastMark(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			fails(errCut, then(upsert("a", "a1", 3), progress(3), upsert("b", "b1", 4))...),
			plays(upsert("b", "b1", 4), deletion("a", "a1", 5, pb.DeleteCause_DELETE_CAUSE_DELETED), progress(5)),
		}}
		events, mirror := follow(t, f, "5")
		expect(t, "tokens", f.seen(), "", "3")
		expect(t, "held", versions(mirror), "b b1 4")
		if cuts := cuts(events); len(cuts) != 1 || code(cuts[0].Err) != codes.Unavailable || cuts[0].Delay > firstDelay {
			t.Errorf("cuts: %v", cuts)
		}
	})
}

func TestACutConnectionIsMadeAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{}
		f.objects = []script[pb.WatchObjectsResponse]{
			func(_ *testing.T, send func(*pb.WatchObjectsResponse)) error {
				for _, message := range initial() {
					send(message)
				}
				time.Sleep(time.Second)
				f.cut(true)
				time.Sleep(3 * time.Second)
				f.cut(false)
				return nil
			},
			plays(progress(7)),
		}
		began := time.Now()
		events, _ := follow(t, f, "7")
		expect(t, "tokens", f.seen(), "", "2")
		if len(cuts(events)) < 2 {
			t.Errorf("no try while it was down: %v", cuts(events))
		}
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("back only after %v", took)
		}
	})
}

func TestWhatCameAfterTheLastTokenIsNeverToldIfTheStreamIsCut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			// Created, sent and cut: by the time of the resumption it is deleted, and folded away.
			fails(errCut, then(upsert("ghost", "g1", 3))...),
			plays(upsert("a", "a1", 5), progress(5)),
		}}
		events, mirror := follow(t, f, "5")
		for _, event := range events {
			if event.Key.Name == "ghost" {
				t.Errorf("told of a ghost: %+v", event)
			}
		}
		expect(t, "held", versions(mirror), "a a1 5", "b b1 2")
	})
}

func TestWhatOnePartWasToldOutlivesTheResetOfAnotherOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		of := func(message *pb.WatchObjectsResponse) *pb.WatchObjectsResponse {
			message.Mark.Namespaces = []string{"other"}
			return message
		}
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			plays(then(upsert("a", "a1", 5), of(begin()), of(resetEnd(7)))...),
		}}
		_, mirror := follow(t, f, "7")
		expect(t, "held", versions(mirror), "a a1 5", "b b1 2")
	})
}

func TestAResetReplacesEverythingAndHalfOfOneNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		stateWithToken := progress(8)
		stateWithToken.Mark.Type = pb.MarkType_MARK_TYPE_STATE
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			fails(errCut, initial()...),
			// A mark within a reset does not count, even if it has a token.
			fails(errCut, begin(), upsert("half", "h1", 8), stateWithToken),
			fails(errCut, upsert("b", "b1", 3), progress(3)),
			plays(begin(), upsert("c", "c1", 9), upsert("a", "a2", 9), resetEnd(9)),
		}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mirror Mirror[*pb.Object]
		var changes []Change[*pb.Object]
		for event, err := range serve(t, f).Watch(ctx, pods) {
			if err != nil {
				t.Fatal(err)
			}
			changes = append(changes, mirror.Apply(event)...)
			if string(event.Token) == "3" {
				expect(t, "held after half a reset", versions(&mirror), "a a1 1", "b b1 3")
				changes = nil
			}
			if string(event.Token) == "9" {
				break
			}
		}
		expect(t, "tokens", f.seen(), "", "2", "2", "3")
		expect(t, "held", versions(&mirror), "a a2 9", "c c1 9")
		var told []string
		for _, it := range changes {
			told = append(told, fmt.Sprint(it.Type, " ", it.Key.Name, " ", it.Cause))
		}
		slices.Sort(told)
		expect(t, "changes", told,
			"Added a DELETE_CAUSE_UNSPECIFIED", "Added c DELETE_CAUSE_UNSPECIFIED",
			"Deleted a DELETE_CAUSE_REPLACED", "Deleted b DELETE_CAUSE_VANISHED")
	})
}

func TestATokenCountsOnlyWhenNoShardIsWithinItsReset(t *testing.T) {
	bubble(t, func(t *testing.T) {
		of := func(message *pb.WatchObjectsResponse, namespace string) *pb.WatchObjectsResponse {
			message.Mark.Namespaces = []string{namespace}
			return message
		}
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			fails(errCut, of(begin(), "n"), of(begin(), "m"), upsert("a", "a1", 1), of(resetEnd(4), "m"), of(resetEnd(5), "n")),
			plays(progress(6)),
		}}
		events, mirror := follow(t, f, "6")
		expect(t, "tokens", f.seen(), "", "5")
		expect(t, "held", versions(mirror), "a a1 1")
		if !mirror.Complete() || len(cuts(events)) != 1 {
			t.Errorf("complete: %v, cuts: %v", mirror.Complete(), cuts(events))
		}
	})
}

func TestAnEndMarkMovesTheTokenAndSaysWhenToComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		end := marked(pb.MarkType_MARK_TYPE_END, 7)
		end.Mark.Reason, end.Mark.Message = "DRAINING", "the daemon is shutting down"
		end.Mark.RetryAfter = durationpb.New(5 * time.Second)
		f := &fake{objects: []script[pb.WatchObjectsResponse]{fails(errCut, then(end)...), plays(progress(8))}}
		events, _ := follow(t, f, "8")
		expect(t, "tokens", f.seen(), "", "7")
		cut := cuts(events)[0]
		if Reason(cut.Err) != "DRAINING" || cut.Delay < 5*time.Second || cut.Delay > 6*time.Second {
			t.Errorf("%v, again in %v", cut.Err, cut.Delay)
		}
		if waited := f.begun[1].Sub(f.begun[0]); waited < cut.Delay || waited > cut.Delay+time.Second {
			t.Errorf("came back after %v, not %v", waited, cut.Delay)
		}
	})
}

func TestAStreamThatDoesNotCloseAfterItsEndMarkIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{
			plays(then(marked(pb.MarkType_MARK_TYPE_END, 3))...), plays(progress(4)),
		}}
		events, _ := follow(t, f, "4")
		var ended *EndedError
		if cuts := cuts(events); len(cuts) != 1 || !errors.As(cuts[0].Err, &ended) {
			t.Errorf("cuts: %v", cuts)
		}
	})
}

func TestEveryCauseOfADeletionIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		messages := []*pb.WatchObjectsResponse{begin()}
		for number := range int32(9) {
			messages = append(messages, upsert(fmt.Sprint("x", number), "u", 1))
		}
		messages = append(messages, resetEnd(1))
		// 7 and 8 are of a later version of the protos.
		for number := range int32(9) {
			messages = append(messages, deletion(fmt.Sprint("x", number), "u", 2, pb.DeleteCause(number)))
		}
		events, mirror := follow(t, &fake{objects: []script[pb.WatchObjectsResponse]{plays(append(messages, progress(2))...)}}, "2")
		var causes []pb.DeleteCause
		for _, event := range events {
			if event.Type == Delete {
				causes = append(causes, event.Cause)
			}
		}
		const deleted = pb.DeleteCause_DELETE_CAUSE_DELETED
		expect(t, "causes", causes, deleted, 1, 2, 3, 4, 5, 6, deleted, deleted)
		expect(t, "held", versions(mirror))
	})
}

func TestARepeatedDeletionSparesTheSuccessor(t *testing.T) {
	var mirror Mirror[*pb.Object]
	apply := func(messages ...*pb.WatchObjectsResponse) (changes []Change[*pb.Object]) {
		for _, message := range messages {
			for _, event := range objectMessage(message).events {
				changes = append(changes, mirror.Apply(event)...)
			}
		}
		return changes
	}
	swap := []*pb.WatchObjectsResponse{
		deletion("a", "a1", 5, pb.DeleteCause_DELETE_CAUSE_REPLACED), upsert("a", "a2", 5),
	}
	apply(upsert("a", "a1", 1))
	if changes := apply(swap...); len(changes) != 2 {
		t.Errorf("changes: %v", changes)
	}
	// After a cut inside the two they come again.
	if changes := apply(swap...); len(changes) != 0 {
		t.Errorf("folding twice changes %v", changes)
	}
	expect(t, "held", versions(&mirror), "a a2 5")
}

func TestLosingTheRightToWatchIsForGoodAndKeepsTheLastToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		denied := status.Error(codes.PermissionDenied, "no longer")
		f := &fake{objects: []script[pb.WatchObjectsResponse]{fails(denied, then(marked(pb.MarkType_MARK_TYPE_END, 3))...)}}
		var token string
		var last error
		for event, err := range serve(t, f).Watch(t.Context(), pods) {
			if len(event.Token) > 0 {
				token = string(event.Token)
			}
			last = err
		}
		if code(last) != codes.PermissionDenied || token != "3" || len(f.seen()) != 1 {
			t.Errorf("%v, token %q, calls %v", last, token, f.seen())
		}
	})
}

func TestAChangeThatCannotBeHadEndsAWatchOfEachAfterAllBeforeIt(t *testing.T) {
	for _, reason := range []string{"HISTORY_GAP", "PAST_JOURNAL"} {
		bubble(t, func(t *testing.T) {
			gap, err := status.New(codes.OutOfRange, "begin again").WithDetails(&errdetails.ErrorInfo{Reason: reason})
			if err != nil {
				t.Fatal(err)
			}
			ended := marked(pb.MarkType_MARK_TYPE_END, 3)
			f := &fake{objects: []script[pb.WatchObjectsResponse]{
				fails(gap.Err(), then(upsert("a", "a1", 3), progress(3), ended)...),
			}}
			request := &pb.WatchObjectsRequest{Scope: pods.Scope, Delivery: pb.Delivery_DELIVERY_EVERY}
			var mirror Mirror[*pb.Object]
			var last error
			for event, err := range serve(t, f).Watch(t.Context(), request) {
				mirror.Apply(event)
				last = err
			}
			if code(last) != codes.OutOfRange || Reason(last) != reason || !IsPermanent(last) || len(f.seen()) != 1 {
				t.Errorf("%v, calls %v", last, f.seen())
			}
			expect(t, "held", versions(&mirror), "a a1 3", "b b1 2")
		})
	}
}

func TestWhatCannotBeUnderstoodEndsTheWatch(t *testing.T) {
	unknown := upsert("a", "a1", 1)
	unknown.Events[0].Type = 77
	for _, message := range []*pb.WatchObjectsResponse{unknown, resetEnd(1)} {
		bubble(t, func(t *testing.T) {
			var last error
			for _, err := range serve(t, &fake{objects: []script[pb.WatchObjectsResponse]{plays(message)}}).Watch(t.Context(), pods) {
				last = err
			}
			if !errors.Is(last, ErrContract) {
				t.Errorf("%v", last)
			}
		})
	}
}

func TestDelaysGrowAndTheServerIsHeard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		busy, err := status.New(codes.ResourceExhausted, "too many streams").WithDetails(
			&errdetails.RetryInfo{RetryDelay: durationpb.New(9 * time.Second)},
			&errdetails.ErrorInfo{Reason: "QUOTA", Domain: "informerd"})
		if err != nil {
			t.Fatal(err)
		}
		f := &fake{objects: []script[pb.WatchObjectsResponse]{fails(errCut), fails(errCut), fails(errCut), fails(busy.Err()), plays(initial()...)}}
		events, _ := follow(t, f, "2")
		step := firstDelay
		for at, cut := range cuts(events) {
			from, to := step/2, step
			if at == 3 {
				from, to = 9*time.Second, 10*time.Second
				if Reason(cut.Err) != "QUOTA" {
					t.Errorf("reason %q", Reason(cut.Err))
				}
			}
			if cut.Delay < from || cut.Delay > to {
				t.Errorf("try %d: %v is not from %v to %v", at, cut.Delay, from, to)
			}
			step *= 2
		}
	})
}

func TestASilentStreamIsLeftAfterThreeBookmarksTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{plays(initial()...), plays(progress(3))}}
		began := time.Now()
		events, _ := follow(t, f, "3")
		cut := cuts(events)[0]
		if !errors.Is(cut.Err, ErrSilent) || f.begun[1].Sub(began) != 3*defaultBookmarks+cut.Delay {
			t.Errorf("%v after %v", cut.Err, f.begun[1].Sub(began))
		}
	})
}

func TestAConsumerThatTakesItsTimeIsNoReasonToReconnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		slow := func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
			_ = until(90*time.Second, 2, nil, initial()...)(t, send)
			return plays(progress(3))(t, send)
		}
		rest := time.Minute
		for event, err := range serve(t, &fake{objects: []script[pb.WatchObjectsResponse]{slow}}).Watch(t.Context(), pods) {
			if err != nil || event.Type == Reconnecting {
				t.Fatal(event, err)
			}
			time.Sleep(rest)
			rest = 0
			if string(event.Token) == "3" {
				break
			}
		}
	})
}

func TestAWatchEndsWithItsContextAndLeavesNothingBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{objects: []script[pb.WatchObjectsResponse]{plays(initial()...)}}
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { cancel(why) })
		var last error
		for _, err := range serve(t, f).Watch(ctx, pods) {
			last = err
		}
		if last != why {
			t.Errorf("ended with %v", last)
		}
	})
}

func TestAListIsGivenOnlyWhenItIsComplete(t *testing.T) {
	page := &pb.ListObjectsResponse{Objects: []*pb.Object{{Namespace: "n", Name: "a"}}}
	end := func(count uint64) *pb.ListObjectsResponse {
		return &pb.ListObjectsResponse{Objects: page.Objects, End: &pb.ListEnd{Count: count, Token: []byte("7")}}
	}
	for _, test := range []struct {
		pages    []*pb.ListObjectsResponse
		complete bool
	}{
		{[]*pb.ListObjectsResponse{page, end(2)}, true},
		{[]*pb.ListObjectsResponse{page, page}, false},
		{[]*pb.ListObjectsResponse{page, end(3)}, false},
	} {
		bubble(t, func(t *testing.T) {
			list, err := serve(t, &fake{list: test.pages}).List(t.Context(), &pb.ListObjectsRequest{})
			switch {
			case test.complete && (err != nil || len(list.Objects) != 2 || string(list.Token) != "7"):
				t.Errorf("%v, %v", list, err)
			case !test.complete && !errors.Is(err, ErrIncomplete):
				t.Errorf("%v is no error of an incomplete list", err)
			}
		})
	}
}
