package cairn

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// recheck hashes all that is there of a blob. What does not verify becomes absent,
// in one change (or several, see downgrade), and so the blob partial; a damaged
// outboard is derived anew from what is whole. It returns what did not verify, in
// whole groups: all chunks if that cannot be said, because the blob's fields cannot
// be true or be read; then nothing is changed. In a read-only store it only looks. A
// blob that is absent has nothing bad.
func (s *Store) recheck(ctx context.Context, hash Hash) (bad bao.Ranges, err error) {
	f, _, err := s.inspect(ctx, hash, true, nil)
	if err != nil {
		return bao.Ranges{}, fmt.Errorf("recheck %v: %w", hash, err)
	}
	if f.Outcome == Lost {
		bad = f.Ranges
	}
	return bad, nil
}

// maxInspections is how often a blob is inspected that changes meanwhile.
const maxInspections = 5

// inspect is recheck that says what was found, if anything. With repair, a damaged
// outboard is repaired even if all data is whole. Before each read, pace is
// waited for.
func (s *Store) inspect(ctx context.Context, hash Hash, repair bool, pace *throttle) (f Finding, found bool, err error) {
	in := inspection{s: s, ctx: ctx, pace: pace, repair: repair}
	for range maxInspections {
		err = in.run(hash)
		if !errors.Is(err, errChanged) {
			break
		}
		err = nil // who changes it all the time has it verified by reading it
	}
	switch {
	case err != nil && isDamage(err):
		// It stays as it is: SQLite cannot say what is there, or remove it.
		if in.bad.IsEmpty() {
			in.bad = bao.All()
		}
		return Finding{hash, in.bad.Union(in.lost), Lost}, true, nil
	case err != nil:
		return Finding{}, false, err
	case !in.lost.IsEmpty():
		return Finding{hash, in.lost, Lost}, true, nil
	case in.mended.IsEmpty():
		return Finding{}, false, nil
	case repair:
		return Finding{hash, in.mended, Repaired}, true, nil
	}
	return Finding{hash, in.mended, Intact}, true, nil
}

// An inspection finds out what is bad of one blob, and acts upon it.
type inspection struct {
	s      *Store
	ctx    context.Context
	pace   *throttle
	repair bool
	bad    bao.Ranges // as found last
	lost   bao.Ranges // what is absent by all runs
	mended bao.Ranges // chunks below pairs that were not as they must be
}

// run inspects the blob of a hash as it is now. It is errChanged if that is not
// what it was at the end.
func (in *inspection) run(hash Hash) error {
	blob, present, err := in.s.presence(in.ctx, hash)
	if err != nil || blob.State == Absent {
		return err
	}
	if !possibleSize(blob) {
		return fmt.Errorf("%w: its size cannot be %d", ErrCorrupt, blob.Size)
	}
	r, err := in.audit(blob, present, false)
	if in.bad = r.bad; err != nil || r.good() {
		return err
	}
	if blob.Size == 0 { // its content is known
		if err := in.putEmpty(blob); err != nil {
			return err
		}
		in.mended = r.bad
		return nil
	}
	if in.s.writer == nil {
		if err := in.stillThere(blob); err != nil {
			return err
		}
		in.lost, in.mended = r.bad, r.mended.Union(r.spare)
		return nil
	}
	mended := r.mended.Union(r.spare)
	if in.repair || !r.bad.IsEmpty() {
		if r, err = in.mend(blob, present, r); err != nil {
			return err
		}
		mended = mended.Union(r.spare)
	}
	in.mended = in.mended.Union(mended)
	if r.bad.IsEmpty() {
		return nil
	}
	lost, err := in.s.downgrade(in.ctx, blob, r.bad)
	in.lost = in.lost.Union(lost)
	return err
}

// mend repairs what an audit has found beside what is bad, before the downgrade:
// what stays must have its pairs. With them whole, it can be told which of several
// places has a group.
func (in *inspection) mend(blob blobRow, present bao.Ranges, r auditResult) (_ auditResult, err error) {
	if !r.mended.IsEmpty() {
		if r, err = in.audit(blob, present, true); err == nil && blob.External > 0 {
			r, err = in.audit(blob, present, false)
		}
	}
	if err == nil {
		err = in.spare(blob, r.spare)
	}
	return r, err
}

// possibleSize reports whether a blob of its hash can have its size.
func possibleSize(blob blobRow) bool {
	return blob.Size <= MaxBlobSize && (blob.Size == 0) == (blob.hash == EmptyHash)
}

// putEmpty puts the row of the empty blob, if it is to be repaired.
func (in *inspection) putEmpty(blob blobRow) error {
	if in.s.writer == nil || !in.repair {
		return in.stillThere(blob)
	}
	return in.s.write(in.ctx, 0, func(conn *sqlite.Conn) error {
		if err := unchanged(conn, blob); err != nil {
			return err
		}
		return putRow(conn, blob.id, 0, nil)
	})
}

// stillThere returns errChanged if a blob is not what it was any more.
func (in *inspection) stillThere(blob blobRow) error {
	return in.s.pool.read(in.ctx, func(conn *sqlite.Conn) error { return unchanged(conn, blob) })
}

// unchanged returns errChanged if a blob is not what it was any more: there, and
// of the same state and size. What is there of a partial one may have grown.
func unchanged(conn *sqlite.Conn, blob blobRow) error {
	now, err := findBlob(conn, blob.hash)
	if err == nil && (now.id != blob.id || now.State != blob.State || now.Size != blob.Size) {
		err = errChanged
	}
	return err
}

// An auditResult is what an audit has found, in chunks of whole groups.
type auditResult struct {
	bad    bao.Ranges
	mended bao.Ranges // below pairs that are not as they must be but can be derived
	spare  bao.Ranges // good, and in rows that are damaged
}

func (r auditResult) good() bool {
	return r.bad.IsEmpty() && r.mended.IsEmpty() && r.spare.IsEmpty()
}

// audit returns what of a blob is not as it must be. With mend, it writes the pairs
// that can be derived.
func (in *inspection) audit(blob blobRow, present bao.Ranges, mend bool) (r auditResult, err error) {
	src := auditSource{s: in.s, ctx: in.ctx, pace: in.pace, blob: blob, checker: runChecker{s: in.s}, first: -1, mend: mend}
	if err = src.fit(); err == nil {
		r.bad, err = bao.Audit(bao.CV(blob.hash), blob.Size, present, &src, src.pair)
	}
	if err == nil {
		err = src.flush()
	}
	if err != nil {
		return auditResult{}, err
	}
	all := bao.Chunks(0, bao.ChunkCount(blob.Size))
	r.spare = src.spare.Minus(r.bad).Intersect(all)
	r.mended, err = bao.FromBounds(src.mended...)
	r.mended = r.mended.Union(src.belowUnfit()).Intersect(all)
	return r, err
}

// spare removes rows that are damaged and that a file makes up for, so that their
// groups are in the files. A crash between two commits leaves the other rows.
func (in *inspection) spare(blob blobRow, spare bao.Ranges) error {
	for !spare.IsEmpty() {
		part := firstGroups(spare, dropGroups)
		err := in.s.write(in.ctx, 0, func(conn *sqlite.Conn) error {
			if err := unchanged(conn, blob); err != nil {
				return err
			}
			now, err := findBlob(conn, blob.hash)
			if err == nil && now.External == 0 {
				err = errChanged
			}
			if err != nil {
				return err
			}
			return moveDamaged(conn, now, part)
		})
		if err != nil {
			return err
		}
		spare = spare.Minus(part)
	}
	return nil
}

// moveDamaged removes the rows of some groups that are damaged, and counts their
// bytes as outside.
func moveDamaged(conn *sqlite.Conn, blob blobRow, groups bao.Ranges) error {
	moved := int64(0)
	err := eachRun(groups, func(first int64, run uint64) error {
		rows, good, err := checkRows(conn, blob, first, run)
		for damaged := rows &^ good; damaged != 0 && err == nil; damaged &= damaged - 1 {
			group := first + int64(bits.TrailingZeros64(damaged))
			moved += int64(bao.GroupLen(blob.Size, group))
			err = removeRange(conn, "row_remove", rowID(blob.id, group), rowID(blob.id, group))
		}
		return err
	})
	if err != nil {
		return err
	}
	stmt := prep(conn, "blob_move_out")
	stmt.SetInt64(":id", blob.id)
	stmt.SetInt64(":bytes", moved)
	return exec(stmt)
}

// An auditSource reads what is stored of a blob, a run in a snapshot, and takes
// down what must be mended.
type auditSource struct {
	s       *Store
	ctx     context.Context
	pace    *throttle
	blob    blobRow
	checker runChecker
	first   int64 // group of the run that is loaded

	mend   bool
	unfit  []int64    // ids of tiles
	mended []uint64   // bounds
	pairs  []pairAt   // to be written
	spare  bao.Ranges // chunks of rows that are damaged and that a file makes up for
}

// GroupCVs implements [bao.AuditSource].
func (a *auditSource) GroupCVs(group int64) ([]bao.CV, error) {
	if first := group &^ (groupRun - 1); first != a.first {
		if err := a.load(first); err != nil {
			return nil, err
		}
	}
	i := int(group - a.first)
	if a.checker.there>>i&1 == 0 {
		return nil, nil
	}
	return append(a.checker.cvs[i:i+1:i+1], a.checker.more[i]...), nil
}

func (a *auditSource) load(first int64) error {
	a.first = -1
	if err := a.pace.wait(a.ctx, min(segmentSize, a.blob.Size-first*bao.GroupSize)); err != nil {
		return err
	}
	err := a.s.pool.read(a.ctx, func(conn *sqlite.Conn) error {
		if err := unchanged(conn, a.blob); err != nil {
			return err
		}
		groups, err := runGroups(conn, a.blob, first)
		if err != nil {
			return err
		}
		return a.checker.load(conn, a.blob, first, groups)
	})
	if err == nil {
		a.first = first
		a.spare = a.spare.Union(groupRanges(first, a.checker.spare))
	}
	return err
}

// ReadTile implements [bao.TileReader].
func (a *auditSource) ReadTile(t bao.Tile) (pairs []byte, err error) {
	err = a.s.pool.read(a.ctx, func(conn *sqlite.Conn) error {
		pairs, err = storedTile(conn, a.blob, t)
		return err
	})
	if err != nil && isDamage(err) {
		return nil, nil
	}
	return pairs, err
}

// storedTile returns what is stored of a tile, as far as it has pairs.
func storedTile(conn *sqlite.Conn, blob blobRow, t bao.Tile) ([]byte, error) {
	stmt := prep(conn, "outboard_get")
	defer stmt.Reset()
	stmt.SetInt64(":id", tileID(blob.id, t))
	found, err := stmt.Step()
	if err != nil || !found {
		return nil, err
	}
	pairs := make([]byte, min(stmt.ColumnLen(0)/bao.PairSize, int(t.Units(bao.Groups(blob.Size))-1))*bao.PairSize)
	stmt.ColumnBytes(0, pairs)
	return pairs, nil
}

// unfitTiles returns the ids of what is stored of a blob's outboard that is no
// tile of it, or has a length that it cannot have: more than its pairs, a part of
// one, or none.
func unfitTiles(conn *sqlite.Conn, blob blobRow) (ids []int64, err error) {
	stmt := prep(conn, "check_tiles")
	defer stmt.Reset()
	stmt.SetInt64(":from", rowID(blob.id, 0))
	stmt.SetInt64(":to", rowID(blob.id+1, 0)-1)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return ids, err
		}
		id, length := stmt.ColumnInt64(0), stmt.ColumnInt64(1)
		full := max(0, tileOf(id).Units(bao.Groups(blob.Size))-1) * bao.PairSize
		if tileID(blob.id, tileOf(id)) != id || length > full || length == 0 || length%bao.PairSize != 0 {
			ids = append(ids, id)
		}
	}
}

// fit makes the tiles of a blob fit that do not.
func (a *auditSource) fit() error {
	err := a.s.pool.read(a.ctx, func(conn *sqlite.Conn) (err error) {
		a.unfit, err = unfitTiles(conn, a.blob)
		return err
	})
	if err != nil && !isDamage(err) {
		return err
	}
	if !a.mend {
		return nil
	}
	for ids := range slices.Chunk(a.unfit, maxTiles) {
		err := a.write(len(ids), func(conn *sqlite.Conn) error {
			for _, id := range ids {
				if err := fitTile(conn, a.blob, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fitTile cuts a tile to what may be of it, or removes it.
func fitTile(conn *sqlite.Conn, blob blobRow, id int64) error {
	t := tilePairs{Tile: tileOf(id)}
	if tileID(blob.id, t.Tile) != id || t.Units(bao.Groups(blob.Size)) < 2 {
		return removeRange(conn, "outboard_remove", id, id)
	}
	return mendTile(conn, blob, t)
}

// belowUnfit returns the chunks below the tiles that did not fit, all of the blob's
// for what is no tile.
func (a *auditSource) belowUnfit() (below bao.Ranges) {
	for _, id := range a.unfit {
		t := tileOf(id)
		if tileID(a.blob.id, t) != id || t.Units(bao.Groups(a.blob.Size)) < 2 {
			return bao.All()
		}
		below = below.Union(bao.Chunks(chunkOf(t.FirstGroup()), chunkOf(t.FirstGroup()+1<<(bao.TileHeight*(t.Level+1)))))
	}
	return below
}

// pair takes down a pair as it must be.
func (a *auditSource) pair(p bao.Part) error {
	a.note(p.Start, (p.End+groupChunks-1)&^(groupChunks-1))
	if !a.mend {
		return nil
	}
	t, number, _ := p.Tile() // it has one: it is above group level
	a.pairs = append(a.pairs, pairAt{t, number, *p.Pair})
	if len(a.pairs) < maxMended {
		return nil
	}
	return a.flush()
}

// So many pairs, and tiles, are written in one transaction.
const (
	maxMended = 4096
	maxTiles  = 256
)

// note adds chunks to those below what must be mended. They come in the order of
// the tree, children after their parents or before them.
func (a *auditSource) note(lo, hi uint64) {
	n := len(a.mended)
	for n > 0 && a.mended[n-2] >= lo {
		hi = max(hi, a.mended[n-1])
		n -= 2
	}
	if n > 0 && a.mended[n-1] >= lo {
		a.mended[n-1] = max(hi, a.mended[n-1])
		a.mended = a.mended[:n]
		return
	}
	a.mended = append(a.mended[:n], lo, hi)
}

// A tilePairs is a tile with some of its pairs as they must be.
type tilePairs struct {
	bao.Tile
	pairs []pairAt
}

// flush writes the pairs that were taken down.
func (a *auditSource) flush() error {
	if len(a.pairs) == 0 {
		return nil
	}
	slices.SortStableFunc(a.pairs, func(x, y pairAt) int { return int(tileID(0, x.Tile) - tileID(0, y.Tile)) })
	var tiles []tilePairs
	for i, p := range a.pairs {
		if i == 0 || p.Tile != a.pairs[i-1].Tile {
			tiles = append(tiles, tilePairs{Tile: p.Tile})
		}
		last := &tiles[len(tiles)-1]
		last.pairs = append(last.pairs, p)
	}
	a.pairs = a.pairs[:0]
	return a.write(len(tiles), func(conn *sqlite.Conn) error {
		for _, t := range tiles {
			if err := mendTile(conn, a.blob, t); err != nil {
				return err
			}
		}
		return nil
	})
}

// write changes some tiles. A crash on either side of its commit leaves some pairs
// mended: each has been derived from the root, and is right whatever becomes of
// the others.
func (a *auditSource) write(tiles int, change func(conn *sqlite.Conn) error) error {
	return a.s.write(a.ctx, int64(tiles)*pageSize, func(conn *sqlite.Conn) error {
		if err := unchanged(conn, a.blob); err != nil {
			return err
		}
		return change(conn)
	})
}

// mendTile puts pairs into a tile, and gives it a length that it may have.
func mendTile(conn *sqlite.Conn, blob blobRow, t tilePairs) error {
	pairs := make([]byte, (t.Units(bao.Groups(blob.Size))-1)*bao.PairSize)
	stored, err := storedTile(conn, blob, t.Tile)
	if err != nil && !isDamage(err) {
		return err
	}
	copy(pairs, stored)
	for _, p := range t.pairs {
		*bao.Pair(pairs, p.number) = p.pair
	}
	if blob.State == Partial {
		pairs = knownPairs(pairs)
	}
	if len(pairs) == 0 {
		return removeRange(conn, "outboard_remove", tileID(blob.id, t.Tile), tileID(blob.id, t.Tile))
	}
	return putTile(conn, blob.id, t.Tile, pairs)
}
