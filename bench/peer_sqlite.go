package main

import (
	"errors"
	"path/filepath"
	"sync"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// sqliteReaders is the most connections that read at once.
const sqliteReaders = 4

// sqliteStore is one table in an SQLite database, through the driver that
// Cairn uses: WAL, synchronous=full, default checkpoints, a lock around the
// writing connection, a few connections to read. It is what one would write
// without Cairn.
type sqliteStore struct {
	mu      sync.Mutex // held for a transaction on writer
	writer  *sqlite.Conn
	readers chan *sqlite.Conn
}

func openSQLite(dir string) (_ store, err error) {
	path := filepath.Join(dir, "sqlite.db")
	s := &sqliteStore{readers: make(chan *sqlite.Conn, sqliteReaders)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.writer, err = sqlite.OpenConn(path); err != nil { // sets WAL
		return nil, err
	}
	err = sqlitex.ExecuteScript(s.writer, `create table if not exists blob (hash blob primary key, value blob not null);`, nil)
	if err != nil {
		return nil, err
	}
	// Not in the script, whose transaction would make it be ignored.
	if err := sqlitex.ExecuteTransient(s.writer, "pragma synchronous = full", nil); err != nil {
		return nil, err
	}
	for range sqliteReaders {
		conn, err := sqlite.OpenConn(path)
		if err != nil {
			return nil, err
		}
		s.readers <- conn
	}
	return s, nil
}

// Put is one transaction, as SQLite cannot share one between callers.
func (s *sqliteStore) Put(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.insert(key, value)
}

func (s *sqliteStore) insert(key, value []byte) error {
	stmt := s.writer.Prep("insert into blob (hash, value) values (?, ?) on conflict do nothing")
	stmt.BindBytes(1, key)
	stmt.BindBytes(2, value)
	_, err := stmt.Step()
	return errors.Join(err, stmt.Reset())
}

func (s *sqliteStore) Write(batch []entry) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer sqlitex.Transaction(s.writer)(&err)
	for _, e := range batch {
		if err := s.insert(e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}

// Sync has nothing to do: transactions are durable.
func (s *sqliteStore) Sync() error { return nil }

func (s *sqliteStore) Get(key, buf []byte) (int, error) {
	conn := <-s.readers
	defer func() { s.readers <- conn }()
	stmt := conn.Prep("select value from blob where hash = ?")
	stmt.BindBytes(1, key)
	found, err := stmt.Step()
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, errors.Join(errNoValue, stmt.Reset())
	}
	n := stmt.ColumnBytes(0, buf)
	return n, stmt.Reset()
}

func (s *sqliteStore) Close() error {
	var errs []error
	close(s.readers)
	for conn := range s.readers {
		errs = append(errs, conn.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
	}
	return errors.Join(errs...)
}
