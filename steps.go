package cairn

import (
	"context"

	"zombiezen.com/go/sqlite"
)

// segmentsInFlight of one long change may wait for the writer, each in its own
// buffer.
const segmentsInFlight = 6

// steps are the lazy requests by which one goroutine makes a long change, while
// it prepares the next ones.
type steps struct {
	s       *Store
	ctx     context.Context
	pending []*request
	// lost is why a step that had succeeded was undone. The writer owns it: a
	// request that must know reads it when it is run.
	lost error
}

// enqueue hands a step to the writer, which owns buf until the step is settled.
// after, if not nil, is called on the writer's goroutine when it is committed.
func (st *steps) enqueue(cost int64, bulk bool, run func(conn *sqlite.Conn) error, after func(), buf *[segmentSize]byte) error {
	for len(st.pending) >= segmentsInFlight {
		if err := st.settle(); err != nil {
			return err
		}
	}
	req := &request{
		ctx:   st.ctx,
		run:   run,
		after: after,
		cost:  cost + requestOverhead,
		lazy:  true,
		bulk:  bulk,
		done:  make(chan struct{}),
		lost:  func(err error) { st.lost = err },
		buf:   buf,
	}
	if err := st.s.writer.enqueue(req); err != nil {
		return err
	}
	st.pending = append(st.pending, req)
	return nil
}

// settle waits for the oldest step.
func (st *steps) settle() error {
	req := st.pending[0]
	st.pending = st.pending[1:]
	err := req.wait()
	if req.buf != nil {
		segments.Put(req.buf)
	}
	return err
}

// settleAll waits for all steps and returns the first error.
func (st *steps) settleAll() (err error) {
	for len(st.pending) > 0 {
		if stepErr := st.settle(); err == nil {
			err = stepErr
		}
	}
	return err
}
