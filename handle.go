package cairn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A Blob is an open handle on a blob. It protects the blob from deletion until
// it is closed. Every byte it returns has been verified against the hash, down
// to the 16 KiB group; a group that does not verify is a [*CorruptError] with
// its byte range, and the others still read.
//
// Of a partial blob, what is there can be read; what is not is a
// [*MissingError] that names it. What arrives while the handle is open can be
// read at once.
//
// ReadAt may be called concurrently, also with the other methods. Read, Seek
// and WriteTo share one position, and are for one goroutine at a time.
type Blob struct {
	s     *Store
	ctx   context.Context
	hash  Hash
	close func()

	// row is the blob as it was last seen. While it is partial, or has bytes
	// outside, each read looks again. A complete one may have gone outside since,
	// lost what was damaged, or been added again, with another id: that is looked
	// at when a row is missing.
	row atomic.Pointer[blobRow]

	// For the goroutine that uses Read, Seek and WriteTo. The first currentLen
	// bytes of current are those from currentStart on, and verified.
	pos          int64
	current      *[bao.GroupSize]byte
	currentStart int64
	currentLen   int

	mu     sync.RWMutex // held for reading during each ReadAt
	closed bool
}

var (
	_ io.ReaderAt       = (*Blob)(nil)
	_ io.ReadSeekCloser = (*Blob)(nil)
	_ io.WriterTo       = (*Blob)(nil)
)

// Blob opens a blob, complete or partial. An absent one is [ErrNotFound]. The
// reads of the handle are bounded by ctx too.
func (s *Store) Blob(ctx context.Context, hash Hash) (*Blob, error) {
	b, err := s.openBlob(ctx, hash, "blob "+hash.String())
	if err != nil {
		return nil, fmt.Errorf("blob %v: %w", hash, err)
	}
	return b, nil
}

// openBlob opens a blob for a reader of what is named.
func (s *Store) openBlob(ctx context.Context, hash Hash, name string) (*Blob, error) {
	// Held before the look-up, so that no deletion can come in between.
	if err := s.guard.hold(ctx, subject{hash: hash}); err != nil {
		return nil, err
	}
	row, err := s.findBlob(ctx, hash)
	if err == nil && row.State == Absent {
		err = ErrNotFound
	}
	if err == nil && !possibleSize(row) {
		err = fmt.Errorf("%w: its size cannot be %d", ErrCorrupt, row.Size)
	}
	if err != nil {
		s.guard.release(subject{hash: hash})
		return nil, err
	}
	b := &Blob{
		s:     s,
		ctx:   ctx,
		hash:  hash,
		close: s.readers.add(name, func() { s.guard.release(subject{hash: hash}) }),
	}
	b.row.Store(&row)
	return b, nil
}

// Size returns the blob's size in bytes. That of a partial blob may not be
// proven yet; see [Status.SizeProven].
func (b *Blob) Size() int64 { return b.row.Load().Size }

// Missing returns what the blob lacks of some ranges, in whole groups: nothing if
// they can be read and exported. It looks only at what it is asked for. A range
// that reaches behind the end means the last chunk, as in a request.
func (b *Blob) Missing(ranges bao.Ranges) (bao.Ranges, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var missing bao.Ranges
	err := b.usable()
	if err == nil {
		_, missing, err = b.lacks(ranges)
	}
	if err != nil {
		return bao.Ranges{}, fmt.Errorf("missing of blob %v: %w", b.hash, err)
	}
	return missing, nil
}

// Hash returns the blob's hash.
func (b *Blob) Hash() Hash { return b.hash }

// Close ends the handle and its protection. Further reads are [ErrClosed];
// further Closes do nothing.
func (b *Blob) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.close()
	return nil
}

var errNegativeOffset = errors.New("negative offset")

// ReadAt implements [io.ReaderAt]: it returns fewer than len(p) bytes only
// with an error, which is exactly [io.EOF] at the end of the blob. The end of a
// partial blob whose size is not proven is not known: behind it, too, data is
// missing.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read blob %v: %w", b.hash, errNegativeOffset)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	n, err := 0, b.usable()
	if err == nil {
		n, err = b.readAt(p, off)
	}
	if err != nil && err != io.EOF && !isTyped(err) {
		err = fmt.Errorf("read blob %v: %w", b.hash, err)
	}
	return n, err
}

// usable returns ErrClosed if the handle or the store is closed. The caller
// holds mu.
func (b *Blob) usable() error {
	if b.closed {
		return ErrClosed
	}
	return b.s.pool.open()
}

// readAt fills p a piece at a time, so that no snapshot lives long.
func (b *Blob) readAt(p []byte, off int64) (n int, err error) {
	for {
		m, end, err := b.readPiece(p[n:], off+int64(n))
		n += m
		if err != nil || end {
			return n, b.s.lost(b.ctx, err)
		}
	}
}

// lost looks at the whole of a blob of which a read has found a group in no file
// outside. What is not there is absent from then on; the error names all of it.
// The caller must hold no reading connection.
func (s *Store) lost(ctx context.Context, err error) error {
	var c *CorruptError
	if !errors.Is(err, errOutside) || !errors.As(err, &c) {
		return err
	}
	bad, lookErr := s.lookAt(ctx, c.Hash)
	var blob blobRow
	if lookErr == nil {
		blob, lookErr = s.findBlob(ctx, c.Hash)
	}
	if lookErr != nil {
		return &CorruptError{c.Hash, c.Ranges, fmt.Errorf("%w; and not looked at as a whole: %w", c.Err, lookErr)}
	}
	ranges := slices.Clone(c.Ranges)
	bounds := bad.Bounds()
	for i := 0; i+1 < len(bounds); i += 2 {
		ranges = append(ranges, ByteRange{int64(bounds[i]) * bao.ChunkSize, min(int64(bounds[i+1])*bao.ChunkSize, blob.Size)})
	}
	return &CorruptError{c.Hash, mergeRanges(ranges), c.Err}
}

// isTyped reports whether an error names the blob or the piece already.
func isTyped(err error) bool {
	var c *CorruptError
	var m *MissingError
	var u *UnwrittenError
	return errors.As(err, &c) || errors.As(err, &m) || errors.As(err, &u)
}

// maxPiece is the most bytes read with one snapshot.
const maxPiece = 1 << 20

// readPiece reads the first part of p, in one snapshot. end tells that there is
// nothing more to read: p is full, or the error is io.EOF.
func (b *Blob) readPiece(p []byte, off int64) (n int, end bool, err error) {
	r, err := b.s.pool.take(b.ctx)
	if err != nil {
		return 0, false, err
	}
	defer b.s.pool.put(r)
	err = b.withRow(r.Conn, func(row blobRow) (err error) {
		n, end, err = b.readPieceOf(r.Conn, row, p, off)
		return err
	})
	return n, end, mapSQLite(err)
}

// readPieceOf is readPiece of a blob as it is given.
func (b *Blob) readPieceOf(conn *sqlite.Conn, row blobRow, p []byte, off int64) (n int, end bool, err error) {
	left := max(0, row.Size-off)
	if left == 0 && !row.SizeProven && len(p) > 0 {
		return 0, false, b.absent(conn, row, off, len(p))
	}
	b.s.used(row.id)
	piece := p[:min(int64(len(p)), left, maxPiece)]
	n, err = b.readGroups(conn, row, piece, off)
	if errors.Is(err, errAbsent) {
		err = b.absent(conn, row, off+int64(n), len(p)-n)
	}
	if err != nil {
		return n, false, err
	}
	if row.SizeProven && (left == 0 || n < len(p) && int64(n) == left) {
		return n, true, io.EOF
	}
	return n, n == len(p), nil
}

// errStale means that a blob is not as it was when it was last seen.
var errStale = errors.New("looked at in another snapshot")

// withRow calls f with the blob's row, and if that turns out stale once more, with
// the one that is in the snapshot.
func (b *Blob) withRow(conn *sqlite.Conn, f func(row blobRow) error) error {
	row, err := b.look(conn)
	if err == nil {
		err = f(row)
	}
	if errors.Is(err, errStale) {
		if row, err = b.lookAgain(conn); err == nil {
			err = f(row)
		}
	}
	return err
}

// look returns the blob's row: as it is in the snapshot, unless all of it was in
// the database when it was last seen.
func (b *Blob) look(conn *sqlite.Conn) (blobRow, error) {
	if row := b.row.Load(); row.isInDatabase() {
		return *row, nil
	}
	return b.lookAgain(conn)
}

// lookAgain returns the blob's row as it is in the snapshot.
func (b *Blob) lookAgain(conn *sqlite.Conn) (blobRow, error) {
	row, err := findBlob(conn, b.hash)
	if err == nil && row.State == Absent {
		err = ErrNotFound
	}
	if err != nil {
		return blobRow{}, err
	}
	b.row.Store(&row)
	return row, nil
}

// isStale reports whether a blob's row is another one in the snapshot, or says less
// of it.
func (b *Blob) isStale(conn *sqlite.Conn, row blobRow) bool {
	now, err := findBlob(conn, b.hash)
	return err == nil && (now.id != row.id || now.State != row.State)
}

// errAbsent means that a partial blob does not have a group.
var errAbsent = errors.New("group is absent")

// absent returns a MissingError for what is not there of length bytes from off
// on, the first of which is not.
func (b *Blob) absent(conn *sqlite.Conn, row blobRow, off int64, length int) error {
	want := bao.Bytes(uint64(off), uint64(off)+uint64(length))
	if row.SizeProven {
		want = want.Intersect(bao.Chunks(0, bao.ChunkCount(row.Size)))
	}
	present, err := presentChunks(conn, row, want)
	if err != nil {
		return err
	}
	if present.Contains(uint64(off) / bao.ChunkSize) {
		return b.damaged(conn, row, off/bao.GroupSize, fmt.Errorf("%w: row is missing", bao.ErrMismatch))
	}
	return &MissingError{b.hash, want.Minus(present)}
}

// readGroups reads and verifies the groups that p, which lies inside the blob,
// touches.
func (b *Blob) readGroups(conn *sqlite.Conn, row blobRow, p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	rows := b.openRows(conn, row, off, int64(len(p)))
	defer rows.close()
	for group := off / bao.GroupSize; n < len(p); group++ {
		skip := int(max(0, off-group*bao.GroupSize))
		m, err := b.readGroup(rows, group, skip, p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// scratch holds groups of which only a part is wanted.
var scratch = sync.Pool{New: func() any { return new([bao.GroupSize]byte) }}

// readGroup reads the given group from the next row, verifies it, and copies
// what is behind its first skip bytes to p.
func (b *Blob) readGroup(rows *blobRows, group int64, skip int, p []byte) (int, error) {
	length := bao.GroupLen(rows.blob.Size, group)
	if skip == 0 && length == bao.GroupSize && len(p) >= length {
		return b.readVerified(rows, group, p, length)
	}
	buf := scratch.Get().(*[bao.GroupSize]byte)
	defer scratch.Put(buf)
	n, err := b.readVerified(rows, group, buf[:], min(length-skip, len(p)))
	copy(p[:n], buf[skip:])
	return n, err
}

// readVerified reads a group to the start of p, which has room for a full one, and
// returns n if it verifies, and 0 with an error otherwise.
func (b *Blob) readVerified(rows *blobRows, group int64, p []byte, n int) (int, error) {
	length, verified, err := rows.read(group, p)
	if err == nil && !verified {
		var want bao.CV
		want, err = b.s.groupCV(rows.conn, rows.blob, group)
		buf := (*[bao.GroupSize]byte)(p)
		if err == nil && bao.GroupCV(buf, length, group, rows.blob.Size <= bao.GroupSize) != want {
			err = bao.ErrMismatch
		}
	}
	if err != nil {
		return 0, b.damaged(rows.conn, rows.blob, group, err)
	}
	return n, nil
}

// damaged turns an error about a group into one that names its bytes, if it says
// that the data is not what it must be. If the blob is another one by now, or has
// been deleted, or has lost what was damaged, that is errStale.
func (b *Blob) damaged(conn *sqlite.Conn, row blobRow, group int64, err error) error {
	err = mapSQLite(err)
	if !isDamage(err) {
		return err
	}
	if b.isStale(conn, row) {
		return errStale
	}
	start := group * bao.GroupSize
	return &CorruptError{
		Hash:   b.hash,
		Ranges: []ByteRange{{start, start + int64(bao.GroupLen(row.Size, group))}},
		Err:    err,
	}
}

// isDamage reports whether an error says that what is stored is not what it must
// be, or that the disk does not give it back. What does not work for other reasons
// is no damage: it may work the next time.
func isDamage(err error) bool {
	err = mapSQLite(err)
	code := sqlite.ErrCode(err)
	return code == sqlite.ResultIOErrRead || code == sqlite.ResultIOErrShortRead ||
		errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotCairn) || errors.Is(err, bao.ErrMismatch)
}

// Read implements [io.Reader]. Reads shorter than a group are served from the
// last group that was verified, so that a reader of small pieces does not have
// it verified for each.
func (b *Blob) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(p) < bao.GroupSize {
		return b.readShort(p)
	}
	n, err := b.ReadAt(p, b.pos)
	b.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// readShort reads from the group at the position.
func (b *Blob) readShort(p []byte) (int, error) {
	if b.pos < b.currentStart || b.pos >= b.currentStart+int64(b.currentLen) {
		if err := b.loadCurrent(); err != nil {
			return 0, err
		}
	} else if err := b.stillOpen(); err != nil {
		return 0, err
	}
	n := copy(p, b.current[b.pos-b.currentStart:b.currentLen])
	b.pos += int64(n)
	return n, nil
}

// loadCurrent reads the group at the position, as far as it goes now.
func (b *Blob) loadCurrent() error {
	if b.current == nil {
		b.current = new([bao.GroupSize]byte)
	}
	b.currentStart = b.pos - b.pos%bao.GroupSize
	n, err := b.ReadAt(b.current[:], b.currentStart)
	b.currentLen = n
	if b.pos < b.currentStart+int64(n) {
		return nil
	}
	return err // io.EOF, if the position is behind the end
}

// stillOpen returns ErrClosed if the handle or the store is closed.
func (b *Blob) stillOpen() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if err := b.usable(); err != nil {
		return fmt.Errorf("read blob %v: %w", b.hash, err)
	}
	return nil
}

// Seek implements [io.Seeker]. A position before the start is an error, one
// behind the end is not. The end of a blob whose size is not proven is where
// [Blob.Size] says.
func (b *Blob) Seek(offset int64, whence int) (int64, error) {
	if err := b.stillOpen(); err != nil {
		return 0, err
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += b.pos
	case io.SeekEnd:
		offset += b.Size()
	default:
		return 0, fmt.Errorf("seek in blob %v: invalid whence %d", b.hash, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek in blob %v: %w", b.hash, errNegativeOffset)
	}
	b.pos = offset
	return offset, nil
}

// WriteTo implements [io.WriterTo]: it writes what is left from the position
// on. Nothing unverified reaches w, but what was verified before an error
// does. Where a partial blob ends it, the [MissingError] names all that is
// missing from there on.
func (b *Blob) WriteTo(w io.Writer) (written int64, err error) {
	return copyOut(w, func(buf []byte) (int, error) {
		n, err := b.ReadAt(buf, b.pos)
		if errors.Is(err, ErrMissing) {
			if _, allErr := b.require(bao.From(uint64(b.pos+int64(n)) / bao.ChunkSize)); errors.Is(allErr, ErrMissing) {
				err = allErr
			}
		}
		return n, err
	}, &b.pos)
}
