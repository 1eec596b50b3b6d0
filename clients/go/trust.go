package informerd

import (
	"errors"
	"fmt"
	"time"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

var (
	errNotYet  = errors.New("informerd has not been heard of yet")
	errPolling = errors.New("informerd is not to be asked")
)

// forever is longer than anybody waits.
const forever = 100 * 365 * 24 * time.Hour

// trust says until when informerd can be relied on: a deadline that good marks move on and bad news draw near.
type trust struct {
	patience, maxAge time.Duration
	until            time.Time
	// err is the bad news; nil where there are none.
	err error
}

func newTrust(patience, maxAge time.Duration) trust {
	return trust{patience, maxAge, time.Now().Add(patience), errNotYet}
}

// doubt leaves informerd the patience, counted from the first bad news on, and not more than it has.
func (t *trust) doubt(err error) {
	if end := time.Now().Add(t.patience); end.Before(t.until) {
		t.until = end
	}
	t.err = err
}

// hear takes in how well the kind is known; complete: and that all of it has been told.
func (t *trust) hear(freshness *pb.Freshness, complete bool) {
	left := t.maxAge - freshness.GetAge().AsDuration()
	if freshness.GetAgeUnproven() {
		left = forever
	}
	switch state := freshness.GetState(); {
	case state != pb.KindState_KIND_STATE_LIVE:
		t.doubt(fmt.Errorf("informerd says %v: %s %s", state, freshness.GetReason(), freshness.GetMessage()))
	case complete && freshness.GetAgeUnproven() && freshness.Age == nil:
		// All of it was told, as it was at some time: nothing has proved yet that it is so still.
	case complete:
		t.until, t.err = time.Now().Add(left), nil
	}
}

// over is why it cannot be relied on any more, or nil while it can.
func (t *trust) over() error {
	switch {
	case time.Now().Before(t.until):
		return nil
	case t.err != nil:
		return t.err
	}
	return fmt.Errorf("informerd has had no proof of being current for more than %v", t.maxAge)
}
