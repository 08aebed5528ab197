package cairn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// minReference is the size in bytes of the smallest blob that an export moves out.
const minReference = 128 << 10

// ExportOptions configure an export. Nil is the default.
type ExportOptions struct {
	// Mode is [Copy], the default, or [Reference]: then the file takes over the
	// bytes, and the database forgets its own, if they are 128 KiB and more; what
	// is smaller is copied, and stays.
	Mode Mode
	// Progress, if not nil, is called about once every MiB, from the goroutine
	// that called Export.
	Progress func(Progress)
}

func (o *ExportOptions) mode() Mode {
	if o == nil {
		return Copy
	}
	return o.Mode
}

func (o *ExportOptions) progress(phase Phase, n, total int64) {
	if o != nil && o.Progress != nil {
		o.Progress(Progress{phase, n, total})
	}
}

// Export writes a blob's verified content to the file target, which it makes
// or replaces: a crash or an error at any moment leaves either the old state
// or the whole new file, and after nil the new file is durable, with the
// directories that had to be made for it. A crash may leave a temporary file
// beside target, whose name begins with a dot and ends with .tmp.
//
// With mode [Reference], target is recorded as a file that has the content, and
// then the bytes leave the database, a part in one commit. The blob reads at any
// time, and after a crash too. The file has to be written
// all the same: a file inside a database cannot be renamed. Of a blob that is
// outside already, target is one more file that has it; where the file system can
// share blocks, nothing is written for it, in mode Copy too.
//
// A directory, a symbolic link or a device at target is
// [ErrConflict], like a file of the store itself, and one that another blob has
// its bytes in; also a file that somebody changes, or removes, while the bytes are
// being moved there: what is in the database then stays. A blob that is not complete is
// a [*MissingError] with all it lacks, a full disk [ErrFull]. Otherwise errors are
// those of [Store.Blob], of reading it, and of the file system.
func (s *Store) Export(ctx context.Context, hash Hash, target string, opts *ExportOptions) error {
	err := s.export(ctx, hash, target, opts)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = &mapped{ErrFull, err}
	}
	if err != nil {
		return fmt.Errorf("export to %q: %w", target, err)
	}
	return nil
}

func (s *Store) export(ctx context.Context, hash Hash, target string, opts *ExportOptions) error {
	if mode := opts.mode(); mode != Copy && mode != Reference {
		return errMode
	}
	if opts.mode() == Reference && s.writer == nil {
		return ErrReadOnly
	}
	b, err := s.Blob(ctx, hash)
	if err != nil {
		return err
	}
	defer b.Close()
	row, err := b.require(bao.All())
	if err != nil {
		return err
	}
	if target, err = filepath.Abs(target); err != nil {
		return err
	}
	x := exporter{s: s, ctx: ctx, b: b, target: target, opts: opts}
	x.moves = opts.mode() == Reference && (row.Size >= minReference || row.External > 0)
	if err := x.mayReplace(); err != nil {
		return err
	}
	if err := makeDirs(filepath.Dir(target)); err != nil {
		return err
	}
	if err := x.replace(); err != nil {
		return err
	}
	return x.moveOut()
}

// makeDirs makes a directory and those above it, durably.
func makeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil // who makes a file there sees what it is
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return nil
	}
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// An exporter writes a blob to a file, and may move it there.
type exporter struct {
	s      *Store
	ctx    context.Context
	b      *Blob
	target string // absolute
	opts   *ExportOptions
	moves  bool // whether target is to be a file that has the blob's bytes

	file outsideFile // target, and what it is like that was written
	blob int64       // that has it
	done bool        // whether there is nothing left to move
}

// mayReplace returns ErrConflict if there is something at target that must not be
// replaced.
func (x *exporter) mayReplace() error {
	if err := x.s.refuseOwn(x.target); err != nil {
		return err
	}
	info, err := os.Lstat(x.target)
	if err != nil {
		info = nil // nothing is there; who writes it meets what else it may be
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: what is there is no regular file", ErrConflict)
	}
	used, err := x.s.isUsed(x.ctx, x.target, info, x.b.hash[:])
	if err == nil && used {
		err = fmt.Errorf("%w: another blob has its bytes there", ErrConflict)
	}
	return err
}

// replace writes a temporary file beside target and renames it. The rename
// is the commit point: before it target is as it was, and a crash leaves at
// most the temporary file; the directory's sync makes it durable. What was at
// target is looked at again right before it, and that the new file has the blob's
// bytes is noted right after it, so that no other blob comes to be there between.
func (x *exporter) replace() error {
	temp, err := x.writeTemp()
	if err != nil {
		return err
	}
	if err := x.s.lockNaming(x.ctx); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	defer x.s.unlockNaming()
	err = x.mayReplace()
	x.s.files.drop(x.target) // only Unix replaces a file that is open
	if err == nil {
		err = os.Rename(temp, x.target)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := syncDir(filepath.Dir(x.target)); err != nil {
		return err
	}
	if x.s.writer == nil {
		return nil
	}
	if err := errors.Join(x.file.resolve(), x.stillThere()); err != nil {
		return err
	}
	return x.note()
}

// stillThere returns an error if what is at target is not what was written, as far
// as can be seen: then nothing that is in the database may go.
func (x *exporter) stillThere() error {
	if err := x.file.unchanged(); err != nil {
		return fmt.Errorf("%w: somebody has changed the file: %w", ErrConflict, err)
	}
	return nil
}

// writeTemp writes the content to a new file beside target and makes that durable.
// It returns its name.
func (x *exporter) writeTemp() (_ string, err error) {
	name := filepath.Join(filepath.Dir(x.target), "."+rand.Text()+".tmp")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			err = errors.Join(err, os.Remove(name))
		}
	}()
	if old, err := os.Stat(x.target); err == nil {
		if err := f.Chmod(old.Mode().Perm()); err != nil {
			return "", err
		}
	}
	if err := x.writeContent(f); err != nil {
		return "", err
	}
	if err := syncFile(x.ctx, f); err != nil {
		return "", err
	}
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	x.file = outsideFile{path: x.target, stamp: stampOf(info)}
	return name, f.Close()
}

// writeContent writes the blob's verified content to an empty file.
func (x *exporter) writeContent(f *os.File) error {
	row := x.b.row.Load()
	if row.External == row.Size && row.Size > 0 {
		if done, err := x.clone(f, row.id); done || err != nil {
			return err
		}
	}
	_, err := x.b.WriteTo(&exportWriter{x: x, f: f})
	return err
}

// An exportWriter has the disk work while the next bytes are verified, so that
// little is left for the sync at the end.
type exportWriter struct {
	x            *exporter
	f            *os.File
	n, unflushed int64
}

func (w *exportWriter) Write(b []byte) (int, error) {
	if w.x.ctx.Err() != nil {
		return 0, context.Cause(w.x.ctx)
	}
	n, err := w.f.Write(b)
	w.n += int64(n)
	if w.unflushed += int64(n); w.unflushed >= bulkWriteback {
		startWriteback(w.f)
		w.unflushed = 0
	}
	w.x.opts.progress(Copying, w.n, w.x.b.Size())
	return n, err
}

// clone has an empty file share the blocks of one outside, if the file system can,
// and hashes what it has then. If it has not the content, the file is empty again.
func (x *exporter) clone(f *os.File, blob int64) (done bool, err error) {
	var files []outsideFile
	err = x.s.pool.read(x.ctx, func(conn *sqlite.Conn) (err error) {
		files, err = readPaths(conn, blob)
		return err
	})
	for _, file := range files {
		if err != nil || done {
			break
		}
		if done, err = x.cloneOf(f, file.path); !done && err == nil {
			err = f.Truncate(0)
		}
	}
	return done, err
}

// cloneOf makes f a clone of the file at a path, and reports whether it has the
// blob's content. An error is one of ctx: that a file cannot be cloned is none.
func (x *exporter) cloneOf(f *os.File, path string) (bool, error) {
	source, _, err := x.s.openOutside(path)
	if err != nil {
		return false, nil
	}
	defer x.s.files.release(source)
	size := x.b.Size()
	if cloneFile(f, source.File) != nil || f.Truncate(size) != nil {
		return false, nil
	}
	var hasher bao.Hasher
	done := int64(0)
	err = eachSegment(x.ctx, io.NewSectionReader(f, 0, size), func(data []byte) error {
		_, err := hasher.Write(data)
		done += int64(len(data))
		x.opts.progress(Hashing, done, size)
		return err
	})
	if err != nil {
		return false, context.Cause(x.ctx)
	}
	root, err := hasher.Finish()
	return err == nil && Hash(root) == x.b.hash, nil
}

// note has the file recorded that is at target now, and begins to move the blob's
// bytes there.
func (x *exporter) note() error {
	return x.s.write(x.ctx, 0, func(conn *sqlite.Conn) error {
		row, err := findBlob(conn, x.b.hash)
		if err != nil {
			return err
		}
		x.blob, x.done = row.id, true
		if x.moves && row.State == Complete {
			return x.moveRows(conn, row)
		}
		stmt := prep(conn, "path_exists")
		stmt.SetInt64(":blob", row.id)
		stmt.SetBytes(":path", []byte(x.target))
		if n, err := stepInt(stmt); err != nil || n == 0 {
			return err
		}
		return putPath(conn, row.id, x.file) // it has been replaced by its like
	})
}

// moveOut moves what is still in the database. Each commit leaves a blob that
// reads: a group is in a row, or else in the file, which was durable before the
// first of them, and is looked at before each. The last one is acknowledged.
func (x *exporter) moveOut() error {
	if x.s.writer == nil || x.done {
		return nil
	}
	for !x.done {
		if err := x.stillThere(); err != nil {
			return err
		}
		err := x.s.writeLazy(x.ctx, func(conn *sqlite.Conn) error {
			row, err := findBlob(conn, x.b.hash)
			if err != nil {
				return err
			}
			if row.id != x.blob || row.State != Complete {
				x.done = true // somebody has added it again, or the file is gone
				return nil
			}
			return x.moveRows(conn, row)
		})
		if err != nil {
			return err
		}
	}
	return x.s.write(x.ctx, 0, func(*sqlite.Conn) error { return nil })
}

// moveRows removes the first rows, counts their bytes as outside, and names the
// file that has them.
func (x *exporter) moveRows(conn *sqlite.Conn, row blobRow) error {
	stmt := prep(conn, "row_first")
	defer stmt.Reset()
	from, last := rowID(row.id, 0), int64(-1)
	stmt.SetInt64(":from", from)
	stmt.SetInt64(":to", rowID(row.id+1, 0)-1)
	stmt.SetInt64(":limit", dropGroups)
	var rows, moved int64
	for {
		found, err := stmt.Step()
		if err != nil {
			return err
		}
		if !found {
			break
		}
		last = stmt.GetInt64("id")
		rows, moved = rows+1, moved+int64(bao.GroupLen(row.Size, groupOf(last)))
	}
	x.done = rows < dropGroups
	if err := putPath(conn, row.id, x.file); err != nil {
		return err
	}
	if err := removeRange(conn, "row_remove", from, last); err != nil {
		return err
	}
	stmt = prep(conn, "blob_move_out")
	stmt.SetInt64(":id", row.id)
	stmt.SetInt64(":bytes", moved)
	return exec(stmt)
}
