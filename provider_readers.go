package cairn

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A part is one of the pieces that ReadConsecutiveChunks puts together.
type part struct {
	start, size int64
	hash        Hash // zero of a piece that is not complete
}

// ReadConsecutiveChunks reads the pieces whose keys are prefix and a decimal
// number as one sequence of bytes. The number is the offset of the piece in it,
// without sign or leading zeros; the first is 0, and each next one continues
// where the one before ends. A gap is [ErrMissing]; an overlap, and a key that
// has something else behind the prefix, is [ErrMismatch]; no key at all is
// [ErrNotFound].
//
// What is read is what the listing showed when this returned: a complete piece
// is found by its hash, even if it has another key by then, or its key another
// content. One that is not there any more is [ErrNotFound] when its turn comes.
// A piece that is not complete is read as it is then; bytes that it lacks are an
// [*UnwrittenError].
//
// The reader protects nothing, holds no lock and no connection between two
// calls, and has no goroutine: to close it only makes later reads [ErrClosed].
// It is for one goroutine at a time, and has the method of [io.WriterTo].
// Memory: 80 bytes a piece, and 16 KiB.
func (p *Provider) ReadConsecutiveChunks(prefix string) (io.ReadCloser, error) {
	parts, err := p.s.partsBelow(p.ctx, prefix)
	if err == nil {
		err = checkConsecutive(parts)
	}
	if err != nil {
		return nil, fmt.Errorf("chunks of %q: %w", prefix, err)
	}
	r := &chunksReader{s: p.s}
	r.buf = bufio.NewReaderSize(&partsReader{p, prefix, parts, 0}, bao.GroupSize)
	return r, nil
}

// partsBelow lists the parts under a prefix in one snapshot, in the order of
// their offsets.
func (s *Store) partsBelow(ctx context.Context, prefix string) (parts []part, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		parts, err = scanParts(conn, prefix)
		return err
	})
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.start, b.start) })
	return parts, err
}

func scanParts(conn *sqlite.Conn, prefix string) (parts []part, err error) {
	stmt := prep(conn, "provider_parts")
	defer stmt.Reset()
	bindPrefix(stmt, prefix)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return parts, err
		}
		start, err := parseOffset(columnString(stmt, "name")[len(prefix):])
		if err != nil {
			return nil, err
		}
		part := part{start: start, size: stmt.GetInt64("size")}
		stmt.GetBytes("hash", part.hash[:])
		parts = append(parts, part)
	}
}

// parseOffset reads the part of a key that is an offset. Each offset is written
// in one way only, so that no two keys have the same.
func parseOffset(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%w: %q is no offset", ErrMismatch, text)
	}
	return n, nil
}

// checkConsecutive returns an error unless each part begins where the one
// before ends.
func checkConsecutive(parts []part) error {
	if len(parts) == 0 {
		return ErrNotFound
	}
	var end int64
	for _, part := range parts {
		if part.start > end {
			return fmt.Errorf("%w: gap at bytes %d..%d", ErrMissing, end, part.start)
		}
		if part.start < end {
			return fmt.Errorf("%w: overlap at bytes %d..%d", ErrMismatch, part.start, end)
		}
		end += part.size
	}
	return nil
}

// A chunksReader reads parts through a buffer, so that a reader of small pieces
// does not have a group verified for each.
type chunksReader struct {
	s      *Store
	buf    *bufio.Reader
	closed atomic.Bool
}

var _ io.WriterTo = (*chunksReader)(nil)

// Read implements [io.Reader].
func (r *chunksReader) Read(p []byte) (int, error) {
	err := r.s.pool.open()
	if r.closed.Load() {
		err = ErrClosed
	}
	if err != nil {
		return 0, fmt.Errorf("read chunks: %w", err)
	}
	return r.buf.Read(p)
}

// WriteTo implements [io.WriterTo], with a buffer that suits the store.
func (r *chunksReader) WriteTo(w io.Writer) (int64, error) {
	buf := segments.Get().(*[segmentSize]byte)
	defer segments.Put(buf)
	// Hidden in structs, neither side brings a way of its own to copy.
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
}

// Close implements [io.Closer].
func (r *chunksReader) Close() error {
	r.closed.Store(true)
	return nil
}

// A partsReader reads parts one after the other. It looks a part up anew for
// every read.
type partsReader struct {
	p      *Provider
	prefix string
	parts  []part // from the one at the position on
	pos    int64  // in the first of parts
}

// Read implements [io.Reader]. It fills b as far as there is something.
func (r *partsReader) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if len(r.parts) == 0 {
			return n, io.EOF
		}
		m, err := r.readPart(b[n:])
		n += m
		if err != nil {
			key := r.prefix + strconv.FormatInt(r.parts[0].start, 10)
			return n, fmt.Errorf("read chunk %q: %w", key, err)
		}
	}
	return n, nil
}

// readPart reads from the part at the position, and goes on to the next one at
// its end.
func (r *partsReader) readPart(b []byte) (n int, err error) {
	part := r.parts[0]
	b = b[:min(int64(len(b)), part.size-r.pos, maxPiece)]
	if len(b) > 0 {
		if part.hash != (Hash{}) {
			n, err = r.readBlob(part.hash, b)
		} else {
			n, err = r.readPiece(part.start, b)
		}
		r.pos += int64(n)
	}
	if n < len(b) {
		if err == io.EOF {
			err = fmt.Errorf("%w: it has become shorter", ErrMismatch)
		}
		return n, err
	}
	if r.pos == part.size {
		r.parts, r.pos = r.parts[1:], 0
	}
	return n, nil
}

// readBlob reads what was a complete piece, without protecting it: it would be
// protected from being deleted for as long as a read takes, which nobody who
// deletes it could understand.
func (r *partsReader) readBlob(hash Hash, b []byte) (n int, err error) {
	err = r.p.s.pool.read(r.p.ctx, func(conn *sqlite.Conn) error {
		row, err := findBlob(conn, hash)
		if err == nil && row.State != Complete {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		r.p.s.used(row.id)
		n, err = (&Blob{s: r.p.s, hash: hash}).readGroups(conn, row, b, r.pos)
		return err
	})
	return n, r.p.s.lost(r.p.ctx, err)
}

// readPiece reads a piece that is not complete.
func (r *partsReader) readPiece(start int64, b []byte) (int, error) {
	piece, err := r.p.s.OpenPiece(r.p.ctx, r.prefix+strconv.FormatInt(start, 10))
	if err != nil {
		return 0, err
	}
	defer piece.Close()
	return piece.ReadAt(b, r.pos)
}
