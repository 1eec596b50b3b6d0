package informerd

import (
	"fmt"
	"time"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// Key is what an object or a target is found by.
type Key struct {
	// Of verdicts the kind's full name, "deployments.apps". Empty for objects: a watch is about one kind of them.
	Resource string
	// Empty for what is in no namespace.
	Namespace string
	Name      string
}

func (k Key) String() string {
	text := k.Name
	for _, part := range []string{k.Namespace, k.Resource} {
		if part != "" {
			text = part + "/" + text
		}
	}
	return text
}

// EventType says what an [Event] is.
type EventType int

const (
	// Upsert brings an item as it is now; it may have been there before.
	Upsert EventType = iota + 1
	// Delete says that an item left the scope; see its cause.
	Delete
	// ResetBegin opens a state that replaces what the consumer holds; the initial state too. Until its ResetEnd the
	// old state stands.
	ResetBegin
	// ResetEnd says that this state is complete: what was not in it is gone.
	ResetEnd
	// Marked says that all up to here has been told, and how fresh it is.
	Marked
	// Reconnecting says that the stream was cut and goes on by itself after Delay. A reset that was open is void.
	Reconnecting
)

func (t EventType) String() string {
	names := [...]string{"Upsert", "Delete", "ResetBegin", "ResetEnd", "Marked", "Reconnecting"}
	if t < Upsert || t > Reconnecting {
		return fmt.Sprintf("EventType(%d)", int(t))
	}
	return names[t-1]
}

// Event is one thing that a watch of T tells. To keep a copy of what is watched, give them all to a [Mirror], in order.
type Event[T any] struct {
	Type EventType

	// Of Upsert and Delete: which item, its uid, and the position of the change in the stream.
	Key      Key
	UID      string
	Revision uint64
	// Of Upsert the item; of Delete its identity only.
	Item T
	// Of Delete. One that this client does not know reads as DELETED.
	Cause pb.DeleteCause

	// Of Marked: PROGRESS, BOOKMARK, STATE or END.
	Mark pb.MarkType
	// Of Marked and ResetEnd: where another watch with the same request would resume. Nil where it has not moved.
	Token []byte
	// Of all but Upsert, Delete and Reconnecting: how well the kind is known; of several kinds the one known worst.
	Freshness *pb.Freshness
	// Of ResetBegin and ResetEnd: the namespaces, or for verdicts the kinds, that it covers; empty covers all.
	Covers []string
	// Of ResetBegin, and of Marked with END: one word that says why, and the same for a person.
	Reason, Message string

	// Of Reconnecting: why, and until when.
	Err   error
	Delay time.Duration

	// Of Upsert: the object's resourceVersion. Verdicts have none.
	version string
}
