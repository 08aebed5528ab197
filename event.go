package cairn

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
)

// A Reason tells why something is gone.
type Reason int

const (
	Evicted   Reason = iota + 1 // to keep the capacity
	OverQuota                   // to keep its owner's quota
	Deleted                     // by a caller
	Swept                       // because nothing protects it
)

// String returns "evicted", "over quota", "deleted" or "swept".
func (r Reason) String() string {
	switch r {
	case Evicted:
		return "evicted"
	case OverQuota:
		return "over quota"
	case Deleted:
		return "deleted"
	case Swept:
		return "swept"
	}
	return fmt.Sprintf("Reason(%d)", int(r))
}

// An Event tells that a blob is gone, with the pieces that named it, or that
// some of these are, while others keep the blob. That a piece is being written
// again, and its blob gone for that, is no event.
type Event struct {
	Reason Reason
	Hash   Hash     // zero if it was a piece that was not complete
	Keys   []string // of the pieces that are gone, or have been replaced by MovePieces
	Size   int64    // in bytes
	// Missed is how many events before this one were lost, because the loop's
	// body did not keep up.
	Missed int64
}

// eventLimit is the most events that wait for one loop.
const eventLimit = 1 << 16

// events are the loops that want to know what is gone. The zero events are none.
// All its methods may be called concurrently, and none blocks.
type events struct {
	mu    sync.Mutex
	loops map[*listener]struct{}
}

// A listener is one loop. The registry's lock guards its fields.
type listener struct {
	wake   chan struct{} // holds a token when there is something
	news   []Event
	missed int64 // since the last of news
}

func (e *events) publish(news []Event) {
	if len(news) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for l := range e.loops {
		for _, event := range news {
			if len(l.news) == eventLimit {
				l.missed++
				continue
			}
			event.Missed, l.missed = l.missed, 0
			l.news = append(l.news, event)
		}
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (e *events) add() *listener {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.loops == nil {
		e.loops = make(map[*listener]struct{})
	}
	l := &listener{wake: make(chan struct{}, 1)}
	e.loops[l] = struct{}{}
	return l
}

func (e *events) remove(l *listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.loops, l)
}

func (e *events) take(l *listener) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	news := l.news
	l.news = nil
	return news
}

// Events yields what this process evicts and deletes from the call of Events on,
// in the order of the commits, perhaps a moment before these are durable. It
// ends when ctx is done or the store is closed, with what happened before.
// Nothing is held while the loop's body runs; one that lags far behind misses
// some ([Event.Missed]). The sequence can be ranged over once; then it is empty.
func (s *Store) Events(ctx context.Context) iter.Seq[Event] {
	l := s.events.add()
	context.AfterFunc(ctx, func() { s.events.remove(l) })
	var ranged atomic.Bool
	return func(yield func(Event) bool) {
		if ranged.Swap(true) {
			return
		}
		defer s.events.remove(l)
		for ended := false; ; {
			for _, event := range s.events.take(l) {
				if !yield(event) {
					return
				}
			}
			if ended {
				return
			}
			select {
			case <-l.wake:
			case <-ctx.Done():
				ended = true
			case <-s.pool.closing:
				ended = true
			}
		}
	}
}
