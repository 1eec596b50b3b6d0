// Package follow keeps a map of what a kind holds, as a stranger to the project would write it from the protos
// alone: list once, watch from the list's token, cut the connection now and then, resume from the last token.
package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// Options say what to follow and how long.
type Options struct {
	Scope *pb.Scope
	View  pb.View
	// End at the first mark after this many events; 0 goes on until the context ends.
	Events int
	// Close the connection after each so many events, in the middle of things, once a mark has come since the last
	// time (or nothing would ever get done); 0 never does.
	CutAfter int
	// Told of all that happens, in order.
	Print func(Line)
}

// Line is one thing that happened. Fields that do not apply are absent.
type Line struct {
	// "list", "event", "mark", "cut", "error" or "end".
	What string `json:"what"`
	// Of an event: UPSERT or DELETE. Of a mark: PROGRESS, BOOKMARK, RESET, ...
	Type string `json:"type,omitempty"`
	// namespace/name, or name.
	Key             string `json:"key,omitempty"`
	UID             string `json:"uid,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	// Position of an event; of all else, where the first shard stands.
	Revision uint64 `json:"revision,omitempty"`
	Cause    string `json:"cause,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Message  string `json:"message,omitempty"`
	// At the end: everything that the stream says exists at Revision.
	Objects map[string]Held `json:"objects,omitempty"`
}

// Held is an object as the fold has it.
type Held struct {
	UID             string `json:"uid"`
	ResourceVersion string `json:"resourceVersion"`
}

type follower struct {
	dial    func() (*grpc.ClientConn, error)
	options Options
	objects map[string]Held
	// Events since the last token. They count once a token confirms them: after a cut they come again, and objects is
	// exactly the state at revision.
	pending []*pb.Event
	// What a RESET has brought so far; nil outside of one.
	incoming map[string]Held
	token    []byte
	revision uint64
	events   int
	// Events since the last cut, and whether a token came since.
	uncut  int
	marked bool
}

// errCut ends a connection on purpose.
var errCut = errors.New("cut")

// Run follows until Options.Events, or until the context ends, which then is an error. The last line is the "end".
func Run(ctx context.Context, dial func() (*grpc.ClientConn, error), options Options) error {
	f := &follower{dial: dial, options: options, objects: map[string]Held{}}
	if err := f.retry(ctx, f.list); err != nil {
		return err
	}
	if err := f.retry(ctx, f.watch); err != nil {
		return err
	}
	options.Print(Line{What: "end", Revision: f.revision, Objects: f.objects})
	return nil
}

// retry calls with a new connection each time, until the call ends well or in a way that trying again does not mend.
func (f *follower) retry(ctx context.Context, call func(context.Context, pb.CacheServiceClient) error) error {
	for {
		connection, err := f.dial()
		if err != nil {
			return err
		}
		err = call(ctx, pb.NewCacheServiceClient(connection))
		connection.Close()
		// Half a reset is no state: the token of before it is still good.
		f.incoming, f.pending = nil, nil
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w (after %d events, at revision %d)", context.Cause(ctx), f.events, f.revision)
		case errors.Is(err, errCut):
			f.options.Print(Line{What: "cut", Revision: f.revision})
			continue
		}
		f.options.Print(Line{What: "error", Reason: status.Code(err).String(), Message: err.Error()})
		if code := status.Code(err); code != codes.Unavailable && code != codes.Aborted {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (f *follower) list(ctx context.Context, client pb.CacheServiceClient) error {
	clear(f.objects)
	stream, err := client.ListObjects(ctx, &pb.ListObjectsRequest{Scope: f.options.Scope, View: f.options.View})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("the list has no end: %w", err)
		}
		for _, object := range message.GetObjects() {
			f.objects[key(object)] = Held{object.GetUid(), object.GetResourceVersion()}
		}
		if end := message.GetEnd(); end != nil {
			if int(end.GetCount()) != len(f.objects) {
				return fmt.Errorf("the list says %d objects and has %d", end.GetCount(), len(f.objects))
			}
			f.token, f.revision = end.GetToken(), revision(end.GetFreshness())
			f.options.Print(Line{What: "list", Revision: f.revision})
			return nil
		}
	}
}

func (f *follower) watch(ctx context.Context, client pb.CacheServiceClient) error {
	stream, err := client.WatchObjects(ctx, &pb.WatchObjectsRequest{
		Scope: f.options.Scope,
		View:  f.options.View,
		Token: f.token,
	})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, event := range message.GetEvents() {
			f.take(event)
		}
		if f.options.CutAfter > 0 && f.uncut >= f.options.CutAfter && f.marked {
			f.uncut, f.marked = 0, false
			return errCut
		}
		if mark := message.GetMark(); mark != nil {
			if ended := f.mark(mark); ended != nil {
				return ended
			}
			if f.incoming == nil && f.options.Events > 0 && f.events >= f.options.Events {
				return nil
			}
		}
	}
}

func (f *follower) take(event *pb.Event) {
	f.events++
	f.uncut++
	if f.incoming != nil {
		f.incoming[key(event)] = Held{event.GetUid(), event.GetResourceVersion()}
	} else {
		f.pending = append(f.pending, event)
	}
	line := Line{
		What:            "event",
		Type:            short("EVENT_TYPE_", event.GetType()),
		Key:             key(event),
		UID:             event.GetUid(),
		ResourceVersion: event.GetResourceVersion(),
		Revision:        event.GetRevision(),
	}
	if event.GetCause() != pb.DeleteCause_DELETE_CAUSE_UNSPECIFIED {
		line.Cause = short("DELETE_CAUSE_", event.GetCause())
	}
	f.options.Print(line)
}

// confirm makes the pending events count.
func (f *follower) confirm() error {
	for _, event := range f.pending {
		key := key(event)
		held, exists := f.objects[key]
		switch {
		case event.GetType() == pb.EventType_EVENT_TYPE_UPSERT && (!exists || held.UID == event.GetUid()):
			f.objects[key] = Held{event.GetUid(), event.GetResourceVersion()}
		case event.GetType() == pb.EventType_EVENT_TYPE_DELETE && held.UID == event.GetUid():
			delete(f.objects, key)
		default:
			return fmt.Errorf("the stream breaks its promise: %v while %s has uid %q", event, key, held.UID)
		}
	}
	f.pending = nil
	return nil
}

func (f *follower) mark(mark *pb.Mark) error {
	f.options.Print(Line{
		What:     "mark",
		Type:     short("MARK_TYPE_", mark.GetType()),
		Revision: revision(mark.GetFreshness()),
		Reason:   mark.GetReason(),
		Message:  mark.GetMessage(),
	})
	switch mark.GetType() {
	case pb.MarkType_MARK_TYPE_RESET:
		f.incoming = map[string]Held{}
		return nil
	case pb.MarkType_MARK_TYPE_RESET_END:
		f.objects, f.incoming = f.incoming, nil
	}
	if len(mark.GetToken()) > 0 && f.incoming == nil {
		if err := f.confirm(); err != nil {
			return err
		}
		f.token, f.revision, f.marked = mark.GetToken(), revision(mark.GetFreshness()), true
	}
	if mark.GetType() == pb.MarkType_MARK_TYPE_END {
		return status.Error(codes.Unavailable, mark.GetReason())
	}
	return nil
}

func revision(freshness *pb.Freshness) uint64 {
	if positions := freshness.GetPositions(); len(positions) > 0 {
		return positions[0].GetRevision()
	}
	return 0
}

func key(named interface {
	GetNamespace() string
	GetName() string
}) string {
	if named.GetNamespace() == "" {
		return named.GetName()
	}
	return named.GetNamespace() + "/" + named.GetName()
}

func short(prefix string, value fmt.Stringer) string {
	return value.String()[len(prefix):]
}
