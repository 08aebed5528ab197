package cairn

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A checkedBlob is a blob whose rows are to be compared with its fields.
type checkedBlob struct {
	id, size, stored int64
	external         int64 // bytes in files outside
	proven           bool
	state            State
	hash             Hash
	piece            bool // being written: it has no hash
}

// blobs walks the blobs, their rows, their tiles and their bitmaps side by
// side, all in the order of their ids.
func (c *checker) blobs() error {
	rows := newWalk(c.conn, "check_rows")
	tiles := newWalk(c.conn, "check_tiles")
	presence := newWalk(c.conn, "presence_range")
	fragments := newWalk(c.conn, "fragment_range")
	blobs := prep(c.conn, "check_blobs")
	defer blobs.Reset()
	blobs.SetInt64(":after", 0)
	blobs.SetInt64(":limit", -1)
	defer rows.stmt.Reset()
	defer tiles.stmt.Reset()
	defer presence.stmt.Reset()
	defer fragments.stmt.Reset()
	for {
		found, err := blobs.Step()
		if err != nil {
			return err
		}
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		b := checkedBlob{id: 1 << (63 - groupBits)} // behind all: the rest has no blob
		if found {
			b = checkedBlob{
				id:       blobs.GetInt64("id"),
				size:     blobs.GetInt64("size"),
				stored:   blobs.GetInt64("stored"),
				external: blobs.GetInt64("external"),
				proven:   blobs.GetInt64("proven") != 0,
				state:    State(blobs.GetInt64("state")),
			}
			blobs.GetBytes("hash", b.hash[:])
			b.piece = b.state == Partial && blobs.IsNull("hash")
		}
		if err := c.rowsOf(b, rows, presence, fragments); err != nil {
			return err
		}
		if err := c.tilesOf(b, tiles); err != nil {
			return err
		}
		if !found {
			return nil
		}
		if err := c.fieldsOf(b); err != nil {
			return err
		}
	}
}

func (c *checker) fieldsOf(b checkedBlob) error {
	switch {
	case (b.state == Absent || b.piece) && b.external > 0:
		return c.report("blob", b.hash, "%d bytes outside of %d, which nobody can verify", b.external, b.id)
	case b.state == Absent || b.piece: // hidden: its fields mean nothing
		return nil
	case b.size > MaxBlobSize || (b.size == 0) != (b.hash == EmptyHash):
		return c.report("blob", b.hash, "size %d", b.size)
	case b.state == Complete && (b.stored+b.external != b.size || !b.proven):
		return c.report("blob", b.hash, "complete with %d of %d bytes", b.stored+b.external, b.size)
	case b.state == Partial && b.proven && b.stored+b.external >= b.size:
		return c.report("blob", b.hash, "partial with %d of %d bytes", b.stored+b.external, b.size)
	}
	return nil
}

// rowsOf checks the rows and the bitmaps up to and of b.
func (c *checker) rowsOf(b checkedBlob, rows, presence, fragments *walk) error {
	err := c.orphans("row", rows, b.id)
	if err == nil {
		err = c.orphans("presence", presence, b.id)
	}
	if err == nil {
		err = c.orphans("fragment", fragments, b.id)
	}
	if err != nil {
		return err
	}
	switch {
	case b.state == Absent: // hidden: it may have anything
		return errors.Join(rows.skip(b.id), presence.skip(b.id), fragments.skip(b.id))
	case b.piece:
		return c.pieceRows(b, rows, presence, fragments)
	case b.state == Complete:
		if err := c.allRows(b, rows); err != nil {
			return err
		}
	default:
		if err := c.markedRows(b, rows, presence); err != nil {
			return err
		}
	}
	if err := c.spareFragments(b, 1<<groupBits, fragments); err != nil {
		return err
	}
	for {
		id, _, err := presence.peek()
		if err != nil || !presence.at(b.id) {
			return err
		}
		presence.advance()
		if err := c.report("presence", b.hash, "bitmap of group %d, though it is complete", groupOf(id)); err != nil {
			return err
		}
	}
}

// pieceRows compares the rows of a piece that is being written with its bitmaps
// and its fragments.
func (c *checker) pieceRows(b checkedBlob, rows, presence, fragments *walk) error {
	stored := int64(0)
	for more := true; more; {
		first, marked := int64(1)<<groupBits, uint64(0) // behind the last bitmap
		id, bits, err := presence.peek()
		if err != nil {
			return err
		}
		if more = presence.at(b.id); more {
			first, marked = groupOf(id), uint64(bits)
			presence.advance()
		}
		for {
			id, length, err := rows.peek()
			if err != nil {
				return err
			}
			if !rows.at(b.id) || groupOf(id) >= first+groupRun {
				break
			}
			rows.advance()
			stored += length
			if err := c.pieceRow(b, groupOf(id), length, first, &marked, fragments); err != nil {
				return err
			}
		}
		if marked != 0 {
			if err := c.reportPiece(b, "groups %#x of those from %d on are missing", marked, first); err != nil {
				return err
			}
		}
	}
	if err := c.spareFragments(b, 1<<groupBits, fragments); err != nil {
		return err
	}
	if stored != b.stored {
		return c.reportPiece(b, "%d bytes stored, not %d", stored, b.stored)
	}
	return nil
}

// pieceRow checks one row, and takes its mark out of the bitmap.
func (c *checker) pieceRow(b checkedBlob, group, length, first int64, marked *uint64, fragments *walk) error {
	want := int64(bao.GroupLen(b.size, group))
	if group >= first && *marked>>(group-first)&1 == 1 {
		*marked &^= 1 << (group - first)
	} else {
		if err := c.spareFragments(b, group, fragments); err != nil {
			return err
		}
		id, _, err := fragments.peek()
		if err != nil {
			return err
		}
		if !fragments.at(b.id) || groupOf(id) != group {
			return c.reportPiece(b, "group %d is there and not marked", group)
		}
		spans, err := parseSpans(fragments.stmt.ColumnText(1))
		fragments.advance()
		if err != nil {
			return c.reportPiece(b, "group %d: %v", group, err)
		}
		want = min(want, int64(spans[len(spans)-1].to))
	}
	if length != want {
		return c.reportPiece(b, "group %d has %d bytes, not %d", group, length, want)
	}
	return nil
}

// spareFragments reports the fragments before the given group: they have no row
// that needs one.
func (c *checker) spareFragments(b checkedBlob, group int64, fragments *walk) error {
	for {
		id, _, err := fragments.peek()
		if err != nil || !fragments.at(b.id) || groupOf(id) >= group {
			return err
		}
		fragments.advance()
		if err := c.reportPiece(b, "group %d has a fragment, and no row for it", groupOf(id)); err != nil {
			return err
		}
	}
}

// reportPiece reports a problem of the bytes of a piece, which have no hash.
func (c *checker) reportPiece(b checkedBlob, format string, args ...any) error {
	return c.report("piece", Hash{}, "bytes %d: %s", b.id, fmt.Sprintf(format, args...))
}

// allRows checks the rows of a complete blob. What has none must be outside.
func (c *checker) allRows(b checkedBlob, rows *walk) error {
	groups := bao.Groups(b.size)
	next := int64(0)
	out := outside{}
	for {
		id, length, err := rows.peek()
		if err != nil {
			return err
		}
		if !rows.at(b.id) {
			break
		}
		rows.advance()
		group := groupOf(id)
		if err := c.row(b, group, length); err != nil {
			return err
		}
		if group > next && group < groups {
			if err := c.withoutRows(b, next, group, &out); err != nil {
				return err
			}
		}
		next = group + 1
	}
	if next < groups {
		if err := c.withoutRows(b, next, groups, &out); err != nil {
			return err
		}
	}
	return c.outsideOf(b, out)
}

// outside is what of a blob has no row, though it is there.
type outside struct {
	bytes int64
	end   int64 // of the last of them
}

// withoutRows takes in a run of groups that have no rows, or reports it if nothing
// of the blob is outside.
func (c *checker) withoutRows(b checkedBlob, first, end int64, out *outside) error {
	if b.external == 0 {
		return c.report("row", b.hash, "groups %d to %d are missing", first, end-1)
	}
	out.end = min(end*bao.GroupSize, b.size)
	out.bytes += out.end - first*bao.GroupSize
	return nil
}

// outsideOf checks that what has no row is as much as is noted to be outside, and
// that a file is there that is long enough to have it. What files have, only a
// scrub looks at.
func (c *checker) outsideOf(b checkedBlob, out outside) error {
	if b.external == 0 {
		return nil
	}
	if out.bytes != b.external {
		if err := c.report("row", b.hash, "%d bytes are in no row, and %d noted to be outside", out.bytes, b.external); err != nil {
			return err
		}
	}
	files, err := readPaths(c.conn, b.id)
	if err != nil {
		return err
	}
	for _, file := range files {
		if info, err := statRegular(file.path); err == nil && info.Size() >= out.end {
			return nil
		}
	}
	return c.report("path", b.hash, "none of %d files is there with %d bytes", len(files), out.end)
}

func (c *checker) row(b checkedBlob, group, length int64) error {
	switch {
	case group >= bao.Groups(b.size):
		return c.report("row", b.hash, "group %d is behind the end", group)
	case length != int64(bao.GroupLen(b.size, group)):
		return c.report("row", b.hash, "group %d has %d bytes", group, length)
	}
	return nil
}

// markedRows compares the rows of a partial blob with its bitmaps.
func (c *checker) markedRows(b checkedBlob, rows, presence *walk) error {
	stored, out := int64(0), outside{}
	for more := true; more; {
		first, marked := int64(1)<<groupBits, uint64(0) // behind the last bitmap
		id, bits, err := presence.peek()
		if err != nil {
			return err
		}
		if more = presence.at(b.id); more {
			first, marked = groupOf(id), uint64(bits)
			presence.advance()
		}
		there, err := c.rowsOfRun(b, rows, first, marked, &out)
		if err != nil {
			return err
		}
		stored += there
		if err := c.pathsOf(b, first, marked); err != nil {
			return err
		}
		if last := bao.Groups(b.size) - 1 - first; !b.proven && last >= 0 && last < groupRun && marked>>last&1 == 1 {
			if err := c.report("blob", b.hash, "the size is not proven, though the last group is there"); err != nil {
				return err
			}
		}
	}
	if stored != b.stored {
		if err := c.report("blob", b.hash, "%d bytes stored, not %d", stored, b.stored); err != nil {
			return err
		}
	}
	return c.outsideOf(b, out)
}

// rowsOfRun checks the rows up to the end of a bitmap, and returns how many
// bytes they have. Marked groups that have none go to out.
func (c *checker) rowsOfRun(b checkedBlob, rows *walk, first int64, marked uint64, out *outside) (stored int64, err error) {
	if first%groupRun != 0 {
		err = c.report("presence", b.hash, "bitmap begins at group %d", first)
	}
	for err == nil {
		var id, length int64
		if id, length, err = rows.peek(); err != nil || !rows.at(b.id) || groupOf(id) >= first+groupRun {
			break
		}
		rows.advance()
		group := groupOf(id)
		stored += length
		if group < first || marked>>(group-first)&1 == 0 {
			err = c.report("presence", b.hash, "group %d is there and not marked", group)
			continue
		}
		marked &^= 1 << (group - first)
		err = c.row(b, group, length)
	}
	groups := bao.Groups(b.size)
	for group := first; err == nil && b.external > 0 && marked != 0 && group < min(first+groupRun, groups); group++ {
		if bit := uint64(1) << (group - first); marked&bit != 0 {
			marked &^= bit
			err = c.withoutRows(b, group, group+1, out)
		}
	}
	if err == nil && marked != 0 {
		err = c.report("row", b.hash, "groups %#x of those from %d on are missing", marked, first)
	}
	return stored, err
}

// pathsOf checks that the pairs on the ways to the groups of a bitmap are
// there: in the tile above them and, for one of them as for all, in those above
// that.
func (c *checker) pathsOf(b checkedBlob, first int64, marked uint64) error {
	groups := bao.Groups(b.size)
	levels := bao.Tiles(groups)
	for group := first; marked != 0 && group < groups; group, marked = group+1, marked>>1 {
		if marked&1 == 0 {
			continue
		}
		for level := range levels {
			if err := c.pairsAbove(b, group, level); err != nil {
				return err
			}
		}
		levels = min(levels, 1)
	}
	return nil
}

// pairsAbove checks the pairs of a group's way in the tile of one level.
func (c *checker) pairsAbove(b checkedBlob, group int64, level int) error {
	t, unit := bao.TileAbove(group, level)
	steps := bao.AppendPath(nil, t.Units(bao.Groups(b.size)), unit)
	if len(steps) == 0 {
		return nil
	}
	pairs, err := readTile(c.conn, blobRow{id: b.id, Status: Status{State: Partial}}, t)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if *bao.Pair(pairs, step.Number) == [bao.PairSize]byte{} {
			return c.report("outboard", b.hash, "tile %d of level %d lacks a pair above group %d", t.Index, t.Level, group)
		}
	}
	return nil
}

// tilesOf checks the outboard up to and of b. A partial blob's tiles may be
// shorter, and fewer.
func (c *checker) tilesOf(b checkedBlob, tiles *walk) error {
	if err := c.orphans("outboard", tiles, b.id); err != nil {
		return err
	}
	switch {
	case b.state == Absent:
		return tiles.skip(b.id)
	case b.piece:
		if _, _, err := tiles.peek(); err != nil || !tiles.at(b.id) {
			return err
		}
		return errors.Join(c.reportPiece(b, "it has an outboard"), tiles.skip(b.id))
	}
	groups := bao.Groups(b.size)
	count := int64(0)
	for {
		id, length, err := tiles.peek()
		if err != nil {
			return err
		}
		if !tiles.at(b.id) {
			break
		}
		tiles.advance()
		t := tileOf(id)
		full := max(0, t.Units(groups)-1) * bao.PairSize
		short := length < full && (b.state == Complete || length == 0 || length%bao.PairSize != 0)
		if full == 0 || tileID(b.id, t) != id || length > full || short {
			if err := c.report("outboard", b.hash, "tile %d of level %d has %d bytes", t.Index, t.Level, length); err != nil {
				return err
			}
		}
		count++
	}
	if want := tileCount(groups); b.state == Complete && count != want {
		return c.report("outboard", b.hash, "%d tiles, not %d", count, want)
	}
	return nil
}

// tileOf returns the tile with the given id, or some other one if there is no
// such tile.
func tileOf(id int64) bao.Tile {
	level := int(id & (bao.TileUnits - 1))
	return bao.Tile{Level: level, Index: id & (1<<groupBits - 1) >> (bao.TileHeight * (level + 1))}
}

// tileCount returns how many tiles a complete blob has.
func tileCount(groups int64) (n int64) {
	for units := groups; units > 1; units = (units + bao.TileUnits - 1) / bao.TileUnits {
		n += units / bao.TileUnits
		if units%bao.TileUnits > 1 {
			n++
		}
	}
	return n
}

// orphans reports what lies before the given blob and behind the one before.
func (c *checker) orphans(kind string, w *walk, blob int64) error {
	for {
		id, _, err := w.peek()
		if err != nil {
			return err
		}
		if !w.ok || id>>groupBits >= blob {
			return nil
		}
		w.advance()
		if err := c.report(kind, Hash{}, "%d belongs to no blob", id); err != nil {
			return err
		}
	}
}

// A walk goes through ids and lengths in order, with one to look ahead.
type walk struct {
	stmt       *sqlite.Stmt
	ok, loaded bool
}

func newWalk(conn *sqlite.Conn, query string) *walk {
	stmt := prep(conn, query)
	stmt.SetInt64(":from", math.MinInt64)
	stmt.SetInt64(":to", math.MaxInt64)
	return &walk{stmt: stmt}
}

// peek returns the current entry; ok is false behind the last one.
func (w *walk) peek() (id, length int64, err error) {
	if !w.loaded {
		w.ok, err = w.stmt.Step()
		w.loaded = true
	}
	if err != nil || !w.ok {
		return 0, 0, err
	}
	return w.stmt.ColumnInt64(0), w.stmt.ColumnInt64(1), nil
}

func (w *walk) advance() { w.loaded = !w.ok }

// at reports whether the entry that peek returned is one of the given blob.
func (w *walk) at(blob int64) bool { return w.ok && w.stmt.ColumnInt64(0)>>groupBits == blob }

// skip goes on behind a blob.
func (w *walk) skip(blob int64) error {
	for {
		if _, _, err := w.peek(); err != nil || !w.at(blob) {
			return err
		}
		w.advance()
	}
}
