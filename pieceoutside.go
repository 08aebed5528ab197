package cairn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"zombiezen.com/go/sqlite"
)

// errPieceOutside means that a piece cannot be written to as it is, because it has
// bytes in files outside. Callers get it if it goes there again and again.
var errPieceOutside = fmt.Errorf("%w: its bytes are in a file outside", ErrConflict)

// onceOwn makes a change to a piece. If the piece's bytes are outside, they are
// brought into the database before.
func (s *Store) onceOwn(ctx context.Context, key string, change func() error) error {
	err := change()
	if !errors.Is(err, errPieceOutside) {
		return err
	}
	if err := s.bringIn(ctx, key); err != nil {
		return err
	}
	return change()
}

// bringIn has the bytes of a complete piece in the database: it adds them, read
// from where they are, as by a caller who has them. It is done once for all who want
// it at the same time, because each adds a copy of its own first.
func (s *Store) bringIn(ctx context.Context, key string) error {
	p := s.newPiece(ctx, key, 0, nil)
	row, err := p.look(ctx)
	if err != nil || row.State != Complete {
		return err
	}
	if err := s.arrivals.begin(ctx, row.hash); err != nil {
		return err
	}
	defer s.arrivals.end(row.hash)
	now, err := p.look(ctx)
	if err != nil || now.State != Complete || now.External == 0 || now.hash != row.hash {
		return err // another one has done it, or it is something else
	}
	b, err := s.openBlob(ctx, row.hash, fmt.Sprintf("piece %q", key))
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = s.add(ctx, b, nil, func(conn *sqlite.Conn, blob blobRow) error {
		if now, err := findPiece(conn, key); err != nil || now.id != blob.id {
			return cmp.Or(err, errPieceOutside) // it is another one's by now
		}
		return nil
	})
	return err
}

// arrivals are the blobs that are being brought in, each by one. The zero arrivals
// is ready. Its methods may be called concurrently.
type arrivals struct {
	mu     sync.Mutex
	byHash map[Hash]chan struct{} // closed at the end of each
}

// begin waits until nobody else brings a blob in, and is who does then, until end.
func (a *arrivals) begin(ctx context.Context, hash Hash) error {
	for {
		wait := a.tryBegin(hash)
		if wait == nil {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryBegin is begin, or returns what to wait for.
func (a *arrivals) tryBegin(hash Hash) (wait chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait = a.byHash[hash]; wait != nil {
		return wait
	}
	if a.byHash == nil {
		a.byHash = make(map[Hash]chan struct{})
	}
	a.byHash[hash] = make(chan struct{})
	return nil
}

func (a *arrivals) end(hash Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.byHash[hash])
	delete(a.byHash, hash)
}
