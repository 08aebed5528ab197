package cairn

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"zombiezen.com/go/sqlite"
)

// A Window is what a [Pin] protects: pieces by their keys, blobs by their
// hashes.
type Window struct {
	Keys   []string
	Hashes []Hash
}

func (w Window) subjects() []subject {
	list := make([]subject, 0, len(w.Keys)+len(w.Hashes))
	for _, key := range w.Keys {
		list = append(list, subject{key: key})
	}
	for _, hash := range w.Hashes {
		list = append(list, subject{hash: hash})
	}
	return list
}

// A Pin protects a window from eviction and deletion, such as what a player is
// about to read. It ends with Release, and with the process. Its methods may be
// called concurrently.
type Pin struct {
	s  *Store
	mu sync.Mutex // held while the window changes
	// holds are what is protected; nil after Release.
	holds []subject
}

// Pin protects a window. What of it is not in the store is protected as soon as
// it comes. As long as all that is protected fits the capacity, and the quotas,
// whatever is written finds room; else writes are [ErrFull]. Pin waits while
// some of the window is being evicted or deleted.
func (s *Store) Pin(ctx context.Context, w Window) (*Pin, error) {
	p := &Pin{s: s}
	if err := p.hold(ctx, w); err != nil {
		return nil, fmt.Errorf("pin: %w", err)
	}
	return p, nil
}

// Move has the pin protect another window in place of the one it has. What is in
// both is protected throughout. On an error the pin stays as it was; it is
// [ErrClosed] after Release.
func (p *Pin) Move(ctx context.Context, w Window) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds == nil {
		return fmt.Errorf("move pin: %w", ErrClosed)
	}
	old := p.holds
	if err := p.hold(ctx, w); err != nil {
		return fmt.Errorf("move pin: %w", err)
	}
	p.s.guard.releaseAll(old)
	return nil
}

// hold takes the holds of a window, or none.
func (p *Pin) hold(ctx context.Context, w Window) error {
	if err := p.s.pool.open(); err != nil {
		return err
	}
	list := w.subjects()
	if err := p.s.guard.holdAll(ctx, list); err != nil {
		return err
	}
	p.holds = list
	return nil
}

// Release ends the protection. Further calls do nothing.
func (p *Pin) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s.guard.releaseAll(p.holds)
	p.holds = nil
}

// A held is a blob and what protects it.
type held struct {
	blob int64
	by   subject
}

// A pinTable is the writer's view of the table pin: which of what memory
// protects has a row there. The writer's goroutine owns it.
type pinTable struct {
	guard  *guard
	pinned map[subject]int64 // the blob
	count  map[int64]int     // of a blob's subjects
	// What the open transaction has changed, in order, to be taken back with it.
	changes []pinChange
}

// A pinChange is one of the table.
type pinChange struct {
	held
	removed bool
}

func newPinTable(g *guard) pinTable {
	return pinTable{guard: g, pinned: make(map[subject]int64), count: make(map[int64]int)}
}

// add pins a blob, unless what held it has let go.
func (t *pinTable) add(conn *sqlite.Conn, h held) error {
	if !t.guard.markPinned(h.by) {
		return nil
	}
	if id, ok := t.pinned[h.by]; ok {
		if id == h.blob {
			return insertPin(conn, id)
		}
		// The key has come to name another blob.
		if err := t.remove(conn, held{id, h.by}); err != nil {
			return err
		}
	}
	if err := insertPin(conn, h.blob); err != nil {
		return err
	}
	t.note(h)
	return nil
}

// insertPin pins a blob, if it is there and not pinned.
func insertPin(conn *sqlite.Conn, blob int64) error {
	stmt := prep(conn, "pin_insert")
	stmt.SetInt64(":blob", blob)
	return exec(stmt)
}

// follow has the pin of a key go to the blob that it names now.
func (t *pinTable) follow(conn *sqlite.Conn, by subject) error {
	old, ok := t.pinned[by]
	if !ok {
		return nil
	}
	id, err := by.find(conn)
	if err != nil || id == old {
		return err
	}
	if id == 0 {
		return t.remove(conn, held{old, by})
	}
	return t.add(conn, held{id, by})
}

// remove takes away what a subject pins. If that was the last pin of a blob whose
// hash is held, it is the hash's from then on.
func (t *pinTable) remove(conn *sqlite.Conn, h held) error {
	if t.count[h.blob] > 1 {
		t.forget(h)
		return nil
	}
	heir, err := t.heir(conn, h)
	if err != nil {
		return err
	}
	if heir != (subject{}) {
		t.note(held{h.blob, heir})
		t.forget(h)
		return nil
	}
	stmt := prep(conn, "pin_remove")
	stmt.SetInt64(":blob", h.blob)
	if err := exec(stmt); err != nil {
		return err
	}
	t.forget(h)
	return nil
}

// heir returns the hash of a blob, if it is held and not what pins the blob now.
func (t *pinTable) heir(conn *sqlite.Conn, h held) (subject, error) {
	stmt := prep(conn, "blob_hash")
	defer stmt.Reset()
	stmt.SetInt64(":id", h.blob)
	found, err := stmt.Step()
	if err != nil || !found {
		return subject{}, err
	}
	var by subject
	stmt.ColumnBytes(0, by.hash[:])
	if _, other := t.pinned[by]; by == h.by || other || !t.guard.markPinned(by) {
		return subject{}, nil
	}
	return by, nil
}

// has reports whether a blob is pinned for what holds it.
func (t *pinTable) has(h held) bool {
	id, ok := t.pinned[h.by]
	return ok && id == h.blob
}

func (t *pinTable) note(h held) {
	t.set(h)
	t.changes = append(t.changes, pinChange{h, false})
}

func (t *pinTable) forget(h held) {
	t.unset(h)
	t.changes = append(t.changes, pinChange{h, true})
}

func (t *pinTable) set(h held) {
	t.pinned[h.by] = h.blob
	t.count[h.blob]++
}

func (t *pinTable) unset(h held) {
	delete(t.pinned, h.by)
	if t.count[h.blob]--; t.count[h.blob] == 0 {
		delete(t.count, h.blob)
	}
}

// removeReleased removes the pin of what holds no more.
func (t *pinTable) removeReleased(conn *sqlite.Conn, by subject) error {
	id, ok := t.pinned[by]
	if !ok {
		return nil
	}
	return t.remove(conn, held{id, by})
}

func (t *pinTable) committed() { t.changes = nil }

// rolledBack takes back what the transaction has changed. What was to be removed
// still is, unless it is held again; what was added is met again.
func (t *pinTable) rolledBack() {
	for _, c := range slices.Backward(t.changes) {
		if c.removed {
			t.set(c.held)
			t.guard.putReleased(c.by)
		} else {
			t.unset(c.held)
		}
	}
	t.changes = nil
}
