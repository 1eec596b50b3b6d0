package informerd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

const (
	// defaultWait is informerd's own, where the request has no timeout.
	defaultWait = time.Minute
	// answering is how long after the timeout informerd may take to say what is missing.
	answering = 5 * time.Second
)

// WaitError says that what was waited for did not come about.
type WaitError struct {
	// The last message: the outcome, what is missing and why, and the verdicts of all targets.
	Answer *pb.WaitReadinessResponse
}

// Impossible reports whether it will never come about: the uid asked for is no more.
func (e *WaitError) Impossible() bool {
	return e.Answer.GetOutcome() == pb.WaitOutcome_WAIT_OUTCOME_IMPOSSIBLE
}

func (e *WaitError) Error() string {
	var missing []string
	for _, it := range e.Answer.GetMissing() {
		missing = append(missing, fmt.Sprintf("%s (%s: %s)", KeyOf(it.GetTarget()), it.GetReason(), it.GetMessage()))
	}
	what := "timed out waiting for "
	if e.Impossible() {
		what = "there will never be "
	}
	return what + strings.Join(missing, ", ")
}

// WaitReadiness waits until all targets are as asked for, and returns their verdicts. A wait that is made right after a
// write is never satisfied by what was before it; where a target has the version that the write returned, or its uid and
// generation (operator.AsOf), informerd need not ask the API server for that. Where they are not in time (the request's
// timeout, 1 min where it has none) the error is a *[WaitError], which says what is missing. Progress, if not nil, is
// told each message.
//
// A wait that is cut begins anew with what is left of its time: what it then rests on is newer still.
func (c *Client) WaitReadiness(
	ctx context.Context, request *pb.WaitReadinessRequest, progress func(*pb.WaitReadinessResponse),
) ([]*pb.Verdict, error) {
	timeout := defaultWait
	if request.GetTimeout() != nil {
		timeout = request.GetTimeout().AsDuration()
	}
	deadline := time.Now().Add(timeout)
	request = proto.CloneOf(request)
	var retries retries
	for {
		request.Timeout = durationpb.New(max(time.Until(deadline), time.Millisecond))
		answer, err := c.waitOnce(ctx, request, progress)
		switch {
		case answer.GetOutcome() == pb.WaitOutcome_WAIT_OUTCOME_SATISFIED:
			return answer.GetVerdicts(), nil
		case answer.GetOutcome() != pb.WaitOutcome_WAIT_OUTCOME_UNSPECIFIED:
			return nil, &WaitError{Answer: answer}
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		delay := retries.next(RetryDelay(err))
		if IsPermanent(err) || time.Until(deadline) <= delay {
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}

// waitOnce makes one call, and returns its last message. That has an outcome, or there is an error.
func (c *Client) waitOnce(
	ctx context.Context, request *pb.WaitReadinessRequest, progress func(*pb.WaitReadinessResponse),
) (*pb.WaitReadinessResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, request.GetTimeout().AsDuration()+answering)
	defer cancel()
	stream, err := c.readiness.WaitReadiness(ctx, request)
	if err != nil {
		return nil, err
	}
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			return nil, fmt.Errorf("%w: the wait has no outcome", ErrIncomplete)
		}
		if err != nil {
			return nil, err
		}
		if progress != nil {
			progress(answer)
		}
		if answer.GetOutcome() != pb.WaitOutcome_WAIT_OUTCOME_UNSPECIFIED {
			return answer, nil
		}
	}
}
