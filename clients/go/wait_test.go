package informerd

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

var deployment = &pb.Target{Resource: "deployments.apps", Namespace: "n", Name: "web"}

func waitFor(timeout time.Duration) *pb.WaitReadinessRequest {
	return &pb.WaitReadinessRequest{
		Targets: []*pb.WaitTarget{{Target: deployment}}, Timeout: durationpb.New(timeout),
	}
}

func answer(outcome pb.WaitOutcome) *pb.WaitReadinessResponse {
	answer := &pb.WaitReadinessResponse{Outcome: outcome, Verdicts: []*pb.Verdict{{Target: deployment}}}
	if outcome != pb.WaitOutcome_WAIT_OUTCOME_SATISFIED {
		answer.Missing = []*pb.MissingTarget{{Target: deployment, Reason: "LessUpdated", Message: "1 of 3"}}
	}
	return answer
}

type waiting = func(*pb.WaitReadinessRequest, func(*pb.WaitReadinessResponse)) error

// says answers, after this long each.
func says(pause time.Duration, end error, answers ...pb.WaitOutcome) waiting {
	return func(_ *pb.WaitReadinessRequest, send func(*pb.WaitReadinessResponse)) error {
		for _, outcome := range answers {
			time.Sleep(pause)
			send(answer(outcome))
		}
		return end
	}
}

func TestAWaitTellsOfProgressAndReturnsTheVerdicts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{wait: []waiting{says(time.Second, nil, 0, 0, pb.WaitOutcome_WAIT_OUTCOME_SATISFIED)}}
		heard := 0
		verdicts, err := serve(t, f).WaitReadiness(t.Context(), waitFor(time.Minute), func(*pb.WaitReadinessResponse) { heard++ })
		if err != nil || len(verdicts) != 1 || heard != 3 {
			t.Errorf("%v, %v after %d messages", verdicts, err, heard)
		}
	})
}

func TestAWaitThatIsNotInTimeSaysWhatIsMissing(t *testing.T) {
	for outcome, words := range map[pb.WaitOutcome]string{
		pb.WaitOutcome_WAIT_OUTCOME_TIMED_OUT:  "timed out waiting for deployments.apps/n/web (LessUpdated: 1 of 3)",
		pb.WaitOutcome_WAIT_OUTCOME_IMPOSSIBLE: "there will never be deployments.apps/n/web (LessUpdated: 1 of 3)",
	} {
		bubble(t, func(t *testing.T) {
			_, err := serve(t, &fake{wait: []waiting{says(0, nil, outcome)}}).WaitReadiness(t.Context(), waitFor(time.Minute), nil)
			var missing *WaitError
			if !errors.As(err, &missing) || err.Error() != words || len(missing.Answer.GetMissing()) != 1 {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAWaitThatIsCutGoesOnWithWhatIsLeftOfItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var left time.Duration
		f := &fake{wait: []waiting{
			says(20*time.Second, errCut, 0),
			says(0, nil, 0),
			func(request *pb.WaitReadinessRequest, send func(*pb.WaitReadinessResponse)) error {
				left = request.GetTimeout().AsDuration()
				send(answer(pb.WaitOutcome_WAIT_OUTCOME_SATISFIED))
				return nil
			},
		}}
		if _, err := serve(t, f).WaitReadiness(t.Context(), waitFor(time.Minute), nil); err != nil {
			t.Error(err)
		}
		if left > 40*time.Second || left < 39*time.Second {
			t.Errorf("the last call had %v", left)
		}
	})
}

func TestAWaitIsGivenUpWhereItCannotEndWell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{wait: []waiting{says(0, status.Error(codes.NotFound, "nobody judges cats"))}}
		if _, err := serve(t, f).WaitReadiness(t.Context(), waitFor(time.Minute), nil); code(err) != codes.NotFound {
			t.Errorf("%v", err)
		}
	})
	bubble(t, func(t *testing.T) {
		f := &fake{}
		client := serve(t, f)
		f.cut(true)
		began := time.Now()
		_, err := client.WaitReadiness(t.Context(), waitFor(time.Minute), nil)
		if code(err) != codes.Unavailable || time.Since(began) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		f := &fake{wait: []waiting{says(10*time.Second, nil, 0)}}
		if _, err := serve(t, f).WaitReadiness(ctx, waitFor(time.Minute), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}
