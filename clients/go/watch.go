package informerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

const (
	// defaultBookmarks is informerd's own interval, where the request does not set one.
	defaultBookmarks = 10 * time.Second
	// healthy: a stream that still delivers after this long was worth opening; the next failure is a first one.
	healthy = 10 * time.Second
	// renewal is how long credentials that have ended may take to be replaced.
	renewal = time.Minute
	// closing is how long to wait for the status after the last message.
	closing = 5 * time.Second
)

// message is what a stream brings, objects or verdicts: events, a mark, or both.
type message[T any] struct {
	events []Event[T]
	mark   *mark
}

type mark struct {
	kind            pb.MarkType
	token           []byte
	freshness       *pb.Freshness
	covers          []string
	reason, message string
	retryAfter      time.Duration
}

// opener begins a call from a token on; what it returns receives the call's messages.
type opener[T any] func(ctx context.Context, token []byte) (receive func() (message[T], error), err error)

// options say where a watch begins, and what it looks after.
type options struct {
	token []byte
	// bookmarks is informerd's interval of them; 0 where it is not set.
	bookmarks time.Duration
	// counted: marks have digests, and what is told is held against them.
	counted bool
	// whole: nothing must be left out, as it is where the watch begins anew.
	whole bool
}

// watcher makes one lasting stream out of calls that may be cut.
//
// Events outside of a reset are told once the mark comes that they count with, which follows directly behind them:
// after a cut an object that was created and deleted meanwhile is never spoken of again, so what came after the last
// token must not have been told. It runs in the consumer's own goroutine: nothing is received that was not asked for.
type watcher[T any] struct {
	open opener[T]
	// patience is how long to wait for a message.
	patience time.Duration
	token    []byte
	retries  retries
	// renewedBy is until when nobody need be let in, since the credentials have ended and new ones are to come.
	renewedBy time.Time
	// resets that have begun and not ended, by what they cover.
	resets    [][]string
	unsettled []Event[T]
	// ledger counts what was told; nil where nothing compares it.
	ledger *ledger
	// mismatches is how often that was not what informerd holds.
	mismatches int
	whole      bool
	yield      func(Event[T], error) bool
}

// errStopped: the consumer wants no more.
var errStopped = errors.New("stopped")

// watch gives events until the consumer stops, ctx ends or a call fails for good; the last two are its last item.
func watch[T any](ctx context.Context, how options, open opener[T]) iter.Seq2[Event[T], error] {
	if how.bookmarks <= 0 {
		how.bookmarks = defaultBookmarks
	}
	return func(yield func(Event[T], error) bool) {
		w := watcher[T]{open: open, patience: 3 * how.bookmarks, token: how.token, whole: how.whole, yield: yield}
		if how.counted {
			w.ledger = newLedger()
		}
		for {
			err := w.once(ctx)
			w.resets, w.unsettled = nil, nil
			if w.ledger != nil {
				w.ledger.cut()
			}
			switch {
			case err == errStopped:
				return
			case ctx.Err() != nil:
				yield(Event[T]{}, context.Cause(ctx))
				return
			case Reason(err) == reasonExpired:
				w.renewedBy = time.Now().Add(renewal)
			case code(err) == codes.Unauthenticated && time.Now().Before(w.renewedBy):
			case IsPermanent(err), w.whole && errors.Is(err, ErrDiffers):
				yield(Event[T]{}, err)
				return
			}
			delay := w.retries.next(RetryDelay(err))
			if !yield(Event[T]{Type: Reconnecting, Err: err, Delay: delay}, nil) {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
		}
	}
}

// once serves one call to its end, which is always an error.
func (w *watcher[T]) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Runs only while something is waited for: a consumer that takes its time is not a server that is silent.
	silent := time.AfterFunc(w.patience, func() { cancel(fmt.Errorf("%w for %v", ErrSilent, w.patience)) })
	defer silent.Stop()
	why := func(err error) error {
		if cause := context.Cause(ctx); cause != nil && errors.Is(cause, ErrSilent) {
			return cause
		}
		return err
	}

	receive, err := w.open(ctx, w.token)
	if err != nil {
		return why(err)
	}
	opened := time.Now()
	var ended *EndedError
	for {
		message, err := receive()
		silent.Stop()
		switch {
		case ended != nil && (err == nil || !IsPermanent(err)):
			if ended.RetryAfter == 0 {
				ended.RetryAfter = RetryDelay(err)
			}
			return ended
		case err == io.EOF:
			return fmt.Errorf("%w: the watch was closed without a word", ErrIncomplete)
		case err != nil:
			return why(err)
		}
		if time.Since(opened) >= healthy {
			w.retries.reset()
		}
		patience := w.patience
		if ended, err = w.take(message); err != nil {
			return err
		}
		if ended != nil {
			patience = closing
		}
		silent.Reset(patience)
	}
}

// take tells what a message says. An EndedError comes back with the mark that ends the stream.
func (w *watcher[T]) take(message message[T]) (*EndedError, error) {
	for _, event := range message.events {
		if event.Type == 0 {
			return nil, fmt.Errorf("%w: an event without a type", ErrContract)
		}
		if len(w.resets) == 0 {
			w.unsettled = append(w.unsettled, event)
		} else if !w.tell(event) {
			return nil, errStopped
		}
	}
	mark := message.mark
	if mark == nil {
		return nil, nil
	}
	told := Event[T]{
		Type:      Marked,
		Mark:      mark.kind,
		Freshness: mark.freshness,
		Covers:    mark.covers,
		Reason:    mark.reason,
		Message:   mark.message,
	}
	at := slices.IndexFunc(w.resets, func(open []string) bool { return slices.Equal(open, mark.covers) })
	switch mark.kind {
	case pb.MarkType_MARK_TYPE_RESET:
		told.Type = ResetBegin
		// What other parts were told goes on to wait for its token.
		begun := reset[T]{covers: mark.covers}
		w.unsettled = slices.DeleteFunc(w.unsettled, func(it Event[T]) bool { return begun.covered(it.Key) })
		if at < 0 {
			w.resets = append(w.resets, mark.covers)
		}
	case pb.MarkType_MARK_TYPE_RESET_END:
		told.Type = ResetEnd
		if at < 0 {
			return nil, fmt.Errorf("%w: RESET_END without a RESET", ErrContract)
		}
		w.resets = slices.Delete(w.resets, at, at+1)
	}
	// Within a reset the old token stays valid, and only that.
	if len(mark.token) > 0 && len(w.resets) == 0 {
		w.token, told.Token = mark.token, mark.token
		settled := w.unsettled
		w.unsettled = nil
		for _, event := range settled {
			if !w.tell(event) {
				return nil, errStopped
			}
		}
	}
	if err := w.compare(told); err != nil {
		return nil, err
	}
	if !w.yield(told, nil) {
		return nil, errStopped
	}
	if mark.kind == pb.MarkType_MARK_TYPE_END {
		return &EndedError{Reason: mark.reason, Message: mark.message, RetryAfter: mark.retryAfter}, nil
	}
	return nil, nil
}

// tell tells of an item, and counts it.
func (w *watcher[T]) tell(event Event[T]) bool {
	if w.ledger != nil {
		switch event.Type {
		case Upsert:
			w.ledger.upsert(event.Key, event.UID, event.version)
		case Delete:
			w.ledger.delete(event.Key, event.UID)
		}
	}
	return w.yield(event, nil)
}

// compare holds all that was told until a mark against the digests that the mark has. Where the watch is to begin anew
// for that, it is an error.
func (w *watcher[T]) compare(mark Event[T]) error {
	if w.ledger == nil {
		return nil
	}
	switch mark.Type {
	case ResetBegin:
		w.ledger.begin(mark.Covers)
	case ResetEnd:
		w.ledger.end(mark.Covers)
	}
	differs, anew := w.ledger.differs(mark.Freshness)
	if differs {
		w.mismatches++
	}
	if !anew {
		return nil
	}
	w.ledger.forget()
	w.token = nil
	return fmt.Errorf("%w, for the %d. time", ErrDiffers, w.mismatches)
}
