package main

import (
	"errors"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// boltStore is a bbolt database with one bucket. Every transaction is synced:
// with NoSync, a power loss during a load could damage the file.
type boltStore struct{ db *bbolt.DB }

var (
	_ lonePutter = (*boltStore)(nil)
	_ lister     = (*boltStore)(nil)
)

var bucketName = []byte("blob")

// openBolt opens the database. Put waits for as many callers as batch says, or
// as bbolt does by default if that is 0: 1,000, and never longer than 10 ms.
func openBolt(dir string, batch int) (store, error) {
	db, err := bbolt.Open(filepath.Join(dir, "bolt.db"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if batch > 0 {
		db.MaxBatchSize = batch
	}
	return &boltStore{db}, nil
}

// Put joins the transactions of concurrent callers.
func (s *boltStore) Put(key, value []byte) error {
	return s.db.Batch(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketName).Put(key, value)
	})
}

// PutAlone does not wait for others to join.
func (s *boltStore) PutAlone(key, value []byte) error {
	return s.Write([]entry{{key, value}})
}

func (s *boltStore) Write(batch []entry) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketName)
		for _, e := range batch {
			if err := b.Put(e.key, e.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// Sync has nothing to do: transactions are durable.
func (s *boltStore) Sync() error { return nil }

// Get copies the value: the mapped one is gone with its transaction.
func (s *boltStore) Get(key, buf []byte) (n int, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucketName).Get(key)
		if value == nil {
			return errNoValue
		}
		n = copy(buf, value)
		return nil
	})
	return n, err
}

// Each goes through all values.
func (s *boltStore) Each(f func(key, value []byte)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketName).Cursor()
		for key, value := c.First(); key != nil; key, value = c.Next() {
			f(key, value)
		}
		return nil
	})
}

func (s *boltStore) Close() error { return s.db.Close() }
