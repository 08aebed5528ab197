package cairn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cairnstore/cairn/bao"
)

// A Mode tells where the bytes of a file go that comes in or goes out.
type Mode int

const (
	// Copy has the bytes in the database, and those of an exported file twice.
	Copy Mode = iota
	// Reference has them in the file only. The database has its path, and the
	// outboard, so that each byte that is read is verified; of the capacity, and
	// of a quota, they use nothing. The file is its owner's: it is never changed
	// or removed, not even when the blob is deleted. Several files may have the
	// same content; each is tried. When all of them are gone or
	// changed, which a read or a scrub notices, the blob is partial, with exactly
	// what they still have.
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

// AddFile adds a regular file's content, by itself or behind symbolic links. The
// file is only read. What is no regular file is [ErrMismatch], a file of the store
// itself [ErrConflict]; errors of the file system come wrapped.
//
// With mode [Copy] it stores the content as [Store.Add] does. The bytes are
// copied on every file system: a database is one file, whose pages cannot share
// blocks with others.
//
// With mode [Reference] the file is hashed where it lies, and its absolute path
// recorded, symbolic links as they are. It must stay as it is: one that changes
// while it is hashed, or that has not as many bytes as its size says, is
// [ErrMismatch], and nothing is recorded. Content that is in the database already
// stays there, and no path is recorded; that of a partial blob completes it, in
// place of what was there. The file's content, and its name, are made durable before
// it is relied on, where the file system can do that. An empty file is simply
// stored. To add the content in mode Copy later brings it into the database.
func (s *Store) AddFile(ctx context.Context, path string, opts *AddOptions) (*TempTag, error) {
	tag, err := s.addFile(ctx, path, opts)
	if err != nil {
		return nil, fmt.Errorf("add file %q: %w", path, err)
	}
	return tag, nil
}

func (s *Store) addFile(ctx context.Context, path string, opts *AddOptions) (*TempTag, error) {
	if err := errors.Join(opts.check(), s.refuseOwn(path)); err != nil {
		return nil, err
	}
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := opts.checkSize(info.Size()); err != nil { // before all of it is hashed
		return nil, err
	}
	opts = opts.withTotal(info.Size())
	switch opts.mode() {
	case Copy:
		if err := s.capacity.admits(info.Size()); err != nil { // before anything is evicted for it
			return nil, err
		}
		return s.add(ctx, f, opts, nil)
	case Reference:
		return s.reference(ctx, f, outsideFile{path: path, stamp: stampOf(info)}, opts)
	}
	return nil, errMode
}

var errMode = fmt.Errorf("%w: no such mode here", ErrMismatch)

func (o *AddOptions) mode() Mode {
	if o == nil {
		return Copy
	}
	return o.Mode
}

// withTotal returns the options of an add of so many bytes.
func (o *AddOptions) withTotal(total int64) *AddOptions {
	if o == nil || o.Progress == nil {
		return o
	}
	with := *o
	with.Progress = func(p Progress) {
		if p.Total < 0 {
			p.Total = total
		}
		o.Progress(p)
	}
	return &with
}

// progress tells how many bytes of a phase are done, of how many is not known.
func (o *AddOptions) progress(phase Phase, n int64) {
	if o != nil && o.Progress != nil {
		o.Progress(Progress{phase, n, -1})
	}
}

// outboarding tells that the outboard of so many bytes is written, or is going
// to be.
func (o *AddOptions) outboarding(size int64, done bool) {
	if o == nil || o.Progress == nil {
		return
	}
	p := Progress{Phase: Outboarding, Total: (bao.Groups(size) - 1) * bao.PairSize}
	if done {
		p.Bytes = p.Total
	}
	o.Progress(p)
}

// refuseOwn returns ErrConflict for a database and the files beside it: to replace
// one would lose data, and to open and close one would drop SQLite's locks on it.
func (s *Store) refuseOwn(path string) error {
	if err := s.pool.open(); err != nil {
		return err
	}
	if s.Owns(path) {
		return errOwn
	}
	return nil
}

var errOwn = fmt.Errorf("%w: a file of a store", ErrConflict)

// Owns reports whether a path names the database or one of the files beside it
// (see [Open]), by whatever name, and whether that is there at the moment or
// not; also those of other stores that this process has open. No such file may be
// written, and none must even be opened and closed by this process: that would
// drop SQLite's locks on it.
func (s *Store) Owns(path string) bool {
	info, err := os.Stat(path) // as it is given: cleaned, it could mean another
	if err != nil {
		info = nil
	}
	name, err := inRealDir(path)
	if err != nil {
		name = "" // without its directory it cannot be there
	}
	if !s.loc.memory && isPartOf(s.loc.path, name, info) {
		return true
	}
	return isOpenDatabase(name, info)
}

// absolute returns the absolute path of what a path means. It is not cleaned: behind
// a symbolic link, ".." is not where the link is.
func absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	dir, err := os.Getwd()
	return dir + string(filepath.Separator) + path, err
}

// inRealDir returns the absolute path of what a path means, in a directory without
// symbolic links. What the last name is, a symbolic link perhaps, it does not look
// at.
func inRealDir(path string) (string, error) {
	path, err := absolute(path)
	if err != nil {
		return "", err
	}
	dir, name := filepath.Split(path)
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// openRegular opens a file for reading, unless it is something whose reading
// could block or never end. Part of a database that this process has open is
// ErrConflict, even if the path has come to mean it just now.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	if _, err := statRegular(path); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be a FIFO by now
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && keepIfDatabase(f, info) {
		return nil, nil, errOwn
	}
	if err == nil && !info.Mode().IsRegular() { // it has just become something else
		err = errNotRegular
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

var errNotRegular = fmt.Errorf("%w: not a regular file", ErrMismatch)

// statRegular returns the info of a regular file.
func statRegular(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q: %w", path, errNotRegular)
	}
	return info, err
}
