package main

import (
	"context"
	"io"
	"os"
)

// interruptible returns a reader of what r has, whose reads end when ctx does.
// A read of a pipe or a terminal may wait for ever, and nothing can wake it:
// the goroutine that is in it stays there until the process ends. stop must be
// called when the reader is no longer needed.
func interruptible(ctx context.Context, r io.Reader) (_ io.Reader, stop func()) {
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return r, func() {} // never waits for anybody
		}
	}
	pr, pw := io.Pipe()
	go func() {
		_, err := io.Copy(pw, r)
		pw.CloseWithError(err)
	}()
	release := context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })
	return interruptedReader{ctx, pr}, func() {
		release()
		pr.Close()
	}
}

// sizeOf returns how many bytes a reader has if it is a regular file, else -1.
func sizeOf(r io.Reader) int64 {
	f, ok := r.(*os.File)
	if !ok {
		return -1
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	pos, err := f.Seek(0, io.SeekCurrent)
	if err != nil || pos > info.Size() {
		return -1
	}
	return info.Size() - pos
}

// An interruptedReader says why its pipe was closed: the pipe itself tells its
// reader only that it is.
type interruptedReader struct {
	ctx context.Context
	*io.PipeReader
}

func (r interruptedReader) Read(p []byte) (int, error) {
	n, err := r.PipeReader.Read(p)
	if err == io.ErrClosedPipe && r.ctx.Err() != nil {
		err = context.Cause(r.ctx)
	}
	return n, err
}
