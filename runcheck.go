package cairn

import (
	"fmt"
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
	spare uint64           // of these, those that are in a file, and have a row that is damaged
	more  map[int][]bao.CV // of what other bytes groups are said to have, in rows and files
	bytes int64            // of what is there
	s     *Store
}

// load reads and hashes the given groups of the run that begins with first. What
// is damaged is not there.
func (c *runChecker) load(conn *sqlite.Conn, blob blobRow, first int64, groups uint64) error {
	c.there, c.spare, c.more, c.bytes = 0, 0, nil, 0
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
		if err := c.loadGroup(rows, next, first+int64(next)); err != nil {
			return next, err
		}
	}
	return end, nil
}

// loadGroup loads one group, the i-th of its run. Where its row is not what it must
// be, a file may have it. If that does not verify either, it may be the outboard
// that is damaged: then all that there is of the group is taken down.
func (c *runChecker) loadGroup(rows *blobRows, i int, group int64) error {
	found, err := rows.next(group)
	if err == nil && !found {
		err = rows.expectOutside(group)
	}
	if err != nil {
		return err
	}
	if found {
		if done, err := c.loadRow(rows, i, group); done || err != nil {
			return err
		}
	}
	fits := c.there>>i&1 == 1 // the row's length
	err = rows.outside.read(rows.conn, rows.blob, group, c.buf[:])
	switch {
	case err == nil:
		c.there &^= 1 << i
		c.take(rows.blob, i, group)
	case isDamage(err):
		err = rows.outside.readUnverified(rows.conn, rows.blob, group, c.buf[:], func() { c.take(rows.blob, i, group) })
		if err != nil || fits {
			return err
		}
		if c.there>>i&1 == 0 {
			return errOutside
		}
	default:
		return err
	}
	if found {
		c.spare |= 1 << i
	}
	return nil
}

// loadRow loads the row of a group. It is done unless files may have what the row
// has not.
func (c *runChecker) loadRow(rows *blobRows, i int, group int64) (done bool, err error) {
	length := bao.GroupLen(rows.blob.Size, group)
	if n := rows.stmt.ColumnLen(1); n != length {
		if rows.blob.External == 0 {
			err = fmt.Errorf("%w: row has %d bytes, not %d", bao.ErrMismatch, n, length)
		}
		return false, err
	}
	rows.stmt.ColumnBytes(1, c.buf[:length])
	c.take(rows.blob, i, group)
	if rows.blob.External == 0 {
		return true, nil
	}
	want, err := c.s.groupCV(rows.conn, rows.blob, group)
	if err != nil && isDamage(err) {
		return false, nil
	}
	return want == c.cvs[i], err
}

// take takes down the bytes that are in the buffer as those of a group.
func (c *runChecker) take(blob blobRow, i int, group int64) {
	n := bao.GroupLen(blob.Size, group)
	cv := bao.GroupCV(&c.buf, n, group, blob.Size <= bao.GroupSize)
	if c.there>>i&1 == 0 {
		c.there |= 1 << i
		c.cvs[i] = cv
		c.bytes += int64(n)
		return
	}
	if c.more == nil {
		c.more = make(map[int][]bao.CV)
	}
	c.more[i] = append(c.more[i], cv)
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

// checkRows returns which of the given groups of a run have rows, and which of
// these are good: the stored pairs lead to what they are. A row that cannot be read
// is one that is not good. No file is looked at.
func checkRows(conn *sqlite.Conn, blob blobRow, first int64, groups uint64) (rows, good uint64, err error) {
	p, err := openPath(conn, blob, first)
	if err != nil && !isDamage(err) {
		return 0, 0, err
	}
	var buf [bao.GroupSize]byte
	for ; groups != 0; groups &= groups - 1 {
		i := bits.TrailingZeros64(groups)
		group := first + int64(i)
		found, fits, err := readStored(conn, blob, group, &buf)
		if err != nil && !isDamage(err) {
			return 0, 0, err
		}
		if found || err != nil {
			rows |= 1 << i
		}
		if !fits || err != nil || p == nil {
			continue
		}
		cv := hashGroup(buf[:bao.GroupLen(blob.Size, group)], group, blob.Size <= bao.GroupSize)
		if want, err := p.cv(int64(i)); err == nil && want == cv {
			good |= 1 << i
		}
	}
	return rows, good, nil
}

// readStored reads the row of a group, if there is one, and if it has the length that
// it must have.
func readStored(conn *sqlite.Conn, blob blobRow, group int64, buf *[bao.GroupSize]byte) (found, fits bool, err error) {
	stmt := prep(conn, "row_get")
	defer stmt.Reset()
	stmt.SetInt64(":from", rowID(blob.id, group))
	if found, err = stmt.Step(); err != nil || !found {
		return found, false, err
	}
	n := bao.GroupLen(blob.Size, group)
	if fits = stmt.ColumnLen(1) == n; fits {
		stmt.ColumnBytes(1, buf[:n])
	}
	return true, fits, nil
}

// groupRanges returns the chunks of groups of the run that begins with first.
func groupRanges(first int64, groups uint64) bao.Ranges {
	set, _ := bao.FromBounds(appendRun(nil, first, groups)...) // they ascend
	return set
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
