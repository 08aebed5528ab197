package cairn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
)

// ProviderOptions configure a provider. Nil is the default.
type ProviderOptions struct {
	// Owner is whom the pieces that the provider makes belong to. A piece that
	// is there keeps its owner. Default: nobody.
	Owner string
	// Context bounds all that the provider, its instances and their readers
	// do: the methods of this family take none of their own. Default:
	// [context.Background].
	Context context.Context
}

// A Provider shows the pieces of a store as resources: sequences of bytes under
// a name, which are read and written without being opened first, and need no
// closing. It fits what asks for such a family of methods, like
// anacrolix/torrent's storage of pieces as resources, whose completion is a key
// and not a state: a piece that [Instance.Put] stores is complete at once.
//
// Prefixes are exact bytes: those of a key mean nothing but themselves, and the
// slash matters only to [Instance.Readdirnames].
//
// Errors are as everywhere: what is absent is [ErrNotFound] and so
// [fs.ErrNotExist]; after [Store.Close] everything is [ErrClosed]. What returns
// nil is as durable as [Options.Durability] says. A provider may be used
// concurrently and needs no closing.
type Provider struct {
	s    *Store
	ctx  context.Context
	opts PieceOptions
}

// NewProvider returns a view of all pieces of a store.
func NewProvider(s *Store, opts *ProviderOptions) *Provider {
	p := &Provider{s: s, ctx: context.Background()}
	if opts != nil {
		p.opts.Owner = opts.Owner
		if opts.Context != nil {
			p.ctx = opts.Context
		}
	}
	return p
}

// NewInstance returns the resource of a key, whether there is a piece or not.
// A key has 1 to [MaxKeySize] bytes, of any value; a longer one is
// [ErrTooLarge], an empty one [ErrMismatch].
func (p *Provider) NewInstance(key string) (*Instance, error) {
	if err := validName("key", key); err != nil {
		return nil, fmt.Errorf("instance %q: %w", key, err)
	}
	return &Instance{p, key}, nil
}

// MovePrefix renames every piece whose key begins with the bytes of old, so
// that its key begins with those of new instead, in one commit. A piece that
// has the new key is replaced. That there is nothing to move is not an error; a
// key that would become too long is [ErrTooLarge], and nothing is moved then.
func (p *Provider) MovePrefix(old, new string) error {
	_, err := p.s.MovePieces(p.ctx, old, new)
	return err
}

// DeletePrefix deletes every piece whose key begins with the bytes of prefix,
// in one commit. That there is none is not an error; one that an open reader or
// a pin holds is [ErrConflict], and nothing is deleted then.
func (p *Provider) DeletePrefix(prefix string) error {
	_, err := p.s.DeletePieces(p.ctx, prefix)
	return err
}

// An Instance is the resource under one key. It holds nothing: it may be used
// concurrently, and every call finds what is there at that moment.
type Instance struct {
	p   *Provider
	key string
}

var (
	_ io.ReaderAt = (*Instance)(nil)
	_ io.WriterAt = (*Instance)(nil)
)

// Get opens the piece for reading from its start. The reader protects it from
// eviction and deletion and must be closed; it is a [*PieceReader]. It reads a
// piece that is not complete too, up to the first byte that has not been
// written, which is an [*UnwrittenError].
func (i *Instance) Get() (io.ReadCloser, error) {
	piece, err := i.open()
	if err != nil {
		return nil, err
	}
	defer piece.Close()
	r, err := piece.Open(i.p.ctx)
	if err != nil {
		return nil, err // not r, which would be a reader that is not nil
	}
	return r, nil
}

// open opens the piece, which must be there. The caller closes it.
func (i *Instance) open() (*Piece, error) { return i.p.s.OpenPiece(i.p.ctx, i.key) }

// Put stores all that r has as a complete piece, which replaces what was there,
// in one commit. On an error nothing has changed.
func (i *Instance) Put(r io.Reader) error {
	_, err := i.p.s.PutPiece(i.p.ctx, i.key, r, -1, &i.p.opts)
	return err
}

// PutSized is Put for a reader that must have exactly size bytes. If it has
// fewer, the error is [io.ErrUnexpectedEOF], if it has more, [ErrMismatch], and
// nothing has changed.
func (i *Instance) PutSized(r io.Reader, size int64) error {
	if size < 0 {
		return fmt.Errorf("put %q: %w", i.key, errNegativeSize)
	}
	_, err := i.p.s.PutPiece(i.p.ctx, i.key, r, size, &i.p.opts)
	return err
}

var errNegativeSize = errors.New("negative size")

// ReadAt implements [io.ReaderAt]: it returns fewer than len(b) bytes only with
// an error, which is exactly [io.EOF] where the piece ends, and behind that.
// Bytes that have not been written are an [*UnwrittenError].
func (i *Instance) ReadAt(b []byte, off int64) (int, error) {
	piece, err := i.open()
	if err != nil {
		return 0, err
	}
	defer piece.Close()
	return piece.ReadAt(b, off)
}

// WriteAt implements [io.WriterAt] as files do: it makes the piece if there is
// none, and lets it grow to hold what is written. What is not written before
// that is a hole, whose bytes are no zeros but missing. All of b is written, or
// nothing. A complete piece becomes incomplete.
func (i *Instance) WriteAt(b []byte, off int64) (int, error) {
	n, err := i.p.s.writeGrowing(i.p.ctx, i.key, b, off, &i.p.opts)
	if err != nil {
		return n, fmt.Errorf("write %q: %w", i.key, err)
	}
	return n, nil
}

// Delete deletes the piece: [ErrNotFound] if there is none, [ErrConflict] if an
// open reader or a pin holds it.
func (i *Instance) Delete() error {
	piece, err := i.open()
	if err != nil {
		return err
	}
	defer piece.Close()
	return piece.Delete(i.p.ctx)
}

// Stat describes the piece as a regular file: its name is the last element of
// the key, its modification time that at which its content first came into the
// store.
func (i *Instance) Stat() (fs.FileInfo, error) {
	var row pieceRow
	err := i.p.s.pool.read(i.p.ctx, func(conn *sqlite.Conn) (err error) {
		row, err = findPiece(conn, i.key)
		return err
	})
	if err == nil && row.id == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("stat %q: %w", i.key, err)
	}
	return instanceInfo{path.Base(i.key), row.Status}, nil
}

// An instanceInfo is the [fs.FileInfo] of a piece.
type instanceInfo struct {
	name   string
	status Status
}

func (i instanceInfo) Name() string       { return i.name }
func (i instanceInfo) Size() int64        { return i.status.Size }
func (i instanceInfo) Mode() fs.FileMode  { return 0o644 }
func (i instanceInfo) ModTime() time.Time { return i.status.Created }
func (i instanceInfo) IsDir() bool        { return false }
func (i instanceInfo) Sys() any           { return nil }
func (i instanceInfo) String() string     { return fs.FormatFileInfo(i) }

// Readdirnames returns what there is directly below the instance's key: the
// bytes that follow the key and a slash in other keys, up to the next slash if
// there is one. They are sorted, and each is there once. None is not an error.
//
// What is further below costs nothing: a name with a million keys below it is
// found as fast as one with a single key. A piece that is stored or deleted
// meanwhile may or may not be found.
func (i *Instance) Readdirnames() ([]string, error) {
	names := make(map[string]struct{})
	prefix := i.key + "/"
	for from := prefix; from != ""; {
		err := i.p.s.pool.read(i.p.ctx, func(conn *sqlite.Conn) (err error) {
			from, err = readNames(conn, prefix, from, names)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("names below %q: %w", i.key, err)
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// readNames adds the names that keys have behind a prefix, from the key from on.
// It returns where to go on in another snapshot, so that none lives long, or ""
// if there are no more.
func readNames(conn *sqlite.Conn, prefix, from string, names map[string]struct{}) (string, error) {
	stmt := prep(conn, "provider_names")
	defer stmt.Reset()
	bindPrefix(stmt, prefix)
	stmt.SetBytes(":from", []byte(from))
	for range listPage {
		found, err := stmt.Step()
		if err != nil || !found {
			return "", err
		}
		key := columnString(stmt, "name")
		name, _, deeper := strings.Cut(key[len(prefix):], "/")
		names[name] = struct{}{}
		if !deeper {
			from = key + "\x00"
			continue
		}
		// All keys that begin with the name and a slash give the same name:
		// the search goes on behind the last of them.
		from = prefixEnd(prefix + name + "/")
		if err := stmt.Reset(); err != nil {
			return "", err
		}
		stmt.SetBytes(":from", []byte(from))
	}
	return from, nil
}
