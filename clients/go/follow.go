package informerd

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// Mode says where a [Follower] takes changes from, so that an operator can move in phases.
type Mode int

const (
	// WatchAndPoll is to watch, and to poll for as long as informerd cannot be relied on.
	WatchAndPoll Mode = iota
	// WatchOnly is to watch; while informerd cannot be relied on nothing is told.
	WatchOnly
	// PollOnly is to poll; informerd is not asked.
	PollOnly
)

func (m Mode) String() string {
	return [...]string{"watch-and-poll", "watch", "poll"}[m]
}

// Snapshot is everything that a poll has found.
type Snapshot[T any] struct {
	Items []T
	// The list's own, where it has one: what the watch tells of before it is then old news. Empty where unknown.
	ResourceVersion string
}

// What a [Fallback] has where it is not set.
const (
	DefaultInterval = 10 * time.Second
	DefaultPatience = 5 * time.Second
	DefaultMaxAge   = 150 * time.Second
)

// Fallback says what to do while informerd cannot be relied on, and when that is.
type Fallback[T any] struct {
	// Poll finds everything in scope without informerd. Its context ends when informerd is back.
	Poll func(context.Context) (Snapshot[T], error)
	// From the end of a poll to the next; 10 s where not set.
	Interval time.Duration
	// How long informerd may be out of reach, or not know the kind, before polling begins; 5 s where not set.
	Patience time.Duration
	// How long ago the API server may have last proved to informerd that it is current; 150 s where not set. It sends
	// proof about once a minute where nothing happens, so less than 90 s makes for polls that nobody needs. Kinds that
	// never prove anything ("events") are not held to it.
	MaxAge time.Duration
	// Tell all that a poll finds, not only what differs from what was told before. For those to whom each poll is a
	// reason to look at everything.
	Every bool
}

// Status is where a [Follower] stands.
type Status struct {
	// Whether changes come from the poll.
	Polling bool
	// Why informerd cannot be relied on; nil while it can.
	Err error
	// Why the last poll failed; nil if it did not.
	PollErr error
	// How many polls there were, and how many of them failed.
	Polls, FailedPolls int
	// How often the watch has found that what it was told is not what informerd holds, and begun anew.
	Mismatches int
}

// Follower tells of all changes of what a scope holds: by a watch, and by a poll of the caller's own for as long as
// informerd is out of reach, does not know the kind, or is too far behind. One of the two has the word at a time, and
// whenever it passes from one to the other the new one's state is compared with all that was told: so nothing is lost.
// Nothing goes back in time either where polls have a resource version.
//
// Set the fields before Run.
type Follower[T proto.Message] struct {
	// Where changes come from; WatchAndPoll needs a Fallback with a Poll, and is WatchOnly without.
	Mode     Mode
	Fallback Fallback[T]
	// OnStatus, if not nil, is told of each turn from watch to poll and back, and of each poll.
	OnStatus func(Status)

	watch func(ctx context.Context) iter.Seq2[Event[T], error]
	// key is where an item belongs, and its uid.
	key func(T) (Key, string)
	// same reports whether two items of one uid need not be told apart when states are compared.
	same func(old, new T) bool
	// ordered: the watch's revisions and a poll's resource version can be compared.
	ordered bool

	lock   sync.Mutex
	status Status
	synced chan struct{}
}

// followedBookmarks is shorter than informerd's own interval: a stream that has nothing to tell is known to be well
// again, or to be silent, by its bookmarks.
const followedBookmarks = 3 * time.Second

// FollowObjects prepares to follow the objects of a scope, from its initial state on: the request's token is not used.
func (c *Client) FollowObjects(request *pb.WatchObjectsRequest) *Follower[*pb.Object] {
	request = proto.CloneOf(request)
	request.Token = nil
	request.BookmarkInterval = cmp.Or(request.GetBookmarkInterval(), durationpb.New(followedBookmarks))
	return &Follower[*pb.Object]{
		watch: func(ctx context.Context) iter.Seq2[Event[*pb.Object], error] { return c.Watch(ctx, request) },
		key: func(it *pb.Object) (Key, string) {
			return Key{Namespace: it.GetNamespace(), Name: it.GetName()}, it.GetUid()
		},
		same:    func(old, new *pb.Object) bool { return old.GetResourceVersion() == new.GetResourceVersion() },
		ordered: true,
		synced:  make(chan struct{}),
	}
}

// FollowVerdicts prepares to follow the verdicts of a scope. A poll has to name targets as informerd does, by the full
// name of their kind, and is compared with what was told by state, reason and conditions.
func (c *Client) FollowVerdicts(request *pb.WatchReadinessRequest) *Follower[*pb.Verdict] {
	request = proto.CloneOf(request)
	request.Token = nil
	request.BookmarkInterval = cmp.Or(request.GetBookmarkInterval(), durationpb.New(followedBookmarks))
	return &Follower[*pb.Verdict]{
		watch: func(ctx context.Context) iter.Seq2[Event[*pb.Verdict], error] {
			return c.WatchVerdicts(ctx, request)
		},
		key:    func(it *pb.Verdict) (Key, string) { return KeyOf(it.GetTarget()), it.GetUid() },
		same:   sameVerdict,
		synced: make(chan struct{}),
	}
}

func sameVerdict(old, new *pb.Verdict) bool {
	conditions := func(it *pb.Verdict) map[string]pb.ReadinessState {
		states := map[string]pb.ReadinessState{}
		for _, condition := range it.GetConditions() {
			states[condition.GetName()] = condition.GetState()
		}
		return states
	}
	return old.GetState() == new.GetState() && old.GetReason() == new.GetReason() &&
		maps.Equal(conditions(old), conditions(new))
}

// Status is where it stands; for any goroutine.
func (f *Follower[T]) Status() Status {
	f.lock.Lock()
	defer f.lock.Unlock()
	return f.status
}

// Synced is closed once the first complete state has been told.
func (f *Follower[T]) Synced() <-chan struct{} {
	return f.synced
}

// Run tells of each change, from one goroutine, until ctx ends. It returns why it ended; in mode WatchOnly that may
// also be that the watch has failed for good before anything was complete. It may be called once.
func (f *Follower[T]) Run(ctx context.Context, tell func(Change[T])) error {
	if f.Fallback.Poll == nil && f.Mode == PollOnly {
		return errors.New("mode poll needs a Fallback.Poll")
	}
	if f.Fallback.Poll == nil {
		f.Mode = WatchOnly
	}
	orDefault := func(value *time.Duration, usual time.Duration) {
		if *value <= 0 {
			*value = usual
		}
	}
	orDefault(&f.Fallback.Interval, DefaultInterval)
	orDefault(&f.Fallback.Patience, DefaultPatience)
	orDefault(&f.Fallback.MaxAge, DefaultMaxAge)
	run := following[T]{Follower: f, tell: tell}
	return run.run(ctx)
}

// report changes the status, and tells of it.
func (f *Follower[T]) report(change func(*Status)) {
	f.lock.Lock()
	change(&f.status)
	status := f.status
	f.lock.Unlock()
	if f.OnStatus != nil {
		f.OnStatus(status)
	}
}
