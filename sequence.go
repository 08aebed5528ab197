package cairn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A hash sequence that is tagged, or held by a temp tag, protects its children.
// So that the triggers can see to it, whatever comes first, the children that a
// sequence names are in the table child; the triggers tell when more of it has
// come, and it is unread until that is there too. Small ones are read when they
// are tagged, others soon after that or by a garbage collection. A transaction
// that takes anything away while there are unread ones is rolled back, and run
// again after they have been read.

const (
	// promptChildren of a sequence are indexed in the transaction that tags it.
	promptChildren = 4096
	// shedChildren are removed in one transaction at most.
	shedChildren = 4096
	// indexChildren are indexed in one transaction at most, of indexRun that are
	// sorted in memory, 8 bytes each: in order they touch each page once.
	indexChildren = 8192
	indexRun      = 1 << 20
)

// A sequenceTable is the writer's view of the table sequence. The writer's
// goroutine owns it.
type sequenceTable struct {
	s *Store
	// read has the next transaction begin with reading what is unread.
	read bool
	// unread tells whether there is any in the open transaction, and unreadable
	// why it could not be read.
	unread     bool
	unreadable error
	// shedding tells that there may be children that nobody protects; shed that
	// the open transaction has found no more of them, shedAll that it must remove
	// them all.
	shedding, shed, shedAll bool
	// noted are the sequences whose being held the open transaction has noted,
	// dropped those of which the opposite.
	noted, dropped []subject
}

// begin prepares a transaction, and reports whether that may have let something
// go.
func (t *sequenceTable) begin(conn *sqlite.Conn) (changed bool, err error) {
	t.unreadable = nil
	if t.read {
		if err := t.note(conn); err != nil {
			return false, err
		}
		if err := t.readAll(conn); err != nil {
			if !isDamage(err) {
				return false, err
			}
			t.unreadable = err
		}
	}
	if changed = t.shedding; changed {
		limit := shedChildren
		if t.shedAll {
			limit = -1
		}
		if t.shed, err = shed(conn, limit); err != nil {
			return false, err
		}
	}
	unread, err := stepInt(prep(conn, "sequence_unread"))
	t.unread = unread != 0
	return changed, err
}

// note notes which sequences are held, as far as that was not known.
func (t *sequenceTable) note(conn *sqlite.Conn) error {
	for _, by := range t.s.guard.unreadSequences() {
		if !t.s.guard.markPinned(by) {
			continue
		}
		t.noted = append(t.noted, by)
		stmt := prep(conn, "sequence_hold")
		stmt.SetBytes(":hash", by.hash[:])
		if err := exec(stmt); err != nil {
			return err
		}
	}
	return nil
}

// unhold notes that a sequence is not held any more.
func (t *sequenceTable) unhold(conn *sqlite.Conn, by subject) error {
	t.dropped = append(t.dropped, by)
	t.shedding = true
	stmt := prep(conn, "sequence_unhold")
	stmt.SetBytes(":hash", by.hash[:])
	return exec(stmt)
}

// close reports whether all children that were protected when the transaction
// began were known to the triggers. If so, nobody can hold a sequence anew until
// the transaction has ended; if not, it must be run again.
func (t *sequenceTable) close(mark chan struct{}) (bool, error) {
	if t.unreadable != nil {
		return false, fmt.Errorf("nothing can be taken away, because the children of a protected sequence are not known: %w", t.unreadable)
	}
	if !t.unread && t.s.guard.closeGate(mark) {
		return true, nil
	}
	t.read = true
	return false, nil
}

// stale reports whether children may be protected that nobody wants, and has the
// next transaction see to it.
func (t *sequenceTable) stale() bool {
	t.shedAll = true
	return t.shedding
}

func (t *sequenceTable) committed() {
	if t.shed && len(t.dropped) == 0 {
		t.shedding = false
	}
	t.read, t.shed, t.shedAll = false, false, false
	t.noted, t.dropped = nil, nil
}

func (t *sequenceTable) rolledBack() {
	for _, by := range t.noted {
		t.s.guard.unmark(by)
	}
	for _, by := range t.dropped {
		t.s.guard.putReleased(by)
	}
	t.shed = false
	t.noted, t.dropped = nil, nil
}

// shed removes children of sequences that protect nobody, at most limit (-1: all),
// and the sequences that have none left. It reports whether that was all.
func shed(conn *sqlite.Conn, limit int) (all bool, err error) {
	if unwanted, err := stepInt(prep(conn, "sequence_unwanted")); err != nil || unwanted == 0 {
		return true, err
	}
	stmt := prep(conn, "child_shed")
	stmt.SetInt64(":limit", int64(limit))
	if err := exec(stmt); err != nil {
		return false, err
	}
	all = limit < 0 || conn.Changes() < limit
	return all, exec(prep(conn, "sequence_remove"))
}

// readAll indexes what is unread, in the transaction. One that cannot be read does
// not keep the others from it.
func (t *sequenceTable) readAll(conn *sqlite.Conn) error {
	var damage error
	for after := int64(0); ; {
		stmt := prep(conn, "sequence_next")
		stmt.SetInt64(":after", after)
		found, err := stmt.Step()
		if err != nil || !found {
			return errors.Join(err, damage)
		}
		var hash Hash
		after = stmt.GetInt64("id")
		stmt.GetBytes("hash", hash[:])
		if err := stmt.Reset(); err != nil {
			return err
		}
		err = t.s.indexNow(conn, after, hash)
		if err != nil && !isDamage(err) {
			return err
		}
		damage = errors.Join(damage, err)
	}
}

// indexNow indexes the children of a sequence, in the transaction.
func (s *Store) indexNow(conn *sqlite.Conn, id int64, hash Hash) error {
	blob, err := findBlob(conn, hash)
	if err != nil {
		return err
	}
	present, err := presentChunks(conn, blob, bao.All())
	if err != nil {
		return err
	}
	run := make([]uint64, 0, min(indexRun, blob.Size/int64(len(hash))))
	insert := func() error {
		slices.Sort(run)
		err := insertChildren(conn, id, run)
		run = run[:0]
		return err
	}
	err = eachChild(connBlob{s, conn, blob}, blob, present, func(child Hash) error {
		if run = append(run, prefixOf(child)); len(run) == cap(run) {
			return insert()
		}
		return nil
	})
	if err == nil {
		err = insert()
	}
	if err != nil {
		return fmt.Errorf("sequence %v: %w", hash, err)
	}
	stmt := prep(conn, "sequence_indexed")
	stmt.SetInt64(":id", id)
	return exec(stmt)
}

// prefixOf returns what the table child has of a hash, as a number that sorts
// like it.
func prefixOf(hash Hash) uint64 { return binary.BigEndian.Uint64(hash[:]) }

// insertChildren adds children to a sequence. Those that it has already may be
// among them.
func insertChildren(conn *sqlite.Conn, id int64, prefixes []uint64) error {
	stmt := prep(conn, "child_insert")
	stmt.SetInt64(":sequence", id)
	var prefix [8]byte
	for i, p := range prefixes {
		if i > 0 && p == prefixes[i-1] {
			continue
		}
		binary.BigEndian.PutUint64(prefix[:], p)
		stmt.SetBytes(":prefix", prefix[:])
		if err := exec(stmt); err != nil {
			return err
		}
	}
	return nil
}

// A connBlob reads a blob, verified, in the transaction of a connection.
type connBlob struct {
	s    *Store
	conn *sqlite.Conn
	row  blobRow
}

// ReadAt implements [io.ReaderAt] for ranges that lie in the blob.
func (b connBlob) ReadAt(p []byte, off int64) (int, error) {
	return (&Blob{s: b.s, ctx: b.s.background, hash: b.row.hash}).readGroups(b.conn, b.row, p, off)
}

// eachChild calls f with the hashes that are there of a sequence.
func eachChild(r io.ReaderAt, blob blobRow, present bao.Ranges, f func(Hash) error) error {
	bounds := present.Bounds()
	for i := 0; i < len(bounds); i += 2 {
		start := int64(bounds[i]) * bao.ChunkSize
		end := min(int64(bounds[i+1])*bao.ChunkSize, blob.Size)
		if err := eachHash(io.NewSectionReader(r, start, end-start), f); err != nil {
			return err
		}
	}
	return nil
}

// indexPromptly indexes a sequence that has just been tagged, in the transaction,
// if that is soon done. later tells that it is not.
func (s *Store) indexPromptly(conn *sqlite.Conn, hash Hash) (later bool, err error) {
	blob, err := findBlob(conn, hash)
	if err != nil || blob.State != Complete {
		return false, err
	}
	if err := blob.checkHashSeq(); err != nil {
		return false, err
	}
	stmt := prep(conn, "sequence_find")
	stmt.SetBytes(":hash", hash[:])
	id, err := stepInt(stmt)
	if err != nil || id == 0 {
		return false, err
	}
	if blob.Size > promptChildren*int64(len(hash)) {
		return true, nil
	}
	return false, s.indexNow(conn, id, hash)
}

// indexLater indexes the sequence of a hash beside everything else, if it is unread.
// A Close ends it; what is not done then, or fails, is left to who needs it.
func (s *Store) indexLater(hash Hash) {
	s.beside(func() {
		var id int64
		err := s.pool.read(s.background, func(conn *sqlite.Conn) (err error) {
			stmt := prep(conn, "sequence_find")
			stmt.SetBytes(":hash", hash[:])
			id, err = stepInt(stmt)
			return err
		})
		if err == nil && id != 0 {
			s.index(s.background, id, hash)
		}
	})
}

// index indexes a sequence, a part in each transaction.
func (s *Store) index(ctx context.Context, id int64, hash Hash) error {
	for {
		done, err := s.indexOnce(ctx, id, hash)
		if done {
			return nil
		}
		if err != nil {
			return fmt.Errorf("sequence %v: %w", hash, err)
		}
	}
}

// indexOnce indexes what is there of a sequence. done tells that nothing has been
// added to it meanwhile, or that nobody wants it any more.
func (s *Store) indexOnce(ctx context.Context, id int64, hash Hash) (done bool, err error) {
	blob, present, err := s.presence(ctx, hash)
	if err != nil {
		return false, err
	}
	x := indexing{s: s, ctx: ctx, id: id}
	if blob.State != Absent {
		err = s.children(ctx, blob, present, x.add)
	}
	if err == nil {
		err = x.flush()
	}
	if err != nil {
		return errors.Is(err, errStopped), err
	}
	err = s.writeLazy(ctx, func(conn *sqlite.Conn) error {
		now, err := findBlob(conn, hash)
		done = now.Stored+now.External <= blob.Stored+blob.External || now.State == Absent
		if err != nil || !done {
			return err
		}
		stmt := prep(conn, "sequence_indexed")
		stmt.SetInt64(":id", id)
		return exec(stmt)
	})
	return done, err
}

// An indexing collects children and hands them to the writer.
type indexing struct {
	s   *Store
	ctx context.Context
	id  int64
	run []uint64
}

func (x *indexing) add(child Hash) error {
	if x.run = append(x.run, prefixOf(child)); len(x.run) < indexRun {
		return nil
	}
	return x.flush()
}

// flush hands on what has been collected. It is errStopped if nobody wants the
// sequence any more.
func (x *indexing) flush() error {
	slices.Sort(x.run)
	for part := range slices.Chunk(x.run, indexChildren) {
		err := x.s.writeLazy(x.ctx, func(conn *sqlite.Conn) error {
			stmt := prep(conn, "sequence_wanted")
			stmt.SetInt64(":id", x.id)
			wanted, err := stepInt(stmt)
			if err == nil && wanted == 0 {
				err = errStopped
			}
			if err != nil {
				return err
			}
			return insertChildren(conn, x.id, part)
		})
		if err != nil {
			return err
		}
	}
	x.run = x.run[:0]
	return nil
}
