package cairn

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"zombiezen.com/go/sqlite"
)

// An Owner is a named set of pieces and blobs, such as those of a torrent, with
// a quota of its own inside the store's capacity. What several owners have is
// stored once, and counted once for each of them. An owner exists from its first
// piece, blob or quota on until [Owner.Delete]. Its methods may be called
// concurrently.
type Owner struct {
	s    *Store
	name string
}

// Owner returns the owner of a name, any bytes, at most [MaxKeySize]. It does
// not look whether there is one.
func (s *Store) Owner(name string) *Owner { return &Owner{s, name} }

// Name returns the owner's name.
func (o *Owner) Name() string { return o.name }

// OwnerUsage is what an owner has. Sizes are in bytes.
type OwnerUsage struct {
	Name   string
	Pieces int64 // keys
	Bytes  int64 // stored, of its pieces and blobs; what several of them share counts once
	Quota  int64 // [Unlimited] if there is none
}

// Usage returns what the owner has, from counters. If there is no such owner it
// is [ErrNotFound].
func (o *Owner) Usage(ctx context.Context) (usage OwnerUsage, err error) {
	err = o.s.pool.read(ctx, func(conn *sqlite.Conn) error {
		row, err := findOwner(conn, o.name)
		if err == nil && row.id == 0 {
			err = ErrNotFound
		}
		usage = row.OwnerUsage
		return err
	})
	if err != nil {
		return OwnerUsage{}, fmt.Errorf("usage of owner %q: %w", o.name, err)
	}
	return usage, nil
}

// ownerRow is an owner's row, with id 0 if there is none.
type ownerRow struct {
	id int64
	OwnerUsage
}

func findOwner(conn *sqlite.Conn, name string) (ownerRow, error) {
	stmt := prep(conn, "owner_find")
	stmt.SetBytes(":name", []byte(name))
	found, err := stmt.Step()
	if err != nil || !found {
		return ownerRow{}, err
	}
	row := scanOwner(stmt)
	return row, stmt.Reset()
}

func scanOwner(stmt *sqlite.Stmt) ownerRow {
	row := ownerRow{stmt.GetInt64("id"), OwnerUsage{
		Name:   columnString(stmt, "name"),
		Pieces: stmt.GetInt64("pieces"),
		Bytes:  stmt.GetInt64("bytes"),
		Quota:  Unlimited,
	}}
	if !stmt.IsNull("quota") {
		row.Quota = stmt.GetInt64("quota")
	}
	return row
}

// getOwner returns the owner with an id, which is there.
func getOwner(conn *sqlite.Conn, id int64) (ownerRow, error) {
	stmt := prep(conn, "owner_get")
	stmt.SetInt64(":id", id)
	found, err := stmt.Step()
	if err != nil || !found {
		return ownerRow{OwnerUsage: OwnerUsage{Quota: Unlimited}}, err
	}
	row := scanOwner(stmt)
	return row, stmt.Reset()
}

// makeOwner returns an owner, and makes it if there is none of that name.
func makeOwner(conn *sqlite.Conn, name string) (ownerRow, error) {
	row, err := findOwner(conn, name)
	if err != nil || row.id != 0 {
		return row, err
	}
	if err := validName("owner", name); err != nil {
		return ownerRow{}, err
	}
	stmt := prep(conn, "owner_insert")
	stmt.SetBytes(":name", []byte(name))
	if err := exec(stmt); err != nil {
		return ownerRow{}, err
	}
	return findOwner(conn, name)
}

// admits returns ErrTooLarge for what can never fit the quota.
func (o *OwnerUsage) admits(size int64) error {
	if o.Quota != Unlimited && size > o.Quota {
		return fmt.Errorf("%w: %d bytes, the quota of owner %q is %d", ErrTooLarge, size, o.Name, o.Quota)
	}
	return nil
}

// SetQuota sets how many bytes the owner has at most, and makes the owner if
// there is none; [Unlimited] takes the quota away. What is then too much goes at
// once, in the order of last use: what only this owner has is evicted, of the
// rest it loses its pieces. If what is protected is above the quota, it is
// [ErrFull] and nothing changes. A quota of 0 lets nothing in. Other errors:
// [ErrMismatch] for a negative quota or an impossible name, [ErrReadOnly],
// [ErrClosed].
func (o *Owner) SetQuota(ctx context.Context, quota int64) error {
	err := fmt.Errorf("%w: negative", ErrMismatch)
	if quota >= Unlimited {
		err = o.s.limit(ctx, func(conn *sqlite.Conn) error { return o.putQuota(conn, quota) })
	}
	if err != nil {
		return fmt.Errorf("set quota of owner %q to %d: %w", o.name, quota, err)
	}
	return nil
}

func (o *Owner) putQuota(conn *sqlite.Conn, quota int64) error {
	row, err := makeOwner(conn, o.name)
	if err != nil {
		return err
	}
	stmt := prep(conn, "owner_quota")
	stmt.SetInt64(":id", row.id)
	if quota != Unlimited {
		stmt.SetInt64(":quota", quota)
	} else {
		stmt.SetNull(":quota")
	}
	return exec(stmt)
}

// AddBlob gives the owner a blob, complete or partial, and makes the owner if
// there is none. From then on the blob goes with the last owner and the last
// piece that has it, unless it is added again. Errors:
// [ErrNotFound] if there is no such blob, [ErrFull] and [ErrTooLarge] for the
// quota, [ErrReadOnly], [ErrClosed].
func (o *Owner) AddBlob(ctx context.Context, hash Hash) error {
	err := o.s.write(ctx, 0, func(conn *sqlite.Conn) error {
		blob, err := findBlob(conn, hash)
		if err != nil {
			return err
		}
		if blob.State == Absent {
			return ErrNotFound
		}
		row, err := makeOwner(conn, o.name)
		if err != nil {
			return err
		}
		if err := row.admits(blob.Size); err != nil {
			return err
		}
		stmt := prep(conn, "blob_touch")
		stmt.SetInt64(":id", blob.id)
		stmt.SetInt64(":now", o.s.uses.now())
		if err := exec(stmt); err != nil {
			return err
		}
		stmt = prep(conn, "owned_add")
		stmt.SetInt64(":owner", row.id)
		stmt.SetInt64(":blob", blob.id)
		if err := exec(stmt); err != nil {
			return err
		}
		stmt = prep(conn, "owned_exists")
		stmt.SetInt64(":owner", row.id)
		stmt.SetInt64(":blob", blob.id)
		if n, err := stepInt(stmt); err != nil || n == 0 {
			return cmp.Or(err, errCrowded) // it was its own victim
		}
		stmt = prep(conn, "blob_release")
		stmt.SetInt64(":blob", blob.id)
		return exec(stmt)
	})
	if err != nil {
		return fmt.Errorf("add blob %v to owner %q: %w", hash, o.name, err)
	}
	return nil
}

// RemoveBlob takes back [Owner.AddBlob]. Pieces that the owner has of the blob
// stay, and with them the blob; what is held stays until it is released. If the
// owner has no such blob it is [ErrNotFound].
func (o *Owner) RemoveBlob(ctx context.Context, hash Hash) error {
	err := o.s.remove(ctx, func(conn *sqlite.Conn) error {
		row, err := findOwner(conn, o.name)
		if err != nil {
			return err
		}
		stmt := prep(conn, "owned_find")
		stmt.SetInt64(":owner", row.id)
		stmt.SetBytes(":hash", hash[:])
		blob, err := stepInt(stmt)
		if err != nil {
			return err
		}
		if blob == 0 {
			return ErrNotFound
		}
		for _, query := range []string{"owned_undirect", "owned_drop"} {
			stmt := prep(conn, query)
			stmt.SetInt64(":owner", row.id)
			stmt.SetInt64(":blob", blob)
			if err := exec(stmt); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove blob %v from owner %q: %w", hash, o.name, err)
	}
	return nil
}

// Delete drops the owner, in one commit, with its quota, its pieces, and the
// blobs that only it has; what others have, or what was added as a blob, stays.
// The space of large ones is freed by further commits. Content that a temp tag or
// an open handle holds goes when it is released. If a pin or an open reader has
// one of the keys, it is [ErrConflict] and nothing changes.
// If there is no such owner it is [ErrNotFound]. Other errors: [ErrReadOnly],
// [ErrClosed], [ErrFull].
func (o *Owner) Delete(ctx context.Context) error {
	err := o.s.remove(ctx, func(conn *sqlite.Conn) error {
		row, err := findOwner(conn, o.name)
		if err != nil {
			return err
		}
		if row.id == 0 {
			return ErrNotFound
		}
		for _, query := range []string{"owner_keys_remove", "owned_remove", "owner_remove"} {
			stmt := prep(conn, query)
			stmt.SetInt64(":owner", row.id)
			if err := exec(stmt); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete owner %q: %w", o.name, err)
	}
	return nil
}

// Pieces lists the owner's pieces, in the order of their keys; none if there is
// no such owner. It is like [Store.Pieces].
func (o *Owner) Pieces(ctx context.Context) iter.Seq2[PieceInfo, error] {
	return func(yield func(PieceInfo, error) bool) {
		err := eachPage(ctx, o.s, "", func(conn *sqlite.Conn, after string) (*sqlite.Stmt, error) {
			row, err := findOwner(conn, o.name)
			stmt := prep(conn, "owner_pieces")
			stmt.SetInt64(":owner", row.id)
			stmt.SetBytes(":after", []byte(after))
			return stmt, err
		}, scanPieceInfo, func(info PieceInfo) string { return info.Key }, yield)
		if err != nil {
			yield(PieceInfo{}, fmt.Errorf("pieces of owner %q: %w", o.name, err))
		}
	}
}

// Owners lists the owners, in the order of their names. Like [Store.Blobs], it
// holds nothing while the loop's body runs.
func (s *Store) Owners(ctx context.Context) iter.Seq2[OwnerUsage, error] {
	return func(yield func(OwnerUsage, error) bool) {
		err := eachPage(ctx, s, "", func(conn *sqlite.Conn, after string) (*sqlite.Stmt, error) {
			stmt := prep(conn, "owner_list")
			stmt.SetBytes(":after", []byte(after))
			return stmt, nil
		}, func(stmt *sqlite.Stmt) OwnerUsage { return scanOwner(stmt).OwnerUsage },
			func(usage OwnerUsage) string { return usage.Name }, yield)
		if err != nil {
			yield(OwnerUsage{}, fmt.Errorf("owners: %w", err))
		}
	}
}
