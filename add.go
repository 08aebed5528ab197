package cairn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

const (
	// MaxBlobSize is the size in bytes of the largest blob: 1 TiB.
	MaxBlobSize = 1 << 40

	groupBits = 26 // of a row's id, below the blob's id
	// segmentGroups are added and dropped in one transaction at most, and are
	// the groups of one tile of the lowest level.
	segmentGroups = bao.TileUnits
	segmentSize   = segmentGroups * bao.GroupSize
)

// AddOptions configure an addition. Nil is the default.
type AddOptions struct {
	// Format is what the returned temp tag, and the tag, say of the content.
	// Default Raw. What is said to be a [HashSeq] must have the length of one.
	Format Format
	// Mode is [Copy], the default, or, only for [Store.AddFile], [Reference].
	Mode Mode
	// Tag, if not empty, is set to the content, as by [Store.SetTag], in the
	// transaction that makes the blob visible. [TempTag.Tag] returns it.
	Tag string
	// AutoTag sets a tag of a new name, as by [Store.CreateTag], in the same way.
	AutoTag bool
	// Progress, if not nil, is called about once every MiB, from the goroutine
	// that called Add.
	Progress func(Progress)
}

func (o *AddOptions) format() Format {
	if o == nil {
		return Raw
	}
	return o.Format
}

// check refuses options that make no sense, whatever the content.
func (o *AddOptions) check() error {
	switch {
	case o == nil:
		return nil
	case o.Format > HashSeq:
		return fmt.Errorf("%w: %v", ErrMismatch, o.Format)
	case o.AutoTag && o.Tag != "":
		return fmt.Errorf("%w: a tag of a given name and of a new one", ErrMismatch)
	}
	return checkTagName(o.Tag)
}

// checkSize refuses content that cannot be what it is said to be.
func (o *AddOptions) checkSize(size int64) error {
	if o.format() == HashSeq && size%int64(len(Hash{})) != 0 {
		return errHashSeq
	}
	return nil
}

// segments are buffers of segmentSize, for one add each at a time.
var segments = sync.Pool{New: func() any { return new([segmentSize]byte) }}

// Add stores what r has, to its end, and returns a temp tag of its hash. It
// reads once, and holds a few MiB however much there is. Content that is in
// the store already is not stored again; that of a partial blob completes it, and
// that of one with files outside takes their place.
//
// When Add returns nil, the blob is durable, as [Options.Durability] says. On
// an error of r or of the store, and when ctx is cancelled, nothing of it
// remains: after a cancellation, what has been written counts no more, and is
// removed in the background. What a Close or a crash in the middle leaves, nobody
// sees, and the next Open removes. Errors: those of r and ctx, [ErrFull], [ErrReadOnly],
// [ErrClosed], and [ErrTooLarge] for more than [MaxBlobSize].
func (s *Store) Add(ctx context.Context, r io.Reader, opts *AddOptions) (*TempTag, error) {
	if opts.mode() != Copy {
		return nil, fmt.Errorf("add: %w", errMode)
	}
	tag, err := s.add(ctx, r, opts, nil)
	if err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	return tag, nil
}

// A link is what else is to happen in the transaction that makes a blob visible,
// or finds it there, such as that a key comes to name it. The writer calls it.
// With a link, the blob is not one in its own right.
type link func(conn *sqlite.Conn, blob blobRow) error

func (l link) run(conn *sqlite.Conn, blob blobRow) error {
	if l == nil {
		return nil
	}
	return l(conn, blob)
}

// AddBytes stores content as [Store.Add] does. It does not keep the slice.
func (s *Store) AddBytes(ctx context.Context, content []byte, opts *AddOptions) (*TempTag, error) {
	if len(content) >= segmentSize || s.writer == nil || opts.mode() != Copy {
		return s.Add(ctx, bytes.NewReader(content), opts)
	}
	tag, err := s.addSmall(ctx, content, opts, nil)
	if err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	return tag, nil
}

func (s *Store) add(ctx context.Context, r io.Reader, opts *AddOptions, then link) (*TempTag, error) {
	if s.writer == nil {
		return nil, ErrReadOnly
	}
	if err := s.pool.open(); err != nil {
		return nil, err
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	buf := segments.Get().(*[segmentSize]byte)
	n, err := readSegment(ctx, r, buf)
	if err == nil { // not the end: there is more than one segment
		return s.addLarge(ctx, r, buf, opts, then)
	}
	defer segments.Put(buf)
	if err != io.EOF {
		return nil, err
	}
	return s.addSmall(ctx, buf[:n], opts, then)
}

// readSegment fills buf from r. It returns io.EOF with whatever came before
// the end; a full buffer comes without error.
func readSegment(ctx context.Context, r io.Reader, buf *[segmentSize]byte) (n int, err error) {
	for empty := 0; n < len(buf); {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		m, err := r.Read(buf[n:])
		if m < 0 || m > len(buf)-n {
			return n, errors.New("reader returned an impossible count")
		}
		n += m
		if err != nil {
			return n, err
		}
		if m > 0 {
			empty = 0
		} else if empty++; empty == 100 {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}

// addSmall stores a segment at most, in one transaction.
func (s *Store) addSmall(ctx context.Context, data []byte, opts *AddOptions, then link) (*TempTag, error) {
	defer s.dropLeftovers(ctx)
	opts.progress(Copying, int64(len(data)))
	if err := errors.Join(opts.check(), opts.checkSize(int64(len(data)))); err != nil {
		return nil, err
	}
	if err := s.capacity.admits(int64(len(data))); err != nil {
		return nil, err
	}
	var tiles []tile
	builder := bao.Builder{Emit: collectTiles(&tiles)}
	if err := hashSegment(&builder, data, 0, len(data) <= bao.GroupSize); err != nil {
		return nil, err
	}
	root, err := builder.Finish()
	if err != nil {
		return nil, err
	}
	hash := Hash(root)
	tag, err := s.protect(ctx, hash, opts, then)
	if err != nil {
		return nil, err
	}
	prepared := false
	store := func(conn *sqlite.Conn) error {
		blob := blobRow{id: s.newID(), hash: hash, Status: Status{State: Complete, Size: int64(len(data)), Stored: int64(len(data)), SizeProven: true}}
		old, err := s.insertBlob(conn, blob, then == nil)
		if err != nil {
			return err
		}
		if old.isInDatabase() {
			return s.finishAdd(conn, old, tag, opts, then)
		}
		if err := insertSegment(conn, blob.id, 0, data, tiles); err != nil {
			return err
		}
		if !prepared {
			if err := s.indexAdded(conn, blob); err != nil {
				return err
			}
		}
		if err := s.finishAdd(conn, blob, tag, opts, then); err != nil {
			return err
		}
		return s.survived(conn, blob.id)
	}
	err = s.replace(ctx, hash, int64(len(data)), store)
	if errors.Is(err, errUnindexed) {
		prepared = true
		err = s.prepareSequence(ctx, hash, bytes.NewReader(data), func() error {
			return s.replace(ctx, hash, int64(len(data)), store)
		})
	}
	if err != nil {
		tag.Release()
		return nil, err
	}
	s.added(ctx, tag)
	opts.outboarding(int64(len(data)), true)
	return tag, nil
}

// finishAdd does what else is to happen in the transaction that makes a blob
// visible, or finds it there.
func (s *Store) finishAdd(conn *sqlite.Conn, blob blobRow, tag *TempTag, opts *AddOptions, then link) error {
	if err := then.run(conn, blob); err != nil {
		return err
	}
	if tag.content.Format == HashSeq {
		seq, err := holdSequence(conn, blob.hash)
		if err == nil {
			seq, err = s.indexPromptly(conn, seq, blob.hash)
		}
		if err == nil && !seq.indexed {
			err = errUnindexed
		}
		if err != nil {
			return err
		}
	}
	return s.tagAdded(conn, tag, opts)
}

// added does what follows from the commit of an add.
func (s *Store) added(ctx context.Context, tag *TempTag) {
	if tag.content.Format == HashSeq {
		s.guard.noted(subject{hash: tag.content.Hash, children: true})
	}
	if len(tag.rest) > 0 {
		s.discard(ctx, tag.rest...)
	}
}

// protect returns the temp tag of what is about to be made visible: protection
// begins before anything is there. With a link, that is what keeps it, and the
// tag protects nothing.
func (s *Store) protect(ctx context.Context, hash Hash, opts *AddOptions, then link) (*TempTag, error) {
	content := HashAndFormat{hash, opts.format()}
	if then != nil {
		return &TempTag{content: content, release: func() {}}, nil
	}
	return s.hold(ctx, content)
}

// tagAdded sets the tag that was asked for, if any, in the transaction that makes
// the blob visible.
func (s *Store) tagAdded(conn *sqlite.Conn, t *TempTag, opts *AddOptions) (err error) {
	switch {
	case opts == nil:
		return nil
	case opts.AutoTag:
		if t.tag, err = newTagName(conn); err != nil {
			return err
		}
	case opts.Tag != "":
		t.tag = opts.Tag
	default:
		return nil
	}
	taken, err := s.take(conn, func(conn *sqlite.Conn) error {
		err := s.putTag(conn, t.tag, t.content, nil)
		if err == nil {
			_, err = s.shed(conn)
		}
		return err
	})
	t.rest = taken.rest
	return err
}

// newID returns the next blob id. Only the writer's goroutine calls it.
func (s *Store) newID() int64 {
	id := s.nextID
	s.nextID++
	return id
}

// A tile is one on its way to the database.
type tile struct {
	bao.Tile
	pairs []byte
}

func collectTiles(tiles *[]tile) func(bao.Tile, []byte) error {
	return func(t bao.Tile, pairs []byte) error {
		*tiles = append(*tiles, tile{t, pairs})
		return nil
	}
}

// hashSegment hands the CVs of the groups in data, the first of which is the
// given one, to the builder. No data is one empty group.
func hashSegment(builder *bao.Builder, data []byte, group int64, root bool) error {
	for off := 0; off == 0 || off < len(data); off += bao.GroupSize {
		if err := builder.Add(hashGroup(data[off:], group, root)); err != nil {
			return err
		}
		group++
	}
	return nil
}

// hashGroup returns the CV of the group that data begins with, in place unless
// the group is short.
func hashGroup(data []byte, group int64, root bool) bao.CV {
	if len(data) >= bao.GroupSize {
		return bao.GroupCV((*[bao.GroupSize]byte)(data), bao.GroupSize, group, root)
	}
	buf := scratch.Get().(*[bao.GroupSize]byte)
	defer scratch.Put(buf)
	return bao.GroupCV(buf, copy(buf[:], data), group, root)
}

// insertBlob makes the row of a complete blob. If there is a complete one of its
// hash, it returns that, and notes its use; a partial one, and one with bytes
// outside, gives way. free tells that somebody has added the blob in its own
// right.
func (s *Store) insertBlob(conn *sqlite.Conn, blob blobRow, free bool) (old blobRow, err error) {
	stmt := prep(conn, "blob_insert")
	stmt.SetInt64(":id", blob.id)
	stmt.SetBytes(":hash", blob.hash[:])
	stmt.SetInt64(":size", blob.Size)
	stmt.SetInt64(":now", s.uses.now())
	stmt.SetBool(":added", free)
	if err := exec(stmt); err != nil || conn.Changes() > 0 {
		return blobRow{}, err
	}
	if old, err = s.touchBlob(conn, blob.hash, free); err != nil || old.isInDatabase() {
		return old, err
	}
	// What is there of it is small, as this is.
	if err := unname(conn, old.id); err != nil {
		return blobRow{}, err
	}
	if _, err := s.insertBlob(conn, blob, free); err != nil {
		return blobRow{}, err
	}
	if err := s.supersede(conn, old.id, blob.id); err != nil {
		return blobRow{}, err
	}
	return old, removeBlob(conn, old.id)
}

// touchBlob looks for a blob and, if it is complete, notes its use.
func (s *Store) touchBlob(conn *sqlite.Conn, hash Hash, free bool) (blobRow, error) {
	blob, err := findBlob(conn, hash)
	if err != nil || blob.State != Complete {
		return blob, err
	}
	stmt := prep(conn, "blob_readd")
	stmt.SetInt64(":id", blob.id)
	stmt.SetInt64(":now", s.uses.now())
	stmt.SetBool(":added", free)
	return blob, exec(stmt)
}

// insertSegment stores data as rows from the given group on, and the tiles
// that became complete with it. No data is one empty row.
func insertSegment(conn *sqlite.Conn, id, group int64, data []byte, tiles []tile) error {
	for off := 0; off == 0 || off < len(data); off += bao.GroupSize {
		if err := insertRow(conn, id, group, data[off:min(off+bao.GroupSize, len(data))]); err != nil {
			return err
		}
		group++
	}
	return insertTiles(conn, id, tiles)
}

func insertRow(conn *sqlite.Conn, id, group int64, data []byte) error {
	stmt := prep(conn, "row_insert")
	stmt.SetInt64(":id", rowID(id, group))
	stmt.SetBytes(":data", data)
	return exec(stmt)
}

func insertTiles(conn *sqlite.Conn, id int64, tiles []tile) error {
	stmt := prep(conn, "outboard_insert")
	for _, t := range tiles {
		stmt.SetInt64(":id", tileID(id, t.Tile))
		stmt.SetBytes(":pairs", t.pairs)
		if err := exec(stmt); err != nil {
			return err
		}
	}
	return nil
}

func rowID(blob, group int64) int64 { return blob<<groupBits | group }

func tileID(blob int64, t bao.Tile) int64 {
	return blob<<groupBits | t.FirstGroup() | int64(t.Level)
}
