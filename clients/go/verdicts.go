package informerd

import (
	"context"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// Verdict tells whether a target is ready, and why not. A target that does not exist is GONE.
func (c *Client) Verdict(ctx context.Context, target *pb.Target) (*pb.GetReadinessResponse, error) {
	reply, err := c.readiness.GetReadiness(ctx, &pb.GetReadinessRequest{Target: target})
	if err == nil && reply.GetVerdict() == nil {
		return nil, fmt.Errorf("%w: the reply has no verdict", ErrIncomplete)
	}
	return reply, err
}

// VerdictList is a complete list.
type VerdictList struct {
	// Kind by kind, in the order of their keys.
	Verdicts []*pb.Verdict
	// Where a watch with the same scope follows on.
	Token []byte
	// How well each kind is known.
	Kinds []*pb.JudgedKind
}

// Verdicts reads the verdicts of a scope.
func (c *Client) Verdicts(ctx context.Context, scope *pb.ReadinessScope) (*VerdictList, error) {
	stream, err := c.readiness.ListReadiness(ctx, &pb.ListReadinessRequest{Scope: scope})
	if err != nil {
		return nil, err
	}
	verdicts, end, err := pages(stream, (*pb.ListReadinessResponse).GetVerdicts, (*pb.ListReadinessResponse).GetEnd)
	if err != nil {
		return nil, err
	}
	return &VerdictList{Verdicts: verdicts, Token: end.GetToken(), Kinds: end.GetKinds()}, nil
}

// WatchVerdicts tells of the verdicts of a scope, as [Client.Watch] does of objects. Revisions and tokens of verdicts
// are local to one informerd; at another one a token leads to a reset.
func (c *Client) WatchVerdicts(ctx context.Context, request *pb.WatchReadinessRequest) iter.Seq2[Event[*pb.Verdict], error] {
	open := func(ctx context.Context, token []byte) (func() (message[*pb.Verdict], error), error) {
		request := proto.CloneOf(request)
		request.Token = token
		stream, err := c.readiness.WatchReadiness(ctx, request)
		if err != nil {
			return nil, err
		}
		return func() (message[*pb.Verdict], error) {
			response, err := stream.Recv()
			return verdictMessage(response), err
		}, nil
	}
	return watch(ctx, options{
		token:     request.GetToken(),
		bookmarks: request.GetBookmarkInterval().AsDuration(),
	}, open)
}

func verdictMessage(response *pb.WatchReadinessResponse) (told message[*pb.Verdict]) {
	for _, event := range response.GetEvents() {
		verdict := event.GetVerdict()
		told.events = append(told.events, Event[*pb.Verdict]{
			Type:     eventType(event.GetType()),
			Key:      KeyOf(verdict.GetTarget()),
			UID:      verdict.GetUid(),
			Revision: event.GetRevision(),
			Cause:    cause(event.GetType(), event.GetCause()),
			Item:     verdict,
		})
	}
	if it := response.GetMark(); it != nil {
		told.mark = &mark{
			kind:       it.GetType(),
			token:      it.GetToken(),
			freshness:  worst(it.GetKinds()),
			covers:     it.GetResources(),
			reason:     it.GetReason(),
			message:    it.GetMessage(),
			retryAfter: it.GetRetryAfter().AsDuration(),
		}
	}
	return told
}

// worst is how well the kind is known that is known worst: one that is not live before one that is, then the oldest.
func worst(kinds []*pb.JudgedKind) *pb.Freshness {
	var worst *pb.Freshness
	badness := func(it *pb.Freshness) (bool, time.Duration) {
		return it.GetState() != pb.KindState_KIND_STATE_LIVE, it.GetAge().AsDuration()
	}
	for _, kind := range kinds {
		dead, age := badness(kind.GetFreshness())
		worstDead, worstAge := badness(worst)
		if worst == nil || dead && !worstDead || dead == worstDead && age > worstAge {
			worst = kind.GetFreshness()
		}
	}
	return worst
}

// KeyOf is the key of a target.
func KeyOf(target *pb.Target) Key {
	return Key{Resource: target.GetResource(), Namespace: target.GetNamespace(), Name: target.GetName()}
}
