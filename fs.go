package cairn

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"time"
)

// FS returns a view of the complete blobs as files: one directory, ".", in
// which each of them is a regular file, named by the 64 lower-case hexadecimal
// digits of its hash, that cannot be written. There are no other names:
// everything else, other ways to write a hash and partial blobs included, is
// [fs.ErrNotExist]. A blob that becomes complete appears at that moment.
//
// The view has the methods of [fs.ReadDirFS] and [fs.StatFS]. Its files are
// open [Blob] handles, with all their methods: they protect the blob until they
// are closed, every byte is verified, and what does not verify is a
// [*CorruptError]. The directory, when it is opened, is a [fs.ReadDirFile] that
// reads as much of the listing as it is asked for. A file's modification time is
// [Status.Created].
//
// Who serves the view to browsers has to choose the types of its files:
// [net/http.FileServerFS] guesses, and would serve a page that somebody added
// as a page. The package blobhttp does not.
//
// All that the view and its files read is bounded by ctx. The view may be used
// concurrently, and needs no closing.
func (s *Store) FS(ctx context.Context) fs.FS { return blobFS{s, ctx} }

type blobFS struct {
	s   *Store
	ctx context.Context
}

var (
	_ fs.StatFS    = blobFS{}
	_ fs.ReadDirFS = blobFS{}
)

var (
	errIsDir  = errors.New("is a directory")
	errNotDir = errors.New("not a directory")
)

// Open implements [fs.FS].
func (f blobFS) Open(name string) (fs.File, error) {
	if name == "." {
		return &dirFile{view: f}, nil
	}
	hash, err := fileHash(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	b, err := f.s.openBlob(f.ctx, hash, "blob "+name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	row := b.row.Load()
	if row.State != Complete {
		b.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &blobFile{b, fileInfo{BlobInfo{hash, row.Status}}}, nil
}

// Stat implements [fs.StatFS].
func (f blobFS) Stat(name string) (fs.FileInfo, error) {
	if name == "." {
		return dirInfo{}, nil
	}
	hash, err := fileHash(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	row, err := f.s.findBlob(f.ctx, hash)
	if err == nil && row.State != Complete {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return fileInfo{BlobInfo{hash, row.Status}}, nil
}

// ReadDir implements [fs.ReadDirFS].
func (f blobFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		_, err := f.Stat(name)
		if err == nil {
			err = &fs.PathError{Op: "readdir", Path: name, Err: errNotDir}
		}
		return nil, err
	}
	return (&dirFile{view: f}).ReadDir(-1)
}

// fileHash returns the hash that a file's name is.
func fileHash(name string) (Hash, error) {
	if !fs.ValidPath(name) {
		return Hash{}, fs.ErrInvalid
	}
	hash, err := ParseHash(name)
	if err != nil || hash.String() != name {
		return Hash{}, fs.ErrNotExist
	}
	return hash, nil
}

// A blobFile is an open blob that knows its place in the view.
type blobFile struct {
	*Blob
	info fileInfo
}

// Stat implements [fs.File].
func (f *blobFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// A dirFile is the open directory. It remembers the last name that it has
// returned, and holds nothing.
type dirFile struct {
	view blobFS

	mu     sync.Mutex // held during each ReadDir
	after  Hash
	closed bool
}

var _ fs.ReadDirFile = (*dirFile)(nil)

// ReadDir implements [fs.ReadDirFile].
func (d *dirFile) ReadDir(n int) (entries []fs.DirEntry, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, d.fail("readdir", fs.ErrClosed)
	}
	opts := &ListOptions{State: Complete, After: d.after, Limit: n}
	for info, err := range d.view.s.Blobs(d.view.ctx, opts) {
		if err != nil {
			return entries, d.fail("readdir", err)
		}
		d.after = info.Hash
		entries = append(entries, fs.FileInfoToDirEntry(fileInfo{info}))
	}
	if n > 0 && len(entries) == 0 {
		return nil, io.EOF
	}
	return entries, nil
}

// Stat implements [fs.File].
func (d *dirFile) Stat() (fs.FileInfo, error) { return dirInfo{}, nil }

// Read implements [fs.File]: a directory has no content.
func (d *dirFile) Read([]byte) (int, error) { return 0, d.fail("read", errIsDir) }

// Close implements [fs.File].
func (d *dirFile) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *dirFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: ".", Err: err}
}

// A fileInfo is the [fs.FileInfo] of a blob.
type fileInfo struct{ blob BlobInfo }

func (i fileInfo) Name() string       { return i.blob.Hash.String() }
func (i fileInfo) Size() int64        { return i.blob.Size }
func (i fileInfo) Mode() fs.FileMode  { return 0o444 }
func (i fileInfo) ModTime() time.Time { return i.blob.Created }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }
func (i fileInfo) String() string     { return fs.FormatFileInfo(i) }

// A dirInfo is the [fs.FileInfo] of the directory.
type dirInfo struct{}

func (dirInfo) Name() string       { return "." }
func (dirInfo) Size() int64        { return 0 }
func (dirInfo) Mode() fs.FileMode  { return fs.ModeDir | 0o555 }
func (dirInfo) ModTime() time.Time { return time.Time{} }
func (dirInfo) IsDir() bool        { return true }
func (dirInfo) Sys() any           { return nil }
func (i dirInfo) String() string   { return fs.FormatFileInfo(i) }
