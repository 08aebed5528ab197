package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cairnstore/cairn"
)

// stdoutPath stands for standard output.
const stdoutPath = "-"

// An output is where a command writes data.
type output struct {
	Output *string `name:"output" short:"o" placeholder:"FILE" help:"Write to FILE, which is replaced once all is there. Default: -, standard output."`
}

// Validate is called by the parser.
func (o *output) Validate() error {
	if o.Output != nil && *o.Output == "" {
		return errors.New("--output must name a file")
	}
	return nil
}

// isStdout reports whether no file is written.
func (o *output) isStdout() bool { return o.Output == nil || *o.Output == stdoutPath }

// replaceable returns the file that is to be written at a path: the one behind
// a symbolic link, so that the link stays. What is there and is no regular file,
// like a device, must not be replaced by one. Nor may it be a file of the
// database: what is there would be lost, and SQLite would take what is new for
// its own.
func replaceable(store *cairn.Store, path string) (string, error) {
	if store.Owns(path) {
		return "", fmt.Errorf("replace %q: it is part of the database", path)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", &fs.PathError{Op: "replace", Path: path, Err: errNotRegular}
	}
	return filepath.EvalSymlinks(path)
}

// write writes to the file that -o names, or to standard output. A file that a blob
// has its bytes in, whichever, is not replaced: what is written is not the blob.
func (o *output) write(ctx context.Context, a *app, store *cairn.Store, write func(w io.Writer) error) error {
	if o.isStdout() {
		return write(a.out)
	}
	target, err := replaceable(store, *o.Output)
	if err != nil {
		return err
	}
	used, err := store.IsReferenced(ctx, target)
	if err != nil {
		return err
	}
	if used {
		return fmt.Errorf("replace %q: %w: a blob has its bytes there", target, cairn.ErrConflict)
	}
	return replaceFile(target, write)
}

// replaceFile writes a temporary file beside path and renames it. The rename
// is the commit point: on an error before it, path is as it was and nothing
// else remains. Missing directories are made.
func replaceFile(path string, write func(w io.Writer) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	temp := filepath.Join(dir, "."+filepath.Base(path)+"."+rand.Text()+".tmp")
	if err := writeTemp(temp, path, write); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(dir)
}

// writeTemp makes a durable file with the mode of the one it is to replace, or
// none at all.
func writeTemp(temp, old string, write func(w io.Writer) error) (err error) {
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	if info, err := os.Stat(old); err == nil {
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	if err := write(f); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes a rename in a directory durable. Windows has no such thing,
// and does it by itself.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %q: %w", dir, err)
	}
	return nil
}
