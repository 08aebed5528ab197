package cairn

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// tileCacheSize is the most tiles kept in memory, 4 KiB each. One covers
// 1 MiB of a blob, so random reads in 2 GiB find every tile there.
const tileCacheSize = 2048

// A cachedTile is a tile of a complete blob. The pairs are as they were read;
// verified has a bit for each that has been found to hash to what its parent
// says, up to the root.
type cachedTile struct {
	pairs    []byte
	verified atomic.Uint64
}

// A tileCache keeps the tiles that were used last, of all blobs together. The
// zero tileCache is empty. All its methods may be called concurrently.
type tileCache struct {
	mu    sync.Mutex
	tiles map[int64]*list.Element // by tileID
	order list.List               // of tileEntry, last used in front
}

type tileEntry struct {
	id   int64
	tile *cachedTile
}

func (c *tileCache) get(id int64) *cachedTile {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.tiles[id]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(tileEntry).tile
}

func (c *tileCache) put(id int64, tile *cachedTile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.tiles[id]; e != nil {
		e.Value = tileEntry{id, tile}
		return
	}
	if c.tiles == nil {
		c.tiles = make(map[int64]*list.Element)
	}
	c.tiles[id] = c.order.PushFront(tileEntry{id, tile})
	if c.order.Len() > tileCacheSize {
		c.remove(c.order.Back())
	}
}

func (c *tileCache) remove(e *list.Element) {
	delete(c.tiles, e.Value.(tileEntry).id)
	c.order.Remove(e)
}

// drop forgets a blob's tiles.
func (c *tileCache) drop(blob int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil; {
		next := e.Next()
		if e.Value.(tileEntry).id>>groupBits == blob {
			c.remove(e)
		}
		e = next
	}
}

// groupCV returns the chaining value that a group of a blob must have,
// verified against the blob's hash. After the first read nearby, the pair that
// has it is known to be good, and nothing is read or hashed.
func (s *Store) groupCV(conn *sqlite.Conn, b *Blob, group int64) (bao.CV, error) {
	groups := bao.Groups(b.size)
	levels := bao.Tiles(groups)
	cv, from := bao.CV(b.hash), levels-1
	var path [bao.TileHeight]bao.Step
	for level := range levels {
		t, unit := bao.TileAbove(group, level)
		steps := bao.AppendPath(path[:0], t.Units(groups), unit)
		if len(steps) == 0 {
			continue // the only unit of its tile: its CV is the tile's
		}
		last := steps[len(steps)-1]
		if tile := s.tiles.get(tileID(b.id, t)); tile != nil && tile.isVerified(last) {
			cv, from = last.Child(tile.pairs), level-1
			break
		}
	}
	for level := from; level >= 0; level-- {
		t, unit := bao.TileAbove(group, level)
		steps := bao.AppendPath(path[:0], t.Units(groups), unit)
		if len(steps) == 0 {
			continue
		}
		tile, err := s.loadTile(conn, b.id, t, groups)
		if err != nil {
			return bao.CV{}, err
		}
		if cv, err = tile.follow(steps, cv, level == levels-1); err != nil {
			s.tiles.drop(b.id) // so that a repair is seen
			return bao.CV{}, err
		}
	}
	return cv, nil
}

func (t *cachedTile) isVerified(step bao.Step) bool {
	return t.verified.Load()&(1<<step.Number) != 0
}

// follow goes from the tile's top, whose CV is known, to the unit that steps
// lead to, and returns that one's CV. It verifies each pair once.
func (t *cachedTile) follow(steps []bao.Step, cv bao.CV, root bool) (bao.CV, error) {
	for _, step := range steps {
		if !t.isVerified(step) {
			if bao.ParentCV(bao.Pair(t.pairs, step.Number), root) != cv {
				return bao.CV{}, fmt.Errorf("outboard: %w", bao.ErrMismatch)
			}
			t.verified.Or(1 << step.Number)
		}
		root = false
		cv = step.Child(t.pairs)
	}
	return cv, nil
}

func (s *Store) loadTile(conn *sqlite.Conn, blob int64, t bao.Tile, groups int64) (*cachedTile, error) {
	id := tileID(blob, t)
	if tile := s.tiles.get(id); tile != nil {
		return tile, nil
	}
	pairs, err := readTile(conn, blob, t, groups)
	if err != nil {
		return nil, err
	}
	tile := &cachedTile{pairs: pairs}
	s.tiles.put(id, tile)
	return tile, nil
}

// readTile reads a tile's pairs from the database.
func readTile(conn *sqlite.Conn, blob int64, t bao.Tile, groups int64) ([]byte, error) {
	stmt := prep(conn, "outboard_get")
	defer stmt.Reset()
	stmt.SetInt64(":id", tileID(blob, t))
	found, err := stmt.Step()
	if err != nil {
		return nil, err
	}
	want := int(t.Units(groups)-1) * bao.PairSize
	if n := stmt.ColumnLen(0); !found || n != want {
		return nil, fmt.Errorf("outboard: %w: tile %d of level %d has %d bytes, not %d", bao.ErrMismatch, t.Index, t.Level, n, want)
	}
	pairs := make([]byte, want)
	stmt.ColumnBytes(0, pairs)
	return pairs, nil
}

// tileReader reads one blob's tiles for the bao package, each with a snapshot
// of its own, so that a slow writer holds none.
type tileReader struct {
	pool   *pool
	ctx    context.Context
	blob   int64
	groups int64
}

func (r tileReader) ReadTile(t bao.Tile) (pairs []byte, err error) {
	err = r.pool.read(r.ctx, func(conn *sqlite.Conn) error {
		pairs, err = readTile(conn, r.blob, t, r.groups)
		return err
	})
	return pairs, err
}

// Outboard returns what [Store.WriteOutboard] writes: 0.4% of the blob's size,
// in memory.
func (s *Store) Outboard(ctx context.Context, hash Hash) ([]byte, error) {
	var buf bytes.Buffer
	if err := s.WriteOutboard(ctx, hash, &buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// WriteOutboard writes a complete blob's outboard in iroh's obao4 format: the
// size as 8 bytes little-endian, then the hash pairs above group level in
// pre-order, 64 bytes for each 16 KiB group but one. Every pair is verified
// before it is written; damage is [ErrCorrupt].
func (s *Store) WriteOutboard(ctx context.Context, hash Hash, w io.Writer) error {
	b, err := s.Blob(ctx, hash)
	if err != nil {
		return fmt.Errorf("outboard: %w", err)
	}
	defer b.Close()
	tiles := tileReader{s.pool, ctx, b.id, bao.Groups(b.size)}
	if b.size > 0 { // the size that is written first is proven by the last byte
		if _, err := b.ReadAt(make([]byte, 1), b.size-1); err != nil {
			return fmt.Errorf("outboard: %w", err)
		}
	}
	err = bao.WriteOutboard(w, bao.CV(hash), b.size, tiles)
	if errors.Is(err, bao.ErrMismatch) {
		err = &mapped{ErrCorrupt, err}
	}
	if err != nil {
		return fmt.Errorf("outboard of %v: %w", hash, err)
	}
	return nil
}
