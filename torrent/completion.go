package torrent

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
)

// A client that opens a torrent asks for the completion of each piece in
// order, and one whose read has failed for that of a run of pieces. Each look
// at the store is a query, so what is asked for in order is listed in batches,
// each of them twice as long as the one before.
const (
	// minSweep and maxSweep are how many pieces are listed at once.
	minSweep, maxSweep = 4, 4096
	// sweepAge is how long a batch is believed. Something may be evicted or
	// deleted meanwhile, as it may between an answer and its use.
	sweepAge = 20 * time.Millisecond
)

// A sweep is a walk over the completion of a torrent's pieces.
type sweep struct {
	mu sync.Mutex
	// next is the piece behind the one looked at last.
	next int
	// length is that of the last batch, 0 if the walk has just begun.
	length int
	// What is complete of the pieces [next, end), as it was at listed; changes
	// was the number of changes before.
	end      int
	complete map[int]bool
	listed   time.Time
	changes  uint64
}

// completion looks up a piece. The caller holds t.use.
func (t *torrent) completion(index int) (complete bool, err error) {
	complete, known, err := t.sweep.look(t, index)
	if known || err != nil {
		return complete, err
	}
	h, err := t.pieces[index].handle()
	if isAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c, err := h.Completion(t.ctx)
	return c.State == cairn.Complete, err
}

// look goes on with a walk. It does not know a piece that is not the next one.
func (w *sweep) look(t *torrent, index int) (complete, known bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	inOrder := index == w.next && index > 0
	w.next = index + 1
	if !inOrder {
		w.end, w.length = 0, 0
		return false, false, nil
	}
	if index >= w.end || w.changes != t.s.changes.Load() || time.Since(w.listed) > sweepAge {
		w.changes = t.s.changes.Load()
		w.length = min(max(minSweep, 2*w.length), maxSweep)
		if err := w.list(t, index); err != nil {
			w.end = 0
			return false, false, err
		}
		w.listed = time.Now()
	}
	return w.complete[index], true, nil
}

// list finds out which pieces are complete from the given one on.
func (w *sweep) list(t *torrent, from int) error {
	clear(w.complete)
	w.end = len(t.pieces)
	listed := 0
	for info, err := range t.s.store.Pieces(t.ctx, &cairn.PieceListOptions{
		Prefix: t.prefix,
		After:  t.key(from - 1),
		Limit:  w.length,
	}) {
		if err != nil {
			return err
		}
		index, err := strconv.Atoi(strings.TrimPrefix(info.Key, t.prefix))
		if err != nil {
			continue // not one of ours
		}
		if info.State == cairn.Complete {
			w.complete[index] = true
		}
		if listed++; listed == w.length {
			w.end = index + 1
		}
	}
	return nil
}

// Completion implements [storage.PieceImpl]. A piece that is absent or evicted
// is known to be incomplete; an error means that the database is damaged or
// closed.
func (p *piece) Completion() storage.Completion {
	if p.t.s.buffers.find(p) != nil && p.t.ctx.Err() == nil {
		return storage.Completion{Ok: true} // what waits is not what was marked
	}
	if err := p.t.begin(); err != nil {
		return storage.Completion{Err: p.failed("completion of", err)}
	}
	defer p.t.use.RUnlock()
	complete, err := p.t.completion(p.index)
	if err != nil {
		return storage.Completion{Err: p.failed("completion of", err)}
	}
	return storage.Completion{Ok: true, Complete: complete}
}
