package cairn

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// ExportBao writes the response to a request for the given ranges of a blob,
// complete or partial; see [bao.Encode] for its form. The size that it begins
// with is not proven if the blob's is not. Everything is verified before it is
// written.
//
// A blob that lacks some of the ranges is a [*MissingError] with these, one that
// is not in the store [ErrNotFound], both before the first byte. Damage is a
// [*CorruptError], after what comes before it. Otherwise errors are those of w
// and ctx, and [ErrClosed].
func (s *Store) ExportBao(ctx context.Context, hash Hash, ranges bao.Ranges, w io.Writer) error {
	if err := s.exportBao(ctx, hash, ranges, w); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func (s *Store) exportBao(ctx context.Context, hash Hash, ranges bao.Ranges, w io.Writer) error {
	b, err := s.Blob(ctx, hash)
	if err != nil {
		return err
	}
	defer b.Close()
	row, err := b.require(ranges)
	if err != nil {
		return err
	}
	err = bao.Encode(w, bao.CV(hash), row.Size, ranges, rawBlob{b, row.Size})
	var mismatch *bao.MismatchError
	if errors.As(err, &mismatch) {
		start, end := int64(mismatch.Start)*bao.ChunkSize, int64(mismatch.End)*bao.ChunkSize
		err = &CorruptError{Hash: hash, Ranges: []ByteRange{{start, min(end, row.Size)}}, Err: err}
	} else if err != nil && !isTyped(err) {
		err = fmt.Errorf("blob %v: %w", hash, err)
	}
	return err
}

// require returns the blob's row if the groups of all chunks that ranges select
// are there, and a MissingError with the others if not. Until the handle is
// closed, what is there stays.
func (b *Blob) require(ranges bao.Ranges) (blobRow, error) {
	row, missing, err := b.lacks(ranges)
	if err == nil && !missing.IsEmpty() {
		err = &MissingError{b.hash, missing}
	} else if err != nil {
		err = fmt.Errorf("blob %v: %w", b.hash, err)
	}
	return row, err
}

// lacks returns the blob's row and, in whole groups, what it has not of the
// ranges.
func (b *Blob) lacks(ranges bao.Ranges) (row blobRow, missing bao.Ranges, err error) {
	err = b.s.pool.read(b.ctx, func(conn *sqlite.Conn) error {
		if row, err = b.look(conn); err != nil || row.State == Complete {
			return err
		}
		whole := ranges.Effective(row.Size).Groups().Intersect(bao.Chunks(0, bao.ChunkCount(row.Size)))
		present, err := presentChunks(conn, row, whole)
		missing = whole.Minus(present)
		return err
	})
	return row, missing, err
}

// A rawBlob reads what is stored of a blob for the bao package, which verifies
// it. Each read has a snapshot of its own, so that a slow receiver holds none.
type rawBlob struct {
	b *Blob
	// size is the one that the tree is walked by. Another statement, or the
	// truth, may have taken its place meanwhile; what was there then is found
	// by either.
	size int64
}

// ReadTile implements [bao.TileReader].
func (r rawBlob) ReadTile(t bao.Tile) (pairs []byte, err error) {
	err = r.b.s.pool.read(r.b.ctx, func(conn *sqlite.Conn) error {
		return r.b.withRow(conn, func(row blobRow) error {
			if pairs, err = readTile(conn, row, t); err != nil && r.b.isStale(conn, row) {
				err = errStale
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	// As long as it would be with the size that the tree is walked by.
	want := max(0, t.Units(bao.Groups(r.size))-1) * bao.PairSize
	return append(pairs[:min(want, int64(len(pairs)))], make([]byte, max(0, want-int64(len(pairs))))...), nil
}

// ReadAt reads whole groups, as [bao.Encode] asks for them.
func (r rawBlob) ReadAt(p []byte, off int64) (n int, err error) {
	err = r.b.s.pool.read(r.b.ctx, func(conn *sqlite.Conn) error {
		return r.b.withRow(conn, func(row blobRow) error {
			n, err = r.readGroups(conn, row, p, off)
			return err
		})
	})
	return n, r.b.s.lost(r.b.ctx, err)
}

// readGroups fills p, unverified.
func (r rawBlob) readGroups(conn *sqlite.Conn, row blobRow, p []byte, off int64) (n int, err error) {
	rows := r.b.openRows(conn, row, off, int64(len(p)))
	defer rows.close()
	for group := off / bao.GroupSize; n < len(p); group++ {
		length, _, err := rows.read(group, p[n:])
		if err == errAbsent {
			return n, r.b.absent(conn, rows.blob, group*bao.GroupSize, bao.GroupLen(rows.blob.Size, group))
		}
		if err != nil {
			return n, r.b.damaged(conn, rows.blob, group, err)
		}
		n += length
	}
	return n, nil
}
