package main

import (
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// badgerStore is a Badger database that syncs every transaction, without
// compression, which could save nothing here, nor the cache that only
// compression needs, nor the detection of conflicts, of which there are none.
// The values of a large blob go to the value log, from which 16 KiB are read
// several times as fast as from the tree; small ones stay in the tree.
type badgerStore struct{ db *badger.DB }

// valueLogMin is the least size of a value in the value log.
const valueLogMin = 8 << 10

var _ settler = (*badgerStore)(nil)

func openBadger(dir string) (store, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithDetectConflicts(false).
		WithValueThreshold(valueLogMin).
		WithLogger(nil))
	if err != nil {
		return nil, err
	}
	return &badgerStore{db}, nil
}

func (s *badgerStore) Put(key, value []byte) error {
	return s.db.Update(func(txn *badger.Txn) error { return txn.Set(key, value) })
}

func (s *badgerStore) Write(batch []entry) error {
	return s.db.Update(func(txn *badger.Txn) error {
		for _, e := range batch {
			if err := txn.Set(e.key, e.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// Sync has nothing to do: transactions are durable.
func (s *badgerStore) Sync() error { return nil }

// Settle compacts the levels into one.
func (s *badgerStore) Settle() error { return s.db.Flatten(2) }

func (s *badgerStore) Get(key, buf []byte) (n int, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		return item.Value(func(value []byte) error {
			n = copy(buf, value)
			return nil
		})
	})
	return n, err
}

func (s *badgerStore) Close() error { return s.db.Close() }
