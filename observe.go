package cairn

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A Bitfield tells how much of a blob is there.
type Bitfield struct {
	State      State
	Size       int64      // in bytes, 0 if absent
	SizeProven bool       // see [Status.SizeProven]
	Stored     int64      // of Size, what is present
	Ranges     bao.Ranges // see [Store.Ranges]
}

func (b Bitfield) equal(other Bitfield) bool {
	return b.State == other.State && b.Size == other.Size && b.SizeProven == other.SizeProven &&
		b.Stored == other.Stored && b.Ranges.Equal(other.Ranges)
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
	arrived []int64       // groups, in any order, perhaps repeated
	stale   bool          // what the loop knows does not hold any more
}

// arrivedLimit is the most groups an observer collects. Beyond that its loop
// reads anew what is there.
const arrivedLimit = 4096

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
	o.tell(hash, func(obs *observer) {
		if len(obs.arrived)+len(groups) > arrivedLimit {
			obs.arrived, obs.stale = nil, true
		} else if !obs.stale {
			obs.arrived = append(obs.arrived, groups...)
		}
	})
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
func (o *observers) take(obs *observer) (arrived []int64, stale bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	arrived, stale = obs.arrived, obs.stale
	obs.arrived, obs.stale = nil, false
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
		var last observation
		for first := true; ; first = false {
			next, err := s.observed(ctx, hash, obs, last)
			if err != nil {
				yield(Bitfield{}, fmt.Errorf("observe %v: %w", hash, err))
				return
			}
			if (first || !next.equal(last.Bitfield)) && !yield(next.Bitfield, nil) {
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

// An observation is a Bitfield and the blob that it is of.
type observation struct {
	id int64
	Bitfield
}

// observed returns the state of a blob that was last seen as given. What is
// there is read only if it cannot be told from what has arrived since.
func (s *Store) observed(ctx context.Context, hash Hash, obs *observer, last observation) (next observation, err error) {
	arrived, stale := s.observers.take(obs)
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		blob, err := findBlob(conn, hash)
		if err != nil {
			return err
		}
		next.id = blob.id
		next.Bitfield = Bitfield{State: blob.State, Size: blob.Size, SizeProven: blob.SizeProven, Stored: blob.Stored}
		if stale || blob.id != last.id || blob.State != Partial {
			next.Ranges, err = presentChunks(conn, blob, bao.All())
			return err
		}
		slices.Sort(arrived)
		end := bao.Chunks(0, bao.ChunkCount(blob.Size))
		next.Ranges = last.Ranges.Union(chunksOf(slices.Compact(arrived))).Intersect(end)
		return nil
	})
	return next, err
}

// chunksOf returns the chunks of some groups, which ascend.
func chunksOf(groups []int64) bao.Ranges {
	var runs []bao.Ranges
	for i := 0; i < len(groups); {
		first := groups[i]
		next := first
		for ; i < len(groups) && groups[i] == next; i++ {
			next++
		}
		runs = append(runs, bao.Chunks(chunkOf(first), chunkOf(next)))
	}
	return bao.Union(runs...)
}
