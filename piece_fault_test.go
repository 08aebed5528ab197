package cairn_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
)

// TestPieceCommitFails has the commit of a batch fail in which pieces are
// written, completed, deleted and evicted. Every caller is told, nothing of it
// stays, and nothing that was noted of it in memory does harm.
func TestPieceCommitFails(t *testing.T) {
	s := open(t, tempPath(t), &cairn.Options{Capacity: 250_000})
	ctx := t.Context()
	if err := s.ExecScript(ctx, `
		create table parent (x integer primary key);
		create table offspring (x references parent deferrable initially deferred);`); err != nil {
		t.Fatal(err)
	}
	if err := s.OutsideTransaction(ctx, "pragma foreign_keys = on"); err != nil {
		t.Fatal(err)
	}
	first, second := content(1, 100_000), content(2, 100_000)
	putPiece(t, s, "old", content(3, 100_000), nil)
	putPiece(t, s, "gone", content(4, 10_000), nil)
	a, done := openPiece(t, s, "a", len(first), nil), openPiece(t, s, "done", 20_000, nil)
	writePiece(t, a, first[:50_000], 0)
	writePiece(t, done, content(5, 20_000), 0)
	eventsCtx, cancel := context.WithCancel(ctx)
	events := s.Events(eventsCtx)
	release := holdWriter(s)
	var wg sync.WaitGroup
	calls := []func() error{
		func() error { _, err := a.WriteAt(second, 0); return err },
		func() error { _, err := done.Complete(ctx); return err },
		func() error { return must(s.OpenPiece(ctx, "gone")).Delete(ctx) },
		func() error { _, err := s.PutPiece(ctx, "put", strings.NewReader(string(first)), -1, nil); return err },
		func() error { return s.SetCapacity(ctx, 240_000) },
		func() error { return s.Exec(ctx, "insert into offspring values (1)") },
	}
	errs := make([]error, len(calls))
	for i, call := range calls {
		wg.Go(func() { errs[i] = call() })
	}
	waitQueued(s, len(calls))
	release()
	wg.Wait()
	for i, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "commit") {
			t.Errorf("call %d: %v", i, err)
		}
	}
	cancel()
	for e := range events {
		t.Errorf("told of %+v", e)
	}
	if c := s.Capacity(); c != 250_000 {
		t.Errorf("capacity %d", c)
	}
	mustHaveKeys(t, s, "a", "done", "gone", "old")
	mustHaveWritten(t, s, "a", first, []cairn.ByteRange{{Start: 0, End: 50_000}})
	if err := s.ExecScript(ctx, "drop table offspring; drop table parent"); err != nil {
		t.Fatal(err)
	}
	writePiece(t, a, first[50_000:], 50_000)
	completePiece(t, a, first)
	completePiece(t, done, content(5, 20_000))
	mustRead(t, a, first)
	mustBeSound(t, s)
}

// TestPieceSyncFails has the sync fail of a write, and of a completion. The
// caller is told. After an Open both may be there, or not; what was acknowledged
// is.
func TestPieceSyncFails(t *testing.T) {
	b := content(1, 100_000)
	for name, change := range map[string]func(p *cairn.Piece) error{
		"write":    func(p *cairn.Piece) error { _, err := p.WriteAt(b[50_000:], 50_000); return err },
		"complete": func(p *cairn.Piece) error { _, err := p.Complete(context.Background()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			path := tempPath(t)
			s := must(cairn.Open(t.Context(), path, nil))
			acknowledged := 50_000
			if name == "complete" {
				acknowledged = len(b)
			}
			p := openPiece(t, s, "a", len(b), nil)
			writePiece(t, p, b[:acknowledged], 0)
			if err := s.BreakSync(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := change(p); err == nil {
					t.Error("acknowledged, and not durable")
				}
			}
			s.Close()
			s = open(t, path, nil)
			p = openPiece(t, s, "a", len(b), nil)
			written, err := p.Written(t.Context())
			if err != nil || len(written) != 1 || written[0].Start != 0 || int(written[0].End) < acknowledged {
				t.Errorf("written %v, %v", written, err)
			}
			mustHaveWritten(t, s, "a", b, written)
			writePiece(t, p, b[50_000:], 50_000)
			completePiece(t, p, b)
			mustBeSound(t, s)
		})
	}
}

// TestPieceFull fills the database to a page limit in the middle of a piece.
func TestPieceFull(t *testing.T) {
	for _, path := range []string{tempPath(t), ":memory:"} {
		s := open(t, path, nil)
		limit := func(pages int) {
			if err := s.Exec(t.Context(), fmt.Sprintf("pragma max_page_count = %d", pages)); err != nil {
				t.Fatal(err)
			}
		}
		limit(1500) // 6 MB
		fillPiece(t, s, func() { limit(10_000) })
	}
}

// TestPieceDiskFull does the same on a file system without space.
func TestPieceDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	s := must(cairn.Open(t.Context(), filepath.Join(dir, "cairn.db"), nil))
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	fillPiece(t, s, func() {
		if out, err := exec.Command("mount", "-o", "remount,size=256m", dir).CombinedOutput(); err != nil {
			t.Fatalf("no room: %v: %s", err, out)
		}
	})
}

// fillPiece writes a piece that there is no room for, from two goroutines, makes
// room, and writes the rest.
func fillPiece(t *testing.T, s *cairn.Store, makeRoom func()) {
	t.Helper()
	b := content(1, 28<<20)
	const block = 100_000
	p := openPiece(t, s, "a", len(b), nil)
	var mu sync.Mutex
	var written []cairn.ByteRange
	write := func(off int) error {
		data := b[off:min(len(b), off+block)]
		_, err := p.WriteAt(data, int64(off))
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			written = addRange(written, cairn.ByteRange{Start: int64(off), End: int64(off + len(data))})
		}
		return err
	}
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			full := 0
			for off := g * block; off < len(b) && full < 5; off += 2 * block {
				if err := write(off); errors.Is(err, cairn.ErrFull) {
					full++
				} else if err != nil {
					t.Errorf("at %d: %v", off, err)
				}
			}
			if full < 5 {
				t.Error("never full")
			}
		})
	}
	wg.Wait()
	mustHaveWritten(t, s, "a", b, written)
	mustBeSound(t, s)
	if _, err := p.Complete(t.Context()); !errors.Is(err, cairn.ErrMissing) {
		t.Errorf("completed: %v", err)
	}
	makeRoom()
	for _, r := range gapsOf(written, len(b)) {
		writePiece(t, p, b[r.Start:r.End], int(r.Start))
	}
	completePiece(t, p, b)
	mustRead(t, p, b)
	mustBeSound(t, s)
}

// TestPieceForeignWriter has somebody else hold a write transaction for a while.
// All changes wait, and are made then.
func TestPieceForeignWriter(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	ctx := t.Context()
	b := content(1, 100_000)
	p := openPiece(t, s, "a", len(b), nil)
	writePiece(t, p, b[:50_000], 0)
	putPiece(t, s, "b", content(2, 1_000), nil)
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := execOn(conn, "begin immediate"); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 3)
	go func() { _, err := p.WriteAt(b[50_000:], 50_000); results <- err }()
	go func() { results <- must(s.OpenPiece(ctx, "b")).Delete(ctx) }()
	go func() { results <- s.SetCapacity(ctx, 200_000) }()
	buf := make([]byte, 50_000)
	for range 20 { // what is there reads meanwhile
		if n, err := p.ReadAt(buf, 0); n != len(buf) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	select {
	case err := <-results:
		t.Errorf("changed while another had the lock: %v", err)
	default:
	}
	if err := execOn(conn, "rollback"); err != nil {
		t.Fatal(err)
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	completePiece(t, p, b)
	mustHaveKeys(t, s, "a")
	mustBeSound(t, s)
}
