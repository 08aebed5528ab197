package cairn

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

const (
	// sweepBlobs are swept in one transaction at most, so that nobody waits long.
	sweepBlobs = 512
	// markBlobs are found before they are swept, at most; 56 bytes each.
	markBlobs = 1 << 17
	// scanBlobs are looked at in one snapshot at most if there is a budget.
	scanBlobs = 1 << 17
)

// sweepAll marks and sweeps, from where a collection that had used up its budget
// has ended, to the end and again from the first blob to there.
func (c *collector) sweepAll() error {
	deadline := time.Time{}
	if c.Budget > 0 {
		deadline = time.Now().Add(c.Budget)
	}
	cursor, last := int64(0), int64(0)
	err := c.s.pool.read(c.ctx, func(conn *sqlite.Conn) (err error) {
		if cursor, err = stepInt(prep(conn, "gc_cursor_get")); err == nil {
			last, err = stepInt(prep(conn, "blob_last"))
		}
		return err
	})
	if err != nil {
		return err
	}
	defer c.s.dropLeftovers(c.ctx)
	w := sweep{collector: c, deadline: deadline, after: cursor, to: last}
	done, err := w.run()
	if done && cursor > 0 {
		w.after, w.to = 0, cursor
		done, err = w.run()
	}
	c.report.Marked = max(0, w.blobs-c.report.Swept-w.left)
	c.report.Done = done
	if err != nil {
		return err
	}
	return c.finish(cursor, w.after)
}

// finish has all that was swept durable, and notes where the next collection
// begins.
func (c *collector) finish(before, after int64) error {
	if c.report.Done {
		after = 0
	}
	if before == after && c.report.Swept == 0 {
		return nil
	}
	return c.s.write(c.ctx, 0, func(conn *sqlite.Conn) error {
		if after == 0 {
			return exec(prep(conn, "gc_cursor_remove"))
		}
		stmt := prep(conn, "gc_cursor_put")
		stmt.SetInt64(":after", after)
		return exec(stmt)
	})
}

// A sweep goes through the blobs with the ids above after, up to to.
type sweep struct {
	*collector
	deadline  time.Time // zero: none
	after, to int64
	blobs     int64 // at most, of all snapshots
	left      int64 // found, and not swept for want of time
}

// run marks and sweeps. done tells that it has come to the end.
func (w *sweep) run() (done bool, err error) {
	var garbage []found
	for {
		garbage = garbage[:0]
		end := w.to
		if !w.deadline.IsZero() {
			end = min(end, w.after+scanBlobs)
		}
		blobs, err := w.eachGarbage(w.after, end, func(g found) error {
			if garbage = append(garbage, g); len(garbage) == markBlobs {
				return errStopped
			}
			return nil
		})
		w.blobs = max(w.blobs, blobs)
		full := err == errStopped
		if err != nil && !full {
			return false, err
		}
		for rest := garbage; len(rest) > 0; {
			n := portion(rest)
			if err := w.some(rest[:n]); err != nil {
				return false, err
			}
			w.after = rest[n-1].id
			rest = rest[n:]
			if len(rest) > 0 && w.isLate() {
				w.left = int64(len(rest)) // however short the time, some were swept
				return false, nil
			}
		}
		if !full {
			w.after = max(w.after, end)
		}
		if w.after >= w.to {
			return true, nil
		}
		if w.isLate() {
			return false, nil
		}
	}
}

// isLate reports whether the budget is used up.
func (w *sweep) isLate() bool { return !w.deadline.IsZero() && time.Now().After(w.deadline) }

// portion returns how many of some blobs are swept in one transaction: one that is
// large, or some that are not.
func portion(list []found) int {
	groups := int64(0)
	for i, g := range list {
		if groups += bao.Groups(g.stored); i == sweepBlobs || groups > dropGroups && i > 0 {
			return i
		}
	}
	return len(list)
}

// some sweeps some blobs, as far as nothing protects them now. Its commit is the
// point at which they are gone; a crash after it leaves at most rows of a large
// one, which the next Open removes.
func (w *sweep) some(list []found) error {
	var swept []found
	large := len(list) == 1 && bao.Groups(list[0].stored) > dropGroups
	err := w.s.writeLazy(w.ctx, func(conn *sqlite.Conn) error {
		if err := w.s.keeper.writeUses(conn); err != nil {
			return err
		}
		loose := make(map[int64]found, len(list))
		for _, g := range list {
			by := subject{hash: g.hash}
			if !w.s.guard.wasHeld(by) && w.s.keeper.drop(by) == nil {
				loose[g.id] = g
			}
		}
		var err error
		if large {
			swept, err = w.hide(conn, loose)
		} else {
			swept, err = w.remove(conn, loose)
		}
		for _, g := range swept {
			w.s.keeper.sweeps(g.id)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, g := range swept {
		w.report.add(g)
		if large {
			w.s.discard(w.ctx, g.id)
		}
	}
	return nil
}

// remove removes those of some blobs that nothing protects, as far as the database
// knows, and returns them.
func (w *sweep) remove(conn *sqlite.Conn, loose map[int64]found) (swept []found, err error) {
	ids, err := json.Marshal(slices.Sorted(maps.Keys(loose)))
	if err != nil {
		return nil, err
	}
	stmt := prep(conn, "gc_sweep")
	defer stmt.Reset()
	stmt.SetText(":ids", string(ids))
	stmt.SetInt64(":began", w.began)
	for {
		more, err := stmt.Step()
		if err != nil || !more {
			return swept, err
		}
		swept = append(swept, loose[stmt.ColumnInt64(0)])
	}
}

// hide hides a large blob, in the same way. Its rows are to be discarded.
func (w *sweep) hide(conn *sqlite.Conn, loose map[int64]found) (swept []found, err error) {
	stmt := prep(conn, "gc_hide")
	stmt.SetInt64(":began", w.began)
	for id, g := range loose {
		stmt.SetInt64(":id", id)
		if err := exec(stmt); err != nil {
			return nil, err
		}
		if conn.Changes() > 0 {
			swept = append(swept, g)
		}
	}
	return swept, nil
}
