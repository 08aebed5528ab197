package torrent

import (
	"io"
	"sync"

	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
)

// A reader implements [storage.PieceReader]. From its first read on it pins the
// piece, so that what it reads is not evicted meanwhile.
//
// A client keeps the reader of a piece until it has read the next one, which
// may have to be fetched first, for which there may have to be room. So a pin
// that is not being read through yields when a write finds none; the next read
// pins the piece again, or finds it gone.
type reader struct {
	p *piece
	// mu is held during each read, and so keeps the pin.
	mu     sync.Mutex
	pinned *cairn.PieceReader // nil before the first read, and when it has yielded
	passed int64              // bytes that have been read in order from the piece's start
	closed bool
}

// NewReader implements [storage.PieceReaderer]. It reads nothing yet.
func (p *piece) NewReader() (storage.PieceReader, error) { return &reader{p: p}, nil }

// ReadAt implements [io.ReaderAt], with the errors of [piece.ReadAt].
// Concurrent calls are made one after another.
func (r *reader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.p.t.s.buffers.flush(r.p); err != nil {
		return 0, err
	}
	if err := r.p.t.begin(); err != nil {
		return 0, r.p.failed("read", err)
	}
	defer r.p.t.use.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.pin(); err != nil {
		return 0, r.p.readError(err)
	}
	n, err := r.pinned.ReadAt(b, off)
	if err != nil && err != io.EOF {
		r.unpin() // what is to be fetched again must not be held
	}
	r.pass(off, n)
	return n, r.p.readError(err)
}

// pass notes what has been read. A client that streams fetches as far ahead as the
// capacity allows, and reads that long after. So what it needs next has been used
// longest ago, and would be evicted for what it needs last, and fetched again. A
// piece that has been read through goes first instead, unless it is so small that a
// peer may have asked for it. The caller holds mu.
func (r *reader) pass(off int64, n int) {
	if off > r.passed || r.p.length() <= blockSize {
		return
	}
	r.passed = max(r.passed, off+int64(n))
	if r.passed < r.p.length() {
		return
	}
	r.passed = 0
	r.unpin()
	if h, err := r.p.handle(); err == nil {
		h.EvictFirst(r.p.t.ctx) // if that fails, it goes in the order of use
	}
}

// pin opens the piece if it is not. The caller holds mu.
func (r *reader) pin() error {
	if r.closed {
		return cairn.ErrClosed
	}
	if r.pinned != nil {
		return nil
	}
	h, err := r.p.handle()
	if err != nil {
		return err
	}
	if r.pinned, err = h.Open(r.p.t.ctx); err != nil {
		r.pinned = nil
		return err
	}
	r.p.t.s.pins.add(r)
	return nil
}

// unpin gives up the pin, if there is one. The caller holds mu.
func (r *reader) unpin() {
	if r.pinned == nil {
		return
	}
	r.pinned.Close()
	r.pinned = nil
	r.p.t.s.pins.remove(r)
}

// Close implements [io.Closer]. It never fails: the client would panic.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.unpin()
	return nil
}

// pins are the readers that hold a pin.
type pins struct {
	mu      sync.Mutex // taken after that of a reader
	readers map[*reader]struct{}
}

func (ps *pins) add(r *reader) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.readers == nil {
		ps.readers = make(map[*reader]struct{})
	}
	ps.readers[r] = struct{}{}
}

func (ps *pins) remove(r *reader) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.readers, r)
}

// find returns the readers that match.
func (ps *pins) find(match func(*reader) bool) (found []*reader) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for r := range ps.readers {
		if match(r) {
			found = append(found, r)
		}
	}
	return found
}

// release takes their pins from the readers that match, each when it has ended
// the read that is under way.
func (ps *pins) release(match func(*reader) bool) {
	for _, r := range ps.find(match) {
		r.mu.Lock()
		r.unpin()
		r.mu.Unlock()
	}
}

// releaseIdle takes their pins from the readers that match and are not being
// read from, and reports whether there were any.
func (ps *pins) releaseIdle(match func(*reader) bool) (any bool) {
	for _, r := range ps.find(match) {
		if !r.mu.TryLock() {
			continue
		}
		any = any || r.pinned != nil
		r.unpin()
		r.mu.Unlock()
	}
	return any
}
