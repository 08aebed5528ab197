package cairn

import (
	"context"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
)

// A request is one caller's change. It is done wholly or not at all, and its
// failure hurts no neighbour.
type request struct {
	ctx context.Context
	// run makes the change. It may be called again, from the start, when the
	// transaction it ran in had to be rolled back for another's sake. The
	// writer's goroutine calls it.
	run func(conn *sqlite.Conn) error
	// after, if not nil, is called on the writer's goroutine when the change is
	// committed, which may be before it is durable. It must not block.
	after func()
	cost  int64 // bytes it holds while it waits
	// lazy requests are answered when committed, before the commit is
	// durable, or in bulk mode (see bulk.go) when run: the steps of a change
	// whose last step is not lazy.
	lazy bool
	bulk bool // lazy, and one of a long row of them
	// lost is called, on the writer's goroutine, when a request that was
	// answered already has been rolled back.
	lost func(error)
	buf  *[segmentSize]byte // given back by the waiter, if not nil

	claimed atomic.Bool // by the writer, to run it, or by its cancelled waiter
	started bool        // claimed by the writer, which owns this
	retried bool        // after a look at what is protected; the writer owns this

	done chan struct{} // closed by answer, which sets err before
	err  error
	// ended, if not nil, is called before the outcome is told, whether the
	// request was run or not.
	ended func()
}

// answer tells the outcome, once.
func (req *request) answer(err error) {
	if req.ended != nil {
		req.ended()
	}
	req.err = err
	close(req.done)
}

// wait returns the outcome of a queued request.
func (req *request) wait() error {
	select {
	case <-req.done:
	case <-req.ctx.Done():
		if req.claimed.CompareAndSwap(false, true) {
			return context.Cause(req.ctx)
		}
		<-req.done
	}
	return req.err
}

// claim reports whether the writer may run the request: it may, unless the
// waiter has withdrawn it, and then always again.
func (req *request) claim() bool {
	if !req.started {
		req.started = req.claimed.CompareAndSwap(false, true)
	}
	return req.started
}

// answer tells requests the same outcome.
func answer(reqs []*request, err error) {
	for _, req := range reqs {
		req.answer(err)
	}
}
