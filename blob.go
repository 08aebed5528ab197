package cairn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A State tells how much of a blob is in the store.
type State int

const (
	Absent   State = iota // nothing
	Partial               // some of it, or its size is not proven yet
	Complete              // all of it
)

// String returns "absent", "partial" or "complete".
func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case Partial:
		return "partial"
	case Complete:
		return "complete"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// MarshalText returns what String returns. It implements
// [encoding.TextMarshaler].
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Status is what the store knows of one blob. Sizes are in bytes; all but
// State is zero for an absent one.
type Status struct {
	State    State
	Size     int64
	Stored   int64 // of Size, what is present
	Created  time.Time
	LastUsed time.Time
}

// BlobInfo is one blob in a listing.
type BlobInfo struct {
	Hash Hash
	Status
}

// blobRow is a blob's row in the database, with state Absent if there is none.
type blobRow struct {
	id int64
	Status
}

// findBlob looks a hash up.
func findBlob(conn *sqlite.Conn, hash Hash) (blobRow, error) {
	stmt := prep(conn, "blob_find")
	stmt.SetBytes(":hash", hash[:])
	found, err := stmt.Step()
	if err != nil || !found {
		return blobRow{}, err
	}
	blob := blobRow{id: stmt.GetInt64("id"), Status: scanStatus(stmt)}
	return blob, stmt.Reset()
}

func scanStatus(stmt *sqlite.Stmt) Status {
	return Status{
		State:    State(stmt.GetInt64("state")),
		Size:     stmt.GetInt64("size"),
		Stored:   stmt.GetInt64("stored"),
		Created:  time.Unix(0, stmt.GetInt64("created")),
		LastUsed: time.Unix(0, stmt.GetInt64("last_used")),
	}
}

// Status tells how much of a blob is in the store. That there is none is not
// an error.
func (s *Store) Status(ctx context.Context, hash Hash) (Status, error) {
	var blob blobRow
	err := s.pool.read(ctx, func(conn *sqlite.Conn) (err error) {
		blob, err = findBlob(conn, hash)
		return err
	})
	if err != nil {
		return Status{}, fmt.Errorf("status of %v: %w", hash, err)
	}
	return blob.Status, nil
}

// ListOptions select from a listing. Nil is everything.
type ListOptions struct {
	// Prefix is the beginning of the hashes, in hexadecimal digits of either
	// case. Default: all.
	Prefix string
	// State selects blobs of one state. Default (Absent): all.
	State State
	// Limit is the most blobs to list. Default (and if ≤ 0): no limit.
	Limit int
}

// listPage is how many blobs are read at a time.
const listPage = 256

// Blobs lists the blobs in the order of their hashes. No lock and no
// connection is held while the loop's body runs: it may use the store as it
// likes. A blob that is added or deleted meanwhile may or may not be listed;
// every other one is listed once. An error ends the listing; it is
// [ErrMismatch] for a prefix that is not hexadecimal.
func (s *Store) Blobs(ctx context.Context, opts *ListOptions) iter.Seq2[BlobInfo, error] {
	if opts == nil {
		opts = &ListOptions{}
	}
	return func(yield func(BlobInfo, error) bool) {
		from, to, err := prefixRange(opts.Prefix)
		left := opts.Limit
		for more := true; more && err == nil; {
			var page []BlobInfo
			page, err = s.listPage(ctx, from, to)
			more = len(page) == listPage
			for _, info := range page {
				if opts.State != Absent && info.State != opts.State {
					continue
				}
				if !yield(info, nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			if more {
				from, more = nextHash(page[len(page)-1].Hash)
			}
		}
		if err != nil {
			yield(BlobInfo{}, fmt.Errorf("list blobs: %w", err))
		}
	}
}

func (s *Store) listPage(ctx context.Context, from, to Hash) (page []BlobInfo, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		stmt := prep(conn, "blob_list")
		defer stmt.Reset()
		stmt.SetBytes(":from", from[:])
		stmt.SetBytes(":to", to[:])
		stmt.SetInt64(":limit", listPage)
		for {
			found, err := stmt.Step()
			if err != nil || !found {
				return err
			}
			info := BlobInfo{Status: scanStatus(stmt)}
			stmt.GetBytes("hash", info.Hash[:])
			page = append(page, info)
		}
	})
	return page, err
}

// prefixRange returns the first and the last hash with a prefix.
func prefixRange(prefix string) (from, to Hash, err error) {
	if len(prefix) > 2*len(from) {
		return from, to, fmt.Errorf("prefix %q: %w: longer than a hash", prefix, ErrMismatch)
	}
	for i := range to {
		to[i] = 0xff
	}
	for i := range len(prefix) {
		var nibble byte
		switch c := prefix[i]; {
		case '0' <= c && c <= '9':
			nibble = c - '0'
		case 'a' <= c && c <= 'f':
			nibble = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			nibble = c - 'A' + 10
		default:
			return from, to, fmt.Errorf("prefix %q: %w: not hexadecimal", prefix, ErrMismatch)
		}
		shift := 4 * (1 - i%2)
		from[i/2] |= nibble << shift
		to[i/2] = to[i/2]&^(0xf<<shift) | nibble<<shift
	}
	return from, to, nil
}

// nextHash returns the hash after h, if there is one.
func nextHash(h Hash) (Hash, bool) {
	for i := len(h) - 1; i >= 0; i-- {
		if h[i]++; h[i] != 0 {
			return h, true
		}
	}
	return h, false
}

// A Blob is an open handle on a blob. It protects the blob from deletion until
// it is closed. Every byte it returns has been verified against the hash, down
// to the 16 KiB group; a group that does not verify is a [*CorruptError] with
// its byte range, and the others still read.
//
// ReadAt may be called concurrently, also with the other methods. Read, Seek
// and WriteTo share one position, and are for one goroutine at a time.
type Blob struct {
	s     *Store
	ctx   context.Context
	hash  Hash
	id    int64
	size  int64
	close func()

	// For the goroutine that uses Read, Seek and WriteTo.
	pos          int64
	current      *[bao.GroupSize]byte // verified, if not nil
	currentGroup int64

	mu     sync.RWMutex // held for reading during each ReadAt
	closed bool
}

var (
	_ io.ReaderAt       = (*Blob)(nil)
	_ io.ReadSeekCloser = (*Blob)(nil)
	_ io.WriterTo       = (*Blob)(nil)
)

// Blob opens a complete blob. An absent one is [ErrNotFound], one that is not
// all there [ErrMissing]. The reads of the handle are bounded by ctx too.
func (s *Store) Blob(ctx context.Context, hash Hash) (*Blob, error) {
	b, err := s.openBlob(ctx, hash)
	if err != nil {
		return nil, fmt.Errorf("blob %v: %w", hash, err)
	}
	return b, nil
}

func (s *Store) openBlob(ctx context.Context, hash Hash) (*Blob, error) {
	// Held before the look-up, so that no deletion can come in between.
	if err := s.guard.hold(ctx, hash); err != nil {
		return nil, err
	}
	var blob blobRow
	err := s.pool.read(ctx, func(conn *sqlite.Conn) (err error) {
		blob, err = findBlob(conn, hash)
		return err
	})
	if err == nil && blob.State == Absent {
		err = ErrNotFound
	}
	if err == nil && blob.State != Complete {
		err = ErrMissing
	}
	if err == nil && (blob.Size > MaxBlobSize || (blob.Size == 0) != (hash == EmptyHash)) {
		err = fmt.Errorf("%w: its size cannot be %d", ErrCorrupt, blob.Size)
	}
	if err != nil {
		s.guard.release(hash)
		return nil, err
	}
	return &Blob{
		s:     s,
		ctx:   ctx,
		hash:  hash,
		id:    blob.id,
		size:  blob.Size,
		close: sync.OnceFunc(func() { s.guard.release(hash) }),
	}, nil
}

// Size returns the blob's size in bytes.
func (b *Blob) Size() int64 { return b.size }

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
// with an error, which is exactly [io.EOF] at the end of the blob.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read blob %v: %w", b.hash, errNegativeOffset)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return 0, fmt.Errorf("read blob %v: %w", b.hash, ErrClosed)
	}
	if err := b.s.pool.open(); err != nil {
		return 0, fmt.Errorf("read blob %v: %w", b.hash, err)
	}
	atEnd := off >= b.size || int64(len(p)) > b.size-off
	if off >= b.size {
		p = nil
	} else if atEnd {
		p = p[:b.size-off]
	}
	n, err := b.readFull(p, off)
	if err == nil && atEnd {
		err = io.EOF
	}
	return n, err
}

// readFull fills p, which lies inside the blob. The rows come in one query, so
// from one snapshot, but for long reads a piece at a time, so that no snapshot
// lives long.
func (b *Blob) readFull(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		piece := p[n:min(n+maxPiece, len(p))]
		var m int
		m, err = b.readPiece(piece, off+int64(n))
		n += m
	}
	if err != nil && !isCorrupt(err) {
		err = fmt.Errorf("read blob %v: %w", b.hash, err)
	}
	return n, err
}

func isCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}

// maxPiece is the most bytes read with one snapshot.
const maxPiece = 1 << 20

func (b *Blob) readPiece(p []byte, off int64) (n int, err error) {
	r, err := b.s.pool.take(b.ctx)
	if err != nil {
		return 0, err
	}
	defer b.s.pool.put(r)
	return b.readGroups(r.Conn, p, off)
}

// readGroups reads and verifies the groups that p touches.
func (b *Blob) readGroups(conn *sqlite.Conn, p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	first, last := off/bao.GroupSize, (off+int64(len(p))-1)/bao.GroupSize
	stmt := prep(conn, "row_get")
	if last > first {
		stmt = prep(conn, "row_range")
		stmt.SetInt64(":to", rowID(b.id, last))
	}
	defer stmt.Reset()
	stmt.SetInt64(":from", rowID(b.id, first))
	for group := first; group <= last; group++ {
		skip := int(max(0, off-group*bao.GroupSize))
		m, err := b.readGroup(conn, stmt, group, skip, p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// scratch holds groups of which only a part is wanted.
var scratch = sync.Pool{New: func() any { return new([bao.GroupSize]byte) }}

// readGroup steps to the given group's row, verifies it, and copies what is
// behind its first skip bytes to p.
func (b *Blob) readGroup(conn *sqlite.Conn, stmt *sqlite.Stmt, group int64, skip int, p []byte) (int, error) {
	length := bao.GroupLen(b.size, group)
	found, err := stmt.Step()
	if err != nil {
		return 0, b.damaged(conn, group, err)
	}
	if !found || stmt.ColumnInt64(0) != rowID(b.id, group) {
		return 0, b.damaged(conn, group, fmt.Errorf("%w: row is missing", bao.ErrMismatch))
	}
	if n := stmt.ColumnLen(1); n != length {
		return 0, b.damaged(conn, group, fmt.Errorf("%w: row has %d bytes, not %d", bao.ErrMismatch, n, length))
	}
	if skip == 0 && length == bao.GroupSize && len(p) >= length {
		buf := (*[bao.GroupSize]byte)(p)
		stmt.ColumnBytes(1, buf[:])
		return b.verified(conn, buf, group, length, length)
	}
	buf := scratch.Get().(*[bao.GroupSize]byte)
	defer scratch.Put(buf)
	stmt.ColumnBytes(1, buf[:])
	n, err := b.verified(conn, buf, group, length, min(length-skip, len(p)))
	copy(p[:n], buf[skip:])
	return n, err
}

// verified returns n if the first length bytes of buf are the given group, and
// 0 with an error otherwise.
func (b *Blob) verified(conn *sqlite.Conn, buf *[bao.GroupSize]byte, group int64, length, n int) (int, error) {
	want, err := b.s.groupCV(conn, b, group)
	if err != nil {
		return 0, b.damaged(conn, group, err)
	}
	if bao.GroupCV(buf, length, group, b.size <= bao.GroupSize) != want {
		return 0, b.damaged(conn, group, bao.ErrMismatch)
	}
	return n, nil
}

// damaged turns an error about a group into one that names its bytes, if it
// says that the data is not what it must be. If the blob has been deleted
// meanwhile, by another process, it is ErrNotFound.
func (b *Blob) damaged(conn *sqlite.Conn, group int64, err error) error {
	err = mapSQLite(err)
	ioErr := sqlite.ErrCode(err).ToPrimary() == sqlite.ResultIOErr
	if !ioErr && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotCairn) && !errors.Is(err, bao.ErrMismatch) {
		return err
	}
	if now, findErr := findBlob(conn, b.hash); findErr == nil && now.id != b.id {
		return ErrNotFound
	}
	start := group * bao.GroupSize
	return &CorruptError{
		Hash:   b.hash,
		Ranges: []ByteRange{{start, start + int64(bao.GroupLen(b.size, group))}},
		Err:    err,
	}
}

// Read implements [io.Reader]. Reads shorter than a group are served from the
// last group that was verified, so that a reader of small pieces does not have
// it verified for each.
func (b *Blob) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(p) < bao.GroupSize && b.pos < b.size {
		return b.readShort(p)
	}
	n, err := b.ReadAt(p, b.pos)
	b.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// readShort reads from the group at the position, which is inside the blob.
func (b *Blob) readShort(p []byte) (int, error) {
	group := b.pos / bao.GroupSize
	start := group * bao.GroupSize
	if b.current == nil || b.currentGroup != group {
		if b.current == nil {
			b.current = new([bao.GroupSize]byte)
		}
		b.currentGroup = -1
		if _, err := b.ReadAt(b.current[:bao.GroupLen(b.size, group)], start); err != nil {
			return 0, err
		}
		b.currentGroup = group
	} else if _, err := b.ReadAt(nil, b.pos); err != nil {
		return 0, err // closed meanwhile
	}
	n := copy(p, b.current[b.pos-start:bao.GroupLen(b.size, group)])
	b.pos += int64(n)
	return n, nil
}

// Seek implements [io.Seeker]. A position before the start is an error, one
// behind the end is not.
func (b *Blob) Seek(offset int64, whence int) (int64, error) {
	if _, err := b.ReadAt(nil, 0); err != nil && err != io.EOF {
		return 0, err // closed
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += b.pos
	case io.SeekEnd:
		offset += b.size
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
// does.
func (b *Blob) WriteTo(w io.Writer) (written int64, err error) {
	buf := segments.Get().(*[segmentSize]byte)
	defer segments.Put(buf)
	for {
		n, err := b.ReadAt(buf[:], b.pos)
		if n > 0 {
			m, writeErr := w.Write(buf[:n])
			written += int64(m)
			b.pos += int64(m)
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
