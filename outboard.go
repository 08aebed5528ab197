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
	tiles map[tileKey]*list.Element
	order list.List // of tileEntry, last used in front
}

// A tileKey is a tile of the content that has a hash, whatever blob keeps it.
type tileKey struct {
	hash Hash
	bao.Tile
}

type tileEntry struct {
	key  tileKey
	tile *cachedTile
}

func (c *tileCache) get(key tileKey) *cachedTile {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.tiles[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(tileEntry).tile
}

func (c *tileCache) put(key tileKey, tile *cachedTile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.tiles[key]; e != nil {
		e.Value = tileEntry{key, tile}
		return
	}
	if c.tiles == nil {
		c.tiles = make(map[tileKey]*list.Element)
	}
	c.tiles[key] = c.order.PushFront(tileEntry{key, tile})
	if c.order.Len() > tileCacheSize {
		c.remove(c.order.Back())
	}
}

func (c *tileCache) remove(e *list.Element) {
	delete(c.tiles, e.Value.(tileEntry).key)
	c.order.Remove(e)
}

// groupCV returns the chaining value that a group of a blob must have,
// verified against the blob's hash. After the first read nearby, the pair that
// has it is known to be good, and nothing is read or hashed.
func (s *Store) groupCV(conn *sqlite.Conn, blob blobRow, group int64) (bao.CV, error) {
	groups := bao.Groups(blob.Size)
	levels := bao.Tiles(groups)
	cv, from := bao.CV(blob.hash), levels-1
	var path [bao.TileHeight]bao.Step
	for level := range levels {
		t, unit := bao.TileAbove(group, level)
		steps := bao.AppendPath(path[:0], t.Units(groups), unit)
		if len(steps) == 0 {
			continue // the only unit of its tile: its CV is the tile's
		}
		last := steps[len(steps)-1]
		if tile := s.tiles.get(tileKey{blob.hash, t}); tile != nil && tile.isVerified(last) {
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
		var err error
		if cv, err = s.followTile(conn, blob, t, steps, cv, level == levels-1); err != nil {
			return bao.CV{}, err
		}
	}
	return cv, nil
}

// followTile follows the steps in the cached tile or, if that does not lead
// there, in the stored one: a partial blob gets pairs, and a damaged one is
// repaired.
func (s *Store) followTile(conn *sqlite.Conn, blob blobRow, t bao.Tile, steps []bao.Step, cv bao.CV, root bool) (bao.CV, error) {
	key := tileKey{blob.hash, t}
	if tile := s.tiles.get(key); tile != nil {
		if next, err := tile.follow(steps, cv, root); err == nil {
			return next, nil
		}
	}
	pairs, err := readTile(conn, blob, t)
	if err != nil {
		return bao.CV{}, err
	}
	tile := &cachedTile{pairs: pairs}
	next, err := tile.follow(steps, cv, root)
	if err == nil {
		s.tiles.put(key, tile)
	}
	return next, err
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

// readTile reads a tile's pairs from the database. That of a partial blob has
// the pairs up to the last that is known, zeros for the others before it, and
// comes in full length whatever the size may turn out to be.
func readTile(conn *sqlite.Conn, blob blobRow, t bao.Tile) ([]byte, error) {
	stmt := prep(conn, "outboard_get")
	defer stmt.Reset()
	stmt.SetInt64(":id", tileID(blob.id, t))
	found, err := stmt.Step()
	if err != nil {
		return nil, err
	}
	want := int(t.Units(bao.Groups(blob.Size))-1) * bao.PairSize
	n := stmt.ColumnLen(0)
	if blob.State == Partial {
		want = bao.TilePairs * bao.PairSize
	} else if !found || n != want {
		return nil, fmt.Errorf("outboard: %w: tile %d of level %d has %d bytes, not %d", bao.ErrMismatch, t.Index, t.Level, n, want)
	}
	pairs := make([]byte, want)
	if found {
		stmt.ColumnBytes(0, pairs)
	}
	return pairs, nil
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
	row, err := b.require(bao.All())
	if err != nil {
		return fmt.Errorf("outboard: %w", err)
	}
	if row.Size > 0 { // the size that is written first is proven by the last byte
		if _, err := b.ReadAt(make([]byte, 1), row.Size-1); err != nil && err != io.EOF {
			return fmt.Errorf("outboard: %w", err)
		}
	}
	err = bao.WriteOutboard(w, bao.CV(hash), row.Size, rawBlob{b, row.Size})
	if errors.Is(err, bao.ErrMismatch) {
		err = &mapped{ErrCorrupt, err}
	}
	if err != nil {
		return fmt.Errorf("outboard of %v: %w", hash, err)
	}
	return nil
}
