package cairn

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const (
	// checkpointBytes of new WAL start a checkpoint beside the writer.
	checkpointBytes = 8 << 20
	// walLimit of WAL make the writer wait until the checkpoint has caught up
	// and the WAL can start again from its beginning.
	walLimit = 64 << 20
	// walTarget of it are enough when a checkpoint has just ended: then little
	// is left to be moved, and to be waited for.
	walTarget = walLimit / 4 * 3
	// checkpointPatience is how long a catching-up checkpoint waits for
	// readers. One that stays longer, in another process, lets the WAL grow.
	checkpointPatience = 100 * time.Millisecond
	// requestPages estimates the index pages that a request dirties beside
	// its own bytes.
	requestPages = 3
)

// A checkpointer moves committed pages from the WAL to the database, on a
// connection and a goroutine of its own, so that it overlaps with the writer.
type checkpointer struct {
	conn  *sqlite.Conn // used by loop; by the writer while that is waiting
	pool  *pool
	db    *dbFile
	log   *slog.Logger
	kick  chan checkpointMode
	reply chan walState
	ended chan struct{}

	// The writer's view.
	running  bool
	estimate int64 // bytes in the WAL
	next     int64 // estimate at which the next checkpoint starts
}

// A checkpointMode says how far a checkpoint goes.
type checkpointMode int

const (
	passive  checkpointMode = iota // as far as nobody has to wait
	restart                        // completely: the writer is waiting, and begins the WAL again
	truncate                       // the same, and the WAL is made empty
)

var checkpointPragmas = [...]string{
	passive:  "pragma wal_checkpoint(passive)",
	restart:  "pragma wal_checkpoint(restart)",
	truncate: "pragma wal_checkpoint(truncate)",
}

// walState is what a checkpoint found: the bytes in the WAL and whether all
// of them are in the database and no reader needs them there.
type walState struct {
	bytes int64
	done  bool
}

func newCheckpointer(p *pool, db *dbFile, log *slog.Logger) (*checkpointer, error) {
	c := &checkpointer{
		pool:  p,
		db:    db,
		log:   log,
		kick:  make(chan checkpointMode, 1),
		reply: make(chan walState, 1),
		ended: make(chan struct{}),
		next:  checkpointBytes,
	}
	if err := c.open(); err != nil {
		return nil, err
	}
	go pprof.Do(context.Background(), pprof.Labels("cairn", "checkpoint"), func(context.Context) { c.loop() })
	return c, nil
}

func (c *checkpointer) open() error {
	gathering, err := c.pool.loc.gathering()
	if err != nil {
		return err
	}
	if c.conn, err = gathering.open(readerCacheKiB); err == nil {
		c.conn.SetBusyTimeout(checkpointPatience)
	}
	return err
}

// suspend closes the connection until open is called again. The writer calls
// both, and gives no work in between.
func (c *checkpointer) suspend() error {
	c.catchUp()
	c.estimate, c.next = 0, checkpointBytes
	return c.conn.Close()
}

func (c *checkpointer) loop() {
	defer close(c.ended)
	for mode := range c.kick {
		c.pool.releaseSnapshots(mode != passive)
		state := c.checkpoint(mode)
		c.pool.keepSnapshots()
		c.reply <- state
		if mode == passive && state.bytes < walTarget { // else the next one comes at once
			startWriteback(c.db.f)
		}
	}
}

// checkpoint runs one checkpoint. An error of it endangers nothing: the pages
// stay in the WAL, the next checkpoint meets it again, and Close returns it.
func (c *checkpointer) checkpoint(mode checkpointMode) (state walState) {
	err := sqlitex.ExecuteTransient(c.conn, checkpointPragmas[mode], &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			frames, moved := stmt.ColumnInt64(1), stmt.ColumnInt64(2)
			state.bytes = frames * (pageSize + 24)
			state.done = mode != passive && stmt.ColumnInt64(0) == 0 && frames == moved
			return nil
		},
	})
	if err != nil {
		c.log.Warn("cairn: checkpoint", "err", err)
	}
	return state
}

// wrote tells that a batch was committed. It starts a checkpoint now and
// then, and when the WAL has reached its limit it waits until that has caught
// up. The writer calls it.
func (c *checkpointer) wrote(bytes int64, requests int) {
	c.estimate += bytes + int64(requests)*requestPages*pageSize
	if c.running {
		select {
		case state := <-c.reply:
			c.took(state)
			if c.estimate >= walTarget {
				c.catchUp()
			}
		default:
		}
	}
	if c.estimate < c.next {
		return
	}
	c.next = c.estimate + checkpointBytes
	if c.estimate < walLimit {
		if !c.running {
			c.kick <- passive
			c.running = true
		}
		return
	}
	c.catchUp()
}

// catchUp moves the whole WAL into the database and waits for that, so that
// the WAL starts again from its beginning. The writer calls it.
func (c *checkpointer) catchUp() {
	if c.running {
		c.took(<-c.reply)
	}
	c.kick <- restart
	c.took(<-c.reply)
}

// emptied reports whether the WAL's space has been given back to the file system.
// If not, it begins to do that, and does not wait for it. The writer calls it.
func (c *checkpointer) emptied() bool {
	if c.running {
		select {
		case state := <-c.reply:
			c.took(state)
			if state.done && state.bytes == 0 {
				return true
			}
		default:
			return false
		}
	}
	c.kick <- truncate
	c.running = true
	return false
}

// took notes the outcome of a checkpoint.
func (c *checkpointer) took(state walState) {
	c.running = false
	if state.done {
		c.estimate, c.next = 0, checkpointBytes
	} else {
		c.estimate = max(c.estimate, state.bytes)
	}
}

// close ends the goroutine, moves the whole WAL into the database, and closes
// the connection. The writer must have ended.
func (c *checkpointer) close() error {
	if c.running {
		<-c.reply
	}
	close(c.kick)
	<-c.ended
	err := execText(c.conn, checkpointPragmas[truncate])
	if closeErr := c.conn.Close(); err == nil {
		err = closeErr
	}
	return mapSQLite(err)
}

// A walFile is our own handle on the WAL, to sync it. SQLite takes no locks
// on that file, so closing ours drops none.
type walFile struct{ f *os.File }

// openWAL opens the WAL of a database that has at least one connection, and
// makes it and the database durable as directory entries: without that, the
// first commit after the creation could vanish with the whole file.
func openWAL(loc location) (*walFile, error) {
	f, err := os.OpenFile(loc.wal(), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(loc.path)); err != nil {
		f.Close()
		return nil, err
	}
	return &walFile{f}, nil
}

func (w *walFile) sync() error  { return syncData(w.f) }
func (w *walFile) close() error { return w.f.Close() }
