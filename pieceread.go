package cairn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// ReadAt implements [io.ReaderAt]: it returns fewer than len(b) bytes only with
// an error, which is exactly [io.EOF] at the end of the piece. The bytes of a
// complete piece are verified, as those of a [Blob]; of one that is being
// written they are what was written. Where something is not, it is an
// [*UnwrittenError], after the bytes before it. A piece that is absent is
// [ErrNotFound].
func (p *Piece) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.readAt(p.ctx, b, off)
	if err != nil && err != io.EOF && !isTyped(err) {
		err = fmt.Errorf("read piece %q: %w", p.key, err)
	}
	return n, err
}

// readAt fills b a part at a time, so that no snapshot lives long.
func (p *Piece) readAt(ctx context.Context, b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errNegativeOffset
	}
	for {
		if err := p.usable(); err != nil {
			return n, err
		}
		m, end, err := p.readPart(ctx, b[n:], off+int64(n))
		n += m
		if err != nil || end {
			return n, err
		}
	}
}

// readPart reads the first part of b, in one snapshot. end tells that there is
// nothing more to read: b is full, or the error is io.EOF.
func (p *Piece) readPart(ctx context.Context, b []byte, off int64) (n int, end bool, err error) {
	err = p.s.pool.read(ctx, func(conn *sqlite.Conn) error {
		piece, err := findPiece(conn, p.key)
		if err == nil && piece.id == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		left := max(0, piece.Size-off)
		part := b[:min(int64(len(b)), left, maxPiece)]
		if n, err = p.s.readPiece(conn, piece, part, off); err != nil {
			return p.unwritten(conn, piece, err, off+int64(n), len(part)-n)
		}
		p.s.used(piece.id)
		end = n == len(b)
		if left == 0 && len(b) > 0 || n < len(b) && int64(n) == left {
			end, err = true, io.EOF
		}
		return err
	})
	return n, end, p.s.lost(ctx, err)
}

// readPiece reads part, which lies inside the piece.
func (s *Store) readPiece(conn *sqlite.Conn, piece pieceRow, part []byte, off int64) (int, error) {
	if piece.State == Complete {
		return (&Blob{s: s, hash: piece.hash}).readGroups(conn, piece.blobRow, part, off)
	}
	written, err := writtenBytes(conn, piece, off, off+int64(len(part)))
	if err != nil || len(part) == 0 {
		return 0, err
	}
	if len(written) == 0 || written[0].Start > off {
		return 0, errAbsent
	}
	n := int(written[0].End - off)
	if err := readWritten(conn, piece, part[:n], off); err != nil {
		return 0, err
	}
	if n < len(part) {
		return n, errAbsent
	}
	return n, nil
}

// readWritten reads bytes of a piece that are all there.
func readWritten(conn *sqlite.Conn, piece pieceRow, part []byte, off int64) error {
	first, last := off/bao.GroupSize, (off+int64(len(part))-1)/bao.GroupSize
	stmt := prep(conn, "row_range")
	defer stmt.Reset()
	stmt.SetInt64(":from", rowID(piece.id, first))
	stmt.SetInt64(":to", rowID(piece.id, last))
	for group := first; group <= last; group++ {
		found, err := stmt.Step()
		if err != nil {
			return err
		}
		skip := int(max(0, off-group*bao.GroupSize))
		n := min(bao.GroupSize-skip, len(part))
		if !found || groupOf(stmt.ColumnInt64(0)) != group || stmt.ColumnLen(1) < skip+n {
			return fmt.Errorf("%w: group %d has not the bytes that it should", ErrCorrupt, group)
		}
		if skip == 0 && stmt.ColumnLen(1) <= len(part) {
			stmt.ColumnBytes(1, part[:n])
		} else {
			copyRow(stmt, part[:n], skip)
		}
		part = part[n:]
	}
	return nil
}

// copyRow copies a part of the current row.
func copyRow(stmt *sqlite.Stmt, part []byte, skip int) {
	buf := scratch.Get().(*[bao.GroupSize]byte)
	defer scratch.Put(buf)
	stmt.ColumnBytes(1, buf[:])
	copy(part, buf[skip:])
}

// unwritten turns errAbsent into an UnwrittenError for what is not there of
// length bytes from off on.
func (p *Piece) unwritten(conn *sqlite.Conn, piece pieceRow, err error, off int64, length int) error {
	if !errors.Is(err, errAbsent) {
		return err
	}
	to := off + int64(length)
	written, err := writtenBytes(conn, piece, off, to)
	if err != nil {
		return err
	}
	return &UnwrittenError{Key: p.key, Ranges: gaps(written, off, to)}
}

// used notes that a blob is being read. Where very many uses wait to be written,
// it asks the writer to do so; if that has no room for it, the next batch does.
func (s *Store) used(id int64) {
	if !s.uses.read(id) || s.writer == nil || !s.writer.room.TryAcquire(requestOverhead) {
		return
	}
	s.writer.push(&request{ // ErrClosed: Close writes what is noted
		ctx:  context.Background(),
		run:  func(*sqlite.Conn) error { return nil },
		cost: requestOverhead,
		lazy: true,
		done: make(chan struct{}),
	})
}

// A PieceReader reads a piece, and protects it from eviction and deletion until it
// is closed. Of a piece that is complete when it is opened it reads that content,
// whatever the key comes to name; of one that is being written, what is there at
// the time, as [Piece.ReadAt] does. Read, Seek and WriteTo share one position, and
// are for one goroutine at a time; ReadAt may be called concurrently.
type PieceReader struct {
	size  int64
	close func()
	blob  *Blob             // of a complete piece, else nil
	piece *Piece            // of one that is being written, else nil
	view  *io.SectionReader // of piece
}

var (
	_ io.ReaderAt       = (*PieceReader)(nil)
	_ io.ReadSeekCloser = (*PieceReader)(nil)
	_ io.WriterTo       = (*PieceReader)(nil)
)

// Open returns a reader of the piece. It must be closed. If there is no such
// piece it is [ErrNotFound]. The reads are bounded by ctx too.
func (p *Piece) Open(ctx context.Context) (*PieceReader, error) {
	r, err := p.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open piece %q: %w", p.key, err)
	}
	return r, nil
}

func (p *Piece) open(ctx context.Context) (*PieceReader, error) {
	// Held before the look-up, so that no eviction can come in between.
	by := subject{key: p.key}
	if err := p.s.guard.hold(ctx, by); err != nil {
		return nil, err
	}
	r, err := p.newReader(ctx)
	if err != nil {
		p.s.guard.release(by)
		return nil, err
	}
	r.close = p.s.readers.add(fmt.Sprintf("piece %q", p.key), func() { p.s.guard.release(by) })
	return r, nil
}

// newReader returns a reader of the piece, whose key is held.
func (p *Piece) newReader(ctx context.Context) (*PieceReader, error) {
	row, err := p.look(ctx)
	if err == nil && row.id == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if row.State == Complete {
		blob, err := p.s.openBlob(ctx, row.hash, fmt.Sprintf("piece %q", p.key))
		if err == nil {
			return &PieceReader{size: row.Size, blob: blob}, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		// It is being written again.
	}
	piece := &Piece{s: p.s, ctx: ctx, pieceTarget: p.pieceTarget}
	return &PieceReader{size: row.Size, piece: piece, view: io.NewSectionReader(piece, 0, row.Size)}, nil
}

// Size returns the piece's size in bytes.
func (r *PieceReader) Size() int64 { return r.size }

// Close ends the reader and its protection. Further reads are [ErrClosed];
// further Closes do nothing.
func (r *PieceReader) Close() error {
	r.close()
	if r.blob != nil {
		return r.blob.Close()
	}
	return r.piece.Close()
}

// ReadAt implements [io.ReaderAt]; see [Piece.ReadAt].
func (r *PieceReader) ReadAt(b []byte, off int64) (int, error) {
	if r.blob != nil {
		return r.blob.ReadAt(b, off)
	}
	return r.piece.ReadAt(b, off)
}

// Read implements [io.Reader].
func (r *PieceReader) Read(b []byte) (int, error) {
	if r.blob != nil {
		return r.blob.Read(b)
	}
	if err := r.piece.usable(); err != nil {
		return 0, fmt.Errorf("read piece %q: %w", r.piece.key, err)
	}
	return r.view.Read(b)
}

// Seek implements [io.Seeker]. A position before the start is an error, one
// behind the end is not.
func (r *PieceReader) Seek(offset int64, whence int) (int64, error) {
	if r.blob != nil {
		return r.blob.Seek(offset, whence)
	}
	if err := r.piece.usable(); err != nil {
		return 0, fmt.Errorf("seek in piece %q: %w", r.piece.key, err)
	}
	return r.view.Seek(offset, whence)
}

// WriteTo implements [io.WriterTo]: it writes what is left from the position on,
// up to the first byte that is not there.
func (r *PieceReader) WriteTo(w io.Writer) (int64, error) {
	if r.blob != nil {
		return r.blob.WriteTo(w)
	}
	pos, err := r.view.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	n, err := copyOut(w, func(buf []byte) (int, error) { return r.piece.ReadAt(buf, pos) }, &pos)
	if _, seekErr := r.view.Seek(pos, io.SeekStart); err == nil {
		err = seekErr
	}
	return n, err
}

// copyOut writes what read returns, which reads at pos, until that ends.
func copyOut(w io.Writer, read func(buf []byte) (int, error), pos *int64) (written int64, err error) {
	buf := segments.Get().(*[segmentSize]byte)
	defer segments.Put(buf)
	for {
		n, err := read(buf[:])
		if n > 0 {
			m, writeErr := w.Write(buf[:n])
			written += int64(m)
			*pos += int64(m)
			if writeErr != nil {
				return written, writeErr
			}
			if m < n {
				return written, io.ErrShortWrite
			}
		}
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

// openReaders are the readers that have not been closed. The zero openReaders is
// ready. All its methods may be called concurrently.
type openReaders struct {
	mu    sync.Mutex
	names map[int64]string
	next  int64
}

// add notes a reader and returns what closes it, once.
func (o *openReaders) add(name string, close func()) func() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.names == nil {
		o.names = make(map[int64]string)
	}
	id := o.next
	o.next++
	o.names[id] = name
	return sync.OnceFunc(func() {
		o.mu.Lock()
		delete(o.names, id)
		o.mu.Unlock()
		close()
	})
}

// leaked returns an error that names a reader, if one was never closed.
func (o *openReaders) leaked() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, name := range o.names {
		if more := len(o.names) - 1; more > 0 {
			return fmt.Errorf("%w: a reader of %s, and %d more, were not closed", ErrConflict, name, more)
		}
		return fmt.Errorf("%w: a reader of %s was not closed", ErrConflict, name)
	}
	return nil
}
