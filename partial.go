package cairn

import (
	"context"
	"fmt"
	"math/bits"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A partial blob has a row for each group that is there (or has it in files
// outside, see outside.go), the pairs on the way
// from the root to each of these, and a bitmap of them. A group comes with all
// of it in one commit. Only whole groups are kept, because a part of one cannot
// be verified again.
//
// # A size that nobody has proven
//
// What a peer says of the size is proven when the last chunk has been verified.
// Before that, a group which has been verified is proven to be what it is and
// to lie where it lies: its data was hashed under its index, and the turns of
// the way to it, which follow from the stated size, led there. But another
// statement may put another way to another group.
//
// The tree's right spine tells which statements fit together. Whoever leads to
// a group below the k-th node of the spine is right about the first k, because
// their widths are the binary digits of the way; what lies left of the spine is
// full, whatever the size is. So of two statements under which groups were
// verified, the one with the rightmost group is right about all groups of
// both. That one is kept as the blob's size: every group that is there can be
// found by it. A pair's number depends on its place alone, not on the size, so
// nothing moves when the statement changes. And as a statement must lead to a
// group to be kept, it cannot be above twice the true size.

const (
	groupChunks = bao.GroupSize / bao.ChunkSize
	groupRun    = 64 // groups in one bitmap
)

// presentChunks returns which of the chunks that somebody asks for are there.
// It reads the bitmaps of these only.
func presentChunks(conn *sqlite.Conn, blob blobRow, want bao.Ranges) (bao.Ranges, error) {
	want = want.Intersect(bao.Chunks(0, bao.ChunkCount(blob.Size)))
	switch blob.State {
	case Absent:
		return bao.Ranges{}, nil
	case Complete:
		return want, nil
	}
	ranges := want.Bounds() // in pairs: none is open
	var present []uint64
	next := int64(0) // the first group whose bitmap has not been read
	for i := 0; i < len(ranges); i += 2 {
		first := max(next, int64(ranges[i])/groupChunks&^(groupRun-1))
		last := int64(ranges[i+1]-1) / groupChunks
		if first > last {
			continue // in the bitmap before
		}
		var err error
		if present, err = appendPresence(present, conn, rowID(blob.id, first), rowID(blob.id, last)); err != nil {
			return bao.Ranges{}, err
		}
		next = last&^(groupRun-1) + groupRun
	}
	chunks, err := bao.FromBounds(present...)
	if err != nil {
		return bao.Ranges{}, &mapped{ErrCorrupt, err}
	}
	return chunks.Intersect(want), nil
}

// appendPresence appends the bounds of what the bitmaps with the given ids say.
func appendPresence(bounds []uint64, conn *sqlite.Conn, from, to int64) ([]uint64, error) {
	stmt := prep(conn, "presence_range")
	defer stmt.Reset()
	stmt.SetInt64(":from", from)
	stmt.SetInt64(":to", to)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return bounds, err
		}
		bounds = appendRun(bounds, groupOf(stmt.GetInt64("id")), uint64(stmt.GetInt64("groups")))
	}
}

// groupOf returns the group in a row's, a tile's or a bitmap's id.
func groupOf(id int64) int64 { return id & (1<<groupBits - 1) }

// appendRun appends the bounds, in chunks, of the groups that a bitmap has,
// whose first is given. Groups that touch the last range prolong it.
func appendRun(bounds []uint64, first int64, groups uint64) []uint64 {
	for groups != 0 {
		skip := bits.TrailingZeros64(groups)
		length := bits.TrailingZeros64(^(groups >> skip))
		start := chunkOf(first + int64(skip))
		end := chunkOf(first + int64(skip+length))
		if n := len(bounds); n > 0 && bounds[n-1] == start {
			bounds[n-1] = end
		} else {
			bounds = append(bounds, start, end)
		}
		if skip+length == groupRun {
			break
		}
		groups = groups >> (skip + length) << (skip + length)
	}
	return bounds
}

// chunkOf returns the first chunk of a group.
func chunkOf(group int64) uint64 { return uint64(group) * groupChunks }

// Ranges returns which chunks of a blob are there, in whole groups, those
// behind the end left out. Of an absent blob there are none; that is not an
// error.
func (s *Store) Ranges(ctx context.Context, hash Hash) (bao.Ranges, error) {
	_, present, err := s.presence(ctx, hash)
	if err != nil {
		return bao.Ranges{}, fmt.Errorf("ranges of %v: %w", hash, err)
	}
	return present, nil
}

// presence returns a blob and which of its chunks are there, from one
// snapshot.
func (s *Store) presence(ctx context.Context, hash Hash) (blob blobRow, present bao.Ranges, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		if blob, err = findBlob(conn, hash); err != nil {
			return err
		}
		present, err = presentChunks(conn, blob, bao.All())
		return err
	})
	return blob, present, err
}

// A pairAt is a pair and its place.
type pairAt struct {
	bao.Tile
	number int64
	pair   [bao.PairSize]byte
}

// verified is what an import has proven and is going to store in one
// transaction: some groups, with all pairs on the ways to them.
type verified struct {
	hash   Hash
	size   int64 // as the sender states it
	proven bool  // by the last chunk
	groups []int64
	data   []byte   // of the groups, one after another
	pairs  []pairAt // those of a tile together
}

// store adds to the partial blob what it does not have yet, and makes it if
// there is none. With the last group the blob becomes complete. If it has been
// completed by somebody else, there is nothing to do.
func (v *verified) store(conn *sqlite.Conn, s *Store) error {
	blob, err := findBlob(conn, v.hash)
	if err != nil || blob.State == Complete {
		return err
	}
	if err := s.capacity.admits(v.size); err != nil {
		return err
	}
	now := s.uses.now()
	if blob.State == Absent {
		blob.id, blob.Size = s.newID(), v.size
		if err := v.create(conn, blob.id, now); err != nil {
			return err
		}
	} else if err := v.agree(conn, &blob); err != nil {
		return err
	}
	known := blob.SizeProven
	if !known && v.proven {
		blob.Size, blob.SizeProven = v.size, true
	}
	stored, err := v.storeGroups(conn, blob.id)
	if err != nil {
		return err
	}
	if stored > 0 {
		if err := v.storePairs(conn, blob.id); err != nil {
			return err
		}
		if err := indexContent(conn, v.hash, v.data); err != nil {
			return err
		}
	}
	if stored == 0 && blob.SizeProven == known {
		return nil // nothing new
	}
	blob.Stored += stored
	if err := v.update(conn, blob, now); err != nil {
		return err
	}
	return s.survived(conn, blob.id)
}

func (v *verified) create(conn *sqlite.Conn, id, now int64) error {
	stmt := prep(conn, "partial_insert")
	stmt.SetInt64(":id", id)
	stmt.SetBytes(":hash", v.hash[:])
	stmt.SetInt64(":size", v.size)
	stmt.SetInt64(":now", now)
	stmt.SetBool(":proven", v.proven)
	return exec(stmt)
}

// agree decides whose statement of the size holds; see the top of this file.
func (v *verified) agree(conn *sqlite.Conn, blob *blobRow) error {
	if blob.SizeProven {
		if v.size != blob.Size {
			return fmt.Errorf("%w: the size is %d, not %d as stated", ErrMismatch, blob.Size, v.size)
		}
		return nil
	}
	if v.size == blob.Size || len(v.groups) == 0 {
		return nil
	}
	last, err := lastGroup(conn, blob.id)
	if err == nil && v.groups[len(v.groups)-1] > last {
		blob.Size = v.size
	}
	return err
}

// lastGroup returns the rightmost group of a partial blob, -1 if it has none.
func lastGroup(conn *sqlite.Conn, id int64) (int64, error) {
	stmt := prep(conn, "presence_last")
	defer stmt.Reset()
	stmt.SetInt64(":from", rowID(id, 0))
	stmt.SetInt64(":to", rowID(id+1, 0)-1)
	found, err := stmt.Step()
	if err != nil || !found {
		return -1, err
	}
	return groupOf(stmt.GetInt64("id")) + int64(bits.Len64(uint64(stmt.GetInt64("groups")))) - 1, nil
}

// storeGroups inserts the groups that are not there, marks them as present, and
// returns how many bytes that were.
func (v *verified) storeGroups(conn *sqlite.Conn, id int64) (stored int64, err error) {
	for i := 0; i < len(v.groups); {
		first := v.groups[i] &^ (groupRun - 1)
		before, err := presentGroups(conn, id, first)
		if err != nil {
			return 0, err
		}
		groups := before
		for ; i < len(v.groups) && v.groups[i] < first+groupRun; i++ {
			bit := uint64(1) << (v.groups[i] - first)
			if groups&bit != 0 {
				continue
			}
			groups |= bit
			data := v.data[i*bao.GroupSize:][:bao.GroupLen(v.size, v.groups[i])]
			if err := insertRow(conn, id, v.groups[i], data); err != nil {
				return 0, err
			}
			stored += int64(len(data))
		}
		if groups != before {
			if err := putPresence(conn, id, first, groups); err != nil {
				return 0, err
			}
		}
	}
	return stored, nil
}

func presentGroups(conn *sqlite.Conn, id, first int64) (uint64, error) {
	stmt := prep(conn, "presence_get")
	stmt.SetInt64(":id", rowID(id, first))
	groups, err := stepInt(stmt)
	return uint64(groups), err
}

func putPresence(conn *sqlite.Conn, id, first int64, groups uint64) error {
	stmt := prep(conn, "presence_put")
	stmt.SetInt64(":id", rowID(id, first))
	stmt.SetInt64(":groups", int64(groups))
	return exec(stmt)
}

// storePairs merges the pairs into their tiles. A pair of zeros is one that is
// not known: no data hashes to that.
func (v *verified) storePairs(conn *sqlite.Conn, id int64) error {
	for i := 0; i < len(v.pairs); {
		t := v.pairs[i].Tile
		pairs, err := readTile(conn, blobRow{id: id, Status: Status{State: Partial}}, t)
		if err != nil {
			return err
		}
		changed := false
		for ; i < len(v.pairs) && v.pairs[i].Tile == t; i++ {
			if place := bao.Pair(pairs, v.pairs[i].number); *place != v.pairs[i].pair {
				*place, changed = v.pairs[i].pair, true
			}
		}
		if changed {
			if err := putTile(conn, id, t, knownPairs(pairs)); err != nil {
				return err
			}
		}
	}
	return nil
}

// knownPairs returns a tile up to its last known pair. When all groups are
// there, that is exactly the tile of the complete blob.
func knownPairs(pairs []byte) []byte {
	for n := len(pairs) / bao.PairSize; n > 0; n-- {
		if *bao.Pair(pairs, int64(n-1)) != [bao.PairSize]byte{} {
			return pairs[:n*bao.PairSize]
		}
	}
	return nil
}

func putTile(conn *sqlite.Conn, id int64, t bao.Tile, pairs []byte) error {
	stmt := prep(conn, "outboard_put")
	stmt.SetInt64(":id", tileID(id, t))
	stmt.SetBytes(":pairs", pairs)
	return exec(stmt)
}

// update writes the blob's row. It is complete if its size is proven and all of
// it is there.
func (v *verified) update(conn *sqlite.Conn, blob blobRow, now int64) error {
	state := Partial
	if blob.SizeProven && blob.Stored+blob.External == blob.Size {
		state = Complete
		if err := removeRange(conn, "presence_remove", rowID(blob.id, 0), rowID(blob.id+1, 0)-1); err != nil {
			return err
		}
	}
	stmt := prep(conn, "partial_update")
	stmt.SetInt64(":id", blob.id)
	stmt.SetInt64(":size", blob.Size)
	stmt.SetInt64(":state", int64(state))
	stmt.SetInt64(":stored", blob.Stored)
	stmt.SetBool(":proven", blob.SizeProven)
	stmt.SetInt64(":now", now)
	return exec(stmt)
}
