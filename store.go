package cairn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
)

// Durability says when a write is acknowledged.
type Durability int

const (
	// Durable: when a write returns nil, neither the death of the process nor
	// a power loss undoes it.
	Durable Durability = iota
	// Relaxed: when a write returns nil, the death of the process does not
	// undo it. A power loss or a crash of the operating system can undo the
	// last writes, in the order they were made; it never damages the
	// database.
	Relaxed
)

// Options configure a store. The zero value, and nil, are the defaults.
type Options struct {
	// ReadOnly opens an existing database without the right to change it, as
	// any number of processes may while one writes.
	ReadOnly bool
	// Durability is the promise made to writers. Default Durable.
	Durability Durability
	// Readers is the most connections that read at once; more readers wait.
	// Each costs up to 1 MiB. Default (and if ≤ 0): twice the number of CPUs,
	// at least 4.
	Readers int
	// Capacity is how many bytes the store keeps at most, as by
	// [Store.SetCapacity], or [Unlimited]. Default (0): what the database
	// remembers. A read-only store ignores it.
	Capacity int64
	// GCInterval is how long after an Open, and then again and again, [Store.GC]
	// runs by itself, with the options GC. What goes wrong is logged. Default (and
	// if ≤ 0): it does not. A read-only store ignores it.
	GCInterval time.Duration
	// GC are the options of the collections that run by themselves.
	GC *GCOptions
	// Logger gets what happens in the background. Default: nothing is logged.
	Logger *slog.Logger
}

func (o *Options) readers() int {
	if o.Readers <= 0 {
		return defaultReaders()
	}
	return o.Readers
}

func (o *Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// A Store is an open database. All its methods may be called concurrently.
type Store struct {
	loc    location
	log    *slog.Logger
	pool   *pool
	writer *writer // nil if read-only
	lock   *fileLock
	file   *dbFile // nil in memory
	keeper *keeper // of the writer
	tiles  tileCache
	guard  guard
	uses   uses

	collecting chan struct{} // holds a token while garbage is collected

	capacity  capacity
	pieces    pieceStates
	joints    joints
	arrivals  arrivals
	readers   openReaders
	leftovers leftovers
	observers observers
	events    events
	files     fileCache
	looks     looks
	// naming is held while a file outside gets, or keeps, its content together
	// with the row that names it: an export from its last look at what is at its
	// target until that is noted, a reference from its last look until it is.
	naming chan struct{} // holds a token then

	// tempDir is the directory to remove on Close, for a temporary store.
	tempDir string

	// swept is closed when what a crash left has been removed, or the store
	// has been closed before that.
	swept chan struct{}
	// background ends the goroutines of the store itself.
	background context.Context
	cancel     context.CancelFunc
	running    sync.WaitGroup
	runningMu  sync.Mutex // held to begin one, and to end them

	closeOnce sync.Once
	closeErr  error

	// nextID is the id of the next blob. The writer's goroutine owns it. It
	// never goes back while the store is open, so an id that a reader of this
	// process remembers cannot come to mean another blob.
	nextID int64
}

// Open opens the database at path, and makes it, with mode 0600, if there is
// none (not if opts.ReadOnly). The path ":memory:" means a database in memory,
// at most 1 GiB, and "" one in a temporary file; both are gone on Close.
//
// While a store is open for writing, there are files with the endings -wal,
// -shm and -lock beside it. They are part of the database until Close or the
// next Open, and must not be removed.
//
// Errors: [ErrLocked] if another process (or this one) has it open for
// writing, [ErrNotFound] if there is no database to read, [ErrNotCairn],
// [ErrNewerSchema], [ErrCorrupt] if its header is damaged, [ErrReadOnly] if it
// must not be written, and those of the file system. ctx bounds the opening
// only.
func Open(ctx context.Context, path string, opts *Options) (*Store, error) {
	if opts == nil {
		opts = &Options{}
	}
	s, err := open(ctx, path, opts)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string, opts *Options) (_ *Store, err error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	s := &Store{log: opts.logger(), swept: make(chan struct{}), collecting: make(chan struct{}, 1), naming: make(chan struct{}, 1)}
	s.background, s.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.cancel()
			s.releaseFiles()
		}
	}()
	switch {
	case path == ":memory:" || path == "":
		if opts.ReadOnly {
			return nil, fmt.Errorf("%w: a new store would stay empty", ErrReadOnly)
		}
		s.loc = newMemory()
		if path == "" {
			if s.tempDir, err = os.MkdirTemp("", "cairn-"); err != nil {
				return nil, err
			}
			s.loc = newFile(filepath.Join(s.tempDir, "cairn.db"), false)
			temporary := *opts
			temporary.Durability = Relaxed
			opts = &temporary
		}
	default:
		if path, err = resolve(path); err != nil {
			return nil, err
		}
		s.loc = newFile(path, opts.ReadOnly)
	}
	if opts.ReadOnly {
		return s, s.openReadOnly(opts)
	}
	return s, s.openReadWrite(ctx, opts)
}

// resolve returns the absolute path behind symbolic links, so that a database
// has one lock and one WAL whatever name it is opened by.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return real, err
}

func (s *Store) openReadOnly(opts *Options) error {
	if _, err := statFile(s.loc.path); err != nil {
		return err
	}
	close(s.swept)
	var err error
	if s.file, err = openDBFile(s.loc.path); err != nil {
		return err
	}
	err = s.startReading(opts)
	if errors.Is(err, ErrReadOnly) && sqlite.ErrCode(err).ToPrimary() == sqlite.ResultReadOnly {
		// A crash in bulk mode left a journal that has to be rolled back.
		err = errors.Join(s.loc.recover(), s.startReading(opts))
	}
	if err == nil || isOurs(err) {
		return diagnose(s.file, err)
	}
	// Without the right to make a -shm file, a database that nobody writes
	// can still be read as it is.
	if s.loc.alone() {
		s.loc = s.loc.immutable()
		err = s.startReading(opts)
	}
	return diagnose(s.file, err)
}

// startReading checks that the database is one of ours before the pool
// prepares queries on it.
func (s *Store) startReading(opts *Options) error {
	conn, err := s.loc.open(readerCacheKiB)
	if err != nil {
		return mapSQLite(err)
	}
	_, err = s.loc.checkVersion(conn, false)
	if err == nil {
		var capacity int64
		capacity, _, err = readLimits(conn)
		s.capacity.Store(capacity)
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		return mapSQLite(err)
	}
	s.pool = newPool(s.loc, opts.readers())
	return nil
}

func (s *Store) openReadWrite(ctx context.Context, opts *Options) (err error) {
	created := false
	if !s.loc.memory {
		if created, err = createFile(s.loc.path); err != nil {
			return err
		}
		if s.lock, err = lockFile(s.loc.path); err != nil {
			return err
		}
		if s.file, err = openDBFile(s.loc.path); err != nil {
			return err
		}
	}
	conn, err := s.loc.openWriter(ctx)
	if err != nil {
		err = diagnose(s.file, mapSQLite(err))
		if created {
			err = errors.Join(err, os.Remove(s.loc.path))
		}
		return err
	}
	hidden, err := s.loadState(conn)
	if err != nil {
		return errors.Join(mapSQLite(err), conn.Close())
	}
	s.pool = newPool(s.loc, opts.readers())
	if s.writer, err = newWriter(conn, s.pool, s.keeper, s.file, opts.Durability, s.log); err != nil {
		return errors.Join(mapSQLite(err), s.pool.close(), conn.Close())
	}
	if opts.Capacity != 0 && opts.Capacity != s.capacity.Load() {
		if err := s.setCapacity(ctx, opts.Capacity); err != nil {
			return errors.Join(fmt.Errorf("capacity %d: %w", opts.Capacity, err), s.Close())
		}
	}
	if opts.GCInterval > 0 {
		s.beside(func() { s.collect(opts.GCInterval, opts.GC) })
	}
	if !hidden {
		close(s.swept)
		return nil
	}
	end := s.nextID
	s.beside(func() {
		defer close(s.swept)
		s.sweepHidden(s.background, end)
	})
	return nil
}

// loadState reads what the writer needs to know before its first batch, and
// whether a crash left hidden blobs.
func (s *Store) loadState(conn *sqlite.Conn) (hidden bool, err error) {
	last, err := stepInt(prep(conn, "blob_last"))
	if err != nil {
		return false, err
	}
	s.nextID = last + 1
	// What a crash or a foreign writer left.
	for _, query := range []string{"pin_clear", "sequence_clear", "blob_abandon", "gone_clear"} {
		if err := exec(prep(conn, query)); err != nil {
			return false, err
		}
	}
	if s.uses.last, err = stepInt(prep(conn, "blob_newest")); err != nil {
		return false, err
	}
	capacity, quotas, err := readLimits(conn)
	if err != nil {
		return false, err
	}
	s.capacity.Store(capacity)
	s.keeper = newKeeper(s)
	s.keeper.limited.Store(quotas || capacity != Unlimited)
	stmt := prep(conn, "blob_hidden")
	stmt.SetInt64(":after", 0)
	hidden, err = stmt.Step()
	return hidden, errors.Join(err, stmt.Reset())
}

// lockNaming takes naming, or returns why ctx has ended before.
func (s *Store) lockNaming(ctx context.Context) error {
	select {
	case s.naming <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Store) unlockNaming() { <-s.naming }

// beside runs something until Close at the latest, which cancels s.background and
// waits. After that it does nothing.
func (s *Store) beside(f func()) {
	s.runningMu.Lock()
	defer s.runningMu.Unlock()
	if s.background.Err() == nil {
		s.running.Go(f)
	}
}

// stepInt returns the first column of a statement's first row, 0 without one.
func stepInt(stmt *sqlite.Stmt) (int64, error) { return stepIntOr(stmt, 0) }

// stepIntOr returns the first column of a statement's first row, without one
// what is given.
func stepIntOr(stmt *sqlite.Stmt, otherwise int64) (n int64, err error) {
	n = otherwise
	found, err := stmt.Step()
	if found {
		n = stmt.ColumnInt64(0)
	}
	return n, errors.Join(err, stmt.Reset())
}

// Close ends the store: it waits for the writes that have been queued and for
// the reads that are under way, moves the write-ahead log into the database
// and removes the files beside it. Every later call, on handles that are
// still open too, returns [ErrClosed]. It returns an error that names a reader
// which was not closed, and closes all the same. A further Close returns what the
// first one returned.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.runningMu.Lock()
		s.cancel()
		s.runningMu.Unlock()
		errs := []error{s.readers.leaked()}
		s.running.Wait()
		if s.writer != nil {
			if s.uses.merge() || s.guard.hasReleased() {
				// Who uses the store again starts from the order it was left in.
				errs = append(errs, s.writeLazy(context.Background(), func(*sqlite.Conn) error { return nil }))
			}
			s.writer.drain()
			s.writer.giveBack()
		}
		// The readers' snapshots would keep the WAL from being emptied.
		errs = append(errs, s.pool.close())
		s.files.close()
		if s.writer != nil {
			errs = append(errs, s.writer.close())
		}
		if s.loc.readOnly {
			errs = append(errs, s.loc.tidy())
		}
		errs = append(errs, s.releaseFiles())
		if err := errors.Join(errs...); err != nil {
			s.closeErr = fmt.Errorf("close: %w", mapSQLite(err))
		}
	})
	return s.closeErr
}

func (s *Store) releaseFiles() error {
	var errs []error
	if s.file != nil {
		errs = append(errs, s.file.release())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
	}
	if s.tempDir != "" {
		errs = append(errs, os.RemoveAll(s.tempDir))
	}
	return errors.Join(errs...)
}

// replace submits to the writer a change of a blob as a whole, of which its
// observers are told.
func (s *Store) replace(ctx context.Context, hash Hash, cost int64, run func(conn *sqlite.Conn) error) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	return s.writer.submit(ctx, cost, run, func() { s.observers.reset(hash) })
}

// writeLazy submits a change that need not be durable: it returns when the
// change is committed.
func (s *Store) writeLazy(ctx context.Context, run func(conn *sqlite.Conn) error) error {
	return s.writeLazyThen(ctx, run, nil)
}

// writeLazyThen is writeLazy with what is to be called on the writer's goroutine
// when the change is committed.
func (s *Store) writeLazyThen(ctx context.Context, run func(conn *sqlite.Conn) error, after func()) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	req := &request{ctx: ctx, run: run, after: after, cost: requestOverhead, lazy: true, done: make(chan struct{})}
	if err := s.writer.enqueue(req); err != nil {
		return err
	}
	return req.wait()
}

// write submits a change to the writer.
func (s *Store) write(ctx context.Context, cost int64, run func(conn *sqlite.Conn) error) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	return s.writer.submit(ctx, cost, run, nil)
}

// Stats are totals of a store. Sizes are in bytes.
type Stats struct {
	Blobs         int64 // complete blobs
	Partial       int64 // partial blobs
	Pieces        int64 // keys
	Bytes         int64 // sizes of all blobs, and of the pieces being written
	Tags          int64 // tags
	StoredBytes   int64 // of Bytes, what is in the database
	ExternalBytes int64 // of Bytes, what is in files outside
	FileBytes     int64 // the database file
	FreeBytes     int64 // of these, pages to be used again
	WALBytes      int64 // the -wal file
	SchemaVersion int   // number of migrations applied
}

// Stats returns the totals. It reads counters, whatever the store's size.
func (s *Store) Stats(ctx context.Context) (st Stats, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		stmt := prep(conn, "usage_get")
		if _, err := stmt.Step(); err != nil {
			return err
		}
		st.Blobs = stmt.GetInt64("blobs")
		st.Partial = stmt.GetInt64("partial")
		st.Pieces = stmt.GetInt64("pieces")
		st.Bytes = stmt.GetInt64("bytes")
		st.Tags = stmt.GetInt64("tags")
		st.StoredBytes = stmt.GetInt64("stored_bytes")
		st.ExternalBytes = stmt.GetInt64("external")
		if err := stmt.Reset(); err != nil {
			return err
		}
		pages, err := queryInt(conn, "pragma page_count")
		if err != nil {
			return err
		}
		free, err := queryInt(conn, "pragma freelist_count")
		if err != nil {
			return err
		}
		version, err := queryInt(conn, "pragma user_version")
		st.FileBytes, st.FreeBytes, st.SchemaVersion = pages*pageSize, free*pageSize, int(version)
		return err
	})
	if err != nil {
		return Stats{}, fmt.Errorf("stats: %w", err)
	}
	if info, err := os.Stat(s.loc.wal()); err == nil && !s.loc.memory {
		st.WALBytes = info.Size()
	}
	return st, nil
}
