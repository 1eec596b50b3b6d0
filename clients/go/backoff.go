package informerd

import (
	"math/rand/v2"
	"time"
)

const (
	firstDelay   = 100 * time.Millisecond
	longestDelay = 5 * time.Second
	// More than this is not waited, whatever the server asks for.
	longestAsked = 10 * time.Minute
)

// retries says how long to wait before the next try: doubling, jittered so that the consumers of a restarted server do
// not come back all at once, and never less than the server asks for.
type retries struct {
	step time.Duration
}

// next is between half the step and the step, and at least asked, plus up to a tenth of that.
func (r *retries) next(asked time.Duration) time.Duration {
	r.step = min(max(2*r.step, firstDelay), longestDelay)
	own := jitter(r.step/2, 1)
	return max(own, jitter(min(asked, longestAsked), 0.1))
}

// reset begins anew, after things went well.
func (r *retries) reset() {
	r.step = 0
}

func jitter(at time.Duration, share float64) time.Duration {
	return at + time.Duration(rand.Float64()*share*float64(at))
}
