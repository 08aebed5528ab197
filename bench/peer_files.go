package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
)

// fileStore keeps each value in a file of its own, in 256 directories. It
// writes a temporary file, syncs it, renames it, and syncs the directory:
// without the last step a power loss can take the name back. syncDir off
// leaves that out, as many programs do.
type fileStore struct {
	dir     string
	syncDir bool
	serial  atomic.Int64
}

var _ fileAdder = (*fileStore)(nil)

func openFiles(dir string, syncDir bool) (store, error) {
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, err
		}
	}
	return &fileStore{dir: dir, syncDir: syncDir}, nil
}

func (s *fileStore) path(key []byte) string {
	name := hex.EncodeToString(key)
	return filepath.Join(s.dir, name[:2], name[2:])
}

func (s *fileStore) Put(key, value []byte) error {
	return s.create(s.path(key), func(f *os.File) error {
		_, err := f.Write(value)
		return err
	})
}

// create makes a file in the durable way.
func (s *fileStore) create(path string, write func(f *os.File) error) error {
	temp := fmt.Sprintf("%s.tmp%d", path, s.serial.Add(1))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if !s.syncDir {
		return nil
	}
	return syncDirectory(filepath.Dir(path))
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// AddFile copies a file with one sync at its end. It reads and writes, 1 MiB
// at a time: a copy by reference would store nothing.
func (s *fileStore) AddFile(path string) error {
	source, err := os.Open(path)
	if err != nil {
		return err
	}
	defer source.Close()
	return s.create(s.path(numberKey(0)), func(f *os.File) error {
		// Without ReadFrom and WriteTo, which would copy inside the kernel.
		_, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{source}, make([]byte, 1<<20))
		return err
	})
}

// Write makes a durable file for each value.
func (s *fileStore) Write(batch []entry) error {
	for _, e := range batch {
		if err := s.Put(e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}

// Sync has nothing to do: Put is durable.
func (s *fileStore) Sync() error { return nil }

func (s *fileStore) Get(key, buf []byte) (int, error) {
	f, err := os.Open(s.path(key))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(buf, 0)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func (s *fileStore) Close() error { return nil }
