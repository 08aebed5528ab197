package cairn_test

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// TestRequestsAreIsolated has requests of one batch fail in every way. Each
// gets its own outcome; nothing of a failed one stays.
func TestRequestsAreIsolated(t *testing.T) {
	s := open(t, ":memory:", nil)
	exec := func(conn *sqlite.Conn, text string) error { return sqlitex.ExecuteTransient(conn, text, nil) }
	if err := s.Exec(t.Context(), `create table t (x integer primary key)`); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	var wg sync.WaitGroup
	gate := make(chan struct{})
	wg.Go(func() { // holds the writer up, so that the rest becomes one batch
		s.OnWriter(context.Background(), func(*sqlite.Conn) error { <-gate; return nil })
	})
	const n = 40
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			errs[i] = s.OnWriter(context.Background(), func(conn *sqlite.Conn) error {
				err := exec(conn, "insert into t values ("+string(rune('0'+i%10))+" + 100 * "+string(rune('0'+i/10))+")")
				switch {
				case err != nil:
					return err
				case i%5 == 1:
					return broken
				case i%5 == 2:
					return exec(conn, "insert into t select x from t") // a constraint
				case i%5 == 3:
					exec(conn, "rollback") // takes the neighbours' work with it
					return broken
				}
				return nil
			})
		})
	}
	close(gate)
	wg.Wait()
	for i, err := range errs {
		if ok := i%5 == 0 || i%5 == 4; ok != (err == nil) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if got := count(t, s, "t"); got != n*2/5 {
		t.Errorf("%d requests stayed, want %d", got, n*2/5)
	}
}

// TestCancelBeforeStart withdraws requests that wait, and not the one that
// runs.
func TestCancelBeforeStart(t *testing.T) {
	s := open(t, ":memory:", nil)
	gate, running := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var first error
	wg.Go(func() {
		first = s.OnWriter(ctx, func(*sqlite.Conn) error { close(running); <-gate; return nil })
	})
	<-running
	waiting := make([]error, 5)
	var queued sync.WaitGroup
	for i := range waiting {
		queued.Go(func() {
			waiting[i] = s.OnWriter(ctx, func(*sqlite.Conn) error { t.Error("a withdrawn request ran"); return nil })
		})
	}
	cancel()
	queued.Wait() // while the writer is still held up
	close(gate)
	wg.Wait()
	if first != nil {
		t.Errorf("the running request: %v", first)
	}
	for _, err := range waiting {
		mustBe(t, err, context.Canceled)
	}
	mustBe(t, s.OnWriter(ctx, func(*sqlite.Conn) error { return nil }), context.Canceled)
}

// TestQueueIsBounded fills the queue with bytes; the next writer waits, and can
// give up.
func TestQueueIsBounded(t *testing.T) {
	s := open(t, ":memory:", nil)
	gate, running := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		s.OnWriter(context.Background(), func(*sqlite.Conn) error { close(running); <-gate; return nil })
	})
	<-running
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 2*cairn.QueueBytes/cairn.SegmentSize + 1 {
		waiting.Go(func() {
			_, err := s.AddBytes(ctx, content(1, cairn.SegmentSize-1), nil)
			mustBe(t, err, context.Canceled)
		})
	}
	const fit = cairn.QueueBytes/cairn.SegmentSize - 1
	for s.Queued() < fit {
		runtime.Gosched()
	}
	for range 100 {
		runtime.Gosched()
		if n := s.Queued(); n > fit {
			t.Fatalf("%d requests of 1 MiB are queued", n)
		}
	}
	cancel()
	waiting.Wait() // while the writer is still held up
	close(gate)
	wg.Wait()
}

// TestCommitFails has the COMMIT of a batch fail. Every waiter is told, nothing
// of the batch stays, and the next one is written.
func TestCommitFails(t *testing.T) {
	s := open(t, ":memory:", nil)
	err := s.OnWriter(t.Context(), func(conn *sqlite.Conn) error {
		return sqlitex.ExecuteScript(conn, `
			create table parent (x integer primary key);
			create table offspring (x references parent deferrable initially deferred);`, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.OnWriter(t.Context(), func(conn *sqlite.Conn) error {
		// Outside the transaction, where alone the pragma has an effect.
		for _, text := range []string{"rollback", "pragma foreign_keys = on", "begin immediate"} {
			if err := sqlitex.ExecuteTransient(conn, text, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	gate, running := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		s.OnWriter(context.Background(), func(*sqlite.Conn) error { close(running); <-gate; return nil })
	})
	<-running
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			if i == 3 {
				errs[i] = s.Exec(context.Background(), "insert into offspring values (1)")
			} else {
				_, errs[i] = s.AddBytes(context.Background(), content(uint64(i), 10_000), nil)
			}
		})
	}
	for s.Queued() < len(errs) {
		runtime.Gosched()
	}
	close(gate)
	wg.Wait()
	for i, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "commit") {
			t.Errorf("waiter %d: %v", i, err)
		}
	}
	if n := count(t, s, "blob"); n != 0 {
		t.Errorf("%d blobs stayed", n)
	}
	add(t, s, content(1, 10_000))
}

// TestCloseDrains closes while adds are queued. Each is done or refused.
func TestCloseDrains(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	var wg sync.WaitGroup
	done := make([]bool, 64)
	started := make(chan struct{}, len(done))
	for i := range done {
		wg.Go(func() {
			started <- struct{}{}
			_, err := s.AddBytes(context.Background(), content(uint64(i), 50_000+i*40_000), nil)
			if err != nil {
				mustBe(t, err, cairn.ErrClosed)
			}
			done[i] = err == nil
		})
	}
	for range len(done) / 2 {
		<-started
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	s = open(t, path, nil)
	mustBeSound(t, s)
	for i, ok := range done {
		if ok {
			mustHave(t, s, content(uint64(i), 50_000+i*40_000))
		}
	}
}

// TestFull fills the database to a page limit. The failing add leaves
// nothing, what is there reads, and there is room again after a deletion.
func TestFull(t *testing.T) {
	for _, path := range []string{tempPath(t), ":memory:"} {
		s := open(t, path, nil)
		if err := s.Exec(t.Context(), "pragma max_page_count = 2000"); err != nil { // 8 MB
			t.Fatal(err)
		}
		fill(t, s, func() {})
	}
}

// TestDiskFull does the same on a real file system without space.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	s, err := cairn.Open(t.Context(), filepath.Join(dir, "cairn.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	size := 48
	grow := func(by int) {
		size += by
		option := fmt.Sprintf("remount,size=%dm", size)
		if out, err := exec.Command("mount", "-o", option, dir).CombinedOutput(); err != nil {
			t.Fatalf("no room: %v: %s", err, out)
		}
	}
	fill(t, s, func() { grow(48) })
	// What the WAL holds has to find room in the database.
	grow(256)
}

// fill adds until the store is full, makes room, deletes everything, and does
// it again.
func fill(t *testing.T, s *cairn.Store, makeRoom func()) {
	t.Helper()
	for range 2 {
		var kept []uint64
		for seed := uint64(0); ; seed++ {
			tag, err := s.AddBytes(t.Context(), content(seed, 1<<20), nil)
			if err != nil {
				mustBe(t, err, cairn.ErrFull)
				break
			}
			tag.Release()
			kept = append(kept, seed)
			if len(kept) > 100 {
				t.Fatal("never full")
			}
		}
		if len(kept) == 0 {
			t.Fatalf("full after %d MiB", len(kept))
		}
		_, err := s.AddBytes(t.Context(), content(99, 100<<20), nil) // in many batches
		mustBe(t, err, cairn.ErrFull)
		mustBeSound(t, s)
		if st, err := s.Stats(t.Context()); err != nil || st.Blobs != int64(len(kept)) {
			t.Errorf("%+v, %v; want %d blobs", st, err, len(kept))
		}
		for _, seed := range kept {
			mustHave(t, s, content(seed, 1<<20))
		}
		makeRoom()
		for _, seed := range kept {
			if err := s.Delete(t.Context(), hashOf(content(seed, 1<<20))); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustBeEmpty(t, s)
}

// TestSyncFails has the sync of a commit fail: the write is in the log, but
// may not be durable. Its waiter gets the error, nothing more is written, and
// the next Open finds a sound database, with the write (it was persisted) or
// without it.
func TestSyncFails(t *testing.T) {
	path := tempPath(t)
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, []byte("before"))
	if err := s.BreakSync(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"lost or not", "after"} {
		if _, err := s.AddBytes(t.Context(), []byte(text), nil); err == nil || !strings.Contains(err.Error(), "sync") {
			t.Errorf("%q after a failed sync: %v", text, err)
		}
	}
	mustHave(t, s, []byte("before"))
	s.Close()
	s = open(t, path, nil)
	mustBeSound(t, s)
	mustHave(t, s, []byte("before"))
	if st, err := s.Status(t.Context(), hashOf([]byte("after"))); err != nil || st.State != cairn.Absent {
		t.Errorf("a write after the failure was kept: %v, %v", st, err)
	}
	add(t, s, []byte("after"))
}

// TestForeignWriter has another process hold a write transaction. Our write
// waits and succeeds, and reads go on.
func TestForeignWriter(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	add(t, s, []byte("x"))
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := sqlitex.ExecuteTransient(conn, "begin immediate", nil); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		_, err := s.AddBytes(context.Background(), []byte("y"), nil)
		result <- err
	}()
	mustHave(t, s, []byte("x"))
	select {
	case err := <-result:
		t.Errorf("wrote while another had the lock: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := sqlitex.ExecuteTransient(conn, "rollback", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestWALIsBounded writes many times the limit and looks at the file.
func TestWALIsBounded(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	for i := range 3 * cairn.WALLimit / cairn.SegmentSize {
		h := add(t, s, content(uint64(i), cairn.SegmentSize-1))
		if _, err := read(t.Context(), s, h); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > cairn.WALLimit+4*cairn.BatchBytes {
			t.Fatalf("WAL of %d MiB", info.Size()>>20)
		}
	}
	mustBeSound(t, s)
}

func TestCounters(t *testing.T) {
	m := expvar.Get("cairn").(*expvar.Map)
	get := func(name string) int64 { return m.Get(name).(*expvar.Int).Value() }
	before := []int64{get("batches"), get("requests"), get("bytes"), get("commit_ns")}
	s := open(t, ":memory:", nil)
	add(t, s, content(1, 10_000))
	after := []int64{get("batches"), get("requests"), get("bytes"), get("commit_ns")}
	for i, least := range []int64{1, 1, 10_000, 1} {
		if after[i]-before[i] < least {
			t.Errorf("counter %d went from %d to %d", i, before[i], after[i])
		}
	}
}

func TestRelaxed(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, &cairn.Options{Durability: cairn.Relaxed, Readers: 1})
	big := content(1, 3<<20)
	add(t, s, big)
	mustHave(t, s, big)
	s.Close()
	s = open(t, path, nil)
	mustHave(t, s, big)
}
