package cairn

import (
	"context"
	"fmt"
	"sync"
)

// A guard counts what protects content in this process: temp tags and open
// handles. The zero guard is ready. All its methods may be called
// concurrently.
type guard struct {
	mu      sync.Mutex
	entries map[Hash]*guarded
}

// guarded is the state of one hash; it exists while there is any.
type guarded struct {
	holds int
	// dropping is not nil while a deletion that found no holds is being
	// committed; closed when it is over.
	dropping chan struct{}
}

func (g *guard) entry(h Hash) *guarded {
	e := g.entries[h]
	if e == nil {
		e = new(guarded)
		if g.entries == nil {
			g.entries = make(map[Hash]*guarded)
		}
		g.entries[h] = e
	}
	return e
}

// hold protects a hash until the matching release. If a deletion of it is
// being committed, hold waits until that is over.
func (g *guard) hold(ctx context.Context, h Hash) error {
	for {
		g.mu.Lock()
		e := g.entry(h)
		wait := e.dropping
		if wait == nil {
			e.holds++
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *guard) release(h Hash) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.entries[h]
	e.holds--
	if e.holds == 0 && e.dropping == nil {
		delete(g.entries, h)
	}
}

// drop begins a deletion, from inside its transaction, or returns ErrConflict
// if the hash is protected or being deleted. Until dropped is called with the
// same mark, nobody can hold it. A deletion may begin again with its mark, when
// its transaction had to be repeated.
func (g *guard) drop(h Hash, mark chan struct{}) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.entry(h)
	if e.holds > 0 {
		return fmt.Errorf("%w: protected by a temp tag or an open handle", ErrConflict)
	}
	if e.dropping != nil && e.dropping != mark {
		return fmt.Errorf("%w: being deleted", ErrConflict)
	}
	e.dropping = mark
	return nil
}

// dropped ends a deletion, done or not, if drop has begun it.
func (g *guard) dropped(h Hash, mark chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.entries[h]; e != nil && e.dropping == mark {
		close(mark)
		delete(g.entries, h)
	}
}

// A TempTag protects content from deletion for as long as this process wants
// it to. It ends with Release, and with the process. Its methods may be
// called concurrently.
type TempTag struct {
	content HashAndFormat
	release func()
}

// TempTag protects content that is, or will be, in the store. It waits while
// a deletion of the same content is being committed.
func (s *Store) TempTag(content HashAndFormat) *TempTag {
	s.guard.hold(context.Background(), content.Hash) // cannot fail
	return s.newTempTag(content)
}

// newTempTag makes a temp tag of a hold that has been taken already.
func (s *Store) newTempTag(content HashAndFormat) *TempTag {
	return &TempTag{
		content: content,
		release: sync.OnceFunc(func() { s.guard.release(content.Hash) }),
	}
}

// Hash returns the protected hash.
func (t *TempTag) Hash() Hash { return t.content.Hash }

// HashAndFormat returns what is protected.
func (t *TempTag) HashAndFormat() HashAndFormat { return t.content }

// Release ends the protection. Further calls do nothing.
func (t *TempTag) Release() { t.release() }
