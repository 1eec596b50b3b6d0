package informerd

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

const (
	// tryAgain is how long to wait after a watch has failed for good, as it will until somebody changes informerd's
	// configuration.
	tryAgain = 30 * time.Second
	// pollTimeout is how long one poll may take.
	pollTimeout = time.Minute
)

// following is one run of a [Follower]: a loop that owns all state, a goroutine that receives the watch, and one that
// polls while that has the word.
type following[T proto.Message] struct {
	*Follower[T]
	tell    func(Change[T])
	running sync.WaitGroup

	// mirror is what the watch has told, told is what the caller was; nil where that is the same. It differs while the
	// poll has the word, and then until the watch has passed the version that the last poll has seen.
	mirror Mirror[T]
	told   map[Key]held[T]
	// seen is that version; 0 where the poll had none. It is not waited for beyond a time, which is only needed where
	// the API server's history has gone back.
	seen   uint64
	seenBy time.Time
	// freshness is the last that came with a token.
	freshness *pb.Freshness
	trust     trust
	// distrusted: informerd cannot be relied on.
	distrusted bool
	// polls has what polling finds, and stop ends it; nil while the watch has the word.
	polls chan polled[T]
	stop  context.CancelFunc
}

type polled[T any] struct {
	snapshot Snapshot[T]
	err      error
}

func (f *following[T]) run(ctx context.Context) error {
	defer f.running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, failures := make(chan Event[T]), make(chan error)
	f.trust = newTrust(f.Fallback.Patience, f.Fallback.MaxAge)
	if f.Mode == PollOnly {
		f.trust.until, f.trust.err = time.Now(), errPolling
	} else {
		f.running.Go(func() { f.receive(ctx, events, failures) })
	}
	deadline := time.NewTimer(0)
	defer deadline.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case event := <-events:
			f.take(event)
		case err := <-failures:
			if f.Mode == WatchOnly && !f.isSynced() {
				return err
			}
			f.trust.doubt(err)
		case polled := <-f.polls:
			f.compare(polled)
		case <-deadline.C:
		}
		switch err := f.trust.over(); {
		case err != nil && !f.distrusted:
			f.fallBack(ctx, err)
		case err == nil && f.distrusted:
			f.comeBack()
		}
		if f.distrusted {
			deadline.Stop()
		} else {
			deadline.Reset(time.Until(f.trust.until))
		}
	}
}

// receive hands the watch's events over. After a failure for good it begins anew, without a token: that may be what is
// wrong.
func (f *following[T]) receive(ctx context.Context, events chan<- Event[T], failures chan<- error) {
	for ctx.Err() == nil {
		for event, err := range f.watch(ctx) {
			if err != nil {
				select {
				case failures <- err:
				case <-ctx.Done():
				}
				break
			}
			select {
			case events <- event:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-time.After(tryAgain):
		case <-ctx.Done():
		}
	}
}

// poll polls until ctx ends.
func (f *following[T]) poll(ctx context.Context, polls chan<- polled[T]) {
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, pollTimeout)
		snapshot, err := f.Fallback.Poll(one)
		cancel()
		select {
		case polls <- polled[T]{snapshot, err}:
		case <-ctx.Done():
		}
		select {
		case <-time.After(f.Fallback.Interval):
		case <-ctx.Done():
		}
	}
}

// fallBack gives the word to the poll, if there is one.
func (f *following[T]) fallBack(ctx context.Context, why error) {
	f.distrusted = true
	if f.Mode != WatchOnly {
		if f.told == nil {
			f.told = maps.Clone(f.mirror.items)
		}
		if f.told == nil {
			f.told = map[Key]held[T]{}
		}
		ctx, f.stop = context.WithCancel(ctx)
		// A channel of its own: what an earlier goroutine still finds is not for now.
		polls := make(chan polled[T])
		f.polls = polls
		f.running.Go(func() { f.poll(ctx, polls) })
	}
	f.report(func(status *Status) { status.Polling, status.Err = f.stop != nil, why })
}

// comeBack gives it back to the watch.
func (f *following[T]) comeBack() {
	f.distrusted = false
	if f.stop != nil {
		f.stop()
		f.stop, f.polls = nil, nil
		f.seenBy = time.Now().Add(f.Fallback.MaxAge)
		f.settle()
	}
	f.report(func(status *Status) { status.Polling, status.Err = false, nil })
}

// take takes in what the watch says.
func (f *following[T]) take(event Event[T]) {
	changes := f.mirror.Apply(event)
	marks := false
	switch event.Type {
	case Reconnecting:
		f.trust.doubt(event.Err)
		if errors.Is(event.Err, ErrDiffers) {
			f.report(func(status *Status) { status.Mismatches++ })
		}
	case ResetBegin:
		if event.Reason == "HISTORY_VOID" {
			f.seen = 0
		}
		f.trust.hear(event.Freshness, false)
	case ResetEnd, Marked:
		marks = len(event.Token) > 0
		if marks {
			f.freshness = event.Freshness
		}
		f.trust.hear(event.Freshness, marks)
	}
	switch {
	case f.stop != nil:
	case f.told == nil:
		for _, change := range changes {
			f.tell(change)
		}
		if f.mirror.Complete() {
			f.sync()
		}
	case marks:
		f.settle()
	case event.Revision > f.seen:
		f.change(event.Key, event.Cause)
	}
}

// compare takes in what a poll has found.
func (f *following[T]) compare(polled polled[T]) {
	f.report(func(status *Status) {
		status.Polls++
		if status.PollErr = polled.err; polled.err != nil {
			status.FailedPolls++
		}
	})
	if polled.err != nil {
		return
	}
	initial := !f.isSynced()
	found := make(map[Key]held[T], len(polled.snapshot.Items))
	for _, item := range polled.snapshot.Items {
		key, uid := f.key(item)
		found[key] = held[T]{uid, item}
	}
	for key, old := range f.told {
		if _, still := found[key]; !still {
			f.tellAll(between(key, &old, nil, false))
		}
	}
	for key, now := range found {
		old, exists := f.told[key]
		switch {
		case !exists:
			f.tellAll(between(key, nil, &now, initial))
		case f.Fallback.Every || old.uid != now.uid || !f.same(old.item, now.item):
			f.tellAll(between(key, &old, &now, false))
		}
	}
	f.told, f.seen = found, 0
	if f.ordered {
		// Not a number: it has no order.
		f.seen, _ = strconv.ParseUint(polled.snapshot.ResourceVersion, 10, 64)
	}
	f.sync()
}

// settle tells where the watch differs from what was told, as far as it has passed what the last poll has seen.
func (f *following[T]) settle() {
	passed, all := f.passed()
	for key := range f.told {
		if passed(key) {
			f.change(key, pb.DeleteCause_DELETE_CAUSE_VANISHED)
		}
	}
	for key := range f.mirror.items {
		if _, told := f.told[key]; !told && passed(key) {
			f.change(key, pb.DeleteCause_DELETE_CAUSE_VANISHED)
		}
	}
	if all {
		f.told = nil
	}
}

// passed tells which keys the watch knows at least as well as the last poll, and whether it does all.
func (f *following[T]) passed() (passed func(Key) bool, all bool) {
	all = true
	behind := map[string]bool{}
	for _, shard := range f.freshness.GetPositions() {
		if shard.GetRevision() < f.seen {
			behind[shard.GetNamespace()] = true
			all = false
		}
	}
	if f.freshness.GetUnordered() || time.Now().After(f.seenBy) {
		behind, all = nil, true
	}
	return func(key Key) bool { return !behind[""] && !behind[key.Namespace] }, all
}

// change tells where the watch differs from what was told of a key; the cause is why it is gone, if it is.
func (f *following[T]) change(key Key, cause pb.DeleteCause) {
	old, told := f.told[key]
	now, exists := f.mirror.items[key]
	switch {
	case told && exists && old.uid == now.uid && f.same(old.item, now.item):
		return
	case told && exists:
		f.tellAll(between(key, &old, &now, false))
	case told:
		f.tell(Change[T]{Type: Deleted, Key: key, Old: old.item, Cause: cause})
	case exists:
		f.tellAll(between(key, nil, &now, false))
	}
	if exists {
		f.told[key] = now
	} else {
		delete(f.told, key)
	}
}

func (f *following[T]) tellAll(changes []Change[T]) {
	for _, change := range changes {
		f.tell(change)
	}
}

func (f *following[T]) isSynced() bool {
	select {
	case <-f.synced:
		return true
	default:
		return false
	}
}

func (f *following[T]) sync() {
	if !f.isSynced() {
		close(f.synced)
	}
}
