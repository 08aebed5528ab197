package cairn

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// dropGroups are removed in one transaction at most, so that the removal of a
// large blob does not hold up other writers: 16 MiB.
const dropGroups = 1024

// Delete removes a blob. A blob that is not in the store is [ErrNotFound]; one
// that a temp tag or an open handle of this process protects is [ErrConflict].
// Otherwise [ErrReadOnly], [ErrClosed], or [ErrFull]: a deletion is logged
// before it frees anything.
//
// The blob is gone with one commit, and stays gone once Delete has returned
// nil. The rows of a large one are freed by further commits; what a crash or a
// full disk leaves of them is freed later, at the latest after the next Open.
// An open handle in another process gets [ErrNotFound].
func (s *Store) Delete(ctx context.Context, hash Hash) error {
	id, freed, err := s.hideOrRemove(ctx, hash)
	if err != nil {
		return fmt.Errorf("delete %v: %w", hash, err)
	}
	s.tiles.drop(id)
	if !freed {
		s.discard(ctx, id)
	}
	s.dropLeftovers(ctx)
	return nil
}

// hideOrRemove makes a blob invisible, and reports whether its rows are gone
// with it.
func (s *Store) hideOrRemove(ctx context.Context, hash Hash) (id int64, removed bool, err error) {
	mark := make(chan struct{})
	defer s.guard.dropped(hash, mark)
	err = s.replace(ctx, hash, 0, func(conn *sqlite.Conn) error {
		blob, err := findBlob(conn, hash)
		if err != nil {
			return err
		}
		if blob.State == Absent {
			return ErrNotFound
		}
		if err := s.guard.drop(hash, mark); err != nil {
			return err
		}
		id = blob.id
		if removed = bao.Groups(blob.Stored) <= dropGroups; removed {
			return removeBlob(conn, id)
		}
		return hideBlob(conn, id)
	})
	return id, removed, err
}

// hideBlob makes a blob invisible. Its rows are to be discarded.
func hideBlob(conn *sqlite.Conn, id int64) error {
	stmt := prep(conn, "blob_hide")
	stmt.SetInt64(":id", id)
	return exec(stmt)
}

// leftovers are hidden blobs that could not be removed when they should have
// been, because the disk was full.
type leftovers struct {
	mu  sync.Mutex
	ids []int64
}

// discard removes a hidden blob now or, if there is no room to do it, after a
// later add or deletion, or after the next Open.
func (s *Store) discard(ctx context.Context, id int64) {
	if err := s.dropHidden(context.WithoutCancel(ctx), id); err != nil {
		s.leftovers.add(id)
	}
}

func (l *leftovers) add(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = append(l.ids, id)
}

// dropLeftovers tries again to remove the leftovers. What fails stays one.
func (s *Store) dropLeftovers(ctx context.Context) {
	s.leftovers.mu.Lock()
	ids := s.leftovers.ids
	s.leftovers.ids = nil
	s.leftovers.mu.Unlock()
	for _, id := range ids {
		s.discard(ctx, id)
	}
}

// removeBlob removes a blob and all its rows.
func removeBlob(conn *sqlite.Conn, id int64) error {
	if err := removeRows(conn, rowID(id, 0), rowID(id+1, 0)-1); err != nil {
		return err
	}
	stmt := prep(conn, "blob_remove")
	stmt.SetInt64(":id", id)
	return exec(stmt)
}

// removeRows removes what belongs to a range of groups: rows, tiles, presence.
func removeRows(conn *sqlite.Conn, from, to int64) error {
	for _, query := range []string{"row_remove", "outboard_remove", "presence_remove"} {
		if err := removeRange(conn, query, from, to); err != nil {
			return err
		}
	}
	return nil
}

func removeRange(conn *sqlite.Conn, query string, from, to int64) error {
	stmt := prep(conn, query)
	stmt.SetInt64(":from", from)
	stmt.SetInt64(":to", to)
	return exec(stmt)
}

// dropHidden removes a hidden blob from its end on, a slice at a time. Each
// commit leaves a hidden blob with fewer rows; the last one leaves nothing.
func (s *Store) dropHidden(ctx context.Context, id int64) error {
	for more := true; more; {
		err := s.write(ctx, 0, func(conn *sqlite.Conn) error {
			stmt := prep(conn, "row_last")
			stmt.SetInt64(":from", rowID(id, 0))
			stmt.SetInt64(":to", rowID(id+1, 0)-1)
			last, err := stepInt(stmt)
			if err != nil {
				return err
			}
			first := last - dropGroups + 1
			if more = first > rowID(id, 0); !more {
				return removeBlob(conn, id)
			}
			return removeRows(conn, first, last)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepHidden removes the hidden blobs that were there when the store was
// opened: those of adds and deletions that a crash cut short. Blobs of this
// session have ids from end on, so it cannot meet an add that is under way. A
// Close in the middle leaves the rest to the next Open.
func (s *Store) sweepHidden(ctx context.Context, end int64) {
	for id := int64(0); ; {
		err := s.pool.read(ctx, func(conn *sqlite.Conn) (err error) {
			stmt := prep(conn, "blob_hidden")
			stmt.SetInt64(":after", id)
			id, err = stepInt(stmt)
			return err
		})
		if err == nil && (id == 0 || id >= end) {
			return
		}
		if err == nil {
			err = s.dropHidden(ctx, id)
		}
		switch {
		case errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed):
			return // the next Open goes on
		case errors.Is(err, ErrFull):
			s.leftovers.add(id)
		case err != nil:
			s.log.Error("cairn: removing what a crash left", "blob", id, "err", err)
			return
		}
	}
}
