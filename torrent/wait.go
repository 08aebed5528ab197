package torrent

import (
	"errors"
	"log/slog"
	"time"

	"github.com/cairnstore/cairn"
)

// The client stops downloading a torrent for good when a write fails, so a
// write that the store refuses for want of room is tried again, after pauses
// that grow from the first to the second of these.
const (
	minPause = 10 * time.Millisecond
	maxPause = time.Second
)

// A wait is one write's waiting for room.
type wait struct {
	p     *piece
	op    string
	pause time.Duration // 0 before the first one
}

func newWait(p *piece, op string) wait { return wait{p: p, op: op} }

// again reports whether a write that got err is to be tried again, after it
// has paused. The first time there is no pause if there were pins to give up,
// which may have been all that was in the way.
func (w *wait) again(err error) bool {
	t := w.p.t
	if t.patience.Err() != nil || !passes(err) {
		return false
	}
	released := t.s.pins.releaseIdle(func(*reader) bool { return true })
	if w.pause == 0 {
		w.pause = minPause
		if released {
			return true
		}
	}
	t.s.log.Log(t.ctx, w.level(), "a write waits",
		"op", w.op, "torrent", t.owner, "piece", w.p.index, "pause", w.pause, "err", err)
	timer := time.NewTimer(w.pause)
	defer timer.Stop()
	w.pause = min(2*w.pause, maxPause)
	select {
	case <-timer.C:
		return true
	case <-t.patience.Done():
		return false
	}
}

// level tells whether a wait has become long enough for a warning.
func (w *wait) level() slog.Level {
	if w.pause < maxPause {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// passes reports whether what a write failed of can pass: everything but what
// says that this write, on this database, is wrong for ever.
func passes(err error) bool {
	for _, lasting := range []error{
		cairn.ErrClosed, cairn.ErrReadOnly, cairn.ErrCorrupt, cairn.ErrNotCairn,
		cairn.ErrMismatch, cairn.ErrMissing, cairn.ErrNotFound,
	} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	return true
}
