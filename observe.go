package cairn

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A Bitfield tells how much of a blob is there.
type Bitfield struct {
	State      State
	Size       int64      // in bytes, 0 if absent
	SizeProven bool       // see [Status.SizeProven]
	Ranges     bao.Ranges // see [Store.Ranges]
}

func (b Bitfield) equal(other Bitfield) bool {
	return b.State == other.State && b.Size == other.Size && b.SizeProven == other.SizeProven && b.Ranges.Equal(other.Ranges)
}

// observers are those who want to know what becomes of a blob. The zero
// observers are none. All its methods may be called concurrently, and none
// blocks.
type observers struct {
	mu     sync.Mutex
	byHash map[Hash]map[*observer]struct{}
}

// An observer collects what has changed since its loop looked last. The
// registry's lock guards its fields.
type observer struct {
	wake    chan struct{} // holds a token when there is something
	arrived bao.Ranges
	stale   bool // what the loop knows does not hold any more
}

func (o *observers) add(hash Hash) *observer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byHash == nil {
		o.byHash = make(map[Hash]map[*observer]struct{})
	}
	if o.byHash[hash] == nil {
		o.byHash[hash] = make(map[*observer]struct{})
	}
	obs := &observer{wake: make(chan struct{}, 1), stale: true}
	o.byHash[hash][obs] = struct{}{}
	return obs
}

func (o *observers) remove(hash Hash, obs *observer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byHash[hash], obs)
	if len(o.byHash[hash]) == 0 {
		delete(o.byHash, hash)
	}
}

// arrived tells that a commit has brought groups.
func (o *observers) arrived(hash Hash, groups []int64) {
	o.tell(hash, func(obs *observer) { obs.arrived = obs.arrived.Union(chunksOf(groups)) })
}

// reset tells that a blob was added, replaced or deleted as a whole.
func (o *observers) reset(hash Hash) {
	o.tell(hash, func(obs *observer) { obs.stale = true })
}

func (o *observers) tell(hash Hash, note func(*observer)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for obs := range o.byHash[hash] {
		note(obs)
		select {
		case obs.wake <- struct{}{}:
		default:
		}
	}
}

// take returns what has come since the last call.
func (o *observers) take(obs *observer) (arrived bao.Ranges, stale bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	arrived, stale = obs.arrived, obs.stale
	obs.arrived, obs.stale = bao.Ranges{}, false
	return arrived, stale
}

// Observe yields how much of a blob is there, at once and then whenever this
// process has changed it, always as a whole; changes that come while the loop's
// body runs are yielded as one. What it shows is committed, perhaps a moment
// before it is durable. That there is no blob is a state like others. The loop
// goes on until its body ends it, or with an error: that of ctx, or [ErrClosed].
// Nothing is held while the body runs.
func (s *Store) Observe(ctx context.Context, hash Hash) iter.Seq2[Bitfield, error] {
	return func(yield func(Bitfield, error) bool) {
		obs := s.observers.add(hash)
		defer s.observers.remove(hash, obs)
		var last Bitfield
		for first := true; ; first = false {
			next, err := s.observed(ctx, hash, obs, last)
			if err != nil {
				yield(Bitfield{}, fmt.Errorf("observe %v: %w", hash, err))
				return
			}
			if (first || !next.equal(last)) && !yield(next, nil) {
				return
			}
			last = next
			select {
			case <-obs.wake:
			case <-ctx.Done(): // told by observed
			case <-s.pool.closing:
			}
		}
	}
}

// observed returns the state of a blob that was last seen as given. What is
// there is read only if it cannot be told from what has arrived since.
func (s *Store) observed(ctx context.Context, hash Hash, obs *observer, last Bitfield) (next Bitfield, err error) {
	arrived, stale := s.observers.take(obs)
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		blob, err := findBlob(conn, hash)
		if err != nil {
			return err
		}
		next = Bitfield{State: blob.State, Size: blob.Size, SizeProven: blob.SizeProven}
		if stale || blob.State != Partial {
			next.Ranges, err = presentChunks(conn, blob)
			return err
		}
		end := bao.Chunks(0, bao.ChunkCount(blob.Size))
		next.Ranges = last.Ranges.Union(arrived).Intersect(end)
		return nil
	})
	return next, err
}
