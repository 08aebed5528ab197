package cairn

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
)

// MaxKeySize is the most bytes of a piece's key, and of an owner's name.
const MaxKeySize = 4096

// PieceOptions say how a piece comes to be. Nil is the default.
type PieceOptions struct {
	// Owner is whose the piece is, made if there is none of that name. A piece
	// that is there already keeps the owner it has. Default: nobody.
	Owner string
	// Durability is the promise of [Piece.WriteAt]. With [Relaxed], the death of
	// the process undoes nothing that was acknowledged, but a power loss may
	// undo the last writes to a piece that is not complete.
	// [Piece.Complete] is as durable as [Options.Durability] says, with all
	// that was written before. Default: as [Options.Durability].
	Durability Durability
}

// A Piece is a handle on bytes under a caller's key, of a fixed size, that are
// written in any order, and become a blob when the piece is marked complete.
// Several keys may name the same content, which is stored once; what happens to
// one of them does not touch the others.
//
// A handle protects nothing: the piece may be evicted or deleted meanwhile, and
// is absent then, or be replaced by one of another size, which is what is read
// then, while writing and completing it are [ErrMismatch]. See [Piece.Open] and
// [Store.Pin]. All methods may be called
// concurrently. The context that it was made with bounds ReadAt and WriteAt.
type Piece struct {
	s   *Store
	ctx context.Context
	pieceTarget
	closed atomic.Bool
}

var (
	_ io.ReaderAt = (*Piece)(nil)
	_ io.WriterAt = (*Piece)(nil)
	_ io.Closer   = (*Piece)(nil)
)

// A pieceTarget is what a write goes to.
type pieceTarget struct {
	key     string
	size    int64
	grows   bool // size is only what it has to have at least
	owner   string
	relaxed bool
}

// Piece returns a handle on the piece of a key, any bytes, 1 to [MaxKeySize] of
// them. Nothing is written before the first [Piece.WriteAt]. Errors:
// [ErrMismatch] if there is a piece of another size, or for an impossible key
// or size; [ErrTooLarge] for a size above the capacity or [MaxBlobSize].
func (s *Store) Piece(ctx context.Context, key string, size int64, opts *PieceOptions) (*Piece, error) {
	p := s.newPiece(ctx, key, size, opts)
	if err := p.valid(); err != nil {
		return nil, fmt.Errorf("piece %q: %w", key, err)
	}
	return p, nil
}

func (s *Store) newPiece(ctx context.Context, key string, size int64, opts *PieceOptions) *Piece {
	p := &Piece{s: s, ctx: ctx, pieceTarget: pieceTarget{key: key, size: size}}
	if opts != nil {
		p.owner, p.relaxed = opts.Owner, opts.Durability == Relaxed
	}
	return p
}

func (p *Piece) valid() error {
	if err := validName("key", p.key); err != nil {
		return err
	}
	if p.owner != "" {
		if err := validName("owner", p.owner); err != nil {
			return err
		}
	}
	if p.size < 0 {
		return fmt.Errorf("%w: size %d", ErrMismatch, p.size)
	}
	if p.size > MaxBlobSize {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, p.size)
	}
	if err := p.s.capacity.admits(p.size); err != nil {
		return err
	}
	row, err := p.look(p.ctx)
	if err == nil && row.id != 0 && row.Size != p.size {
		err = fmt.Errorf("%w: its size is %d, not %d", ErrMismatch, row.Size, p.size)
	}
	return err
}

// validName checks a key or an owner's name.
func validName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty %s", ErrMismatch, what)
	case len(name) > MaxKeySize:
		return fmt.Errorf("%w: %s of %d bytes", ErrTooLarge, what, len(name))
	}
	return nil
}

// OpenPiece returns a handle on a piece that is there, whatever its size. If
// there is none it is [ErrNotFound].
func (s *Store) OpenPiece(ctx context.Context, key string) (*Piece, error) {
	p := s.newPiece(ctx, key, 0, nil)
	row, err := p.look(ctx)
	if err == nil && row.id == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("piece %q: %w", key, err)
	}
	p.size = row.Size
	return p, nil
}

// Key returns the piece's key.
func (p *Piece) Key() string { return p.key }

// Size returns the piece's size in bytes.
func (p *Piece) Size() int64 { return p.size }

// Close ends the handle. Later calls of its methods are [ErrClosed]; further
// Closes do nothing.
func (p *Piece) Close() error {
	p.closed.Store(true)
	return nil
}

// usable returns ErrClosed if the handle or the store is closed.
func (p *Piece) usable() error {
	if p.closed.Load() {
		return ErrClosed
	}
	return p.s.pool.open()
}

// A pieceRow is the blob that a key names, with id 0 if there is none. Its hash
// is zero and its state Partial while the piece is being written.
type pieceRow struct {
	blobRow
	owner int64 // 0 if nobody
}

func findPiece(conn *sqlite.Conn, key string) (pieceRow, error) {
	stmt := prep(conn, "piece_find")
	stmt.SetBytes(":name", []byte(key))
	found, err := stmt.Step()
	if err != nil || !found {
		return pieceRow{}, err
	}
	row := pieceRow{blobRow{id: stmt.GetInt64("id"), Status: scanStatus(stmt)}, stmt.GetInt64("owner")}
	if !stmt.IsNull("hash") {
		stmt.GetBytes("hash", row.hash[:])
	}
	return row, stmt.Reset()
}

// look returns the piece's row as it is now.
func (p *Piece) look(ctx context.Context) (row pieceRow, err error) {
	if err := p.usable(); err != nil {
		return pieceRow{}, err
	}
	err = p.s.pool.read(ctx, func(conn *sqlite.Conn) error {
		row, err = findPiece(conn, p.key)
		return err
	})
	return row, err
}

// A Completion tells how far a piece has come. Sizes are in bytes.
type Completion struct {
	State  State // Absent if nothing of it is there
	Hash   Hash  // of a complete one
	Size   int64
	Stored int64 // kept of it; of a group that is written in part, up to the last byte
}

// Completion returns how far the piece has come. That it is absent is not an
// error.
func (p *Piece) Completion(ctx context.Context) (Completion, error) {
	row, err := p.look(ctx)
	if err != nil {
		return Completion{}, fmt.Errorf("completion of piece %q: %w", p.key, err)
	}
	if row.id == 0 {
		return Completion{Size: p.size}, nil
	}
	return Completion{State: row.State, Hash: row.hash, Size: row.Size, Stored: row.Stored}, nil
}

// Written returns which bytes are there, in ranges that ascend and do not touch.
func (p *Piece) Written(ctx context.Context) (ranges []ByteRange, err error) {
	if err = p.usable(); err == nil {
		err = p.s.pool.read(ctx, func(conn *sqlite.Conn) error {
			row, err := findPiece(conn, p.key)
			if err != nil || row.id == 0 {
				return err
			}
			ranges, err = writtenBytes(conn, row, 0, row.Size)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("written bytes of piece %q: %w", p.key, err)
	}
	return ranges, nil
}

// Delete removes the piece, and its content if no other key, no owner and no
// blob of its own right has it, or as soon as no temp tag and no open handle
// protects it. If there is no such piece it is [ErrNotFound]; if a pin or an open
// reader has its key, [ErrConflict]. Other errors:
// [ErrReadOnly], [ErrClosed], [ErrFull].
func (p *Piece) Delete(ctx context.Context) error {
	err := p.usable()
	if err == nil {
		err = p.s.remove(ctx, func(conn *sqlite.Conn) error {
			stmt := prep(conn, "key_remove")
			stmt.SetBytes(":name", []byte(p.key))
			err := exec(stmt)
			if err == nil && conn.Changes() == 0 {
				err = ErrNotFound
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("delete piece %q: %w", p.key, err)
	}
	return nil
}

// DeletePieces deletes every piece whose key has a prefix, in one commit, and
// returns how many. It is like [Piece.Delete]; that there is none is not an
// error.
func (s *Store) DeletePieces(ctx context.Context, prefix string) (n int64, err error) {
	err = s.remove(ctx, func(conn *sqlite.Conn) error {
		stmt := prep(conn, "key_remove_prefix")
		bindPrefix(stmt, prefix)
		err := exec(stmt)
		n = int64(conn.Changes())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete pieces %q: %w", prefix, err)
	}
	return n, nil
}

// MovePieces renames every piece whose key has a prefix, so that it begins with
// another one, in one commit, and returns how many. A piece that had a new name
// is replaced. It is [ErrConflict] if a pin or an open reader protects a key that
// changes or a piece that is replaced, and [ErrTooLarge] if a key would become
// too long.
func (s *Store) MovePieces(ctx context.Context, from, to string) (n int64, err error) {
	err = s.remove(ctx, func(conn *sqlite.Conn) error {
		n, err = s.movePieces(conn, from, to)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("move pieces %q to %q: %w", from, to, err)
	}
	return n, nil
}

func (s *Store) movePieces(conn *sqlite.Conn, from, to string) (int64, error) {
	if from == to {
		return 0, nil
	}
	names, err := keysWithPrefix(conn, from)
	if err != nil {
		return 0, err
	}
	// A new name may be the old one of another piece, which leaves first.
	slices.SortFunc(names, func(x, y string) int { return (len(x) - len(y)) * (len(from) - len(to)) })
	for _, name := range names {
		moved := to + name[len(from):]
		if err := validName("key", moved); err != nil {
			return 0, err
		}
		if err := s.keeper.drop(subject{key: name}); err != nil {
			return 0, err
		}
		stmt := prep(conn, "key_remove")
		stmt.SetBytes(":name", []byte(moved))
		if err := exec(stmt); err != nil {
			return 0, err
		}
		stmt = prep(conn, "key_rename")
		stmt.SetBytes(":name", []byte(name))
		stmt.SetBytes(":to", []byte(moved))
		if err := exec(stmt); err != nil {
			return 0, err
		}
	}
	return int64(len(names)), nil
}

func keysWithPrefix(conn *sqlite.Conn, prefix string) (names []string, err error) {
	stmt := prep(conn, "key_list")
	defer stmt.Reset()
	bindPrefix(stmt, prefix)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return names, err
		}
		names = append(names, columnString(stmt, "name"))
	}
}
