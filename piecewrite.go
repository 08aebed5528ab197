package cairn

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// Writes to one piece that wait for the writer at the same time are one request:
// what is common to them, the look-up, the bitmap, the accounting and a row that
// several of them touch, is done once. A write waits with its caller's bytes;
// only a group that comes in parts is put together in a buffer.

// A Block is bytes and where they belong.
type Block struct {
	Off  int64
	Data []byte
}

func (b Block) end() int64 { return b.Off + int64(len(b.Data)) }

// A pieceWrite is one caller's write.
type pieceWrite struct {
	blocks    []Block
	cvs       [][]bao.CV // of the whole groups in each block, if they could be known
	withdrawn bool
}

// cost is the room that a write takes while it waits.
func (w *pieceWrite) cost() int64 {
	cost := int64(requestOverhead)
	for _, b := range w.blocks {
		cost += int64(len(b.Data))
	}
	return cost
}

// A joint is the request of all who write to a piece at the same time. The lock
// of all joints guards writes and joined, until the writer seals it.
type joint struct {
	s      *Store
	target pieceTarget
	req    *request
	writes []*pieceWrite
	joined int64 // bytes of room that those who came later have reserved
	sealed bool

	// The writer owns these.
	patches []patch // in the order of their groups
	blob    int64   // that they were written to
}

// WriteAt implements [io.WriterAt]: it writes all of b, or nothing and returns an
// error. When it returns nil, the bytes are as durable as
// [PieceOptions.Durability] says. Writes may overlap each other; of those at the
// same time, either may come last. A write to a complete piece makes it one that
// is being written, with the other bytes it had. Errors: [ErrTooLarge] outside
// of the piece, or for a piece above the capacity or its owner's quota;
// [ErrFull]; [ErrMismatch] if the piece has got another size meanwhile;
// [ErrReadOnly], [ErrClosed], and that of the handle's context.
func (p *Piece) WriteAt(b []byte, off int64) (int, error) {
	if err := p.WriteBlocks(Block{off, b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteBlocks is [Piece.WriteAt] for several blocks, which are written in one
// commit, or none of them. Where they overlap, the last one counts. It costs
// about what the bytes cost, where a WriteAt after the other costs a commit each.
func (p *Piece) WriteBlocks(blocks ...Block) error {
	if err := p.writeBlocks(blocks); err != nil {
		return fmt.Errorf("write piece %q: %w", p.key, err)
	}
	return nil
}

func (p *Piece) writeBlocks(blocks []Block) error {
	if err := p.usable(); err != nil {
		return err
	}
	if p.s.writer == nil {
		return ErrReadOnly
	}
	w, err := p.newWrite(blocks)
	if err != nil || len(w.blocks) == 0 {
		return err
	}
	return p.s.writePiece(p.ctx, p.pieceTarget, w)
}

// newWrite returns the write of blocks, without those that are empty.
func (p *Piece) newWrite(blocks []Block) (*pieceWrite, error) {
	w := &pieceWrite{blocks: make([]Block, 0, len(blocks)), cvs: make([][]bao.CV, 0, len(blocks))}
	for _, b := range blocks {
		if b.Off < 0 {
			return nil, errNegativeOffset
		}
		if b.Off > p.size || int64(len(b.Data)) > p.size-b.Off {
			return nil, fmt.Errorf("%w: bytes %d..%d of %d", ErrTooLarge, b.Off, b.end(), p.size)
		}
		if len(b.Data) > 0 {
			w.blocks = append(w.blocks, b)
		}
	}
	if err := p.s.capacity.admits(p.size); err != nil {
		return nil, err
	}
	for _, b := range w.blocks {
		w.cvs = append(w.cvs, groupCVs(b.Data, b.Off, p.size))
	}
	return w, nil
}

// writeGrowing writes to a piece that becomes as large as is needed.
func (s *Store) writeGrowing(ctx context.Context, key string, b []byte, off int64, opts *PieceOptions) (int, error) {
	if s.writer == nil {
		return 0, ErrReadOnly
	}
	target := s.newPiece(ctx, key, 0, opts).pieceTarget
	target.grows = true
	end := off + int64(len(b))
	err := validName("key", key)
	switch {
	case err != nil:
	case off < 0:
		err = errNegativeOffset
	case end < off || end > MaxBlobSize:
		err = fmt.Errorf("%w: bytes %d..%d", ErrTooLarge, off, end)
	case len(b) == 0:
	case s.capacity.admits(end) != nil:
		err = s.capacity.admits(end)
	default:
		err = s.writePiece(ctx, target, &pieceWrite{blocks: []Block{{off, b}}, cvs: [][]bao.CV{nil}})
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// groupCVs returns the CVs of the whole groups in b, in the caller's time.
func groupCVs(b []byte, off, size int64) []bao.CV {
	first := (off + bao.GroupSize - 1) / bao.GroupSize
	var cvs []bao.CV
	for group := first; ; group++ {
		start, length := group*bao.GroupSize-off, int64(bao.GroupLen(size, group))
		if length <= 0 || start+length > int64(len(b)) {
			return cvs
		}
		cvs = append(cvs, hashGroup(b[start:start+length], group, size <= bao.GroupSize))
	}
}

// writePiece writes to a piece, whose bytes are in the database then.
func (s *Store) writePiece(ctx context.Context, target pieceTarget, w *pieceWrite) error {
	return s.onceOwn(ctx, target.key, func() error { return s.joinWrite(ctx, target, w) })
}

// joinWrite joins those who are waiting to write to the same piece, or is the
// first of them, and returns the outcome.
func (s *Store) joinWrite(ctx context.Context, target pieceTarget, w *pieceWrite) error {
	cost := w.cost()
	if err := s.writer.reserve(ctx, min(cost, queueBytes)); err != nil {
		return err
	}
	j, first := s.joinOrBegin(ctx, target, w, cost)
	if first {
		s.pushJoint(j)
	}
	err := j.wait(ctx, w)
	if !errors.Is(err, ErrFull) && !errors.Is(err, ErrTooLarge) || len(j.writes) < 2 {
		return err // of a joint that is not over nothing else may be looked at
	}
	// That may be for the sake of those it was joined with.
	if err := s.writer.reserve(ctx, min(cost, queueBytes)); err != nil {
		return err
	}
	j = s.newJoint(ctx, target, w, cost)
	s.pushJoint(j)
	return j.wait(ctx, w)
}

func (s *Store) pushJoint(j *joint) {
	if err := s.writer.push(j.req); err != nil {
		j.req.answer(err)
	}
}

// joinOrBegin returns the joint that a write is part of from now on, and whether
// it is the first.
func (s *Store) joinOrBegin(ctx context.Context, target pieceTarget, w *pieceWrite, cost int64) (j *joint, first bool) {
	s.joints.mu.Lock()
	defer s.joints.mu.Unlock()
	if j := s.joints.byKey[target.key]; j != nil && j.admits(target, cost) {
		j.writes = append(j.writes, w)
		j.joined += cost
		return j, false
	}
	j = s.newJoint(ctx, target, w, cost)
	if s.joints.byKey == nil {
		s.joints.byKey = make(map[string]*joint)
	}
	s.joints.byKey[target.key] = j
	return j, true
}

// newJoint returns a joint of one write, for which room has been reserved.
func (s *Store) newJoint(ctx context.Context, target pieceTarget, w *pieceWrite, cost int64) *joint {
	j := &joint{s: s, target: target, writes: []*pieceWrite{w}}
	j.req = &request{
		ctx:   context.WithoutCancel(ctx), // others may join
		run:   j.run,
		after: j.after,
		ended: func() { j.seal() },
		cost:  min(cost, queueBytes),
		lazy:  target.relaxed,
		done:  make(chan struct{}),
	}
	return j
}

// seal ends the time in which writes may join, and gives back their room. It
// reports whether it has not ended before.
func (j *joint) seal() bool {
	all := &j.s.joints
	all.mu.Lock()
	defer all.mu.Unlock()
	if j.sealed {
		return false
	}
	j.sealed = true
	if all.byKey[j.target.key] == j {
		delete(all.byKey, j.target.key)
	}
	j.s.writer.room.Release(j.joined)
	return true
}

// admits reports whether another write to the target may join. The caller holds
// the lock.
func (j *joint) admits(target pieceTarget, cost int64) bool {
	return j.target == target && j.req.cost+j.joined+cost <= batchBytes
}

// wait returns the outcome of a write. Until the writer has begun with it, ctx
// can withdraw it.
func (j *joint) wait(ctx context.Context, w *pieceWrite) error {
	select {
	case <-j.req.done:
		return j.req.err
	case <-ctx.Done():
	}
	if j.withdraw(w) {
		return context.Cause(ctx)
	}
	<-j.req.done
	return j.req.err
}

// withdraw takes a write back, if the writer has not begun with the joint.
func (j *joint) withdraw(w *pieceWrite) bool {
	j.s.joints.mu.Lock()
	defer j.s.joints.mu.Unlock()
	if j.sealed {
		return false
	}
	w.withdrawn = true
	return true
}

// run makes the writes. The writer calls it.
func (j *joint) run(conn *sqlite.Conn) error {
	if j.seal() {
		j.req.cost += j.joined
		j.writes = slices.DeleteFunc(j.writes, func(w *pieceWrite) bool { return w.withdrawn })
		j.patches = makePatches(j.writes)
	}
	if len(j.writes) == 0 {
		return nil
	}
	piece, err := j.s.writePatches(conn, j.target, j.end(), j.patches)
	j.blob = piece.id
	return err
}

// writePatches makes changes to a piece, which is one that is being written then.
// The writer calls it.
func (s *Store) writePatches(conn *sqlite.Conn, target pieceTarget, end int64, patches []patch) (pieceRow, error) {
	piece, err := s.openForWriting(conn, target, end)
	if err != nil {
		return pieceRow{}, err
	}
	s.pieces.changed(piece.id, piece.Size, s.keeper.mark)
	a := pieceApplier{conn: conn, piece: piece}
	if err := a.apply(patches); err != nil {
		return pieceRow{}, err
	}
	if err := s.account(conn, piece.id, a.stored); err != nil {
		return pieceRow{}, err
	}
	return piece, s.survived(conn, piece.id)
}

// end returns the end of what is written.
func (j *joint) end() (end int64) {
	for _, w := range j.writes {
		for _, b := range w.blocks {
			end = max(end, b.end())
		}
	}
	return end
}

// after tells the piece's state what has been committed.
func (j *joint) after() {
	if len(j.writes) > 0 {
		j.s.pieces.committed(j.blob, j.patches)
	}
}

// account adds what a piece has grown by, and notes its use: at once, where that
// may matter for what is evicted.
func (s *Store) account(conn *sqlite.Conn, id, stored int64) error {
	if s.keeper.limited.Load() {
		stmt := prep(conn, "piece_grow")
		stmt.SetInt64(":id", id)
		stmt.SetInt64(":bytes", stored)
		stmt.SetInt64(":now", s.uses.now())
		return exec(stmt)
	}
	s.uses.wrote(id)
	if stored == 0 {
		return nil
	}
	stmt := prep(conn, "blob_grow")
	stmt.SetInt64(":id", id)
	stmt.SetInt64(":bytes", stored)
	return exec(stmt)
}

// openForWriting returns the piece that a target means, in a state to be written
// to: it makes one that is absent, takes back the completion of a complete one,
// and enlarges one that grows. The writer calls it.
func (s *Store) openForWriting(conn *sqlite.Conn, target pieceTarget, end int64) (pieceRow, error) {
	piece, err := findPiece(conn, target.key)
	if err == nil {
		err = s.capacity.admits(max(end, target.size))
	}
	if err != nil {
		return pieceRow{}, err
	}
	if piece.id == 0 {
		if target.grows {
			target.size = end
		}
		return s.createPiece(conn, target)
	}
	if !target.grows && piece.Size != target.size {
		return pieceRow{}, fmt.Errorf("%w: its size is %d, not %d", ErrMismatch, piece.Size, target.size)
	}
	if piece.State == Complete {
		if piece, err = s.reopenPiece(conn, target.key, piece); err != nil {
			return pieceRow{}, err
		}
	}
	if piece.Size < end {
		s.pieces.forget(piece.id)
		if err := admitsOwner(conn, piece.owner, end); err != nil {
			return pieceRow{}, err
		}
		return growPiece(conn, piece, end)
	}
	return piece, nil
}

// admitsOwner returns ErrTooLarge for what can never fit an owner's quota.
func admitsOwner(conn *sqlite.Conn, id, size int64) error {
	if id == 0 {
		return nil
	}
	owner, err := getOwner(conn, id)
	if err == nil {
		err = owner.admits(size)
	}
	return err
}

// createPiece makes a piece of which nothing is written.
func (s *Store) createPiece(conn *sqlite.Conn, target pieceTarget) (pieceRow, error) {
	owner, err := s.pieceOwner(conn, target.owner, target.size)
	if err != nil {
		return pieceRow{}, err
	}
	piece := pieceRow{blobRow{id: s.newID(), Status: Status{State: Partial, Size: target.size, SizeProven: true}}, owner}
	if err := s.insertPiece(conn, piece); err != nil {
		return pieceRow{}, err
	}
	return piece, insertKey(conn, target.key, piece.id, owner)
}

// insertPiece makes the blob of a piece that is being written.
func (s *Store) insertPiece(conn *sqlite.Conn, piece pieceRow) error {
	stmt := prep(conn, "piece_insert")
	stmt.SetInt64(":id", piece.id)
	stmt.SetInt64(":size", piece.Size)
	stmt.SetInt64(":stored", piece.Stored)
	stmt.SetInt64(":now", s.uses.now())
	return exec(stmt)
}

// pieceOwner returns the id of a new piece's owner, 0 for nobody.
func (s *Store) pieceOwner(conn *sqlite.Conn, name string, size int64) (int64, error) {
	if name == "" {
		return 0, nil
	}
	owner, err := makeOwner(conn, name)
	if err == nil {
		err = owner.admits(size)
	}
	return owner.id, err
}

func insertKey(conn *sqlite.Conn, key string, blob, owner int64) error {
	stmt := prep(conn, "key_insert")
	stmt.SetBytes(":name", []byte(key))
	stmt.SetInt64(":blob", blob)
	if owner != 0 {
		stmt.SetInt64(":owner", owner)
	} else {
		stmt.SetNull(":owner")
	}
	return exec(stmt)
}

// A patch is what a write changes in one group.
type patch struct {
	group    int64
	from, to int // in the group
	data     []byte
	cv       *bao.CV // of the whole group, if it is one and known
}

// makePatches cuts writes along the groups. Patches of the same group stay in
// the order of the writes.
func makePatches(writes []*pieceWrite) []patch {
	var list []patch
	for _, w := range writes {
		for i, b := range w.blocks {
			list = appendPatches(list, b, w.cvs[i])
		}
	}
	slices.SortStableFunc(list, func(x, y patch) int { return int(x.group - y.group) })
	return list
}

func appendPatches(list []patch, b Block, cvs []bao.CV) []patch {
	for data, off := b.Data, b.Off; len(data) > 0; {
		from := int(off % bao.GroupSize)
		n := min(len(data), bao.GroupSize-from)
		p := patch{group: off / bao.GroupSize, from: from, to: from + n, data: data[:n]}
		if from == 0 && len(cvs) > 0 {
			p.cv, cvs = &cvs[0], cvs[1:]
		}
		list = append(list, p)
		data, off = data[n:], off+int64(n)
	}
	return list
}
