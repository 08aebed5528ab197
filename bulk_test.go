package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// gated is a reader of n bytes that calls at[k] before it gives byte k.
type gated struct {
	r  io.Reader
	n  int
	at map[int]func()
}

func (g *gated) Read(p []byte) (int, error) {
	if f := g.at[g.n]; f != nil {
		delete(g.at, g.n)
		f()
	}
	next := g.n + len(p)
	for k := range g.at {
		if g.n < k && k < next {
			next = k
		}
	}
	m, err := io.ReadFull(g.r, p[:next-g.n])
	g.n += m
	if err == io.ErrUnexpectedEOF {
		err = nil
	}
	return m, err
}

// bulkSize is an add that spends most of its time in bulk mode.
const bulkSize = cairn.BulkMin + 100<<20

// TestBulkMode checks that a large add is in bulk mode in its middle, and that
// everybody who wants to do something meanwhile can.
func TestBulkMode(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	small := content(8, 50_000)
	add(t, s, small)
	data := content(7, bulkSize)
	modes := make(map[string]bool)
	mode := func() {
		// The journal is there while a bulk transaction is open.
		_, err := os.Stat(path + "-journal")
		modes[map[bool]string{true: "bulk", false: "wal"}[err == nil]] = true
	}
	at := map[int]func(){
		5 << 20:  mode,
		60 << 20: mode,
		61 << 20: func() { mustHave(t, s, small) },
		80 << 20: func() { add(t, s, content(9, 100)); mode() },
		81 << 20: func() {
			if st, err := s.Status(t.Context(), hashOf(data)); err != nil || st.State != cairn.Absent {
				t.Errorf("seen before its end: %v, %v", st, err)
			}
		},
	}
	tag, err := s.Add(t.Context(), &gated{r: bytes.NewReader(data), at: at}, nil)
	if err != nil {
		t.Fatal(err)
	}
	tag.Release()
	if !modes["bulk"] || !modes["wal"] {
		t.Errorf("modes seen: %v", modes)
	}
	mustHave(t, s, data)
	mustHave(t, s, content(9, 100))
	mustBeSound(t, s)
	add(t, s, []byte("later"))
	if _, err := os.Stat(path + "-journal"); err == nil {
		t.Error("the journal is still there")
	}
}

// TestBulkModeTwice runs two large adds at once, with readers beside them.
func TestBulkModeTwice(t *testing.T) {
	s := open(t, tempPath(t), nil)
	small := content(8, 50_000)
	add(t, s, small)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for i := range 2 {
		wg.Go(func() {
			tag, err := s.AddBytes(context.Background(), content(uint64(i), 50<<20), nil)
			if err != nil {
				t.Error(err)
				return
			}
			tag.Release()
		})
	}
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if got, err := read(context.Background(), s, hashOf(small)); err != nil || !bytes.Equal(got, small) {
					t.Errorf("beside a large add: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	cancel()
	readers.Wait()
	for i := range 2 {
		mustHave(t, s, content(uint64(i), 50<<20))
	}
	mustBeSound(t, s)
}

// TestBulkModeForeignReader has another connection read from before bulk mode,
// which keeps the WAL, and begin to read during it, which ends with a commit.
func TestBulkModeForeignReader(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	data := content(7, bulkSize)
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetBusyTimeout(10 * time.Second)
	query := func() {
		if err := sqlitex.ExecuteTransient(conn, "select count(*) from blobs", nil); err != nil {
			t.Error(err)
		}
	}
	query()
	for range 2 {
		h := add(t, s, data)
		query()
		if err := s.Delete(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		mustBeSound(t, s)
	}
}

// TestBulkModeFull fills the database in the middle of bulk mode, with a
// request behind the one that fails. Everybody is answered, nothing remains,
// and writing goes on.
func TestBulkModeFull(t *testing.T) {
	s := open(t, tempPath(t), nil)
	if err := s.Exec(t.Context(), "pragma max_page_count = 12000"); err != nil { // 48 MB
		t.Fatal(err)
	}
	for i := range 3 {
		at := map[int]func(){}
		if i > 0 { // somebody else is writing at that moment
			at[(25+5*i)<<20] = func() { add(t, s, content(uint64(i), 1000)) }
		}
		_, err := s.Add(t.Context(), &gated{r: bytes.NewReader(content(7, bulkSize)), at: at}, nil)
		mustBe(t, err, cairn.ErrFull)
		mustBeSound(t, s)
		add(t, s, content(uint64(100+i), 2<<20))
	}
	if n := count(t, s, "blob"); n != 5 {
		t.Errorf("%d blobs", n)
	}
}

// TestBulkModeEnds cancels the add, and closes the store, in bulk mode.
func TestBulkModeEnds(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	at := map[int]func(){50 << 20: func() { cancel(stop) }}
	_, err := s.Add(ctx, &gated{r: bytes.NewReader(content(7, bulkSize)), at: at}, nil)
	mustBe(t, err, stop)
	mustBeEmpty(t, s)
	at = map[int]func(){50 << 20: func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}}
	_, err = s.Add(t.Context(), &gated{r: bytes.NewReader(content(7, bulkSize)), at: at}, nil)
	mustBe(t, err, cairn.ErrClosed)
	s = open(t, path, nil)
	mustBeEmpty(t, s) // waits for the sweep
}

// TestBulkModeKilled kills a process in bulk mode. The journal that it leaves
// is rolled back by whoever opens the database, if only to read it.
func TestBulkModeKilled(t *testing.T) {
	for _, readOnly := range []bool{true, false} {
		path := tempPath(t)
		c := startChild(t, "bulk", path)
		for c.stdout.Text() != "bulk" && c.stdout.Scan() {
		}
		c.kill(t)
		if _, err := os.Stat(path + "-journal"); err != nil {
			t.Fatalf("not killed in bulk mode: %v", err)
		}
		s := open(t, path, &cairn.Options{ReadOnly: readOnly})
		mustHave(t, s, []byte("before"))
		mustBeSound(t, s)
		if !readOnly {
			if n := count(t, s, "blob"); n != 1 {
				t.Errorf("%d blobs", n)
			}
		}
	}
}

// childBulk is the child of TestBulkModeKilled.
func childBulk(s *cairn.Store, path string, ready func(string)) error {
	ctx := context.Background()
	if _, err := s.AddBytes(ctx, []byte("before"), nil); err != nil {
		return err
	}
	ready("ready")
	at := map[int]func(){}
	for n := cairn.BulkMin + 30<<20; n < bulkSize; n += 1 << 20 {
		at[n] = func() {
			if _, err := os.Stat(path + "-journal"); err == nil {
				ready("bulk")
			}
		}
	}
	_, err := s.Add(ctx, &gated{r: io.MultiReader(bytes.NewReader(content(1, bulkSize)), strings.NewReader("x")), at: at}, nil)
	return err
}
