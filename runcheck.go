package cairn

import (
	"math/bits"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A runChecker looks at what is stored of the groups of one bitmap, which are
// those under one tile of the lowest level: a run. It is used by one goroutine at
// a time, for one run after the other.
type runChecker struct {
	buf   [bao.GroupSize]byte
	cvs   [groupRun]bao.CV // of the groups that are there
	there uint64           // groups that can be read and are as long as they must be
	bytes int64            // of these
	s     *Store
}

// load reads and hashes the given groups of the run that begins with first. What
// is damaged is not there.
func (c *runChecker) load(conn *sqlite.Conn, blob blobRow, first int64, groups uint64) error {
	c.there, c.bytes = 0, 0
	for groups != 0 {
		from := bits.TrailingZeros64(groups)
		end := from + bits.TrailingZeros64(^(groups >> from))
		next, err := c.loadRows(conn, blob, first, from, end)
		if err != nil {
			if !isDamage(err) && err != errAbsent {
				return err
			}
			next++ // the others may be read all the same
		}
		groups &^= 1<<next - 1
	}
	return nil
}

// loadRows loads the groups [from, end) of a run, up to the one that it returns.
func (c *runChecker) loadRows(conn *sqlite.Conn, blob blobRow, first int64, from, end int) (next int, err error) {
	off := (first + int64(from)) * bao.GroupSize
	b := Blob{s: c.s, hash: blob.hash}
	rows := b.openRows(conn, blob, off, min(int64(end-from)*bao.GroupSize, blob.Size-off))
	defer rows.close()
	for next = from; next < end; next++ {
		group := first + int64(next)
		n, _, err := rows.read(group, c.buf[:])
		if err != nil && err != errAbsent && blob.External > 0 && isDamage(err) {
			// It may be the outboard that is damaged.
			n, err = rows.outside.readUnverified(conn, blob, group, c.buf[:])
		}
		if err != nil {
			return next, err
		}
		c.cvs[next] = bao.GroupCV(&c.buf, n, group, blob.Size <= bao.GroupSize)
		c.there |= 1 << next
		c.bytes += int64(n)
	}
	return end, nil
}

// check returns which of the given groups of a run are good: they are there, and
// the stored pairs lead to what they are.
func (c *runChecker) check(conn *sqlite.Conn, blob blobRow, first int64, groups uint64) (good uint64, err error) {
	if err := c.load(conn, blob, first, groups); err != nil {
		return 0, err
	}
	p, err := openPath(conn, blob, first)
	if err != nil {
		if isDamage(err) {
			return 0, nil
		}
		return 0, err
	}
	for i := range int64(groupRun) {
		if c.there>>i&1 == 0 {
			continue
		}
		if cv, err := p.cv(i); err == nil && cv == c.cvs[i] {
			good |= 1 << i
		}
	}
	return good, nil
}

// A runPath is the way to the groups of a run, as it is stored. Nothing of it
// comes from a cache.
type runPath struct {
	top   bao.CV // of the run's tile
	root  bool   // which is the whole tree
	units int64
	tile  cachedTile
}

// openPath follows the stored pairs from the root to a run. The error is damage if
// they do not lead there.
func openPath(conn *sqlite.Conn, blob blobRow, first int64) (*runPath, error) {
	groups := bao.Groups(blob.Size)
	levels := bao.Tiles(groups)
	p := &runPath{top: bao.CV(blob.hash), root: levels == 1, units: 1}
	for level := levels - 1; level >= 0; level-- {
		t, unit := bao.TileAbove(first, level)
		units := t.Units(groups)
		if units < 2 {
			continue // the only unit of its tile: its CV is the tile's
		}
		pairs, err := readTile(conn, blob, t)
		if err != nil {
			return nil, err
		}
		if level == 0 {
			p.units, p.tile.pairs = units, pairs
			break
		}
		tile := cachedTile{pairs: pairs}
		if p.top, err = tile.follow(bao.AppendPath(nil, units, unit), p.top, level == levels-1); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// cv returns the chaining value that a group, counted in the run, must have.
func (p *runPath) cv(i int64) (bao.CV, error) {
	if p.units == 1 {
		return p.top, nil
	}
	var steps [bao.TileHeight]bao.Step
	return p.tile.follow(bao.AppendPath(steps[:0], p.units, i), p.top, p.root)
}

// runGroups returns the groups that a blob has of a run.
func runGroups(conn *sqlite.Conn, blob blobRow, first int64) (uint64, error) {
	all := ^uint64(0)
	if n := bao.Groups(blob.Size) - first; n < groupRun {
		all = 1<<n - 1
	}
	if blob.State == Complete {
		return all, nil
	}
	present, err := presentGroups(conn, blob.id, first)
	return present & all, err
}

// eachRun calls f with each run of which a set of chunks has groups, and with
// these. The set has an end.
func eachRun(set bao.Ranges, f func(first int64, groups uint64) error) error {
	run, groups := int64(-1), uint64(0)
	bounds := set.Bounds()
	for i := 0; i < len(bounds); i += 2 {
		end := int64(bounds[i+1]+groupChunks-1) / groupChunks
		for group := int64(bounds[i]) / groupChunks; group < end; {
			first := group &^ (groupRun - 1)
			if first != run {
				if groups != 0 {
					if err := f(run, groups); err != nil {
						return err
					}
				}
				run, groups = first, 0
			}
			next := min(end, first+groupRun)
			groups |= (1<<(next-first) - 1) &^ (1<<(group-first) - 1)
			group = next
		}
	}
	if groups == 0 {
		return nil
	}
	return f(run, groups)
}
