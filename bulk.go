package cairn

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// In WAL mode every byte is written twice, once to the log and once to the
// database. With a rollback journal SQLite writes pages that are new at the
// end of the file once, because there is nothing of them to roll back; but
// readers and the writer lock each other out. So the writer goes over to a
// rollback journal for the middle part of a large add, as long as nobody else
// reads or writes: bulk mode. The first one of this process who wants to ends
// it, and waits for one commit; another process that begins to read meanwhile
// waits for a commit too, and holds up the next one while it reads.
//
// An add is published in WAL mode afterwards; nobody sees it before. What an
// import writes is part of a partial blob, and is acknowledged in WAL mode
// afterwards. A crash in bulk mode leaves a hot journal, by which SQLite, the
// sqlite3 shell included, takes the last transaction back at the next open. The
// few pages that are not new, such as those of the blob's row, are in it too.

const (
	// bulkMin is how much of an add goes through the WAL first.
	bulkMin = 16 << 20
	// bulkBatch ends a transaction in bulk mode.
	bulkBatch = 64 << 20
	// bulkWriteback is written before the kernel is told to begin with it, so
	// that the disk works while the next part is being made.
	bulkWriteback = 8 << 20
	// bulkIdle without work ends bulk mode.
	bulkIdle = 20 * time.Millisecond
	// bulkRetry is how much is written before bulk mode is tried again, when
	// somebody was reading.
	bulkRetry = 32 << 20
)

// runBulk writes req and what follows it in bulk mode, if that can be had, and
// returns the request that ended it, which is still to be run; nil if there is
// none. Without bulk mode that is req.
func (w *writer) runBulk(req *request) (next *request) {
	if w.ckpt == nil || w.bulkRest > 0 || w.failed.Load() != nil || w.keeper.limited.Load() {
		return req
	}
	if !w.enterBulk() {
		w.bulkRest = bulkRetry
		return req
	}
	behind := w.startWriteBehind()
	defer behind.stop()
	ok := true
	for req != nil && req.bulk && ok {
		req, ok = w.bulkTransaction(req, behind)
	}
	w.bulkRest = bulkRetry
	if err := w.leaveBulk(); err != nil {
		err = fmt.Errorf("leave bulk mode: %w: reopen the store", mapSQLite(err))
		w.failed.Store(&err)
	}
	return req
}

// enterBulk closes all other connections and leaves WAL mode. If anybody is
// reading, here or in another process, everything stays as it is.
func (w *writer) enterBulk() bool {
	result := <-w.syncIdle // all that was acknowledged before is durable
	defer func() { w.syncIdle <- result }()
	if !w.pool.suspend() {
		return false
	}
	if err := w.ckpt.suspend(); err == nil {
		err = execText(w.conn, "pragma synchronous = full")
		if err == nil {
			err = setJournal(w.conn, "truncate")
		}
		if err == nil {
			return true
		}
	}
	if err := w.leaveBulk(); err != nil {
		err = fmt.Errorf("return to WAL mode: %w: reopen the store", mapSQLite(err))
		w.failed.Store(&err)
	}
	return false
}

// leaveBulk returns to WAL mode from wherever enterBulk has come to.
func (w *writer) leaveBulk() error {
	err := setJournal(w.conn, "wal")
	err = errors.Join(err, execText(w.conn, "pragma synchronous = normal"))
	_, readErr := queryInt(w.conn, "pragma schema_version") // makes the WAL
	err = errors.Join(err, readErr, w.ckpt.open())
	wal, walErr := openWAL(w.pool.loc)
	if walErr == nil {
		w.wal.close()
		w.wal = wal
	}
	w.pool.resume()
	return errors.Join(err, walErr)
}

// setJournal changes the journal mode and makes sure that it has changed.
func setJournal(conn *sqlite.Conn, mode string) (err error) {
	got := ""
	err = sqlitex.ExecuteTransient(conn, "pragma journal_mode = "+mode, &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			got = stmt.ColumnText(0)
			return nil
		},
	})
	if err == nil && got != mode {
		err = fmt.Errorf("journal mode is %q, not %q", got, mode)
	}
	return err
}

// bulkTransaction runs bulk requests in one transaction and commits it. It
// returns the request after it, if there is one, and whether it is committed.
// Each request is answered when it has been run, because its buffer is needed
// for the next one; those of a transaction that is lost are told by lost.
func (w *writer) bulkTransaction(req *request, behind writeBehind) (next *request, ok bool) {
	err := exec(w.conn.Prep("begin immediate"))
	var ran []*request
	var bytes int64
	for err == nil && req != nil && req.bulk && bytes < bulkBatch {
		w.room.Release(req.cost)
		if req.claim() {
			runErr := inSavepoint(w.conn, req.run)
			if w.conn.AutocommitEnabled() {
				err = runErr // SQLite has ended the transaction
			} else if runErr == nil {
				ran = append(ran, req)
			}
			req.answer(mapSQLite(runErr))
			if bytes/bulkWriteback < (bytes+req.cost)/bulkWriteback {
				behind.kick()
			}
			bytes += req.cost
		}
		req = w.nextBulk()
	}
	if err == nil {
		start := time.Now()
		err = exec(w.conn.Prep("commit"))
		counters.commitNanos.Add(int64(time.Since(start)))
	}
	if err != nil {
		if !w.conn.AutocommitEnabled() {
			exec(w.conn.Prep("rollback"))
		}
		for _, r := range ran {
			r.lost(mapSQLite(err))
		}
		return req, false
	}
	w.committed(ran)
	return req, true
}

// nextBulk waits for the next request, until a reader wants to go on or the
// source has nothing to give. Then, and when the queue has ended, it is nil.
func (w *writer) nextBulk() *request {
	select {
	case req := <-w.queue:
		return req
	case <-w.pool.wanted:
		return nil
	case <-time.After(bulkIdle):
		return nil
	}
}

// A writeBehind is a goroutine that has the kernel begin to write the database.
type writeBehind struct {
	kicks chan struct{}
	ended chan struct{}
}

func (w *writer) startWriteBehind() writeBehind {
	b := writeBehind{kicks: make(chan struct{}, 1), ended: make(chan struct{})}
	go pprof.Do(context.Background(), pprof.Labels("cairn", "writeback"), func(context.Context) {
		defer close(b.ended)
		for range b.kicks {
			startWriteback(w.db.f)
		}
	})
	return b
}

// kick does not wait: one that is under way will see to it.
func (b writeBehind) kick() {
	select {
	case b.kicks <- struct{}{}:
	default:
	}
}

func (b writeBehind) stop() {
	close(b.kicks)
	<-b.ended
}
