package cairn

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A downgrade makes absent what of a blob is bad. The blob is partial then, and a
// piece that had it as its content is one that is being written, with what is good.
type downgrade struct {
	s    *Store
	blob blobRow    // as it was when the bad groups were found
	rest bao.Ranges // bad, and not dealt with yet
	bare bool       // no copies are made, for want of room
	in   bool       // what is good of the files is in rows, as far as there was room

	files   []outsideFile // of the blob, when outside was found
	outside bao.Ranges    // of rest, what has no row and is in none of these

	part  bao.Ranges // of rest, what the transaction deals with
	lost  bao.Ranges // of part, what is absent by it
	keyed bool       // whether pieces had the blob
}

// downgrade makes the given groups of a blob absent, if they still are bad, and
// returns those that are absent by it. The pairs above all others must verify.
//
// Each commit removes at most dropGroups, unless a piece has the blob: then all
// that is bad goes in one, before which what is good of the files outside is
// brought into rows, by steps, each of which leaves a complete blob. The first makes the blob partial, without whatever has
// no row that fits; other groups that are bad stay marked as present until their
// commit. So a crash between two leaves a sound partial blob, of which the rest of
// the damage can be found again; one before the first leaves the blob as it was.
//
// It is errChanged if the blob is not what it was, and an error that [isDamage]
// if the database is so damaged that rows cannot be removed: they stay then.
func (s *Store) downgrade(ctx context.Context, blob blobRow, bad bao.Ranges) (lost bao.Ranges, err error) {
	d := downgrade{s: s, blob: blob, rest: bad}
	if err := d.look(ctx); err != nil {
		return bao.Ranges{}, err
	}
	for !d.rest.IsEmpty() {
		err := s.replace(ctx, blob.hash, 0, d.run)
		if errors.Is(err, ErrFull) && d.keyed && !d.bare {
			d.bare = true
			continue
		}
		if errors.Is(err, errPieceOutside) && !d.in {
			d.in = true
			if err = d.bringIn(ctx); err == nil {
				continue
			}
		}
		if err != nil {
			return lost, err
		}
		s.dropLeftovers(ctx)
		lost = lost.Union(d.lost)
		d.rest = d.rest.Minus(d.part)
	}
	return lost, nil
}

// run makes the first part of the change, in its transaction. The writer calls it.
func (d *downgrade) run(conn *sqlite.Conn) error {
	blob, err := findBlob(conn, d.blob.hash)
	if err != nil {
		return err
	}
	if blob.id != d.blob.id || blob.Size != d.blob.Size {
		return errChanged
	}
	keys, err := blobKeys(conn, blob.id)
	if err != nil {
		return err
	}
	d.keyed = len(keys) > 0
	if d.keyed && blob.External > 0 && !d.in {
		return errPieceOutside
	}
	if err := d.choose(conn, blob); err != nil {
		return err
	}
	lost, err := d.stillBad(conn, blob)
	if err == nil && conn.AutocommitEnabled() {
		err = fmt.Errorf("%w: reading it ended the transaction", ErrCorrupt)
	}
	if err != nil {
		return err
	}
	d.lost = lost
	if lost.IsEmpty() {
		return nil // somebody else was here
	}
	if err := d.makeAbsent(conn, blob); err != nil {
		return err
	}
	// If it is a sequence, nobody can say any more what it has named.
	stmt := prep(conn, "sequence_lose")
	stmt.SetBytes(":hash", blob.hash[:])
	if err := exec(stmt); err != nil {
		return err
	}
	for _, key := range keys {
		if err := d.reopen(conn, key, blob); err != nil {
			return err
		}
	}
	return nil
}

// choose chooses the part of what is bad that the transaction deals with.
func (d *downgrade) choose(conn *sqlite.Conn, blob blobRow) error {
	if d.keyed {
		d.part = d.rest
		return nil
	}
	d.part = firstGroups(d.rest, dropGroups)
	if blob.State == Partial || d.part.Equal(d.rest) {
		return nil
	}
	fitting, err := fittingRows(conn, blob, d.rest)
	if err == nil {
		d.part = d.part.Union(d.rest.Minus(fitting))
	}
	return err
}

// firstGroups returns the first n groups of a set that has an end.
func firstGroups(set bao.Ranges, n int64) bao.Ranges {
	bounds := set.Bounds()
	for i := 0; i < len(bounds); i += 2 {
		end := bounds[i] + chunkOf(n)
		if bounds[i+1] >= end {
			return set.Intersect(bao.Chunks(0, end))
		}
		n -= int64(bounds[i+1]-bounds[i]+groupChunks-1) / groupChunks
	}
	return set
}

// fittingRows returns those of the given groups that have a row of the length it
// must have or, where there are files outside, none.
func fittingRows(conn *sqlite.Conn, blob blobRow, groups bao.Ranges) (bao.Ranges, error) {
	var fitting, unfit []uint64
	err := eachRow(conn, blob.id, groups, func(group, length int64) error {
		if length == int64(bao.GroupLen(blob.Size, group)) {
			fitting = appendRun(fitting, group, 1)
		} else {
			unfit = appendRun(unfit, group, 1)
		}
		return nil
	})
	if err == nil && blob.External > 0 {
		bad, err := bao.FromBounds(unfit...)
		return groups.Minus(bad), err
	}
	set, setErr := bao.FromBounds(fitting...)
	return set, errors.Join(err, setErr)
}

// eachRow calls f with each row that there is of some groups, and its length.
func eachRow(conn *sqlite.Conn, id int64, groups bao.Ranges, f func(group, length int64) error) error {
	stmt := prep(conn, "check_rows")
	defer stmt.Reset()
	return eachSpan(groups, func(first, last int64) error {
		stmt.Reset()
		stmt.SetInt64(":from", rowID(id, first))
		stmt.SetInt64(":to", rowID(id, last))
		for {
			found, err := stmt.Step()
			if err != nil || !found {
				return err
			}
			if err := f(groupOf(stmt.ColumnInt64(0)), stmt.ColumnInt64(1)); err != nil {
				return err
			}
		}
	})
}

// eachSpan calls f with the first and the last group of each range of a set that
// has an end.
func eachSpan(set bao.Ranges, f func(first, last int64) error) error {
	bounds := set.Bounds()
	for i := 0; i < len(bounds); i += 2 {
		if err := f(int64(bounds[i]/groupChunks), int64((bounds[i+1]-1)/groupChunks)); err != nil {
			return err
		}
	}
	return nil
}

// look finds out what of the bad groups is in no file, a run in a snapshot: in the
// transaction no file is read, which could take long.
func (d *downgrade) look(ctx context.Context) error {
	checker := runChecker{s: d.s}
	var bounds []uint64
	err := d.s.pool.read(ctx, func(conn *sqlite.Conn) (err error) {
		d.files, err = readPaths(conn, d.blob.id)
		return err
	})
	if err != nil || len(d.files) == 0 {
		return err
	}
	err = eachRun(d.rest, func(first int64, run uint64) error {
		return d.s.pool.read(ctx, func(conn *sqlite.Conn) error {
			if err := unchanged(conn, d.blob); err != nil {
				return err
			}
			rows, _, err := checkRows(conn, d.blob, first, run)
			if err != nil {
				return err
			}
			good, err := checker.check(conn, d.blob, first, run&^rows)
			bounds = appendRun(bounds, first, run&^rows&^good)
			return err
		})
	})
	if err == nil {
		d.outside, err = bao.FromBounds(bounds...)
	}
	return err
}

// stillBad returns which groups of the part are there and do not verify, as the
// transaction sees them. Those that have no row are as they were found, as long as
// no other files are named.
func (d *downgrade) stillBad(conn *sqlite.Conn, blob blobRow) (bao.Ranges, error) {
	if blob.External > 0 {
		files, err := readPaths(conn, blob.id)
		if err == nil && !slices.Equal(files, d.files) {
			err = errChanged
		}
		if err != nil {
			return bao.Ranges{}, err
		}
	}
	outside := runSet{set: d.outside}
	var bounds []uint64
	err := eachRun(d.part, func(first int64, run uint64) error {
		there, err := runGroups(conn, blob, first)
		if err != nil {
			return err
		}
		rows, good, err := checkRows(conn, blob, first, run&there)
		none := run & there &^ rows
		if blob.External > 0 {
			none &= outside.of(first)
		}
		bounds = appendRun(bounds, first, rows&^good|none)
		return err
	})
	if err != nil {
		return bao.Ranges{}, err
	}
	bad, err := bao.FromBounds(bounds...)
	return bad.Intersect(d.part), err
}

// makeAbsent removes the rows of what is lost, and has the bitmaps and the blob
// tell of what is left.
func (d *downgrade) makeAbsent(conn *sqlite.Conn, blob blobRow) error {
	proven, err := d.staysProven(conn, blob)
	if err != nil {
		return err
	}
	outside := blob.External > 0
	if err := d.account(conn, &blob); err != nil {
		return err
	}
	err = eachSpan(d.lost, func(first, last int64) error {
		return removeRange(conn, "row_remove", rowID(blob.id, first), rowID(blob.id, last))
	})
	if err == nil {
		err = d.unmark(conn, blob)
	}
	if err == nil && !proven {
		// What lies behind the end, if that is elsewhere, is of no use.
		err = removeRange(conn, "row_remove", rowID(blob.id, bao.Groups(blob.Size)), rowID(blob.id+1, 0)-1)
	}
	if err != nil {
		return err
	}
	stmt := prep(conn, "blob_downgrade")
	stmt.SetInt64(":id", blob.id)
	stmt.SetInt64(":stored", blob.Stored)
	stmt.SetInt64(":external", blob.External)
	stmt.SetBool(":proven", proven)
	if err := exec(stmt); err != nil || blob.External > 0 || !outside {
		return err
	}
	stmt = prep(conn, "path_remove")
	stmt.SetInt64(":blob", blob.id)
	return exec(stmt)
}

// unmark has the bitmaps name what is there without what is lost. Those of a
// complete blob are made.
func (d *downgrade) unmark(conn *sqlite.Conn, blob blobRow) error {
	runs := d.lost
	if blob.State == Complete {
		runs = bao.Chunks(0, bao.ChunkCount(blob.Size))
	}
	lost := runSet{set: d.lost}
	return eachRun(runs, func(first int64, _ uint64) error {
		there, err := runGroups(conn, blob, first)
		if err != nil {
			return err
		}
		return setPresence(conn, blob.id, first, there&^lost.of(first))
	})
}

// A runSet tells which groups of a run a set has, for runs that ascend.
type runSet struct {
	set    bao.Ranges
	first  []int64
	groups []uint64
}

// of returns the groups of the run that begins with first.
func (r *runSet) of(first int64) uint64 {
	if r.first == nil {
		r.first = []int64{}
		eachRun(r.set, func(first int64, groups uint64) error { // which cannot fail
			r.first, r.groups = append(r.first, first), append(r.groups, groups)
			return nil
		})
	}
	for len(r.first) > 0 && r.first[0] < first {
		r.first, r.groups = r.first[1:], r.groups[1:]
	}
	if len(r.first) == 0 || r.first[0] > first {
		return 0
	}
	return r.groups[0]
}

// account takes what is lost off the bytes of a blob: a group that has a row is
// stored, one that has none lies in the files outside, if there are any.
func (d *downgrade) account(conn *sqlite.Conn, blob *blobRow) error {
	var lost, rows int64
	eachSpan(d.lost, func(first, last int64) error { // which cannot fail
		lost += (last-first)*bao.GroupSize + int64(bao.GroupLen(blob.Size, last))
		return nil
	})
	if blob.External == 0 {
		blob.Stored = max(0, blob.Stored-lost)
		return nil
	}
	err := eachRow(conn, blob.id, d.lost, func(group, _ int64) error {
		rows += int64(bao.GroupLen(blob.Size, group))
		return nil
	})
	blob.Stored = max(0, blob.Stored-rows)
	blob.External = max(0, blob.External-(lost-rows))
	return err
}

// staysProven reports whether the blob's size, if it was proven, still is. While
// the last group is good, it proves it. Else it is believed unless something
// speaks against it, which then may be what is damaged: the pairs do not lead to
// the last group, its row has another length, or there are rows behind it. A size
// that is not believed is proven anew by the next import of the end; one that was
// wrong, and was held to be proven, would refuse all of them.
func (d *downgrade) staysProven(conn *sqlite.Conn, blob blobRow) (bool, error) {
	last := bao.Groups(blob.Size) - 1
	if !d.lost.Contains(chunkOf(last)) || !blob.SizeProven {
		return blob.SizeProven, nil
	}
	p, err := openPath(conn, blob, last&^(groupRun-1))
	if err == nil {
		_, err = p.cv(last % groupRun)
	}
	if err != nil {
		if isDamage(err) {
			err = nil
		}
		return false, err
	}
	fits := true
	end := bao.Chunks(chunkOf(last), chunkOf(1<<groupBits))
	err = eachRow(conn, blob.id, end, func(group, length int64) error {
		fits = fits && group == last && length == int64(bao.GroupLen(blob.Size, last))
		return nil
	})
	return fits, err
}

// blobKeys returns the keys of the pieces that have a blob, in order.
func blobKeys(conn *sqlite.Conn, id int64) (keys []string, err error) {
	stmt := prep(conn, "blob_keys")
	defer stmt.Reset()
	stmt.SetInt64(":blob", id)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return keys, err
		}
		keys = append(keys, columnString(stmt, "name"))
	}
}

// reopen makes a piece whose blob has become partial one that is being written.
// The last one that has it takes its rows; each other gets a copy of what is good
// or, where that would not fit without something else being evicted, nothing. What
// somebody else has, too, stays under its hash.
func (d *downgrade) reopen(conn *sqlite.Conn, key string, blob blobRow) error {
	piece, err := findPiece(conn, key)
	if err != nil || piece.id != blob.id {
		return err
	}
	shared, err := d.s.isShared(conn, piece)
	if err != nil {
		return err
	}
	if shared {
		fits, err := d.fits(conn, piece)
		if err != nil {
			return err
		}
		if !fits {
			return d.s.emptyPiece(conn, key, piece)
		}
	} else if err := leaveOutside(conn, piece.blobRow); err != nil {
		return err
	}
	piece.External = 0 // it has what is in rows
	_, err = d.s.reopenPiece(conn, key, piece)
	return err
}

// fits reports whether a copy of a piece has room in the capacity and in its
// owner's quota.
func (d *downgrade) fits(conn *sqlite.Conn, piece pieceRow) (bool, error) {
	if d.bare {
		return false, nil
	}
	used, err := stepInt(prep(conn, "usage_used"))
	if err != nil {
		return false, err
	}
	capacity, quotas, err := readLimits(conn)
	if err != nil || capacity != Unlimited && used+piece.Stored > capacity {
		return false, err
	}
	if !quotas || piece.owner == 0 {
		return true, nil
	}
	stmt := prep(conn, "owned_claims")
	stmt.SetInt64(":owner", piece.owner)
	stmt.SetInt64(":blob", piece.id)
	claims, err := stepInt(stmt)
	if err != nil || claims < 2 { // the copy takes the place of what it is of
		return err == nil, err
	}
	owner, err := getOwner(conn, piece.owner)
	return owner.Quota == Unlimited || owner.Bytes+piece.Stored <= owner.Quota, err
}

// emptyPiece has a key name a piece of the same size of which nothing is written.
func (s *Store) emptyPiece(conn *sqlite.Conn, key string, piece pieceRow) error {
	piece.id, piece.Stored = s.newID(), 0
	if err := s.insertPiece(conn, piece); err != nil {
		return err
	}
	return s.pointKey(conn, key, piece.id)
}
