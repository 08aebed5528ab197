package cairn

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"zombiezen.com/go/sqlite"
)

// PutPiece stores all that r has, to its end, as a complete piece under a key, in
// one commit with it, in place of what the key names now. If size is not negative
// r must have exactly so many bytes, or nothing happens: fewer are
// [io.ErrUnexpectedEOF], more [ErrMismatch]. opts.Durability means nothing here.
// Other errors are those of [Store.Add] and [Store.Piece].
func (s *Store) PutPiece(ctx context.Context, key string, r io.Reader, size int64, opts *PieceOptions) (Hash, error) {
	target := s.newPiece(ctx, key, size, opts).pieceTarget
	err := validName("key", key)
	if err == nil && target.owner != "" {
		err = validName("owner", target.owner)
	}
	if err == nil && size >= 0 {
		r = &exactReader{r: r, left: size}
		err = s.capacity.admits(size)
	}
	var hash Hash
	if err == nil {
		hash, err = s.putPiece(ctx, target, r)
	}
	if err != nil {
		return Hash{}, fmt.Errorf("put piece %q: %w", key, err)
	}
	return hash, nil
}

func (s *Store) putPiece(ctx context.Context, target pieceTarget, r io.Reader) (Hash, error) {
	var t taken // what the key named before
	tag, err := s.add(ctx, r, nil, func(conn *sqlite.Conn, blob blobRow) (err error) {
		t, err = s.take(conn, func(conn *sqlite.Conn) error { return s.putKey(conn, target, blob) })
		return err
	})
	if err != nil {
		return Hash{}, err
	}
	defer tag.Release()
	s.discard(ctx, t.rest...)
	return tag.Hash(), nil
}

// putKey has a key name a blob.
func (s *Store) putKey(conn *sqlite.Conn, target pieceTarget, blob blobRow) error {
	old, err := findPiece(conn, target.key)
	if err != nil || old.id == blob.id {
		return err
	}
	if old.id != 0 {
		if err = admitsOwner(conn, old.owner, blob.Size); err == nil {
			err = s.pointKey(conn, target.key, blob.id)
		}
	} else {
		var owner int64
		if owner, err = s.pieceOwner(conn, target.owner, blob.Size); err == nil {
			err = insertKey(conn, target.key, blob.id, owner)
		}
	}
	if err != nil {
		return err
	}
	if now, err := findPiece(conn, target.key); err != nil || now.id != blob.id {
		return cmp.Or(err, errCrowded) // it was its own victim
	}
	return nil
}

// An exactReader reads exactly a number of bytes.
type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	e.left -= int64(n)
	switch {
	case e.left < 0:
		return n, fmt.Errorf("%w: %d bytes more than stated", ErrMismatch, -e.left)
	case err == io.EOF && e.left > 0:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}
