package cairn

import (
	"errors"
	"fmt"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// blobRows goes through the groups of a range of a blob's bytes, wherever they are:
// in rows, or in files outside.
type blobRows struct {
	b    *Blob
	conn *sqlite.Conn
	blob blobRow
	stmt *sqlite.Stmt
	// on tells that the statement stands on a row that has not been read, ended
	// that there is no further one.
	on, ended bool
	outside   outsideReader

	marksFrom int64 // of the bitmap that marks are from, if marked
	marks     uint64
	marked    bool
}

// openRows begins with the group that off is in. It must be closed.
func (b *Blob) openRows(conn *sqlite.Conn, blob blobRow, off, length int64) *blobRows {
	first, last := off/bao.GroupSize, (off+length-1)/bao.GroupSize
	stmt := prep(conn, "row_get")
	if last > first {
		stmt = prep(conn, "row_range")
		stmt.SetInt64(":to", rowID(blob.id, last))
	}
	stmt.SetInt64(":from", rowID(blob.id, first))
	return &blobRows{
		b:       b,
		conn:    conn,
		blob:    blob,
		stmt:    stmt,
		ended:   blob.External > 0 && blob.Stored == 0,
		outside: outsideReader{s: b.s},
	}
}

func (r *blobRows) close() {
	r.stmt.Reset()
	r.outside.close()
}

// read reads the given group, which follows the one before, to the start of p, and
// returns its length, which is the one that it must have, and whether it has been
// verified: in a blob that has bytes outside it always is. What p has behind it is the read's to write to: it may be what
// follows. A group that a partial blob does not have is errAbsent.
func (r *blobRows) read(group int64, p []byte) (length int, verified bool, err error) {
	found, err := r.next(group)
	if err != nil {
		return 0, false, err
	}
	length = bao.GroupLen(r.blob.Size, group)
	if !found {
		if err := r.expectOutside(group); err != nil {
			return 0, false, err
		}
		return length, true, r.outside.read(r.conn, r.blob, group, p)
	}
	if n := r.stmt.ColumnLen(1); n != length {
		return r.instead(group, p, fmt.Errorf("%w: row has %d bytes, not %d", bao.ErrMismatch, n, length))
	}
	r.stmt.ColumnBytes(1, p[:length])
	if r.blob.External == 0 {
		return length, false, nil
	}
	want, err := r.b.s.groupCV(r.conn, r.blob, group)
	if err != nil {
		return 0, false, err
	}
	if hashGroup(p[:length], group, r.blob.Size <= bao.GroupSize) != want {
		return r.instead(group, p, bao.ErrMismatch)
	}
	return length, true, nil
}

// instead reads a group whose row is damaged from the files outside, if there are
// any and one has it.
func (r *blobRows) instead(group int64, p []byte, rowErr error) (length int, verified bool, err error) {
	if r.blob.External == 0 {
		return 0, false, rowErr
	}
	err = r.outside.read(r.conn, r.blob, group, p)
	if errors.Is(err, errOutside) { // what is to be told is the row
		err = rowErr
	}
	return bao.GroupLen(r.blob.Size, group), true, err
}

// next goes to the row of a group, and reports whether there is one.
func (r *blobRows) next(group int64) (found bool, err error) {
	if !r.on && !r.ended {
		if r.on, err = r.stmt.Step(); err != nil {
			return false, err
		}
		r.ended = !r.on
	}
	if r.on && r.stmt.ColumnInt64(0) == rowID(r.blob.id, group) {
		r.on = false
		return true, nil
	}
	return false, nil
}

// expectOutside returns an error if a group that has no row cannot be outside.
func (r *blobRows) expectOutside(group int64) error {
	if r.blob.isInDatabase() { // when it was looked at
		now, err := findBlob(r.conn, r.b.hash)
		if err != nil {
			return err
		}
		if now.id == r.blob.id && now.External > 0 {
			r.blob = now
			r.b.row.Store(&now)
		}
	}
	switch {
	case r.blob.State == Complete && r.blob.External > 0:
		return nil
	case r.blob.State == Complete:
		return fmt.Errorf("%w: row is missing", bao.ErrMismatch)
	case r.blob.External == 0:
		return errAbsent
	}
	if first := group &^ (groupRun - 1); !r.marked || first != r.marksFrom {
		marks, err := presentGroups(r.conn, r.blob.id, first)
		if err != nil {
			return err
		}
		r.marks, r.marksFrom, r.marked = marks, first, true
	}
	if r.marks>>(group-r.marksFrom)&1 == 0 {
		return errAbsent
	}
	return nil
}
