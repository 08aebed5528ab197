package cairn

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"time"

	"zombiezen.com/go/sqlite"
)

// A State tells how much of a blob is in the store.
type State int

const (
	Absent   State = iota // nothing
	Partial               // some of it, or its size is not proven yet
	Complete              // all of it
)

// String returns "absent", "partial" or "complete".
func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case Partial:
		return "partial"
	case Complete:
		return "complete"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// MarshalText returns what String returns. It implements
// [encoding.TextMarshaler].
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Status is what the store knows of one blob. Sizes are in bytes; all but
// State is zero for an absent one.
type Status struct {
	State State
	Size  int64
	// SizeProven tells whether the last chunk has been verified. Until then
	// Size is what a peer has said.
	SizeProven bool
	Stored     int64 // of Size, what is in the database
	External   int64 // of Size, what is in files outside; see [Reference]
	Created    time.Time
	LastUsed   time.Time
}

// BlobInfo is one blob in a listing.
type BlobInfo struct {
	Hash Hash
	Status
}

// blobRow is a blob's row in the database, with state Absent if there is none.
type blobRow struct {
	id   int64
	hash Hash
	Status
}

// isInDatabase reports whether a blob is complete without files outside.
func (b blobRow) isInDatabase() bool { return b.State == Complete && b.External == 0 }

// findBlob looks a hash up.
func findBlob(conn *sqlite.Conn, hash Hash) (blobRow, error) {
	stmt := prep(conn, "blob_find")
	stmt.SetBytes(":hash", hash[:])
	found, err := stmt.Step()
	if err != nil || !found {
		return blobRow{hash: hash}, err
	}
	blob := blobRow{id: stmt.GetInt64("id"), hash: hash, Status: scanStatus(stmt)}
	return blob, stmt.Reset()
}

// findBlob looks a hash up in a snapshot of its own.
func (s *Store) findBlob(ctx context.Context, hash Hash) (blob blobRow, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		blob, err = findBlob(conn, hash)
		return err
	})
	return blob, err
}

func scanStatus(stmt *sqlite.Stmt) Status {
	return Status{
		State:      State(stmt.GetInt64("state")),
		Size:       stmt.GetInt64("size"),
		SizeProven: stmt.GetInt64("proven") != 0,
		Stored:     stmt.GetInt64("stored"),
		External:   stmt.GetInt64("external"),
		Created:    time.Unix(0, stmt.GetInt64("created")),
		LastUsed:   time.Unix(0, usedAt(stmt.GetInt64("last_used"))),
	}
}

// Status tells how much of a blob is in the store. That there is none is not
// an error.
func (s *Store) Status(ctx context.Context, hash Hash) (Status, error) {
	blob, err := s.findBlob(ctx, hash)
	if err != nil {
		return Status{}, fmt.Errorf("status of %v: %w", hash, err)
	}
	return blob.Status, nil
}

// ListOptions select from a listing. Nil is everything.
type ListOptions struct {
	// Prefix is the beginning of the hashes, in hexadecimal digits of either
	// case. Default: all.
	Prefix string
	// After is a hash that the listing begins behind, such as the last one of
	// the listing before. Default (zero): it begins with the first.
	After Hash
	// State selects blobs of one state. Default (Absent): all.
	State State
	// Limit is the most blobs to list. Default (and if ≤ 0): no limit.
	Limit int
}

// listPage is how many blobs are read at a time.
const listPage = 256

// Blobs lists the blobs in the order of their hashes. No lock and no
// connection is held while the loop's body runs: it may use the store as it
// likes. A blob that is added or deleted meanwhile may or may not be listed;
// every other one is listed once. An error ends the listing; it is
// [ErrMismatch] for a prefix that is not hexadecimal.
func (s *Store) Blobs(ctx context.Context, opts *ListOptions) iter.Seq2[BlobInfo, error] {
	if opts == nil {
		opts = &ListOptions{}
	}
	return func(yield func(BlobInfo, error) bool) {
		from, to, err := prefixRange(opts.Prefix)
		left := opts.Limit
		more := true
		if after := opts.After; after != (Hash{}) && bytes.Compare(after[:], from[:]) >= 0 {
			from, more = nextHash(after)
		}
		for more && err == nil {
			var page []blobRow
			page, err = s.listPage(ctx, from, to)
			more = len(page) == listPage
			for _, blob := range page {
				info := BlobInfo{blob.hash, blob.Status}
				if opts.State != Absent && info.State != opts.State {
					continue
				}
				if !yield(info, nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			if more {
				from, more = nextHash(page[len(page)-1].hash)
			}
		}
		if err != nil {
			yield(BlobInfo{}, fmt.Errorf("list blobs: %w", err))
		}
	}
}

func (s *Store) listPage(ctx context.Context, from, to Hash) (page []blobRow, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		stmt := prep(conn, "blob_list")
		defer stmt.Reset()
		stmt.SetBytes(":from", from[:])
		stmt.SetBytes(":to", to[:])
		stmt.SetInt64(":limit", listPage)
		for {
			found, err := stmt.Step()
			if err != nil || !found {
				return err
			}
			blob := blobRow{id: stmt.GetInt64("id"), Status: scanStatus(stmt)}
			stmt.GetBytes("hash", blob.hash[:])
			page = append(page, blob)
		}
	})
	return page, err
}

// prefixRange returns the first and the last hash with a prefix.
func prefixRange(prefix string) (from, to Hash, err error) {
	if len(prefix) > 2*len(from) {
		return from, to, fmt.Errorf("prefix %q: %w: longer than a hash", prefix, ErrMismatch)
	}
	for i := range to {
		to[i] = 0xff
	}
	for i := range len(prefix) {
		var nibble byte
		switch c := prefix[i]; {
		case '0' <= c && c <= '9':
			nibble = c - '0'
		case 'a' <= c && c <= 'f':
			nibble = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			nibble = c - 'A' + 10
		default:
			return from, to, fmt.Errorf("prefix %q: %w: not hexadecimal", prefix, ErrMismatch)
		}
		shift := 4 * (1 - i%2)
		from[i/2] |= nibble << shift
		to[i/2] = to[i/2]&^(0xf<<shift) | nibble<<shift
	}
	return from, to, nil
}

// nextHash returns the hash after h, if there is one.
func nextHash(h Hash) (Hash, bool) {
	for i := len(h) - 1; i >= 0; i-- {
		if h[i]++; h[i] != 0 {
			return h, true
		}
	}
	return h, false
}
