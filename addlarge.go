package cairn

import (
	"context"
	"errors"
	"io"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A largeAdd writes a blob of unknown size under a hidden blob row, one
// segment a transaction, while the next segment is read and hashed. Of a file
// that stays where it is, it writes the tiles only.
type largeAdd struct {
	steps
	then   link
	file   *outsideFile // nil if the bytes are in the database
	staged bool         // whether there is a hidden blob, by the first step
	// prepared tells that the content's children are indexed, if it is a sequence.
	prepared bool
	builder  bao.Builder
	tiles    []tile // complete, not yet handed to the writer
	size     int64
	id       int64 // set by the first step, or by publish; read when that is settled
}

// addLarge stores the full first segment and the rest of r.
func (s *Store) addLarge(ctx context.Context, r io.Reader, first *[segmentSize]byte, opts *AddOptions, then link) (_ *TempTag, err error) {
	a := &largeAdd{steps: steps{s: s, ctx: ctx}, then: then, staged: true}
	a.builder.Emit = collectTiles(&a.tiles)
	defer func() { a.end(err) }()
	for buf, n, end := first, segmentSize, error(nil); ; {
		if n > 0 {
			if err := a.segment(buf, n); err != nil {
				return nil, err
			}
			opts.progress(Copying, a.size)
		}
		if end == io.EOF {
			break
		}
		if end != nil {
			return nil, end
		}
		buf = segments.Get().(*[segmentSize]byte)
		n, end = readSegment(ctx, r, buf)
	}
	return a.publish(opts)
}

// segment hashes one segment and hands it to the writer, which owns buf then.
func (a *largeAdd) segment(buf *[segmentSize]byte, n int) error {
	group := a.size / bao.GroupSize
	if a.size += int64(n); a.size > MaxBlobSize {
		return ErrTooLarge
	}
	if err := a.s.capacity.admits(a.size); err != nil {
		return err
	}
	if err := hashSegment(&a.builder, buf[:n], group, false); err != nil {
		return err
	}
	tiles := a.tiles
	a.tiles = nil
	return a.enqueue(int64(n), a.size > bulkMin, func(conn *sqlite.Conn) error {
		if err := a.stage(conn, group == 0); err != nil {
			return err
		}
		if err := insertSegment(conn, a.id, group, buf[:n], tiles); err != nil {
			return err
		}
		stmt := prep(conn, "blob_grow")
		stmt.SetInt64(":id", a.id)
		stmt.SetInt64(":bytes", int64(n))
		return exec(stmt)
	}, nil, buf)
}

// errStaging is the outcome of a step whose predecessors were rolled back; the
// add has failed with the error of the first of them.
var errStaging = errors.New("an earlier step failed")

// stage makes the hidden blob, with the first segment, or sees that it is
// there: a step whose first one failed must leave no rows without a blob. The
// writer calls it.
func (a *largeAdd) stage(conn *sqlite.Conn, first bool) error {
	if a.lost != nil {
		return a.lost
	}
	if !first {
		stmt := prep(conn, "blob_staged")
		stmt.SetInt64(":id", a.id)
		n, err := stepInt(stmt)
		if err == nil && n == 0 {
			err = errStaging
		}
		return err
	}
	a.id = a.s.newID()
	stmt := prep(conn, "blob_stage")
	stmt.SetInt64(":id", a.id)
	stmt.SetInt64(":now", a.s.uses.now())
	return exec(stmt)
}

// publish makes the blob visible and complete in place of a partial one, or
// drops it if its content is in the store already. Only with publish's commit
// does anybody see the blob; a crash before that leaves hidden rows that the
// next Open removes, one after it at most those of the partial blob. A file
// outside is still what was hashed, as far as can be seen, just before it.
func (a *largeAdd) publish(opts *AddOptions) (*TempTag, error) {
	root, err := a.builder.Finish()
	if err != nil {
		return nil, err
	}
	hash := Hash(root)
	opts.outboarding(a.size, false)
	if err := errors.Join(a.settleAll(), opts.checkSize(a.size)); err != nil {
		return nil, err
	}
	tag, err := a.s.protect(a.ctx, hash, opts, a.then)
	if err != nil {
		return nil, err
	}
	rest, err := a.commit(tag, opts)
	if errors.Is(err, errUnindexed) {
		a.prepared = true
		err = a.s.prepareSequence(a.ctx, hash, a.content(), func() error {
			rest, err = a.commit(tag, opts)
			return err
		})
	}
	if err != nil {
		tag.Release()
		return nil, err
	}
	if rest != 0 {
		a.s.discard(a.ctx, rest)
	}
	a.s.added(a.ctx, tag)
	opts.outboarding(a.size, true)
	return tag, nil
}

// commit has the writer store the blob, and returns the one to discard: ours, the
// one that gave way, or none.
func (a *largeAdd) commit(tag *TempTag, opts *AddOptions) (rest int64, err error) {
	if a.file != nil {
		if err := a.s.lockNaming(a.ctx); err != nil { // no export may take the file's place from here on
			return 0, err
		}
		defer a.s.unlockNaming()
		if err := a.file.unchanged(); err != nil {
			return 0, err
		}
	}
	err = a.s.replace(a.ctx, tag.Hash(), int64(len(a.tiles))*pageSize, func(conn *sqlite.Conn) (err error) {
		rest, err = a.store(conn, tag, opts)
		return err
	})
	return rest, err
}

// store makes the blob visible, in publish's transaction, and returns the one
// whose rows are to be discarded.
func (a *largeAdd) store(conn *sqlite.Conn, tag *TempTag, opts *AddOptions) (rest int64, err error) {
	if a.lost != nil {
		return 0, a.lost
	}
	hash := tag.Hash()
	old, err := a.s.touchBlob(conn, hash, a.then == nil)
	if err != nil {
		return 0, err
	}
	if old.isInDatabase() || old.State == Complete && a.file != nil {
		return a.yield(conn, old, tag, opts)
	}
	if !a.staged {
		if err := a.stage(conn, true); err != nil {
			return 0, err
		}
	}
	if old.State != Absent {
		if err := unname(conn, old.id); err != nil {
			return 0, err
		}
	}
	if err := a.makeVisible(conn, hash); err != nil {
		return 0, err
	}
	if old.State != Absent {
		if err := a.s.supersede(conn, old.id, a.id); err != nil {
			return 0, err
		}
	}
	blob := blobRow{id: a.id, hash: hash, Status: Status{State: Complete, Size: a.size, Stored: a.size, SizeProven: true}}
	if !a.prepared {
		if err := a.s.indexAdded(conn, blob); err != nil {
			return 0, err
		}
	}
	if err := a.s.finishAdd(conn, blob, tag, opts, a.then); err != nil {
		return 0, err
	}
	return old.id, a.s.survived(conn, a.id)
}

// yield leaves the blob to one that is complete already, which gets the file
// outside, if it needs any.
func (a *largeAdd) yield(conn *sqlite.Conn, old blobRow, tag *TempTag, opts *AddOptions) (rest int64, err error) {
	if a.file != nil && old.External > 0 {
		if err := putPath(conn, old.id, *a.file); err != nil {
			return 0, err
		}
	}
	if a.staged {
		rest = a.id
		if err := hideBlob(conn, a.id); err != nil { // it is not kept
			return 0, err
		}
	}
	return rest, a.s.finishAdd(conn, old, tag, opts, a.then)
}

// makeVisible makes the hidden blob a complete one, with the tiles that are not
// there yet.
func (a *largeAdd) makeVisible(conn *sqlite.Conn, hash Hash) error {
	stmt := prep(conn, "blob_publish")
	stmt.SetInt64(":id", a.id)
	stmt.SetBytes(":hash", hash[:])
	stmt.SetInt64(":size", a.size)
	stmt.SetInt64(":external", 0)
	if a.file != nil {
		stmt.SetInt64(":external", a.size)
	}
	stmt.SetInt64(":now", a.s.uses.now())
	stmt.SetBool(":added", a.then == nil)
	if err := exec(stmt); err != nil {
		return err
	}
	if a.file != nil {
		if err := putPath(conn, a.id, *a.file); err != nil {
			return err
		}
	}
	return insertTiles(conn, a.id, a.tiles)
}

// content returns what has been staged, from where it is.
func (a *largeAdd) content() io.Reader {
	return io.NewSectionReader(stagedContent{a}, 0, a.size)
}

// A stagedContent reads what an add has staged. It is as it was hashed, or has been
// damaged since.
type stagedContent struct{ a *largeAdd }

// ReadAt implements [io.ReaderAt] for ranges that lie in the content.
func (c stagedContent) ReadAt(p []byte, off int64) (int, error) {
	a := c.a
	if a.file != nil {
		f, _, err := a.s.openOutside(a.file.path)
		if err != nil {
			return 0, err
		}
		defer a.s.files.release(f)
		return f.ReadAt(p, off)
	}
	staged := pieceRow{blobRow: blobRow{id: a.id, Status: Status{State: Partial, Size: a.size}}}
	err := a.s.pool.read(a.ctx, func(conn *sqlite.Conn) error { return readWritten(conn, staged, p, off) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// end removes what has been written of a blob that will not be, if the add has
// failed, and what others have left.
func (a *largeAdd) end(err error) {
	if err != nil {
		a.abandon()
	}
	if a.ctx.Err() == nil {
		a.s.dropLeftovers(a.ctx)
	}
}

// abandon removes what has been written. Who has cancelled the add does not wait for
// the rows, however many: they count no more, and go in the background, or with the
// next Open.
func (a *largeAdd) abandon() {
	a.settleAll() // the add has failed already; this only waits
	if a.id == 0 {
		return
	}
	if a.ctx.Err() == nil {
		a.s.discard(a.ctx, a.id)
		return
	}
	err := a.s.writeLazy(context.WithoutCancel(a.ctx), func(conn *sqlite.Conn) error { return hideBlob(conn, a.id) })
	if err != nil {
		a.s.leftovers.add(a.id)
		return
	}
	a.s.beside(func() {
		if left, err := a.s.dropHidden(a.s.background, []int64{a.id}); err != nil {
			a.s.leftovers.add(left...)
		}
	})
}
