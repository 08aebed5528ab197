package cairn

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"zombiezen.com/go/sqlite"
)

// A subject is what can be protected: a hash, the children of the sequence that
// has a hash or, if key is not empty, a piece's key, whatever blob that names.
type subject struct {
	hash     Hash
	children bool
	key      string
}

// find returns the id of the blob that a subject means now, 0 if there is none.
func (by subject) find(conn *sqlite.Conn) (int64, error) {
	if by.key != "" {
		piece, err := findPiece(conn, by.key)
		return piece.id, err
	}
	blob, err := findBlob(conn, by.hash)
	return blob.id, err
}

// A guard counts what protects content in this process: temp tags, open
// handles and pins. The zero guard is ready. All its methods may be called
// concurrently.
type guard struct {
	mu       sync.Mutex
	entries  map[subject]*guarded
	released []subject // that were pinned, and are held no more
	// recent is not nil while a collection asks others what to protect: what has
	// been held since it began. Children are held until its end.
	recent map[subject]struct{}
	// frozen is not nil while nobody can hold anything anew; closed then.
	frozen chan struct{}
}

// guarded is the state of one subject; it exists while there is any.
type guarded struct {
	holds int
	// pinned tells that the writer knows of it, and wants to know of the last
	// release.
	pinned bool
	// dropping is not nil while a deletion that found no holds is being
	// committed; closed when that is over.
	dropping chan struct{}
}

func (g *guard) entry(by subject) *guarded {
	e := g.entries[by]
	if e == nil {
		e = new(guarded)
		if g.entries == nil {
			g.entries = make(map[subject]*guarded)
		}
		g.entries[by] = e
	}
	return e
}

// hold protects a subject until the matching release. If a deletion of it is
// being committed, hold waits until that is over.
func (g *guard) hold(ctx context.Context, by subject) error {
	for {
		wait := g.tryHold(by)
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

// tryHold protects a subject, or returns what to wait for.
func (g *guard) tryHold(by subject) (wait chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen != nil {
		return g.frozen
	}
	e := g.entry(by)
	if e.dropping == nil {
		e.holds++
	}
	return e.dropping
}

func (g *guard) release(by subject) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.entries[by]
	if g.recent != nil && e.holds == 1 {
		g.recent[by] = struct{}{}
		if by.children {
			return // until forgetReleases
		}
	}
	e.holds--
	if e.holds == 0 && e.pinned {
		e.pinned = false
		g.released = append(g.released, by)
	}
	if e.holds == 0 && e.dropping == nil {
		delete(g.entries, by)
	}
}

// holdAll protects subjects, or none of them.
func (g *guard) holdAll(ctx context.Context, list []subject) error {
	for i, by := range list {
		if err := g.hold(ctx, by); err != nil {
			g.releaseAll(list[:i])
			return err
		}
	}
	return nil
}

func (g *guard) releaseAll(list []subject) {
	for _, by := range list {
		g.release(by)
	}
}

// drop begins a deletion, from inside its transaction, or returns ErrConflict
// if the subject is protected. Until dropped is called nobody can hold it; who
// tries to waits for wake to be closed, and tries again.
func (g *guard) drop(by subject, wake chan struct{}) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.entries[by]; e != nil && e.holds > 0 {
		return fmt.Errorf("%w: protected by a temp tag, a pin or an open handle", ErrConflict)
	}
	g.entry(by).dropping = wake
	return nil
}

// dropped ends a deletion, done or not, that drop has begun with the same wake.
func (g *guard) dropped(by subject, wake chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.entries[by]; e != nil && e.dropping == wake {
		delete(g.entries, by)
	}
}

// freeze lets nobody hold anything anew until wake is closed, or thaw is called.
func (g *guard) freeze(wake chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frozen = wake
}

func (g *guard) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frozen = nil
}

// noteReleases begins to note what is released.
func (g *guard) noteReleases() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.recent = make(map[subject]struct{})
}

// forgetReleases ends noteReleases.
func (g *guard) forgetReleases() {
	g.mu.Lock()
	recent := g.recent
	g.recent = nil
	g.mu.Unlock()
	for by := range recent {
		if by.children {
			g.release(by)
		}
	}
}

// wasHeld reports whether a subject has been released since noteReleases.
func (g *guard) wasHeld(by subject) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, was := g.recent[by]
	return was
}

// isHeld reports whether a subject is held.
func (g *guard) isHeld(by subject) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.entries[by]
	return e != nil && e.holds > 0
}

// markPinned asks for the last release of a subject to be noted, and reports
// whether it is held at all.
func (g *guard) markPinned(by subject) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.entries[by]
	if e == nil || e.holds == 0 {
		return false
	}
	e.pinned = true
	g.released = slices.DeleteFunc(g.released, func(s subject) bool { return s == by })
	return true
}

// noted tells that the database knows of a subject that was held. If it is not any
// more, that has to be taken back.
func (g *guard) noted(by subject) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.entries[by]; e != nil && e.holds > 0 {
		e.pinned = true
	} else {
		g.released = append(g.released, by)
	}
}

// unnoted returns the sequences whose children are held, and of which the database
// does not know that: those that could not be read.
func (g *guard) unnoted() (list []subject) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for by, e := range g.entries {
		if by.children && e.holds > 0 && !e.pinned {
			list = append(list, by)
		}
	}
	return list
}

// takeReleased returns what was pinned and is held no more, once.
func (g *guard) takeReleased() (list []subject) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, by := range g.released {
		if e := g.entries[by]; e != nil && e.holds > 0 {
			e.pinned = true // it is held again
		} else {
			list = append(list, by)
		}
	}
	g.released = nil
	return list
}

func (g *guard) putReleased(by subject) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.entries[by]; e != nil && e.holds > 0 {
		e.pinned = true // it is held again
		return
	}
	g.released = append(g.released, by)
}

func (g *guard) hasReleased() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.released) > 0
}

// held returns what is protected, children left out.
func (g *guard) held() []subject {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]subject, 0, len(g.entries))
	for by, e := range g.entries {
		if e.holds > 0 && !by.children {
			list = append(list, by)
		}
	}
	return list
}

// everything returns the blobs that are protected.
func (g *guard) everything(conn *sqlite.Conn) (list []held, err error) {
	for _, by := range g.held() {
		id, err := by.find(conn)
		if err != nil {
			return nil, err
		}
		if id != 0 {
			list = append(list, held{id, by})
		}
	}
	return list, nil
}
