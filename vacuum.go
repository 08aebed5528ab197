package cairn

import (
	"fmt"
	"time"
)

// Pages that deletions and evictions leave free are used again by what is
// written next. What is still free when nobody writes goes back to the file
// system: a small part at a time, so that who comes meanwhile waits for that
// part only. The database file becomes shorter with the checkpoint after it.

const (
	// idleTime without a request is when the writer begins to give space back.
	idleTime = 200 * time.Millisecond
	// vacuumPages are given back in one transaction at most: 1 MiB.
	vacuumPages = 256
)

var vacuumPragma = fmt.Sprintf("pragma incremental_vacuum(%d)", vacuumPages)

// rest waits for the next request. While there is none, it gives free pages back
// to the file system, and then the WAL. ok is false when the queue has ended.
func (w *writer) rest() (req *request, ok bool) {
	for w.untidy {
		idle := time.NewTimer(idleTime)
		select {
		case req, ok = <-w.queue:
			idle.Stop()
			return req, ok
		case <-idle.C:
		}
		w.untidy = w.vacuum() || w.ckpt != nil && !w.ckpt.emptied()
		for w.untidy && len(w.queue) == 0 && w.vacuum() {
		}
	}
	req, ok = <-w.queue
	return req, ok
}

// closePages are given back when a store is closed, at most: 64 MiB.
const closePages = 64 << 20 / pageSize

// giveBack gives free pages back before the store is closed, so that a process
// which does one thing and ends shrinks the file too. The writer must be drained.
func (w *writer) giveBack() {
	for n := 0; n < closePages && w.vacuum(); n += vacuumPages {
	}
}

// vacuum gives some free pages back, in a transaction of its own, and reports
// whether there may be more. Where it fails, on a full disk or because another
// process has the database, it is left for the next time the writer is idle. Its
// commit need not be durable: a crash leaves the pages free, or the file longer
// than it must be.
func (w *writer) vacuum() (more bool) {
	if w.failed.Load() != nil {
		return false
	}
	free, err := queryInt(w.conn, "pragma freelist_count")
	if err != nil || free == 0 {
		return false
	}
	if err := exec(w.conn.Prep("begin immediate")); err != nil {
		return false
	}
	err = execText(w.conn, vacuumPragma)
	if err == nil {
		err = exec(w.conn.Prep("commit"))
	}
	if err != nil {
		if !w.conn.AutocommitEnabled() {
			exec(w.conn.Prep("rollback"))
		}
		return false
	}
	w.pool.commits.Add(1)
	if w.ckpt != nil {
		w.ckpt.wrote(vacuumPages*pageSize, 1)
	}
	return free > vacuumPages
}
