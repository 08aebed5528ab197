package cairn_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
)

// A logWatch keeps what is logged.
type logWatch struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
	news  chan struct{}
}

func newLogWatch() *logWatch {
	return &logWatch{Handler: slog.DiscardHandler, news: make(chan struct{}, 1)}
}

func (w *logWatch) Enabled(context.Context, slog.Level) bool { return true }

func (w *logWatch) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
	select {
	case w.news <- struct{}{}:
	default:
	}
	return nil
}

// has reports whether a line has all these parts.
func (w *logWatch) has(parts ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.lines {
		ok := true
		for _, part := range parts {
			ok = ok && strings.Contains(line, part)
		}
		if ok {
			return true
		}
	}
	return false
}

// TestGCInBackground collects by itself, and goes on after an error, which it logs.
func TestGCInBackground(t *testing.T) {
	log := newLogWatch()
	s := open(t, tempPath(t), &cairn.Options{GCInterval: time.Millisecond, Logger: slog.New(log)})
	gone := func(data []byte) bool { return must(s.Status(t.Context(), hashOf(data))).State == cairn.Absent }
	keep, junk, odd := []byte("keep"), []byte("junk"), []byte("odd")
	tag := must(s.AddBytes(t.Context(), keep, &cairn.AddOptions{Tag: "keep"}))
	tag.Release()
	add(t, s, junk)
	for !gone(junk) {
		runtime.Gosched()
	}
	setTag(t, s, "odd", seqOf(hashOf(odd)))
	add(t, s, odd)
	for !log.has("ERROR") && !log.has("WARN") {
		<-log.news
	}
	add(t, s, junk)
	mustHave(t, s, junk)
	setTag(t, s, "odd", raw(hashOf(odd)))
	for !gone(junk) {
		runtime.Gosched()
	}
	mustHave(t, s, keep)
	mustHave(t, s, odd)
}

// leak makes a temp tag and forgets it.
func leak(s *cairn.Store, data []byte) (line int) {
	s.TempTag(raw(hashOf(data)))
	_, _, line, _ = runtime.Caller(0)
	return line - 1
}

// TestTempTagIsForgotten makes a temp tag that becomes garbage. It is logged with
// the place, and still protects; one that was released is not logged.
func TestTempTagIsForgotten(t *testing.T) {
	log := newLogWatch()
	s := open(t, tempPath(t), &cairn.Options{Logger: slog.New(log)})
	data := []byte("data")
	must(s.AddBytes(t.Context(), data, nil)).Release()
	s.TempTag(seqOf(hashOf(data))).Release()
	line := leak(s, data)
	_, file, _, _ := runtime.Caller(0)
	for !log.has(filepath.Base(file) + ":" + strconv.Itoa(line)) {
		runtime.GC()
		runtime.Gosched()
	}
	collectAll(t, s)
	mustHave(t, s, data)
	if n := len(log.lines); n != 1 {
		t.Errorf("logged %q", log.lines)
	}
}
