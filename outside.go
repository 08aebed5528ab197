package cairn

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// # Files outside
//
// A group of a blob is in a row or, if it has none and the blob has bytes outside
// (its field external), in the files that the table path names: each has the
// blob's content from its first byte on, as far as it is what it was. Rows win, as long as they verify.
// So a blob may be in the database and outside, and every commit that moves
// some of it leaves a blob that reads. The outboard is always in the database.
//
// Nothing a file has is believed: each group that is read of one is verified, and
// if it is wrong the next file is tried. What a file was like when it was last
// seen to (a stamp) only tells which file to try first. When no file has a group,
// all of the blob is looked at, once, and what is not there becomes absent; see
// [Store.lost].

// A stamp is what a file outside was like: its size in bytes, the time of its last
// change in nanoseconds since the Unix epoch, and its number in the file system, 0
// where there is none.
type stamp struct{ size, mtime, inode int64 }

func stampOf(info fs.FileInfo) stamp {
	return stamp{info.Size(), info.ModTime().UnixNano(), inodeOf(info)}
}

// An outsideFile is a file outside as the table path has it.
type outsideFile struct {
	path string
	stamp
	real string // path without symbolic links, "" if that is path itself
}

// readPaths returns the files that have a blob's bytes.
func readPaths(conn *sqlite.Conn, blob int64) (files []outsideFile, err error) {
	stmt := prep(conn, "path_list")
	defer stmt.Reset()
	stmt.SetInt64(":blob", blob)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return files, err
		}
		was := stamp{stmt.GetInt64("size"), stmt.GetInt64("mtime"), stmt.GetInt64("inode")}
		files = append(files, outsideFile{columnString(stmt, "path"), was, columnString(stmt, "real")})
	}
}

// putPath notes that a file has a blob's bytes.
func putPath(conn *sqlite.Conn, blob int64, file outsideFile) error {
	stmt := prep(conn, "path_put")
	bindPath(stmt, blob, file)
	stmt.SetBytes(":real", []byte(file.real))
	return exec(stmt)
}

// bindPath binds what a statement says of a file of a blob.
func bindPath(stmt *sqlite.Stmt, blob int64, file outsideFile) {
	stmt.SetInt64(":blob", blob)
	stmt.SetBytes(":path", []byte(file.path))
	stmt.SetInt64(":size", file.size)
	stmt.SetInt64(":mtime", file.mtime)
	stmt.SetInt64(":inode", file.inode)
}

// errOutside means that no file outside has a group.
var errOutside = fmt.Errorf("%w: no file outside has it", bao.ErrMismatch)

// maxAhead is the most bytes that one call reads of a file.
const maxAhead = 16 * bao.GroupSize

// An outsideReader reads groups of one blob from the files outside, in one
// snapshot.
type outsideReader struct {
	s       *Store
	files   []outsideFile
	listed  bool
	current *openFile // that had the last group, if any
	ahead   int       // bytes of what follows that were read with it
}

// read reads a group to the start of p and verifies it. If whole groups follow it
// in p, of a blob that is all outside, they may be read with it: the next read is
// the next group's, to what follows in p.
func (o *outsideReader) read(conn *sqlite.Conn, blob blobRow, group int64, p []byte) error {
	want, err := o.s.groupCV(conn, blob, group)
	if err != nil {
		return err
	}
	w := wantedGroup{group: group, length: bao.GroupLen(blob.Size, group), cv: want, root: blob.Size <= bao.GroupSize}
	if o.ahead >= w.length && w.isIn(p) {
		o.ahead -= w.length
		return nil
	}
	o.ahead = 0
	span := w.length
	if whole := blob.Size/bao.GroupSize - group; blob.Stored == 0 && whole > 0 {
		span = int(min(whole, int64(len(p))/bao.GroupSize, maxAhead/bao.GroupSize)) * bao.GroupSize
	}
	if o.current != nil && o.try(o.current, w, p[:span]) == nil {
		return nil
	}
	return o.search(conn, blob.id, w, p[:span])
}

// A wantedGroup is a group and what it must hash to.
type wantedGroup struct {
	group  int64
	length int
	cv     bao.CV
	root   bool
}

func (w wantedGroup) isIn(p []byte) bool { return hashGroup(p[:w.length], w.group, w.root) == w.cv }

// search looks for a group in all files, first in those that have not changed.
func (o *outsideReader) search(conn *sqlite.Conn, blob int64, w wantedGroup, p []byte) error {
	o.close()
	if !o.listed {
		var err error
		if o.files, err = readPaths(conn, blob); err != nil {
			return err
		}
		o.listed = true
	}
	why := errors.New("none is named")
	var unreachable error // of a file that may have it
	for _, unchanged := range []bool{true, false} {
		for _, file := range o.files {
			f, now, err := o.s.openOutside(file.path)
			if err == nil && (now == file.stamp) == unchanged {
				if err = o.try(f, w, p); err == nil {
					o.current = f
					return nil
				}
				err = fmt.Errorf("%q: %w", file.path, err)
			}
			if f != nil {
				o.s.files.release(f)
			}
			if isUnreachable(err) {
				unreachable = err
			} else if err != nil {
				why = err
			}
		}
	}
	if unreachable != nil {
		return unreachable
	}
	return fmt.Errorf("%w: %w", errOutside, why)
}

// readUnverified reads a group to the start of p from each file that has so many
// bytes, those first that have not changed, and calls f each time. Whether they are
// the blob's, nobody has looked.
func (o *outsideReader) readUnverified(conn *sqlite.Conn, blob blobRow, group int64, p []byte, f func()) error {
	o.close()
	files, err := readPaths(conn, blob.id)
	if err != nil {
		return err
	}
	length := bao.GroupLen(blob.Size, group)
	for _, unchanged := range []bool{true, false} {
		for _, file := range files {
			open, now, err := o.s.openOutside(file.path)
			if isUnreachable(err) {
				return err
			}
			if err != nil {
				continue
			}
			n := 0
			if (now == file.stamp) == unchanged {
				n, _ = open.ReadAt(p[:length], group*bao.GroupSize)
			}
			o.s.files.release(open)
			if n == length {
				f()
			}
		}
	}
	return nil
}

// isUnreachable reports whether a file could not be read for a reason that says
// nothing of what it has: for want of a right or of memory, or because of the device.
// That is no damage, and it may be readable again.
func isUnreachable(err error) bool {
	if err == nil {
		return false
	}
	for _, telling := range []error{fs.ErrNotExist, syscall.ENOTDIR, ErrMismatch, ErrConflict, io.ErrUnexpectedEOF, errOther} {
		if errors.Is(err, telling) {
			return false
		}
	}
	return true
}

var errOther = errors.New("it has other bytes there")

// try reads a group, and what follows it in p, from a file.
func (o *outsideReader) try(f *openFile, w wantedGroup, p []byte) error {
	n, err := f.ReadAt(p, w.group*bao.GroupSize)
	if n < w.length {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if !w.isIn(p) {
		return errOther
	}
	o.ahead = n - w.length
	return nil
}

func (o *outsideReader) close() {
	if o.current != nil {
		o.s.files.release(o.current)
		o.current = nil
	}
}

const (
	// maxOpenFiles is the most files outside that are kept open while nobody reads
	// them.
	maxOpenFiles = 32
	// fileIdle is how long at least one is kept open, and at most twice as long:
	// open, a file that has been removed takes up room.
	fileIdle = 2 * time.Second
)

// A fileCache keeps the files open that were used last, so that not every read
// has to open one. The zero fileCache is empty. All its methods may be called
// concurrently.
type fileCache struct {
	mu     sync.Mutex
	byPath map[string]*list.Element
	order  list.List   // of *openFile, last used in front
	timer  *time.Timer // calls tidy, if there is anything in the cache
}

// An openFile is a file outside that is open. The cache's lock guards users,
// cached and idle; who is last of users and cache closes it.
type openFile struct {
	*os.File
	path   string
	info   fs.FileInfo // as it was opened
	users  int
	cached bool
	idle   bool // not used since tidy has seen it
}

// openOutside returns the file that a path means now, and what it is like. It must
// be released.
func (s *Store) openOutside(path string) (*openFile, stamp, error) {
	info, err := statRegular(path)
	if err != nil {
		s.files.drop(path)
		return nil, stamp{}, err
	}
	if f := s.files.get(path, info); f != nil {
		return f, stampOf(info), nil
	}
	// What has taken the place of the file may be one that must not be closed.
	if err := s.refuseOwn(path); err != nil {
		return nil, stamp{}, fmt.Errorf("%q: %w", path, err)
	}
	f, info, err := openRegular(path)
	if err != nil {
		return nil, stamp{}, err
	}
	return s.files.put(&openFile{File: f, path: path, info: info, users: 1, cached: true}), stampOf(info), nil
}

// get returns the file of a path if it is open and the one that info tells of.
func (c *fileCache) get(path string, info fs.FileInfo) *openFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byPath[path]
	if e == nil {
		return nil
	}
	f := e.Value.(*openFile)
	if !os.SameFile(f.info, info) {
		c.remove(e)
		return nil
	}
	c.order.MoveToFront(e)
	f.users++
	f.idle = false
	return f
}

func (c *fileCache) put(f *openFile) *openFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byPath[f.path]; e != nil {
		c.remove(e)
	}
	if c.byPath == nil {
		c.byPath = make(map[string]*list.Element)
	}
	c.byPath[f.path] = c.order.PushFront(f)
	if c.order.Len() > maxOpenFiles {
		c.remove(c.order.Back())
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(fileIdle, c.tidy)
	} else if c.order.Len() == 1 {
		c.timer.Reset(fileIdle)
	}
	return f
}

// tidy takes the files out of the cache that have not been used since it was called
// last, and calls itself again later if there are others.
func (c *fileCache) tidy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Back(); e != nil; {
		f, before := e.Value.(*openFile), e.Prev()
		if f.idle {
			c.remove(e)
		}
		f.idle = f.users == 0
		e = before
	}
	if c.order.Len() > 0 {
		c.timer.Reset(fileIdle)
	}
}

// drop forgets the file of a path.
func (c *fileCache) drop(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byPath[path]; e != nil {
		c.remove(e)
	}
}

// remove takes a file out of the cache. The caller holds the lock.
func (c *fileCache) remove(e *list.Element) {
	f := e.Value.(*openFile)
	delete(c.byPath, f.path)
	c.order.Remove(e)
	f.cached = false
	if f.users == 0 {
		f.Close() // it was only read: there is nothing to lose
	}
}

func (c *fileCache) release(f *openFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.users--; f.users == 0 && !f.cached {
		f.Close()
	}
}

// close closes all files. Nobody may be using them.
func (c *fileCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}
