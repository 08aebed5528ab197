package cairn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// stagedTiles of a reference are handed to the writer at once: those of 64 MiB.
const stagedTiles = 64

// reference adds the content of a file that stays where it is. f is the file, open.
func (s *Store) reference(ctx context.Context, f *os.File, file outsideFile, opts *AddOptions) (_ *TempTag, err error) {
	if s.writer == nil {
		return nil, ErrReadOnly
	}
	if file.size > MaxBlobSize {
		return nil, ErrTooLarge
	}
	if file.path, err = absolute(file.path); err != nil {
		return nil, err
	}
	if file.size == 0 { // a file of a size has it from the file system, not one of /proc
		if err := inBackground(ctx, func() error { return isAtEnd(f) }); err != nil {
			return nil, err
		}
		return s.addSmall(ctx, nil, opts, nil)
	}
	a := &largeAdd{steps: steps{s: s, ctx: ctx}, file: &file}
	a.builder.Emit = collectTiles(&a.tiles)
	defer func() { a.end(err) }()
	if err := a.hashFile(f, opts); err != nil {
		return nil, err
	}
	if err := syncRead(ctx, f); err != nil {
		return nil, err
	}
	if err := file.resolve(); err != nil {
		return nil, err
	}
	if err := file.syncNames(ctx); err != nil {
		return nil, err
	}
	return a.publish(opts)
}

// isAtEnd returns an error if a file has a further byte.
func isAtEnd(f *os.File) error {
	if n, err := f.Read(make([]byte, 1)); err != io.EOF || n > 0 {
		return errors.Join(errFileChanged, err)
	}
	return nil
}

var errFileChanged = fmt.Errorf("%w: changed while it was read", ErrMismatch)

// hashFile hashes the whole of a file, and stages the tiles.
func (a *largeAdd) hashFile(f *os.File, opts *AddOptions) error {
	// One byte more than its size shows a file that grows.
	err := eachSegment(a.ctx, io.LimitReader(f, a.file.size+1), func(data []byte) error {
		err := a.hashSegment(data)
		if err == nil {
			opts.progress(Hashing, a.size)
		}
		return err
	})
	if err == nil && a.size != a.file.size {
		err = errFileChanged
	}
	return err
}

// eachSegment calls f with one segment of r after the other, while the next is
// being read, to its end. When ctx is done it does not wait for a read of r that is
// under way: r must bear that, as a file does that is closed meanwhile.
func eachSegment(ctx context.Context, r io.Reader, f func(data []byte) error) error {
	inner, cancel := context.WithCancel(ctx)
	read := make(chan filled, 2)
	go fillSegments(inner, r, read)
	defer func() {
		cancel()
		if ctx.Err() != nil {
			go putBack(read)
		} else {
			putBack(read) // nobody reads r any more when this ends
		}
	}()
	for {
		select {
		case seg, ok := <-read:
			if !ok {
				return context.Cause(ctx)
			}
			err := context.Cause(ctx)
			if err == nil && seg.n > 0 {
				err = f(seg.buf[:seg.n])
			}
			segments.Put(seg.buf)
			if err == nil && seg.err != io.EOF {
				err = seg.err
			}
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// putBack takes the segments that nobody wants.
func putBack(read <-chan filled) {
	for seg := range read {
		segments.Put(seg.buf)
	}
}

// A filled segment has n bytes; err is why no more follow, if it is not nil.
type filled struct {
	buf *[segmentSize]byte
	n   int
	err error
}

// fillSegments reads r to its end. Who receives a segment owns its buffer.
func fillSegments(ctx context.Context, r io.Reader, to chan<- filled) {
	defer close(to)
	for {
		seg := filled{buf: segments.Get().(*[segmentSize]byte)}
		seg.n, seg.err = readSegment(ctx, r, seg.buf)
		select {
		case to <- seg:
		case <-ctx.Done():
			segments.Put(seg.buf)
			return
		}
		if seg.err != nil {
			return
		}
	}
}

// hashSegment hashes what comes next of a file.
func (a *largeAdd) hashSegment(data []byte) error {
	group := a.size / bao.GroupSize
	if a.size += int64(len(data)); a.size > a.file.size {
		return errFileChanged
	}
	if err := hashSegment(&a.builder, data, group, a.file.size <= bao.GroupSize); err != nil {
		return err
	}
	if len(a.tiles) < stagedTiles {
		return nil
	}
	tiles, first := a.tiles, !a.staged
	a.tiles, a.staged = nil, true
	return a.enqueue(int64(len(tiles))*pageSize, false, func(conn *sqlite.Conn) error {
		if err := a.stage(conn, first); err != nil {
			return err
		}
		return insertTiles(conn, a.id, tiles)
	}, nil, nil)
}

// unchanged returns an error if a file is not what it was.
func (f outsideFile) unchanged() error {
	info, err := statRegular(f.path)
	if err == nil && stampOf(info) != f.stamp {
		err = errFileChanged
	}
	return err
}

// syncRead makes durable what a file has that we only read, where that is possible
// and has a meaning.
func syncRead(ctx context.Context, f *os.File) error {
	return wherePossible(inBackground(ctx, f.Sync))
}

// resolve notes where the file is.
func (f *outsideFile) resolve() error {
	real, err := filepath.EvalSymlinks(f.path)
	if real == f.path {
		real = ""
	}
	f.real = real
	return err
}

// syncNames makes durable, in the same way, that a path leads to its file: its own
// entry and, behind a symbolic link, the file's.
func (f *outsideFile) syncNames(ctx context.Context) error {
	for _, name := range []string{f.path, f.real} {
		dir, _ := filepath.Split(name)
		if name == "" {
			continue
		}
		if err := wherePossible(inBackground(ctx, func() error { return syncDir(dir) })); err != nil {
			return err
		}
	}
	return nil
}

// wherePossible returns an error of a sync, unless it says that there is none.
func wherePossible(err error) error {
	for _, impossible := range []error{syscall.EINVAL, syscall.ENOTSUP, syscall.EROFS, os.ErrPermission} {
		if errors.Is(err, impossible) {
			return nil
		}
	}
	return err
}

// syncFile makes a file durable. When ctx is done it does not wait for the end:
// the file may be closed and removed meanwhile.
func syncFile(ctx context.Context, f *os.File) error { return inBackground(ctx, f.Sync) }

// inBackground calls f, and does not wait for its end when ctx is done.
func inBackground(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
