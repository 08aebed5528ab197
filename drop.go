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
// that a tag, or a temp tag, a pin or an open handle of this process protects, or
// that a piece or an owner has, is [ErrConflict].
// Otherwise [ErrReadOnly], [ErrClosed], or [ErrFull]: a deletion is logged
// before it frees anything.
//
// The blob is gone with one commit, and stays gone once Delete has returned
// nil. The rows of a large one are freed by further commits; what a crash or a
// full disk leaves of them is freed later, at the latest after the next Open.
// An open handle in another process gets [ErrNotFound]. Files outside that have the
// content (see [Reference]) are forgotten, and not touched.
func (s *Store) Delete(ctx context.Context, hash Hash) error {
	err := s.remove(ctx, func(conn *sqlite.Conn) error {
		blob, err := findBlob(conn, hash)
		if err != nil {
			return err
		}
		if blob.State == Absent {
			return ErrNotFound
		}
		stmt := prep(conn, "blob_claims")
		stmt.SetInt64(":blob", blob.id)
		claimed, err := stepInt(stmt)
		if err != nil {
			return err
		}
		if claimed != 0 {
			return fmt.Errorf("%w: a piece or an owner has it", ErrConflict)
		}
		stmt = prep(conn, "blob_tagged")
		stmt.SetBytes(":hash", hash[:])
		tagged, err := stepInt(stmt)
		if err != nil {
			return err
		}
		if tagged != 0 {
			return fmt.Errorf("%w: tagged, or a child of a tagged sequence", ErrConflict)
		}
		if err := s.keeper.drop(subject{hash: hash}); err != nil {
			return err
		}
		return hideBlob(conn, blob.id)
	})
	if err != nil {
		return fmt.Errorf("delete %v: %w", hash, err)
	}
	return nil
}

// remove submits a change that hides blobs or removes keys. It makes sure that
// nothing protects these keys; a blob that is held stays until it is released. It
// has the rows of hidden blobs removed: those of a few with the change, the others
// after it.
func (s *Store) remove(ctx context.Context, change func(conn *sqlite.Conn) error) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	var t taken
	err := s.writer.submit(ctx, 0, func(conn *sqlite.Conn) (err error) {
		t, err = s.take(conn, change)
		return err
	}, nil)
	if err != nil {
		return err
	}
	s.discard(ctx, t.rest...)
	s.dropLeftovers(ctx)
	return nil
}

// taken is what a change has taken away.
type taken struct {
	gone []*removal
	rest []int64 // hidden blobs whose rows are to be discarded
}

// take makes a change that hides blobs or removes keys, in the transaction; see
// remove.
func (s *Store) take(conn *sqlite.Conn, change func(conn *sqlite.Conn) error) (t taken, err error) {
	before, err := stepInt(prep(conn, "gone_last"))
	if err != nil {
		return t, err
	}
	if err := change(conn); err != nil {
		return t, err
	}
	if t.gone, err = readGone(conn, before); err != nil {
		return t, err
	}
	left := int64(dropGroups)
	for _, r := range t.gone {
		if r.reason != Deleted {
			continue // the keeper sees to it
		}
		for _, key := range r.keys {
			if err := s.keeper.drop(subject{key: key}); err != nil {
				return t, err
			}
		}
		if !r.whole {
			continue
		}
		if _, err := s.keeper.dropOrPin(r.blob, r.hash); err != nil {
			return t, err
		}
		if left -= bao.Groups(r.size); left < 0 {
			t.rest = append(t.rest, r.blob)
		} else if err := removeBlob(conn, r.blob); err != nil {
			return t, err
		}
	}
	return t, nil
}

// hideBlob makes a blob invisible. Its rows are to be discarded.
func hideBlob(conn *sqlite.Conn, id int64) error {
	stmt := prep(conn, "blob_hide")
	stmt.SetInt64(":id", id)
	return exec(stmt)
}

// unname takes the hash away from a blob that is partial, or has bytes outside, so
// that another one can have it. That one supersedes it then.
func unname(conn *sqlite.Conn, id int64) error {
	stmt := prep(conn, "blob_unname")
	stmt.SetInt64(":id", id)
	return exec(stmt)
}

// supersede gives the keys of an unnamed blob, and what the owners have of it, to
// another one, and hides it. Its rows are to be discarded. The writer calls it.
func (s *Store) supersede(conn *sqlite.Conn, old, id int64) error {
	keys, err := keysOf(conn, old)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := s.pointKey(conn, key, id); err != nil {
			return err
		}
	}
	for _, query := range []string{"owned_move", "blob_inherit"} {
		stmt := prep(conn, query)
		stmt.SetInt64(":old", old)
		stmt.SetInt64(":new", id)
		if err := exec(stmt); err != nil {
			return err
		}
	}
	if err := removeRange(conn, "owned_leave", old, old); err != nil {
		return err
	}
	return hideBlob(conn, old)
}

// keysOf returns the keys that name a blob.
func keysOf(conn *sqlite.Conn, blob int64) (names []string, err error) {
	stmt := prep(conn, "key_names")
	defer stmt.Reset()
	stmt.SetInt64(":blob", blob)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return names, err
		}
		names = append(names, columnString(stmt, "name"))
	}
}

// leftovers are hidden blobs that could not be removed when they should have
// been, because the disk was full.
type leftovers struct {
	mu  sync.Mutex
	ids []int64
}

// discard removes hidden blobs now or, if there is no room to do it, after a
// later add or deletion, or after the next Open.
func (s *Store) discard(ctx context.Context, ids ...int64) {
	if left, err := s.dropHidden(context.WithoutCancel(ctx), ids); err != nil {
		s.leftovers.add(left...)
	}
}

func (l *leftovers) add(ids ...int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = append(l.ids, ids...)
}

// dropLeftovers tries again to remove the leftovers. What fails stays one.
func (s *Store) dropLeftovers(ctx context.Context) {
	s.leftovers.mu.Lock()
	ids := s.leftovers.ids
	s.leftovers.ids = nil
	s.leftovers.mu.Unlock()
	s.discard(ctx, ids...)
}

// removeBlob removes a blob; the triggers remove all that belongs to it.
func removeBlob(conn *sqlite.Conn, id int64) error {
	stmt := prep(conn, "blob_remove")
	stmt.SetInt64(":id", id)
	return exec(stmt)
}

func removeRange(conn *sqlite.Conn, query string, from, to int64) error {
	stmt := prep(conn, query)
	stmt.SetInt64(":from", from)
	stmt.SetInt64(":to", to)
	return exec(stmt)
}

// dropHidden removes hidden blobs, each from its end on, a slice at a time. Each
// commit leaves hidden blobs with fewer rows; the last one leaves nothing. It
// returns those that are not removed when there is an error.
func (s *Store) dropHidden(ctx context.Context, ids []int64) (rest []int64, err error) {
	for len(ids) > 0 {
		done := 0
		err := s.writeLazy(ctx, func(conn *sqlite.Conn) error {
			done = 0
			for left := int64(dropGroups); left > 0 && done < len(ids); {
				n, more, err := dropSlice(conn, ids[done], left)
				if err != nil {
					return err
				}
				if !more {
					done++
				}
				left -= max(n, 1)
			}
			return nil
		})
		if err != nil {
			return ids, err
		}
		ids = ids[done:]
	}
	return nil, nil
}

// dropSlice removes the last groups of a hidden blob, at most limit, and the
// blob with the last slice. more tells that there is one.
func dropSlice(conn *sqlite.Conn, id, limit int64) (groups int64, more bool, err error) {
	stmt := prep(conn, "blob_staged")
	stmt.SetInt64(":id", id)
	if hidden, err := stepInt(stmt); err != nil || hidden == 0 {
		return 0, false, err // whoever thought so was mistaken
	}
	stmt = prep(conn, "row_last")
	stmt.SetInt64(":from", rowID(id, 0))
	stmt.SetInt64(":to", rowID(id+1, 0)-1)
	last, err := stepInt(stmt)
	if err != nil {
		return 0, false, err
	}
	first := last - limit + 1
	if first <= rowID(id, 0) {
		return max(0, last-rowID(id, 0)+1), false, removeBlob(conn, id)
	}
	for _, query := range []string{"row_remove", "outboard_remove"} {
		if err := removeRange(conn, query, first, last); err != nil {
			return 0, false, err
		}
	}
	return limit, true, nil
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
			_, err = s.dropHidden(ctx, []int64{id})
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
