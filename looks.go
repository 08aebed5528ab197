package cairn

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// maxLooks is the most blobs of which it is remembered what was bad.
const maxLooks = 64

// looks are those at blobs as a whole, of which reads have found a group in no file
// outside: one at a time for each hash. The zero looks are ready. All its methods
// may be called concurrently.
type looks struct {
	mu      sync.Mutex
	running map[Hash]*look
	// known are those by which nothing was changed, because that could not be: as
	// long as the blob and its files look the same, they hold.
	known map[Hash]*look
}

// A look is one at a blob as a whole. Who began it owns it until done is closed.
type look struct {
	done chan struct{}
	of   looked
	bad  bao.Ranges
	err  error
}

// A looked is what tells that a blob, and its files outside, may have changed.
type looked struct {
	id, stored, external int64
	state                State
	files                []outsideFile // as they are now
}

func (l looked) equal(other looked) bool {
	return l.id == other.id && l.state == other.state && l.stored == other.stored && l.external == other.external &&
		slices.Equal(l.files, other.files)
}

// lookAt is recheck for readers: they do not all hash the blob.
func (s *Store) lookAt(ctx context.Context, hash Hash) (bao.Ranges, error) {
	for {
		l, begun := s.looks.begin(hash)
		if begun {
			s.lookOnce(ctx, hash, l)
			return l.bad, l.err
		}
		select {
		case <-l.done:
		case <-ctx.Done():
			return bao.Ranges{}, context.Cause(ctx)
		}
		if !errors.Is(l.err, errAborted) {
			return l.bad, l.err
		}
	}
}

// errAborted means that a look has ended because its caller's context had.
var errAborted = errors.New("not looked at to the end")

// begin returns the look that is running, or a new one.
func (l *looks) begin(hash Hash) (_ *look, begun bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if running := l.running[hash]; running != nil {
		return running, false
	}
	if l.running == nil {
		l.running, l.known = make(map[Hash]*look), make(map[Hash]*look)
	}
	l.running[hash] = &look{done: make(chan struct{})}
	return l.running[hash], true
}

// end ends a look. It is remembered if it holds.
func (l *looks) end(hash Hash, ended *look, holds bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, hash)
	delete(l.known, hash)
	if holds {
		for other := range l.known {
			if len(l.known) < maxLooks {
				break
			}
			delete(l.known, other)
		}
		l.known[hash] = ended
	}
	close(ended.done)
}

// knownOf returns what is remembered of a blob.
func (l *looks) knownOf(hash Hash) *look {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[hash]
}

// lookOnce makes a look, unless what is remembered still holds.
func (s *Store) lookOnce(ctx context.Context, hash Hash, l *look) {
	holds := false
	defer func() { s.looks.end(hash, l, holds) }()
	if l.of, l.err = s.lookOf(ctx, hash); l.err == nil {
		if old := s.looks.knownOf(hash); old != nil && old.of.equal(l.of) {
			l.bad, l.err, holds = old.bad, old.err, true
			return
		}
		l.bad, l.err = s.recheck(ctx, hash)
	}
	if ctx.Err() != nil && l.err != nil {
		l.err = errors.Join(errAborted, l.err)
		return
	}
	if l.err != nil || !l.bad.IsEmpty() {
		now, err := s.lookOf(ctx, hash)
		holds = err == nil && now.equal(l.of)
	}
}

// lookOf returns what a blob and its files are like now.
func (s *Store) lookOf(ctx context.Context, hash Hash) (l looked, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		blob, err := findBlob(conn, hash)
		if err == nil {
			l = looked{id: blob.id, stored: blob.Stored, external: blob.External, state: blob.State}
			l.files, err = readPaths(conn, blob.id)
		}
		return err
	})
	for i, file := range l.files {
		l.files[i].stamp = stamp{}
		if info, err := statRegular(file.path); err == nil {
			l.files[i].stamp = stampOf(info)
		}
	}
	return l, err
}
