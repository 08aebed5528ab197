package torrent

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
)

// A piece implements [storage.PieceImpl] for one piece of an open torrent. It
// is a name, whether or not there is anything in the store.
type piece struct {
	t     *torrent
	index int
	open  atomic.Pointer[cairn.Piece] // see handle
}

var _ interface {
	storage.PieceImpl
	storage.PieceReaderer
	io.WriterTo
} = (*piece)(nil)

// failed wraps an error with the operation and the piece.
func (p *piece) failed(op string, err error) error {
	if p.t.patience.Err() != nil {
		err = cairn.ErrClosed // which may have come as a canceled context
	}
	return fmt.Errorf("%s piece %d of torrent %s: %w", op, p.index, p.t.owner, err)
}

func (p *piece) id() pieceID { return pieceID{p.t.owner, p.index} }

func (p *piece) length() int64 { return p.t.info.Piece(p.index).Length() }

// WriteAt implements [io.WriterAt]. Blocks wait in memory, unless
// [Options.DurableBlocks] says otherwise; anything else is stored. It waits for
// room as long as there is none; see [Storage].
func (p *piece) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off > p.length() || int64(len(b)) > p.length()-off {
		return 0, p.failed("write to", fmt.Errorf("%w: bytes %d..%d of %d", cairn.ErrTooLarge, off, off+int64(len(b)), p.length()))
	}
	bs := &p.t.s.buffers
	if bs.takes(p, b, off) {
		if !p.t.put(p, b, off) {
			return 0, p.failed("write to", cairn.ErrClosed)
		}
		if err := bs.makeRoom(p); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	if err := bs.flush(p); err != nil {
		return 0, err
	}
	if err := p.store([]cairn.Block{{Off: off, Data: b}}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// tryStore writes to the store.
func (p *piece) tryStore(blocks []cairn.Block) error {
	return p.change(func(h *cairn.Piece) error { return h.WriteBlocks(blocks...) })
}

// store writes to the store, and waits for room.
func (p *piece) store(blocks []cairn.Block) error {
	for w := newWait(p, "write to"); ; {
		err := p.tryStore(blocks)
		if err == nil {
			return nil
		}
		if !w.again(err) {
			return p.failed("write to", err)
		}
	}
}

// MarkComplete implements [storage.PieceImpl]. The piece, its hash tree and its
// completion are one durable commit. It waits for room as WriteAt does, since
// the client takes the piece for complete whatever is returned. If bytes of it
// have been evicted since they were hashed, it is [cairn.ErrMissing] or
// [cairn.ErrNotFound]; reading it then makes the client fetch it again.
func (p *piece) MarkComplete() error { return p.t.s.buffers.complete(p) }

// complete completes the piece with blocks that are not in the store yet, if any.
func (p *piece) complete(blocks []cairn.Block) error {
	for w := newWait(p, "complete"); ; {
		err := p.change(func(h *cairn.Piece) error {
			_, err := h.CompleteBlocks(p.t.ctx, blocks...)
			return err
		})
		if err == nil {
			return nil
		}
		if len(blocks) == 0 && isAbsent(err) || !w.again(err) {
			return p.failed("complete", err)
		}
	}
}

// MarkNotComplete implements [storage.PieceImpl]. The bytes stay, and so do blocks
// that wait. It waits for
// room, too: otherwise the piece would be taken for complete after a restart.
func (p *piece) MarkNotComplete() error {
	for w := newWait(p, "reopen"); ; {
		err := p.change(func(h *cairn.Piece) error { return h.Incomplete(p.t.ctx) })
		if err == nil || isAbsent(err) {
			return nil
		}
		if !w.again(err) {
			return p.failed("reopen", err)
		}
	}
}

// change changes the piece as a whole.
func (p *piece) change(change func(*cairn.Piece) error) error {
	if err := p.t.begin(); err != nil {
		return err
	}
	defer p.t.use.RUnlock()
	defer p.t.s.changes.Add(1)
	h, err := p.handle()
	if err != nil {
		return err
	}
	return change(h)
}

// ReadAt implements [io.ReaderAt]. Where bytes are missing, because they never
// came, or have been evicted, or were damaged, it is exactly [io.EOF], upon
// which the client fetches the piece again.
func (p *piece) ReadAt(b []byte, off int64) (int, error) {
	if buf := p.t.s.buffers.find(p); buf != nil {
		if p.t.ctx.Err() == nil && buf.read(b, off) {
			return len(b), nil
		}
		if err := p.t.s.buffers.flush(p); err != nil {
			return 0, err
		}
	}
	if err := p.t.begin(); err != nil {
		return 0, p.failed("read", err)
	}
	defer p.t.use.RUnlock()
	h, err := p.handle()
	if err != nil {
		return 0, p.readError(err)
	}
	n, err := h.ReadAt(b, off)
	return n, p.readError(err)
}

// WriteTo implements [io.WriterTo], for the client to hash the piece. Where
// bytes are missing it ends with exactly [io.EOF], which tells the client that
// the piece failed because of the storage, not of a peer.
func (p *piece) WriteTo(w io.Writer) (int64, error) {
	if buf := p.t.s.buffers.find(p); buf != nil {
		if n, whole, err := buf.writeTo(w, p.length()); whole {
			return n, err
		}
		if err := p.t.s.buffers.flush(p); err != nil {
			return 0, err
		}
	}
	if err := p.t.begin(); err != nil {
		return 0, p.failed("read", err)
	}
	defer p.t.use.RUnlock()
	h, err := p.handle()
	if err != nil {
		return 0, p.readError(err)
	}
	r, err := h.Open(p.t.ctx)
	if err != nil {
		return 0, p.readError(err)
	}
	n, err := r.WriteTo(w)
	r.Close() // what is damaged must not be held
	return n, p.readError(err)
}

// readError turns what a read returned into what the client understands. The
// caller holds t.use.
func (p *piece) readError(err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.Is(err, cairn.ErrCorrupt):
		return p.fetchAgain(err)
	case isAbsent(err) || errors.Is(err, cairn.ErrMissing):
		return io.EOF
	}
	return p.failed("read", err)
}

// isAbsent reports whether an error says that there is nothing of a piece, as
// there cannot be of one that is larger than the capacity.
func isAbsent(err error) bool {
	return errors.Is(err, cairn.ErrNotFound) || errors.Is(err, cairn.ErrTooLarge)
}

// fetchAgain removes a damaged piece, so that the client fetches it again, and
// returns io.EOF. If it only became incomplete, what is wrong could be read. As
// long as somebody else's pin holds it, it stays complete, and unreadable.
func (p *piece) fetchAgain(damage error) error {
	s := p.t.s
	s.pins.releaseIdle(func(r *reader) bool { return r.p == p })
	h, err := p.handle()
	if err == nil {
		err = h.Delete(p.t.ctx)
	}
	s.changes.Add(1)
	if err != nil && !errors.Is(err, cairn.ErrNotFound) {
		return p.failed("read", errors.Join(damage, err))
	}
	s.log.Error("a damaged piece is fetched again", "torrent", p.t.owner, "piece", p.index, "err", damage)
	return io.EOF
}
