package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"
)

// pebbleStore is a Pebble database in its newest format, without compression,
// which could save nothing here, and with 64 MiB of memtable and of cache
// instead of 4 MiB and 8 MiB, which would be slower.
type pebbleStore struct{ db *pebble.DB }

var (
	_ settler = (*pebbleStore)(nil)
	_ lister  = (*pebbleStore)(nil)
)

// quiet logs what ends the program only.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "pebble: "+format+"\n", args...)
	os.Exit(1)
}

func openPebble(dir string) (store, error) {
	opts := &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       64 << 20,
		CacheSize:          64 << 20,
		Logger:             quiet{},
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	return &pebbleStore{db}, nil
}

// Put waits for the sync of the log, which concurrent callers share.
func (s *pebbleStore) Put(key, value []byte) error {
	return s.db.Set(key, value, pebble.Sync)
}

// Write leaves the log unsynced: what a power loss takes, it takes from the
// end.
func (s *pebbleStore) Write(batch []entry) error {
	b := s.db.NewBatch()
	defer b.Close()
	for _, e := range batch {
		if err := b.Set(e.key, e.value, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

// Sync syncs the log by an empty record. Logs before the current one have been
// synced when they were closed.
func (s *pebbleStore) Sync() error { return s.db.LogData(nil, pebble.Sync) }

// Settle empties the memtable and the levels above the last one.
func (s *pebbleStore) Settle() error {
	if err := s.db.Flush(); err != nil {
		return err
	}
	return s.db.Compact(context.Background(), []byte{0}, bytes.Repeat([]byte{0xff}, 33), true)
}

func (s *pebbleStore) Get(key, buf []byte) (int, error) {
	value, closer, err := s.db.Get(key)
	if err != nil {
		return 0, err
	}
	n := copy(buf, value)
	return n, closer.Close()
}

// Each goes through all values.
func (s *pebbleStore) Each(f func(key, value []byte)) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		f(it.Key(), it.Value())
	}
	return it.Close()
}

func (s *pebbleStore) Close() error { return s.db.Close() }
