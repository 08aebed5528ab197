package blobhttp

import (
	"errors"
	"io"
	"sync"
)

// pieceSize is the most that is read from the store and written to the
// connection at once.
const pieceSize = 512 << 10

// pieces are buffers of pieceSize, with one owner each at a time.
var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// A piece is the first n bytes of a buffer, which goes with it.
type piece struct {
	buf *[pieceSize]byte
	n   int
}

// A pipeline hands pieces from the goroutine that reads and verifies them to
// the one that sends them: both take time of the same order.
type pipeline struct {
	next chan piece    // closed by the producer
	done chan struct{} // closed when no more is wanted
}

var errUnwanted = errors.New("no more is wanted")

// pump runs produce in a goroutine of its own, which ends before pump returns,
// and writes what it sends to dst. The error is that of dst, or else that of
// produce.
func pump(dst io.Writer, produce func(p *pipeline) error) (err error) {
	p := &pipeline{next: make(chan piece), done: make(chan struct{})}
	var produced error // set before next is closed
	go func() {
		defer close(p.next)
		defer caught(&produced)
		produced = produce(p)
	}()
	for piece := range p.next {
		if err == nil {
			if _, err = dst.Write(piece.buf[:piece.n]); err != nil {
				close(p.done)
			}
		}
		pieces.Put(piece.buf)
	}
	if err != nil {
		return err
	}
	return produced
}

// send hands on the first n bytes of buf, and buf itself.
func (p *pipeline) send(buf *[pieceSize]byte, n int) error {
	select {
	case p.next <- piece{buf, n}:
		return nil
	case <-p.done:
		pieces.Put(buf)
		return errUnwanted
	}
}

// copyFrom sends what src has.
func (p *pipeline) copyFrom(src io.Reader) error {
	for {
		buf := pieces.Get().(*[pieceSize]byte)
		n, err := src.Read(buf[:])
		if n == 0 {
			pieces.Put(buf)
		} else if sendErr := p.send(buf, n); sendErr != nil {
			return sendErr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A pieceWriter collects what is written into pieces and sends them.
type pieceWriter struct {
	p   *pipeline
	buf *[pieceSize]byte // nil if empty
	n   int
}

// Write implements [io.Writer].
func (w *pieceWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if w.buf == nil {
			w.buf = pieces.Get().(*[pieceSize]byte)
		}
		k := copy(w.buf[w.n:], rest)
		w.n += k
		rest = rest[k:]
		if w.n == len(w.buf) {
			if err := w.flush(); err != nil {
				return len(b) - len(rest), err
			}
		}
	}
	return len(b), nil
}

// flush sends what is left.
func (w *pieceWriter) flush() error {
	if w.buf == nil {
		return nil
	}
	buf, n := w.buf, w.n
	w.buf, w.n = nil, 0
	return w.p.send(buf, n)
}
