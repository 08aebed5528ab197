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
// sequence names are in the table child: those of what is there before anybody is
// told that they are protected, those of what arrives in the transaction in which
// it does. A long sequence is indexed before that, in parts, under a hold that
// keeps it from being removed meanwhile.

const (
	// promptChildren of a sequence that is there are indexed in the transaction
	// that tags or holds it, more of them before it.
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
	// shedding tells that there may be sequences that protect nobody any more; left
	// the same, of the open transaction. all has that remove them all.
	shedding, left, all bool
	// dropped are the sequences of which the open transaction has noted that they
	// are not held any more.
	dropped []subject
}

// begin prepares a transaction, and reports whether that may have let something
// go.
func (t *sequenceTable) begin(conn *sqlite.Conn) (changed bool, err error) {
	if t.left = t.shedding; !t.left {
		return false, nil
	}
	limit := shedChildren
	if t.all {
		limit = -1
	}
	all, err := shed(conn, limit)
	t.left = !all
	return true, err
}

// unhold notes that a sequence is not held any more.
func (t *sequenceTable) unhold(conn *sqlite.Conn, by subject) error {
	t.dropped = append(t.dropped, by)
	t.shedding = true
	stmt := prep(conn, "sequence_unhold")
	stmt.SetBytes(":hash", by.hash[:])
	return exec(stmt)
}

// stale reports whether children may be protected that nobody wants, and has the
// next transaction see to it.
func (t *sequenceTable) stale() bool {
	t.all = true
	return t.shedding
}

func (t *sequenceTable) committed() {
	t.shedding, t.all, t.dropped = t.left, false, nil
}

func (t *sequenceTable) rolledBack(g *guard) {
	for _, by := range t.dropped {
		g.putReleased(by)
	}
	t.shedding = t.shedding || t.left
	t.dropped = nil
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

// errUnindexed means that a sequence has to be indexed before it can be tagged or
// published.
var errUnindexed = errors.New("sequence is not indexed")

// A foundSequence is a sequence that protects its children.
type foundSequence struct {
	id      int64 // 0 if there is none
	indexed bool
}

// findSequence looks for a sequence, which is one if it is tagged or held.
func findSequence(conn *sqlite.Conn, hash Hash) (seq foundSequence, err error) {
	stmt := prep(conn, "sequence_find")
	stmt.SetBytes(":hash", hash[:])
	defer stmt.Reset()
	found, err := stmt.Step()
	if found {
		seq = foundSequence{stmt.GetInt64("id"), stmt.GetInt64("indexed") != 0}
	}
	return seq, err
}

// holdSequence notes that a sequence is held, in the transaction, and returns it.
func holdSequence(conn *sqlite.Conn, hash Hash) (foundSequence, error) {
	stmt := prep(conn, "sequence_hold")
	stmt.SetBytes(":hash", hash[:])
	if err := exec(stmt); err != nil {
		return foundSequence{}, err
	}
	return findSequence(conn, hash)
}

// holdChildren has the database know that the children of a sequence are held, and
// which they are. They must be held in memory.
func (s *Store) holdChildren(ctx context.Context, hash Hash) error {
	seq, err := s.noteHeld(ctx, hash, s.indexPromptly)
	if err != nil || seq.indexed {
		return err
	}
	return s.index(ctx, seq.id, hash, func(f func(Hash) error) error {
		blob, present, err := s.presence(ctx, hash)
		if err != nil || blob.State == Absent {
			return err
		}
		return s.children(ctx, blob, present, f)
	})
}

// noteHeld has the database know that the children of a sequence are held. In the
// same transaction prompt may index them, if that is soon done.
func (s *Store) noteHeld(ctx context.Context, hash Hash, prompt func(*sqlite.Conn, foundSequence, Hash) (foundSequence, error)) (seq foundSequence, err error) {
	err = s.writeLazyThen(ctx, func(conn *sqlite.Conn) (err error) {
		if seq, err = holdSequence(conn, hash); err == nil {
			seq, err = prompt(conn, seq, hash)
		}
		return err
	}, func() { s.guard.noted(subject{hash: hash, children: true}) })
	return seq, err
}

// indexPromptly indexes a sequence in the transaction, if it is not and that is soon
// done.
func (s *Store) indexPromptly(conn *sqlite.Conn, seq foundSequence, hash Hash) (foundSequence, error) {
	if seq.indexed {
		return seq, nil
	}
	blob, err := findBlob(conn, hash)
	if err != nil || blob.Stored+blob.External > promptChildren*int64(len(hash)) {
		return seq, err
	}
	seq.indexed = true
	return seq, s.indexNow(conn, seq.id, blob)
}

// indexNow indexes the children of all that is there of a sequence, in the
// transaction.
func (s *Store) indexNow(conn *sqlite.Conn, id int64, blob blobRow) error {
	present, err := presentChunks(conn, blob, bao.All())
	if err != nil {
		return err
	}
	var run []uint64
	err = eachChild(connBlob{s, conn, blob}, blob, present, func(child Hash) error {
		run = append(run, prefixOf(child))
		return nil
	})
	if err != nil {
		return fmt.Errorf("sequence %v: %w", blob.hash, err)
	}
	if err := insertChildren(conn, id, run); err != nil {
		return err
	}
	return markIndexed(conn, id)
}

func markIndexed(conn *sqlite.Conn, id int64) error {
	stmt := prep(conn, "sequence_indexed")
	stmt.SetInt64(":id", id)
	return exec(stmt)
}

// indexContent adds the children that some whole groups of a sequence have, in the
// transaction in which they arrive, if it protects its children.
func indexContent(conn *sqlite.Conn, hash Hash, data []byte) error {
	seq, err := findSequence(conn, hash)
	if err != nil || seq.id == 0 {
		return err
	}
	return insertChildren(conn, seq.id, prefixesOf(data))
}

// indexArrived adds the children of a blob that has become complete by the
// transaction, if it is a sequence that protects them.
func (s *Store) indexArrived(conn *sqlite.Conn, blob blobRow) error {
	seq, err := findSequence(conn, blob.hash)
	if err != nil || seq.id == 0 {
		return err
	}
	return s.indexNow(conn, seq.id, blob)
}

// indexAdded is indexArrived for content that can still be prepared: if it has many
// children, it is errUnindexed; see prepareSequence.
func (s *Store) indexAdded(conn *sqlite.Conn, blob blobRow) error {
	if blob.Size <= promptChildren*int64(len(blob.hash)) {
		return s.indexArrived(conn, blob)
	}
	seq, err := findSequence(conn, blob.hash)
	if err == nil && seq.id != 0 {
		err = errUnindexed
	}
	return err
}

// prepareSequence indexes the children of content that is about to become a blob,
// and has it become one by publish while they are held.
func (s *Store) prepareSequence(ctx context.Context, hash Hash, content io.Reader, publish func() error) error {
	by := subject{hash: hash, children: true}
	if err := s.guard.hold(ctx, by); err != nil {
		return err
	}
	defer s.guard.release(by)
	seq, err := s.noteHeld(ctx, hash, func(_ *sqlite.Conn, seq foundSequence, _ Hash) (foundSequence, error) { return seq, nil })
	if err == nil {
		err = s.index(ctx, seq.id, hash, func(f func(Hash) error) error { return eachHash(content, f) })
	}
	if err != nil {
		return err
	}
	return publish()
}

// prefixesOf returns the prefixes of the hashes in a part of a sequence. A rest
// that is none is left out.
func prefixesOf(data []byte) []uint64 {
	list := make([]uint64, 0, len(data)/len(Hash{}))
	for ; len(data) >= len(Hash{}); data = data[len(Hash{}):] {
		list = append(list, prefixOf(Hash(data)))
	}
	return list
}

// prefixOf returns what the table child has of a hash, as a number that sorts
// like it.
func prefixOf(hash Hash) uint64 { return binary.BigEndian.Uint64(hash[:]) }

// insertChildren adds children to a sequence. Those that it has already may be
// among them. It sorts them.
func insertChildren(conn *sqlite.Conn, id int64, prefixes []uint64) error {
	slices.Sort(prefixes)
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

// index indexes a sequence whose children are held and noted to be, a part in each
// transaction. What arrives meanwhile is indexed by who brings it. each calls what it
// is given with the children that are there.
func (s *Store) index(ctx context.Context, id int64, hash Hash, each func(f func(Hash) error) error) error {
	x := indexing{s: s, ctx: ctx, id: id}
	err := each(x.add)
	if err == nil {
		err = x.flush()
	}
	if err == nil {
		err = s.writeLazy(ctx, func(conn *sqlite.Conn) error { return markIndexed(conn, id) })
	}
	if err != nil {
		return fmt.Errorf("sequence %v: %w", hash, err)
	}
	return nil
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

func (x *indexing) flush() error {
	slices.Sort(x.run)
	for part := range slices.Chunk(x.run, indexChildren) {
		err := x.s.writeLazy(x.ctx, func(conn *sqlite.Conn) error { return insertChildren(conn, x.id, part) })
		if err != nil {
			return err
		}
	}
	x.run = x.run[:0]
	return nil
}
