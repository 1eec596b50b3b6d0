package informerd

import (
	"context"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// Get reads one object. One that does not exist is an error, see [IsNotFound].
func (c *Client) Get(ctx context.Context, request *pb.GetObjectRequest) (*pb.GetObjectResponse, error) {
	reply, err := c.cache.GetObject(ctx, request)
	if err == nil && reply.GetObject() == nil {
		return nil, fmt.Errorf("%w: the reply has no object", ErrIncomplete)
	}
	return reply, err
}

// ObjectList is a complete list.
type ObjectList struct {
	// In the order of their keys.
	Objects []*pb.Object
	// Where a watch with the same scope, view and fields follows on.
	Token []byte
	// How well the kind is known.
	Freshness *pb.Freshness
}

// List reads the objects of a scope, all of one snapshot.
func (c *Client) List(ctx context.Context, request *pb.ListObjectsRequest) (*ObjectList, error) {
	stream, err := c.cache.ListObjects(ctx, request)
	if err != nil {
		return nil, err
	}
	objects, end, err := pages(stream, (*pb.ListObjectsResponse).GetObjects, (*pb.ListObjectsResponse).GetEnd)
	if err != nil {
		return nil, err
	}
	return &ObjectList{Objects: objects, Token: end.GetToken(), Freshness: end.GetFreshness()}, nil
}

// Watch tells of the objects of a scope, from the request's token or from the initial state on. It goes on until ctx
// ends or it fails for good, both of which are its last item, as an error; breaking out of the loop ends it, too. Cuts
// are told (Reconnecting) and mended. So is what was lost: marks are compared with all that was told, by their digests,
// and where that differs the watch begins anew (Reconnecting with [ErrDiffers]).
func (c *Client) Watch(ctx context.Context, request *pb.WatchObjectsRequest) iter.Seq2[Event[*pb.Object], error] {
	counted := hasDigests(request)
	open := func(ctx context.Context, token []byte) (func() (message[*pb.Object], error), error) {
		request := proto.CloneOf(request)
		request.Token = token
		request.Digests = request.Digests || counted
		stream, err := c.cache.WatchObjects(ctx, request)
		if err != nil {
			return nil, err
		}
		return func() (message[*pb.Object], error) {
			response, err := stream.Recv()
			return objectMessage(response), err
		}, nil
	}
	return watch(ctx, options{
		token:     request.GetToken(),
		bookmarks: request.GetBookmarkInterval().AsDuration(),
		counted:   counted,
		whole:     request.GetDelivery() == pb.Delivery_DELIVERY_EVERY || request.GetOnGap() == pb.OnGap_ON_GAP_FAIL,
	}, open)
}

func objectMessage(response *pb.WatchObjectsResponse) (told message[*pb.Object]) {
	for _, event := range response.GetEvents() {
		told.events = append(told.events, Event[*pb.Object]{
			Type:     eventType(event.GetType()),
			Key:      Key{Namespace: event.GetNamespace(), Name: event.GetName()},
			UID:      event.GetUid(),
			Revision: event.GetRevision(),
			Cause:    cause(event.GetType(), event.GetCause()),
			Item: &pb.Object{
				Namespace:       event.GetNamespace(),
				Name:            event.GetName(),
				Uid:             event.GetUid(),
				ResourceVersion: event.GetResourceVersion(),
				Object:          event.GetObject(),
				Stale:           event.GetStale(),
			},
			version: event.GetResourceVersion(),
		})
	}
	if it := response.GetMark(); it != nil {
		told.mark = &mark{
			kind:       it.GetType(),
			token:      it.GetToken(),
			freshness:  it.GetFreshness(),
			covers:     it.GetNamespaces(),
			reason:     it.GetReason(),
			message:    it.GetMessage(),
			retryAfter: it.GetRetryAfter().AsDuration(),
		}
	}
	return told
}

// eventType is 0 for what this client does not know.
func eventType(it pb.EventType) EventType {
	switch it {
	case pb.EventType_EVENT_TYPE_UPSERT:
		return Upsert
	case pb.EventType_EVENT_TYPE_DELETE:
		return Delete
	}
	return 0
}

// cause reads what this client does not know as DELETED.
func cause(event pb.EventType, it pb.DeleteCause) pb.DeleteCause {
	_, known := pb.DeleteCause_name[int32(it)]
	if event == pb.EventType_EVENT_TYPE_DELETE && (it == 0 || !known) {
		return pb.DeleteCause_DELETE_CAUSE_DELETED
	}
	return it
}

// counted is the end of a list.
type counted interface {
	comparable
	GetCount() uint64
}

// pages gathers a list. It is one only with its end, and with as many items as that says.
func pages[P, T any, E counted](stream grpc.ServerStreamingClient[P], items func(*P) []T, end func(*P) E) ([]T, E, error) {
	var all []T
	var none E
	for {
		page, err := stream.Recv()
		if err == io.EOF {
			return nil, none, fmt.Errorf("%w: the list has no end", ErrIncomplete)
		}
		if err != nil {
			return nil, none, err
		}
		all = append(all, items(page)...)
		if it := end(page); it != none {
			if it.GetCount() != uint64(len(all)) {
				return nil, none, fmt.Errorf("%w: the list has %d items and says %d", ErrIncomplete, len(all), it.GetCount())
			}
			// Lets gRPC see the end of the call, and free what it holds.
			if _, err := stream.Recv(); err != nil && err != io.EOF {
				return nil, none, err
			}
			return all, it, nil
		}
	}
}
