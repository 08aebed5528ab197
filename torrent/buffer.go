package torrent

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnstore/cairn"
)

// A client takes a piece for nothing until it has marked it complete: after a
// restart it fetches the whole of any other one again. So there is nothing to be
// gained by storing each block on its own when it comes, and much to be lost: a
// connection waits for one block's commit before it reads the next. Blocks wait
// in memory instead, and go to the store together: when their piece is marked, or
// read where they do not suffice, or when there are too many of them, or when
// they have waited for long.

const (
	blockSize = 16 << 10
	// maxBlocks is the most that is handed to the store at once.
	maxBlocks = 256
	// bufferAge is how long blocks wait at most.
	bufferAge = 2 * time.Second
	// behindSize is from which size on a piece that is whole goes to the store
	// while it is being hashed. The blocks of smaller ones are stored in the
	// commit that completes them.
	behindSize = 512 << 10
)

// buffers keep the blocks of all torrents of a Storage.
type buffers struct {
	log   *slog.Logger
	limit int64        // bytes; none wait if it is not above 0
	used  atomic.Int64 // bytes

	mu      sync.Mutex
	byPiece map[pieceID]*buffer
	timer   *time.Timer // runs while there is any buffer
}

// A pieceID names a piece, however often its torrent is open.
type pieceID struct {
	owner string
	index int
}

// A buffer has the blocks of one piece that may not be in the store.
type buffer struct {
	bytes  atomic.Int64
	stored atomic.Bool // all of them are in the store; set under both locks

	storing sync.Mutex // held while blocks go to the store; before mu

	mu     sync.RWMutex     // held for reading while blocks are used, and for writing while they come and go
	p      *piece           // through which they go
	blocks map[int64][]byte // by offset; each of its own blockSize array
	since  time.Time
	gone   bool // from buffers: another one may be there
}

var blockPool = sync.Pool{New: func() any { return new([blockSize]byte) }}

// takes reports whether a write can wait: it must consist of whole blocks.
func (bs *buffers) takes(p *piece, b []byte, off int64) bool {
	end := off + int64(len(b))
	return bs.limit > 0 && len(b) > 0 && off >= 0 && off%blockSize == 0 &&
		(end%blockSize == 0 && end < p.length() || end == p.length())
}

// put keeps a copy of a write.
func (bs *buffers) put(p *piece, b []byte, off int64) {
	buf := bs.lock(p)
	defer buf.mu.Unlock()
	buf.p = p
	buf.stored.Store(false)
	for len(b) > 0 {
		n := min(blockSize, len(b))
		block, ok := buf.blocks[off]
		if !ok {
			block = blockPool.Get().(*[blockSize]byte)[:n]
			buf.blocks[off] = block
			buf.bytes.Add(int64(n))
			bs.used.Add(int64(n))
		}
		copy(block, b[:n])
		b, off = b[n:], off+int64(n)
	}
	if length := p.length(); length >= behindSize && buf.bytes.Load() == length {
		go bs.writeBehind(buf)
	}
}

// lock returns the buffer of a piece, made if there is none, with its lock held.
func (bs *buffers) lock(p *piece) *buffer {
	for {
		bs.mu.Lock()
		buf := bs.byPiece[p.id()]
		if buf == nil {
			buf = &buffer{blocks: make(map[int64][]byte), since: time.Now()}
			bs.byPiece[p.id()] = buf
			if bs.timer == nil {
				bs.timer = time.AfterFunc(bufferAge, bs.flushOld)
			}
		}
		bs.mu.Unlock()
		buf.mu.Lock()
		if !buf.gone {
			return buf
		}
		buf.mu.Unlock()
	}
}

// find returns the buffer of a piece, nil if there is none.
func (bs *buffers) find(p *piece) *buffer {
	if bs.limit <= 0 {
		return nil
	}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return bs.byPiece[p.id()]
}

// read fills b if the buffer has all of it.
func (buf *buffer) read(b []byte, off int64) bool {
	buf.mu.RLock()
	defer buf.mu.RUnlock()
	for len(b) > 0 {
		start := off - off%blockSize
		block := buf.blocks[start]
		if off-start >= int64(len(block)) {
			return false
		}
		n := copy(b, block[off-start:])
		b, off = b[n:], off+int64(n)
	}
	return true
}

// writeTo writes the piece to w, if the buffer has the whole of it.
func (buf *buffer) writeTo(w io.Writer, length int64) (n int64, whole bool, err error) {
	buf.mu.RLock()
	defer buf.mu.RUnlock()
	if buf.gone || buf.bytes.Load() < length {
		return 0, false, nil
	}
	for n < length {
		m, err := w.Write(buf.blocks[n])
		n += int64(m)
		if err != nil {
			return n, true, err
		}
	}
	return n, true, nil
}

// flush stores the blocks of a piece, if any wait, and waits for room.
func (bs *buffers) flush(p *piece) error {
	buf := bs.find(p)
	if buf == nil {
		return nil
	}
	buf.storing.Lock()
	defer buf.storing.Unlock()
	return bs.settle(buf, buf.store(p.store))
}

// complete completes a piece with the blocks that wait, in one commit unless they
// are many.
func (bs *buffers) complete(p *piece) error {
	buf := bs.find(p)
	if buf == nil {
		return p.complete(nil)
	}
	buf.storing.Lock()
	defer buf.storing.Unlock()
	completed := false
	write := func(blocks []cairn.Block) error {
		if last := blocks[len(blocks)-1]; last.Off+int64(len(last.Data)) < buf.end() {
			return p.store(blocks)
		}
		completed = true
		return p.complete(blocks)
	}
	err := buf.store(write)
	if err == nil && !completed { // the blocks were stored before
		err = p.complete(nil)
		if isAbsent(err) || errors.Is(err, cairn.ErrMissing) { // and have been evicted since
			buf.stored.Store(false)
			if again := buf.store(write); completed {
				err = again
			}
		}
	}
	return bs.settle(buf, err)
}

// writeBehind stores the blocks of a whole piece, which stay for whoever hashes
// it. If it cannot, they are stored later. It runs on a goroutine of its own that
// ends by itself: [torrent.end] waits for its call on the store, as for all others,
// and lets no later one begin.
func (bs *buffers) writeBehind(buf *buffer) {
	if buf.storing.TryLock() {
		defer buf.storing.Unlock()
		buf.store(buf.tryStore)
	}
}

// tryFlush stores the blocks of a buffer on behalf of nobody, if nobody else is
// about to, and without waiting for room. It reports whether it could. Blocks
// that can never be stored are dropped: that shows when their piece is read or
// marked.
func (bs *buffers) tryFlush(buf *buffer) bool {
	if !buf.storing.TryLock() {
		return false
	}
	defer buf.storing.Unlock()
	err := bs.settle(buf, buf.store(buf.tryStore))
	if err != nil && !passes(err) {
		bs.log.Error("blocks are lost, and fetched again", "err", err)
	}
	return err == nil
}

// tryStore stores blocks without waiting for room.
func (buf *buffer) tryStore(blocks []cairn.Block) error { return buf.p.tryStore(blocks) }

// end returns where the last block ends.
func (buf *buffer) end() (end int64) {
	for off, data := range buf.blocks {
		end = max(end, off+int64(len(data)))
	}
	return end
}

// store hands the blocks to a function that stores them, if they are not stored.
// The caller holds the lock storing.
func (buf *buffer) store(write func(blocks []cairn.Block) error) error {
	buf.mu.RLock()
	defer buf.mu.RUnlock()
	if buf.gone || buf.stored.Load() {
		return nil
	}
	blocks := make([]cairn.Block, 0, len(buf.blocks))
	for off, data := range buf.blocks {
		blocks = append(blocks, cairn.Block{Off: off, Data: data})
	}
	slices.SortFunc(blocks, func(x, y cairn.Block) int { return cmp.Compare(x.Off, y.Off) })
	for some := range slices.Chunk(blocks, maxBlocks) {
		if err := write(some); err != nil {
			return err
		}
	}
	buf.stored.Store(true)
	return nil
}

// settle forgets a buffer that has been stored, unless further blocks have come.
// If that failed with err, which it returns, and of what cannot pass, the blocks
// are dropped.
func (bs *buffers) settle(buf *buffer, err error) error {
	buf.mu.Lock()
	defer buf.mu.Unlock()
	if !buf.gone && (buf.stored.Load() || err != nil && !passes(err)) {
		bs.empty(buf)
	}
	return err
}

// empty forgets a buffer, whose lock the caller holds for writing.
func (bs *buffers) empty(buf *buffer) {
	bs.mu.Lock()
	delete(bs.byPiece, buf.p.id())
	bs.mu.Unlock()
	buf.gone = true
	for _, block := range buf.blocks {
		blockPool.Put((*[blockSize]byte)(block[:blockSize]))
	}
	bs.used.Add(-buf.bytes.Load())
	buf.blocks = nil
}

// makeRoom stores blocks while there are too many: of the pieces that have most
// of them, or, where these have to wait for room, of the piece that brings more.
func (bs *buffers) makeRoom(p *piece) error {
	if bs.used.Load() <= bs.limit {
		return nil
	}
	list := bs.list(func(pieceID) bool { return true })
	sizes := make(map[*buffer]int64, len(list))
	for _, buf := range list {
		sizes[buf] = buf.bytes.Load()
	}
	slices.SortFunc(list, func(x, y *buffer) int { return cmp.Compare(sizes[y], sizes[x]) })
	for _, buf := range list {
		if bs.used.Load() <= bs.limit {
			return nil
		}
		bs.tryFlush(buf)
	}
	if bs.used.Load() <= bs.limit {
		return nil
	}
	return bs.flush(p)
}

// flushOld stores the blocks that have waited for long.
func (bs *buffers) flushOld() {
	for _, buf := range bs.list(func(pieceID) bool { return true }) {
		if time.Since(buf.since) >= bufferAge {
			bs.tryFlush(buf)
		}
	}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.timer = nil
	if len(bs.byPiece) > 0 {
		bs.timer = time.AfterFunc(bufferAge, bs.flushOld)
	}
}

// list returns the buffers of the pieces that match.
func (bs *buffers) list(match func(pieceID) bool) (list []*buffer) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for id, buf := range bs.byPiece {
		if match(id) {
			list = append(list, buf)
		}
	}
	return list
}

// flushTorrent stores the blocks of all pieces of a torrent, through one that is
// open, as far as there is room for them, and forgets them.
func (bs *buffers) flushTorrent(t *torrent) {
	for _, buf := range bs.list(func(id pieceID) bool { return id.owner == t.owner }) {
		buf.storing.Lock()
		err := buf.store(func(blocks []cairn.Block) error { return t.pieces[buf.p.index].tryStore(blocks) })
		if bs.settle(buf, err) != nil {
			bs.log.Error("blocks are lost, and fetched again", "err", err)
			bs.drop(buf)
		}
		buf.storing.Unlock()
	}
}

// dropTorrent forgets the blocks of all pieces of a torrent.
func (bs *buffers) dropTorrent(owner string) {
	for _, buf := range bs.list(func(id pieceID) bool { return id.owner == owner }) {
		bs.drop(buf)
	}
}

// drop forgets a buffer, whether or not it has been stored.
func (bs *buffers) drop(buf *buffer) {
	buf.mu.Lock()
	defer buf.mu.Unlock()
	if !buf.gone {
		bs.empty(buf)
	}
}

// close lets nothing happen any more after a while. The torrents have been
// closed, and with them no block waits.
func (bs *buffers) close() {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.timer != nil {
		bs.timer.Stop()
	}
}
