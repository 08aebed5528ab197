package cairn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// errChanged means that a piece was written to while its hash was computed.
var errChanged = errors.New("written to meanwhile")

// maxHashings is how often a piece is hashed that is written to meanwhile.
const maxHashings = 5

// Complete marks the piece complete and returns its hash. It becomes a blob, with
// its outboard, in one commit; if there is one of the same content, the key names
// that, and the bytes are dropped. The hash is computed without holding anybody
// up. Of a piece that is complete already it returns the hash.
//
// Errors: [*UnwrittenError] if bytes are missing, [ErrNotFound] if the piece is
// absent and not of size 0, [ErrConflict] if it is being written to all the time, [ErrFull],
// [ErrReadOnly], [ErrClosed].
func (p *Piece) Complete(ctx context.Context) (Hash, error) {
	hash, err := p.complete(ctx)
	if err != nil && !isTyped(err) {
		err = fmt.Errorf("complete piece %q: %w", p.key, err)
	}
	return hash, err
}

func (p *Piece) complete(ctx context.Context) (Hash, error) {
	if p.s.writer == nil {
		return Hash{}, ErrReadOnly
	}
	for range maxHashings {
		row, err := p.look(ctx)
		switch {
		case err != nil:
			return Hash{}, err
		case row.id == 0 && p.size == 0: // there is nothing to be written first
			return p.s.putPiece(ctx, p.pieceTarget, eofReader{})
		case row.id == 0:
			return Hash{}, ErrNotFound
		case row.Size != p.size:
			return Hash{}, fmt.Errorf("%w: its size is %d, not %d", ErrMismatch, row.Size, p.size)
		case row.State == Complete: // perhaps by a commit that is not durable yet
			return row.hash, p.s.write(ctx, 0, func(*sqlite.Conn) error { return nil })
		}
		hash, err := p.completeBytes(ctx, row, nil)
		if !errors.Is(err, errChanged) {
			return hash, err
		}
	}
	return Hash{}, fmt.Errorf("%w: %w", ErrConflict, errChanged)
}

// CompleteBlocks is [Piece.WriteBlocks] and then [Piece.Complete]. Mostly it is one
// commit, and a crash leaves the piece complete or as it was: if the blocks are of
// whole chunk groups, all other groups have been written as such since the store
// was opened, and nobody else writes to the piece meanwhile. If bytes are missing
// even then, the blocks are written all the same.
func (p *Piece) CompleteBlocks(ctx context.Context, blocks ...Block) (Hash, error) {
	hash, err := p.completeBlocks(ctx, blocks)
	if err != nil && !isTyped(err) {
		err = fmt.Errorf("complete piece %q: %w", p.key, err)
	}
	return hash, err
}

func (p *Piece) completeBlocks(ctx context.Context, blocks []Block) (Hash, error) {
	if err := p.usable(); err != nil {
		return Hash{}, err
	}
	if p.s.writer == nil {
		return Hash{}, ErrReadOnly
	}
	w, err := p.newWrite(blocks)
	if err != nil {
		return Hash{}, err
	}
	if len(w.blocks) > 0 {
		hash, err := p.completeWith(ctx, w)
		var unwritten *UnwrittenError
		if !errors.Is(err, errChanged) && !errors.As(err, &unwritten) {
			return hash, err
		}
		if err := p.s.writePiece(ctx, p.pieceTarget, w); err != nil {
			return Hash{}, err
		}
	}
	return p.complete(ctx)
}

// completeWith completes a piece with what has not been written. It is errChanged
// if that cannot be done at once.
func (p *Piece) completeWith(ctx context.Context, w *pieceWrite) (Hash, error) {
	if !w.isWhole(p.size) {
		return Hash{}, errChanged
	}
	row, err := p.look(ctx)
	if err != nil {
		return Hash{}, err
	}
	if row.id == 0 {
		row = pieceRow{blobRow: blobRow{Status: Status{State: Partial, Size: p.size}}}
	}
	if row.State != Partial || row.Size != p.size {
		return Hash{}, errChanged
	}
	return p.completeBytes(ctx, row, w)
}

// isWhole reports whether a write to a piece of a size is of whole groups.
func (w *pieceWrite) isWhole(size int64) bool {
	for _, b := range w.blocks {
		if b.Off%bao.GroupSize != 0 || b.end()%bao.GroupSize != 0 && b.end() != size {
			return false
		}
	}
	return true
}

// completeBytes makes a blob of the bytes that a key names, as long as it does,
// and of those of a write of whole groups, if any, which it makes.
func (p *Piece) completeBytes(ctx context.Context, piece pieceRow, w *pieceWrite) (Hash, error) {
	known := p.s.pieces.use(piece.id) // before what is there is looked at
	defer p.s.pieces.done(piece.id)
	c := completion{s: p.s, ctx: ctx, target: p.pieceTarget, piece: piece, known: known}
	if w != nil {
		c.fresh, c.bytes = wholePatches(w), w.cost()
	}
	return c.commit()
}

// wholePatches returns what a write of whole groups changes, each group once.
func wholePatches(w *pieceWrite) []patch {
	list := makePatches([]*pieceWrite{w})
	last := list[:0]
	for i, p := range list {
		if i+1 == len(list) || list[i+1].group != p.group {
			last = append(last, p)
		}
	}
	return last
}

// eofReader has nothing.
type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

// A completion is the making of a blob from a piece.
type completion struct {
	s      *Store
	ctx    context.Context
	target pieceTarget
	piece  pieceRow // with id 0 if all of it is fresh
	known  pieceCVs
	fresh  []patch // groups that are written in the same commit
	bytes  int64   // of these

	hash   Hash
	tiles  []tile
	stored int64   // the piece's blob, or what it was before
	rest   []int64 // blobs to discard after the commit
	// damaged tells that a blob of the same content does not verify.
	damaged bool
}

// commit hashes the piece and makes it a blob. Its transaction is the point at
// which the piece is complete: a crash before it leaves the piece as it was, one
// after it at most rows that nobody sees, which the next Open removes.
func (c *completion) commit() (Hash, error) {
	if err := c.compute(); err != nil {
		return Hash{}, err
	}
	if err := c.lookForDamage(); err != nil {
		return Hash{}, err
	}
	if err := c.s.replace(c.ctx, c.hash, c.bytes+int64(len(c.tiles))*pageSize, c.store); err != nil {
		return Hash{}, err
	}
	c.s.pieces.forget(c.stored)
	c.s.discard(c.ctx, c.rest...)
	c.s.dropLeftovers(c.ctx)
	return c.hash, nil
}

// lookForDamage reads what is there of the same content already. What is damaged
// of it is replaced by what the piece has: else a damaged piece that is shared
// could be fetched again and again, and never be had.
func (c *completion) lookForDamage() error {
	b, err := c.s.openBlob(c.ctx, c.hash, "blob "+c.hash.String())
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		c.damaged = errors.Is(err, ErrCorrupt)
		if c.damaged {
			err = nil
		}
		return err
	}
	defer b.Close()
	if !b.row.Load().isInDatabase() {
		return nil // it gives way
	}
	_, err = b.WriteTo(io.Discard)
	if c.damaged = errors.Is(err, ErrCorrupt); c.damaged {
		err = nil
	}
	return err
}

// replace puts the piece's rows and outboard in the place of a blob's.
func (c *completion) replace(conn *sqlite.Conn, blob blobRow) error {
	for _, query := range []string{"row_remove", "outboard_remove"} {
		if err := removeRange(conn, query, rowID(blob.id, 0), rowID(blob.id+1, 0)-1); err != nil {
			return err
		}
	}
	stmt := prep(conn, "row_copy")
	stmt.SetInt64(":from", rowID(c.stored, 0))
	stmt.SetInt64(":last", rowID(c.stored+1, 0)-1)
	stmt.SetInt64(":shift", rowID(blob.id, 0)-rowID(c.stored, 0))
	if err := exec(stmt); err != nil {
		return err
	}
	return insertTiles(conn, blob.id, c.tiles)
}

// compute computes the hash and the outboard. Only the groups whose CVs are not
// known are read.
func (c *completion) compute() error {
	builder := bao.Builder{Emit: collectTiles(&c.tiles)}
	buf := segments.Get().(*[segmentSize]byte)
	defer segments.Put(buf)
	for first := int64(0); first < bao.Groups(c.piece.Size); first += segmentGroups {
		if err := c.computeSegment(&builder, buf, first); err != nil {
			return err
		}
	}
	root, err := builder.Finish()
	c.hash = Hash(root)
	return err
}

// computeSegment hands the CVs of the groups from first on to the builder. That
// all of them are there is looked up even where nothing is read.
func (c *completion) computeSegment(builder *bao.Builder, buf *[segmentSize]byte, first int64) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	size := c.piece.Size
	end := min(first+segmentGroups, bao.Groups(size))
	from, to := first*bao.GroupSize, min(end*bao.GroupSize, size)
	read := false
	var fresh []ByteRange
	for group := first; group < end; group++ {
		if _, ok := c.freshCV(group); ok {
			start := group * bao.GroupSize
			fresh = append(fresh, ByteRange{start, start + int64(bao.GroupLen(size, group))})
		} else if _, ok := c.known.at(group); !ok {
			read = true
		}
	}
	if read && len(fresh) > 0 {
		return errChanged // what is fresh cannot be read
	}
	err := c.s.pool.read(c.ctx, func(conn *sqlite.Conn) error {
		written, err := writtenBytes(conn, c.piece, from, to)
		if err != nil {
			return err
		}
		if missing := gaps(mergeRanges(append(written, fresh...)), from, to); len(missing) > 0 {
			return c.missing(conn)
		}
		if read {
			return readWritten(conn, c.piece, buf[:to-from], from)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for group := first; group < end; group++ {
		cv, ok := c.freshCV(group)
		if !ok {
			cv, ok = c.known.at(group)
		}
		if !ok {
			start := (group - first) * bao.GroupSize
			cv = hashGroup(buf[start:start+int64(bao.GroupLen(size, group))], group, size <= bao.GroupSize)
		}
		if err := builder.Add(cv); err != nil {
			return err
		}
	}
	return nil
}

// freshCV returns the CV of a group that is written in the same commit.
func (c *completion) freshCV(group int64) (bao.CV, bool) {
	i, ok := slices.BinarySearchFunc(c.fresh, group, func(p patch, group int64) int { return cmp.Compare(p.group, group) })
	if !ok {
		return bao.CV{}, false
	}
	return *c.fresh[i].cv, true
}

// missing returns an error that names all that is missing, or errChanged if the
// piece has become another one.
func (c *completion) missing(conn *sqlite.Conn) error {
	now, err := findPiece(conn, c.target.key)
	if err != nil {
		return err
	}
	if now.id != c.piece.id || now.State == Complete {
		return errChanged
	}
	written, err := writtenBytes(conn, now, 0, now.Size)
	if err != nil {
		return err
	}
	return &UnwrittenError{Key: c.target.key, Ranges: gaps(written, 0, now.Size)}
}

// store makes the piece a blob, in the transaction. The writer calls it.
func (c *completion) store(conn *sqlite.Conn) error {
	c.rest = nil
	now, err := c.write(conn)
	if err != nil {
		return err
	}
	blob, err := findBlob(conn, c.hash)
	if err != nil {
		return err
	}
	if blob.isInDatabase() {
		return c.repoint(conn, blob)
	}
	if err := removeRange(conn, "presence_remove", rowID(now.id, 0), rowID(now.id+1, 0)-1); err != nil {
		return err
	}
	if blob.State != Absent { // partial, or outside: what was written here is sure
		if err := unname(conn, blob.id); err != nil {
			return err
		}
		c.rest = append(c.rest, blob.id)
	}
	stmt := prep(conn, "piece_complete")
	stmt.SetInt64(":id", now.id)
	stmt.SetBytes(":hash", c.hash[:])
	stmt.SetInt64(":now", c.s.uses.now())
	if err := exec(stmt); err != nil {
		return err
	}
	if blob.State != Absent {
		if err := c.s.supersede(conn, blob.id, now.id); err != nil {
			return err
		}
	}
	if err := insertTiles(conn, now.id, c.tiles); err != nil {
		return err
	}
	return c.s.indexArrived(conn, blobRow{id: now.id, hash: c.hash, Status: Status{State: Complete, Size: c.piece.Size, SizeProven: true}})
}

// write writes what is fresh to the piece, which must be as it was when it was
// looked at, and returns it.
func (c *completion) write(conn *sqlite.Conn) (pieceRow, error) {
	now, err := findPiece(conn, c.target.key)
	if err != nil {
		return pieceRow{}, err
	}
	changed := now.id != c.piece.id
	if now.id != 0 && !changed {
		changed = now.State != Partial || now.Size != c.piece.Size || !c.s.pieces.isAt(now.id, c.known.revision, c.s.keeper.mark)
	}
	if changed {
		return pieceRow{}, errChanged
	}
	if len(c.fresh) > 0 {
		now, err = c.s.writePatches(conn, c.target, c.piece.Size, c.fresh)
		if err == nil && c.piece.id != 0 {
			c.known.revision++ // by that write, which may have to be made again
		}
	}
	c.stored = now.id
	return now, err
}

// repoint has the key name a blob that is there already, in place of the bytes
// that were written.
func (c *completion) repoint(conn *sqlite.Conn, blob blobRow) error {
	if c.damaged {
		if err := c.replace(conn, blob); err != nil {
			return err
		}
	}
	if err := c.s.pointKey(conn, c.target.key, blob.id); err != nil {
		return err
	}
	stmt := prep(conn, "blob_touch")
	stmt.SetInt64(":id", blob.id)
	stmt.SetInt64(":now", c.s.uses.now())
	if err := exec(stmt); err != nil {
		return err
	}
	if bao.Groups(c.piece.Size) <= dropGroups {
		return removeBlob(conn, c.stored)
	}
	c.rest = append(c.rest, c.stored)
	return nil
}

func (s *Store) pointKey(conn *sqlite.Conn, key string, blob int64) error {
	s.keeper.movedIn = append(s.keeper.movedIn, subject{key: key})
	stmt := prep(conn, "key_point")
	stmt.SetBytes(":name", []byte(key))
	stmt.SetInt64(":blob", blob)
	return exec(stmt)
}

// Incomplete takes the completion back: the piece is one that is being written
// again, with all its bytes. Others who have the same content keep it. Of a piece
// that is absent or not complete there is nothing to take back. Errors:
// [ErrFull], [ErrReadOnly], [ErrClosed].
func (p *Piece) Incomplete(ctx context.Context) error {
	err := p.usable()
	if err == nil {
		err = p.s.onceOwn(ctx, p.key, func() error { return p.s.write(ctx, 0, p.reopen) })
	}
	if err != nil {
		return fmt.Errorf("mark piece %q incomplete: %w", p.key, err)
	}
	return nil
}

func (p *Piece) reopen(conn *sqlite.Conn) error {
	piece, err := findPiece(conn, p.key)
	if err != nil || piece.State != Complete {
		return err
	}
	_, err = p.s.reopenPiece(conn, p.key, piece)
	return err
}

// reopenPiece makes a complete piece one that is being written. What nobody else
// has or reads is used as it is, anything else is copied. If it has bytes outside
// it is errPieceOutside. The writer calls it.
func (s *Store) reopenPiece(conn *sqlite.Conn, key string, piece pieceRow) (pieceRow, error) {
	if piece.External > 0 {
		return pieceRow{}, errPieceOutside
	}
	shared, err := s.isShared(conn, piece)
	if err != nil {
		return pieceRow{}, err
	}
	reopened := piece
	reopened.hash, reopened.State = Hash{}, Partial
	if shared {
		reopened.id = s.newID()
		if err := s.copyPiece(conn, piece.id, reopened); err != nil {
			return pieceRow{}, err
		}
		if err := s.pointKey(conn, key, reopened.id); err != nil {
			return pieceRow{}, err
		}
	}
	if !shared {
		s.keeper.unnamed = append(s.keeper.unnamed, piece.hash)
	}
	marked, err := markRows(conn, reopened)
	if err != nil {
		return pieceRow{}, err
	}
	reopened.Stored = marked
	s.pieces.forget(reopened.id)
	if err := removeRange(conn, "outboard_remove", rowID(reopened.id, 0), rowID(reopened.id+1, 0)-1); err != nil {
		return pieceRow{}, err
	}
	stmt := prep(conn, "piece_reopen")
	stmt.SetInt64(":id", reopened.id)
	stmt.SetInt64(":stored", marked)
	if err := exec(stmt); err != nil {
		return pieceRow{}, err
	}
	return reopened, s.survived(conn, reopened.id)
}

// isShared reports whether anybody else has the blob that a piece names, or
// reads it.
func (s *Store) isShared(conn *sqlite.Conn, piece pieceRow) (bool, error) {
	stmt := prep(conn, "piece_shared")
	stmt.SetInt64(":blob", piece.id)
	n, err := stepInt(stmt)
	if err != nil || n != 0 {
		return true, err
	}
	dropped, err := s.keeper.dropOrPin(piece.id, piece.hash)
	return !dropped, err
}

// copyPiece copies the rows of a blob to a new one.
func (s *Store) copyPiece(conn *sqlite.Conn, from int64, to pieceRow) error {
	to.Stored = 0
	if err := s.insertPiece(conn, to); err != nil {
		return err
	}
	stmt := prep(conn, "row_copy")
	stmt.SetInt64(":from", rowID(from, 0))
	stmt.SetInt64(":last", rowID(from+1, 0)-1)
	stmt.SetInt64(":shift", rowID(to.id, 0)-rowID(from, 0))
	return exec(stmt)
}

// markRows marks the groups whose rows are there, as they must be, and returns
// how many bytes they have. Other rows are removed: they are damaged.
func markRows(conn *sqlite.Conn, piece pieceRow) (stored int64, err error) {
	a := pieceApplier{conn: conn, piece: piece}
	var damaged []int64
	rows := prep(conn, "check_rows")
	rows.SetInt64(":from", rowID(piece.id, 0))
	rows.SetInt64(":to", rowID(piece.id+1, 0)-1)
	defer rows.Reset()
	for {
		found, err := rows.Step()
		if err != nil {
			return 0, err
		}
		if !found {
			break
		}
		group, length := groupOf(rows.ColumnInt64(0)), rows.ColumnInt64(1)
		if length != int64(bao.GroupLen(piece.Size, group)) {
			damaged = append(damaged, group)
			continue
		}
		if _, err := a.load(group); err != nil {
			return 0, err
		}
		a.marks |= 1 << (group - a.first)
		stored += length
	}
	for _, group := range damaged {
		if err := removeRange(conn, "row_remove", rowID(piece.id, group), rowID(piece.id, group)); err != nil {
			return 0, err
		}
	}
	return stored, a.flush()
}
