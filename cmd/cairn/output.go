package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// validOutput checks the argument of -o, which is nil if there is none.
func validOutput(path *string) error {
	if path != nil && *path == "" {
		return errors.New("--output must name a file")
	}
	return nil
}

// outputTarget returns the file that -o means: the one behind a symbolic link,
// so that the link stays. What is there and is no regular file, like a device,
// must not be replaced by one.
func outputTarget(path string) (string, error) {
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

// write writes to the file that -o names, or to standard output if path is nil.
func (a *app) write(path *string, write func(w io.Writer) error) error {
	if path == nil {
		return write(a.out)
	}
	if isOneOf(*path, ownFiles(a.db)) {
		return fmt.Errorf("replace %q: it is part of the database", *path)
	}
	return replaceFile(*path, write)
}

// replaceFile writes a temporary file beside path and renames it. The rename
// is the commit point: on an error before it, path is as it was and nothing
// else remains. Missing directories are made.
func replaceFile(path string, write func(w io.Writer) error) error {
	path, err := outputTarget(path)
	if err != nil {
		return err
	}
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
