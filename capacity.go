package cairn

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
)

// Unlimited is a capacity or a quota that is none.
const Unlimited int64 = -1

// capacity is the store's, as the triggers have it. The writer stores it after
// the commit that changed it; anybody may read it.
type capacity struct{ atomic.Int64 }

// admits returns ErrTooLarge for what can never fit.
func (c *capacity) admits(size int64) error {
	if limit := c.Load(); limit != Unlimited && size > limit {
		return fmt.Errorf("%w: %d bytes, the capacity is %d", ErrTooLarge, size, limit)
	}
	return nil
}

// Usage is what a store keeps, in bytes.
type Usage struct {
	Capacity int64 // [Unlimited] if there is none
	// Used is what is kept: the payload of all blobs and pieces, complete or
	// not, each counted once, and of what is being added. It never is above
	// Capacity.
	Used   int64
	Pinned int64 // of Used, what may not be evicted now
}

// Usage returns what the store keeps. It reads counters, and looks up what is
// protected.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	err := s.pool.read(ctx, func(conn *sqlite.Conn) (err error) {
		if u.Capacity, _, err = readLimits(conn); err != nil {
			return err
		}
		if u.Used, err = stepInt(prep(conn, "usage_used")); err != nil {
			return err
		}
		u.Pinned, err = s.pinnedBytes(conn)
		return err
	})
	if err != nil {
		return Usage{}, fmt.Errorf("usage: %w", err)
	}
	return u, nil
}

// pinnedBytes returns how many bytes are protected by what the tables say, or by
// what memory holds.
func (s *Store) pinnedBytes(conn *sqlite.Conn) (sum int64, err error) {
	stored := prep(conn, "blob_unpinned")
	list, err := s.guard.everything(conn)
	if err != nil {
		return 0, err
	}
	seen := make(map[int64]bool)
	for _, h := range list {
		if seen[h.blob] {
			continue
		}
		seen[h.blob] = true
		stored.SetInt64(":id", h.blob)
		n, err := stepInt(stored) // 0 if a table protects it
		if err != nil {
			return 0, err
		}
		sum += n
	}
	n, err := stepInt(prep(conn, "usage_protected"))
	return sum + n, err
}

// Capacity returns the bytes that the store keeps at most, [Unlimited] if there
// is no limit. It does not look into the database.
func (s *Store) Capacity() int64 { return s.capacity.Load() }

// SetCapacity sets how many bytes the store keeps at most, from this commit on
// and for every later Open, or takes the limit away, with [Unlimited]. It evicts
// at once what is then too much, in the order of last use. What is protected
// stays: if that alone is above capacity, it is [ErrFull] and nothing changes.
// A capacity of 0 lets nothing in. Other errors: [ErrMismatch] for a negative
// one, [ErrReadOnly], [ErrClosed].
func (s *Store) SetCapacity(ctx context.Context, capacity int64) error {
	if err := s.setCapacity(ctx, capacity); err != nil {
		return fmt.Errorf("set capacity %d: %w", capacity, err)
	}
	return nil
}

func (s *Store) setCapacity(ctx context.Context, capacity int64) error {
	if capacity < Unlimited {
		return fmt.Errorf("%w: negative", ErrMismatch)
	}
	return s.limit(ctx, func(conn *sqlite.Conn) error {
		if capacity == Unlimited {
			return exec(prep(conn, "capacity_remove"))
		}
		stmt := prep(conn, "capacity_put")
		stmt.SetInt64(":capacity", capacity)
		return exec(stmt)
	})
}

// EvictFirst tells that the piece, which is complete, will hardly be read again,
// as what a player has played: when room is needed it goes before anything that
// was used longer ago, until it is used again. Of several such pieces the one that
// was used longest ago goes first. It is noted in memory, as a use is. A piece that
// is absent or being written stays as it is.
func (p *Piece) EvictFirst(ctx context.Context) error {
	row, err := p.look(ctx)
	if err != nil {
		return fmt.Errorf("evict piece %q first: %w", p.key, err)
	}
	if row.State == Complete {
		p.s.uses.evictFirst(row.id)
	}
	return nil
}

// limit changes a limit, in one transaction that evicts by all uses there were.
func (s *Store) limit(ctx context.Context, change func(conn *sqlite.Conn) error) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	var capacity int64
	var quotas bool
	return s.writer.submit(ctx, 0, func(conn *sqlite.Conn) error {
		// From here on, also for what follows in this transaction. If it comes
		// to nothing, some care is taken that need not be.
		s.keeper.limited.Store(true)
		s.uses.merge() // nobody had to know them before
		err := s.keeper.writeUses(conn)
		if err == nil {
			err = change(conn)
		}
		if err == nil {
			capacity, quotas, err = readLimits(conn)
		}
		return err
	}, func() {
		s.capacity.Store(capacity)
		s.keeper.limited.Store(quotas || capacity != Unlimited)
	})
}

// readLimits returns the capacity, and whether any owner has a quota.
func readLimits(conn *sqlite.Conn) (capacity int64, quotas bool, err error) {
	capacity, err = stepIntOr(prep(conn, "capacity_get"), Unlimited)
	if err != nil {
		return 0, false, err
	}
	n, err := stepInt(prep(conn, "owner_quotas"))
	return capacity, n != 0, err
}

// errCrowded means that a change has evicted what it has just written, for want
// of anything else: all the rest is protected.
var errCrowded = fmt.Errorf("%w: the capacity or the quota is full of what is protected", ErrFull)

// survived returns an error if a blob that a request has written has become the
// victim of its own growth.
func (s *Store) survived(conn *sqlite.Conn, id int64) error {
	if !s.keeper.limited.Load() {
		return nil
	}
	stmt := prep(conn, "blob_exists")
	stmt.SetInt64(":id", id)
	n, err := stepInt(stmt)
	if err == nil && n == 0 {
		err = errCrowded
	}
	return err
}

// isCrowded reports whether a write found no room because of what is protected,
// as far as the table pin says.
func isCrowded(err error) bool {
	return errors.Is(err, errCrowded) || sqlite.ErrCode(err) == sqlite.ResultConstraintTrigger
}
