package main

import (
	"context"
	"path/filepath"
	"sync"

	"github.com/cairnstore/cairn"
)

// loaders add concurrently when a store is filled, so that batches get large.
const loaders = 128

// cairnStore is Cairn with its default options. It computes the keys itself,
// while it is measured; the other peers are handed theirs.
type cairnStore struct{ *cairn.Store }

var _ fileAdder = cairnStore{}

func openCairn(dir string) (store, error) {
	s, err := openCairnWith(dir, nil)
	if err != nil {
		return nil, err
	}
	return cairnStore{s}, nil
}

func openCairnWith(dir string, opts *cairn.Options) (*cairn.Store, error) {
	return cairn.Open(context.Background(), filepath.Join(dir, "cairn.db"), opts)
}

// Put hashes and adds one blob.
func (s cairnStore) Put(_, value []byte) error {
	tag, err := s.AddBytes(context.Background(), value, nil)
	if err != nil {
		return err
	}
	tag.Release()
	return nil
}

// Write adds blobs from many goroutines. It is only used to fill a store.
func (s cairnStore) Write(batch []entry) error {
	work := make(chan []byte)
	errs := make(chan error, loaders)
	var wg sync.WaitGroup
	for range loaders {
		wg.Go(func() {
			var first error
			for value := range work {
				if err := s.Put(nil, value); first == nil {
					first = err
				}
			}
			errs <- first
		})
	}
	for _, e := range batch {
		work <- e.value
	}
	close(work)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Sync has nothing to do: Add is durable.
func (s cairnStore) Sync() error { return nil }

// Get reads and verifies a blob.
func (s cairnStore) Get(key, buf []byte) (int, error) {
	b, err := s.Blob(context.Background(), cairn.Hash(key))
	if err != nil {
		return 0, err
	}
	defer b.Close()
	return b.ReadAt(buf[:min(int64(len(buf)), b.Size())], 0)
}

func (s cairnStore) AddFile(path string) error {
	tag, err := s.Store.AddFile(context.Background(), path, nil)
	if err != nil {
		return err
	}
	tag.Release()
	return nil
}
