package cairn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cairnstore/cairn/bao"
)

// AddFile stores a regular file's content as [Store.Add] does. The file is
// only read. What is no regular file is [ErrMismatch], a file of the store
// itself [ErrConflict]; errors of the file system come wrapped.
func (s *Store) AddFile(ctx context.Context, path string, opts *AddOptions) (*TempTag, error) {
	if err := s.refuseOwn(path); err != nil {
		return nil, fmt.Errorf("add file %q: %w", path, err)
	}
	f, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("add file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = s.capacity.admits(info.Size()) // before anything is evicted for it
	}
	var tag *TempTag
	if err == nil {
		tag, err = s.add(ctx, f, opts, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("add file %q: %w", path, err)
	}
	return tag, nil
}

// refuseOwn returns ErrConflict for the database and the files beside it: to
// replace one would lose data, and to open and close the database would drop
// SQLite's locks on it.
func (s *Store) refuseOwn(path string) error {
	if err := s.pool.open(); err != nil {
		return err
	}
	if s.Owns(path) {
		return fmt.Errorf("%w: a file of this store", ErrConflict)
	}
	return nil
}

// Owns reports whether a path names the database or one of the files beside it
// (see [Open]), by whatever name, and whether that is there at the moment or
// not. No such file may be written, and the database must not even be opened
// and closed by this process: that would drop SQLite's locks on it.
func (s *Store) Owns(path string) bool {
	if s.loc.memory {
		return false
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return false // whoever opens it reports it
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	info, statErr := os.Stat(path)
	for _, ending := range []string{"", "-wal", "-shm", "-journal", "-lock"} {
		if path == s.loc.path+ending {
			return true
		}
		own, err := os.Stat(s.loc.path + ending)
		if err == nil && statErr == nil && os.SameFile(info, own) {
			return true
		}
	}
	return false
}

// openRegular opens a file for reading, unless it is something whose reading
// could block or never end.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q: %w: not a regular file", path, ErrMismatch)
	}
	return os.Open(path)
}

// A Mode tells where the bytes of a file go that comes in or goes out.
type Mode int

const (
	// Copy has the bytes in the database, and those of an exported file twice.
	Copy Mode = iota
	// Reference has them in the file only. The database has its path, and the
	// outboard, so that each byte that is read is verified.
	Reference
)

// A Phase is a part of a transfer.
type Phase int

const (
	Copying     Phase = iota // bytes are written, and hashed on the way
	Hashing                  // bytes are read and hashed, because they stay where they are
	Outboarding              // the outboard of what was hashed is written
)

// Progress tells how far a phase of a transfer has come.
type Progress struct {
	Phase Phase
	Bytes int64 // done
	Total int64 // to be done, -1 if that is not known
}

// ExportOptions configure an export. Nil is the default.
type ExportOptions struct {
	// Mode is [Copy], the default, or [Reference].
	Mode Mode
	// Progress, if not nil, is called about once every MiB, from the goroutine
	// that called Export.
	Progress func(Progress)
}

// Export writes a blob's verified content to the file target, which it makes
// or replaces: a crash or an error at any moment leaves either the old state
// or the whole new file, and after nil the new file is durable (directories that had to be
// made for it are not synced themselves). Missing parent
// directories are made. A directory, a symbolic link or a device at target is
// [ErrConflict], like a file of the store itself, and a blob that is not complete
// a [*MissingError] with all it lacks. Otherwise errors are those of
// [Store.Blob], of reading it, and of the file system.
func (s *Store) Export(ctx context.Context, hash Hash, target string, opts *ExportOptions) error {
	if err := s.export(ctx, hash, target, opts); err != nil {
		return fmt.Errorf("export to %q: %w", target, err)
	}
	return nil
}

func (s *Store) export(ctx context.Context, hash Hash, target string, opts *ExportOptions) error {
	b, err := s.Blob(ctx, hash)
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := b.require(bao.All()); err != nil {
		return err
	}
	if err := s.refuseOwn(target); err != nil {
		return err
	}
	if info, err := os.Lstat(target); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: what is there is no regular file", ErrConflict)
	}
	dir := filepath.Dir(target)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return replaceFile(target, func(f *os.File) error {
		var dst io.Writer = f
		if opts != nil && opts.Progress != nil {
			dst = &progressWriter{w: f, total: b.Size(), progress: opts.Progress}
		}
		_, err := b.WriteTo(dst)
		return err
	})
}

type progressWriter struct {
	w        io.Writer
	n, total int64
	progress func(Progress)
}

func (p *progressWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	p.progress(Progress{Copying, p.n, p.total})
	return n, err
}

// replaceFile writes a temporary file beside target and renames it. The rename
// is the commit point: before it target is as it was, and a crash leaves at
// most the temporary file; the directory's sync makes it durable.
func replaceFile(target string, write func(f *os.File) error) (err error) {
	dir := filepath.Dir(target)
	name := filepath.Join(dir, "."+filepath.Base(target)+"."+rand.Text()+".tmp")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			err = errors.Join(err, os.Remove(name))
		}
	}()
	if old, err := os.Stat(target); err == nil {
		if err := f.Chmod(old.Mode().Perm()); err != nil {
			return err
		}
	}
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(name, target); err != nil {
		return err
	}
	return syncDir(dir)
}
