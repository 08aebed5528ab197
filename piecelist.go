package cairn

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
)

// PieceInfo is one piece in a listing. Sizes are in bytes.
type PieceInfo struct {
	Key      string
	Owner    string // "" if nobody
	Size     int64
	State    State // Partial or Complete
	Hash     Hash  // of a complete one
	Stored   int64 // of Size, what is there
	LastUsed time.Time
}

// PieceListOptions select from a listing. Nil is everything.
type PieceListOptions struct {
	// Prefix is the beginning of the keys, byte by byte. Default: all.
	Prefix string
	// After is a key that the listing begins behind. Default: it begins with
	// the first.
	After string
	// Limit is the most pieces to list. Default (and if ≤ 0): no limit.
	Limit int
}

// Pieces lists the pieces in the byte order of their keys. It reads no data.
// Nothing is held while the loop's body runs: it may use the store as it likes.
// A piece that comes or goes meanwhile may or may not be listed; every other one
// is listed once. An error ends the listing.
func (s *Store) Pieces(ctx context.Context, opts *PieceListOptions) iter.Seq2[PieceInfo, error] {
	if opts == nil {
		opts = &PieceListOptions{}
	}
	return func(yield func(PieceInfo, error) bool) {
		left := opts.Limit
		err := eachPage(ctx, s, opts.After, func(conn *sqlite.Conn, after string) (*sqlite.Stmt, error) {
			stmt := prep(conn, "piece_list")
			stmt.SetBytes(":after", []byte(after))
			bindPrefix(stmt, opts.Prefix)
			return stmt, nil
		}, scanPieceInfo, func(info PieceInfo) string { return info.Key },
			func(info PieceInfo, err error) bool {
				left--
				return yield(info, err) && left != 0
			})
		if err != nil {
			yield(PieceInfo{}, fmt.Errorf("list pieces: %w", err))
		}
	}
}

// bindPrefix restricts a listing to the keys from :from on and before :to, those
// with a prefix.
func bindPrefix(stmt *sqlite.Stmt, prefix string) {
	stmt.SetBytes(":from", []byte(prefix))
	stmt.SetBytes(":to", []byte(prefixEnd(prefix)))
}

// prefixEnd returns what is behind all keys that have a prefix, and before or at
// the first key behind them.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return behindAllKeys
}

// behindAllKeys is longer than a key, and has nothing behind it.
var behindAllKeys = strings.Repeat("\xff", MaxKeySize+1)

func scanPieceInfo(stmt *sqlite.Stmt) PieceInfo {
	info := PieceInfo{
		Key:      columnString(stmt, "name"),
		Owner:    columnString(stmt, "owner"),
		Size:     stmt.GetInt64("size"),
		State:    State(stmt.GetInt64("state")),
		Stored:   stmt.GetInt64("stored"),
		LastUsed: time.Unix(0, usedAt(stmt.GetInt64("last_used"))),
	}
	if info.State == Complete {
		stmt.GetBytes("hash", info.Hash[:])
	}
	return info
}

// columnString returns a column of bytes, "" for null.
func columnString(stmt *sqlite.Stmt, name string) string {
	buf := make([]byte, stmt.GetLen(name))
	stmt.GetBytes(name, buf)
	return string(buf)
}

// eachPage yields the entries of a listing that is ordered by a key, a page in
// one snapshot each. query returns the statement for what is behind a key, at
// most :limit of it.
func eachPage[T any](ctx context.Context, s *Store, after string,
	query func(conn *sqlite.Conn, after string) (*sqlite.Stmt, error),
	scan func(stmt *sqlite.Stmt) T, key func(T) string, yield func(T, error) bool) error {
	for {
		var page []T
		err := s.pool.read(ctx, func(conn *sqlite.Conn) error {
			stmt, err := query(conn, after)
			if err != nil {
				return err
			}
			defer stmt.Reset()
			stmt.SetInt64(":limit", listPage)
			for {
				found, err := stmt.Step()
				if err != nil || !found {
					return err
				}
				page = append(page, scan(stmt))
			}
		})
		if err != nil {
			return err
		}
		for _, entry := range page {
			if !yield(entry, nil) {
				return nil
			}
		}
		if len(page) < listPage {
			return nil
		}
		after = key(page[len(page)-1])
	}
}
