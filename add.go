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
// remains; what a Close or a crash in the middle leaves, nobody sees, and the
// next Open removes. Errors: those of r and ctx, [ErrFull], [ErrReadOnly],
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
	defer func() {
		if err != nil {
			a.abandon()
		}
		s.dropLeftovers(ctx)
	}()
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
		a.s.naming.Lock() // no export may take the file's place from here on
		defer a.s.naming.Unlock()
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

// abandon removes what has been written of a blob that will not be.
func (a *largeAdd) abandon() {
	a.settleAll() // the add has failed already; this only waits
	if a.id != 0 {
		a.s.discard(a.ctx, a.id)
	}
}
