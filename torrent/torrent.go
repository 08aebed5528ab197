package torrent

import (
	"context"
	"fmt"
	"sync"

	g "github.com/anacrolix/generics"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
)

// A torrent is one that the client has open. The same torrent may be open more
// than once.
type torrent struct {
	s      *Storage
	info   *metainfo.Info
	owner  string // the infohash in hexadecimal digits
	prefix string // of the keys of its pieces
	opts   *cairn.PieceOptions
	pieces []piece
	sweep  sweep

	// ctx ends with the torrent, and with it whatever waits.
	ctx    context.Context
	cancel context.CancelFunc
	// patience ends before that: nothing waits for room any more.
	patience context.Context
	hurry    context.CancelFunc
	// use is held for reading during each call on the store, and for writing
	// to wait for their end. It is not held while a write waits for room.
	use sync.RWMutex

	handles handles

	// puts is held for reading while a block is put into its buffer, and for
	// writing to set closing.
	puts    sync.RWMutex
	closing bool
}

func newTorrent(s *Storage, info *metainfo.Info, owner string) *torrent {
	t := &torrent{
		s:      s,
		info:   info,
		owner:  owner,
		prefix: owner + "/",
		opts:   s.opts.pieceOptions(owner),
		pieces: make([]piece, info.NumPieces()),
		sweep:  sweep{complete: make(map[int]bool)},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.patience, t.hurry = context.WithCancel(t.ctx)
	for i := range t.pieces {
		t.pieces[i].t, t.pieces[i].index = t, i
	}
	return t
}

// piece returns a piece whose hash may be unknown. Pieces are named by the
// torrent and their index, so that one of a v2 torrent whose hash has not come
// yet is the same as later.
func (t *torrent) piece(p metainfo.Piece) storage.PieceImpl { return &t.pieces[p.Index()] }

func (t *torrent) pieceWithHash(p metainfo.Piece, _ g.Option[[]byte]) storage.PieceImpl {
	return &t.pieces[p.Index()]
}

// key returns the key of a piece. Keys sort as the pieces do.
func (t *torrent) key(index int) string { return fmt.Sprintf("%s%08d", t.prefix, index) }

// Close implements [storage.TorrentImpl]. The blocks that wait are stored, if
// there is room for them.
func (t *torrent) Close() error {
	t.stop()
	t.s.buffers.flushTorrent(t)
	t.end()
	return nil
}

// stop ends what waits for room, and lets no further block come.
func (t *torrent) stop() {
	t.hurry()
	t.puts.Lock()
	defer t.puts.Unlock()
	t.closing = true
}

// end ends what waits, waits for the calls that are under way, and gives up the
// pins. Later calls return [cairn.ErrClosed].
func (t *torrent) end() {
	t.cancel()
	t.use.Lock()
	defer t.use.Unlock()
	t.s.pins.release(func(r *reader) bool { return r.p.t == t })
	t.s.mu.Lock()
	delete(t.s.torrents, t)
	t.s.mu.Unlock()
}

// put has a block wait, unless the torrent is being closed.
func (t *torrent) put(p *piece, b []byte, off int64) bool {
	t.puts.RLock()
	defer t.puts.RUnlock()
	if t.closing || t.ctx.Err() != nil {
		return false
	}
	t.s.buffers.put(p, b, off)
	return true
}

// begin must be followed by t.use.RUnlock if it returns nil.
func (t *torrent) begin() error {
	t.use.RLock()
	if t.ctx.Err() != nil {
		t.use.RUnlock()
		return cairn.ErrClosed
	}
	return nil
}

// maxHandles is the most handles that an open torrent keeps. A client writes
// and reads few pieces at a time.
const maxHandles = 256

// handles keeps the handles of the pieces used last, since opening one is a
// query.
type handles struct {
	mu   sync.Mutex
	next int
	ring [maxHandles]*piece // whose handle is forgotten when its place is needed
}

// handle returns the handle of a piece, which exists or not. The caller holds
// t.use.
func (p *piece) handle() (*cairn.Piece, error) {
	if h := p.open.Load(); h != nil {
		return h, nil
	}
	t := p.t
	h, err := t.s.store.Piece(t.ctx, t.key(p.index), t.info.Piece(p.index).Length(), t.opts)
	if err != nil {
		return nil, err
	}
	if p.open.CompareAndSwap(nil, h) {
		t.handles.keep(p)
	}
	return h, nil
}

// keep forgets the handle kept longest in favour of that of p.
func (hs *handles) keep(p *piece) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if old := hs.ring[hs.next]; old != nil {
		old.open.Store(nil)
	}
	hs.ring[hs.next] = p
	hs.next = (hs.next + 1) % maxHandles
}
