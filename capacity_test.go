package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// putPiece stores a complete piece.
func putPiece(t testing.TB, s *cairn.Store, key string, b []byte, opts *cairn.PieceOptions) {
	t.Helper()
	p := openPiece(t, s, key, len(b), opts)
	writePiece(t, p, b, 0)
	completePiece(t, p, b)
}

// keysOf lists the keys of all pieces.
func keysOf(t testing.TB, s *cairn.Store) (keys []string) {
	t.Helper()
	for info, err := range s.Pieces(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func mustHaveKeys(t testing.TB, s *cairn.Store, want ...string) {
	t.Helper()
	if got := keysOf(t, s); !slices.Equal(got, want) {
		t.Fatalf("pieces %v, want %v", got, want)
	}
}

func TestEvictFirst(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, &cairn.Options{Capacity: 50_000})
	ctx := t.Context()
	for i := range 5 {
		putPiece(t, s, fmt.Sprint(i), content(uint64(i), 10_000), nil)
	}
	for _, key := range []string{"4", "2", "3"} {
		if err := must(s.OpenPiece(ctx, key)).EvictFirst(ctx); err != nil {
			t.Fatal(err)
		}
	}
	mustRead(t, must(s.OpenPiece(ctx, "2")), content(2, 10_000)) // it is used again
	putPiece(t, s, "5", content(5, 10_000), nil)
	mustHaveKeys(t, s, "0", "1", "2", "3", "5")
	for info, err := range s.Pieces(ctx, nil) {
		if age := time.Since(info.LastUsed); err != nil || age < 0 || age > time.Hour {
			t.Errorf("%+v, %v", info, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, nil)
	putPiece(t, s, "6", content(6, 10_000), nil)
	putPiece(t, s, "7", content(7, 10_000), nil)
	mustHaveKeys(t, s, "1", "2", "5", "6", "7")
	unfinished := openPiece(t, s, "8", 10_000, nil)
	for range 2 { // absent, and being written
		if err := unfinished.EvictFirst(ctx); err != nil {
			t.Error(err)
		}
		writePiece(t, unfinished, content(8, 5_000), 0)
	}
	putPiece(t, s, "9", content(9, 10_000), nil)
	mustHaveKeys(t, s, "5", "6", "7", "8", "9")
	unfinished.Close()
	mustBe(t, unfinished.EvictFirst(ctx), cairn.ErrClosed)
}

func TestCapacityEvictsLeastRecentlyUsed(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, &cairn.Options{Capacity: 50_000})
	ctx := t.Context()
	for i := range 5 {
		putPiece(t, s, fmt.Sprint(i), content(uint64(i), 10_000), nil)
	}
	mustRead(t, must(s.OpenPiece(ctx, "0")), content(0, 10_000)) // a read counts as use
	putPiece(t, s, "5", content(5, 10_000), nil)
	mustHaveKeys(t, s, "0", "2", "3", "4", "5")
	pin, err := s.Pin(ctx, cairn.Window{Keys: []string{"2", "9"}, Hashes: []cairn.Hash{hashOf(content(3, 10_000))}})
	if err != nil {
		t.Fatal(err)
	}
	putPiece(t, s, "6", content(6, 15_000), nil)
	mustHaveKeys(t, s, "2", "3", "5", "6")
	if u, err := s.Usage(ctx); err != nil || u != (cairn.Usage{Capacity: 50_000, Used: 45_000, Pinned: 20_000}) {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := openPiece(t, s, "7", 40_000, nil).WriteAt(content(7, 40_000), 0); !errors.Is(err, cairn.ErrFull) {
		t.Errorf("more than pins leave room for: %v", err)
	}
	mustHaveKeys(t, s, "2", "3", "5", "6")
	if _, err := s.Piece(ctx, "8", 50_001, nil); !errors.Is(err, cairn.ErrTooLarge) {
		t.Errorf("above the capacity: %v", err)
	}
	if _, err := s.AddBytes(ctx, content(8, 50_001), nil); !errors.Is(err, cairn.ErrTooLarge) {
		t.Errorf("add above the capacity: %v", err)
	}
	if err := s.SetCapacity(ctx, 19_999); !errors.Is(err, cairn.ErrFull) {
		t.Errorf("capacity below what is pinned: %v", err)
	}
	mustHaveKeys(t, s, "2", "3", "5", "6")
	pin.Release()
	if _, err := openPiece(t, s, "7", 40_000, nil).WriteAt(content(7, 40_000), 0); err != nil {
		t.Error(err)
	}
	mustHaveKeys(t, s, "7")
	if err := s.SetCapacity(ctx, cairn.Unlimited); err != nil {
		t.Fatal(err)
	}
	putPiece(t, s, "8", content(8, 100_000), nil)
	if err := s.SetCapacity(ctx, 100_000); err != nil {
		t.Fatal(err)
	}
	mustHaveKeys(t, s, "8")
	mustBeSound(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, nil)
	if u, err := s.Usage(ctx); err != nil || u != (cairn.Usage{Capacity: 100_000, Used: 100_000}) {
		t.Errorf("after reopening: %+v, %v", u, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestEvents(t *testing.T) {
	s := open(t, tempPath(t), &cairn.Options{Capacity: 40_000})
	ctx, cancel := context.WithCancel(t.Context())
	events := s.Events(ctx)
	a, b := content(1, 20_000), content(2, 20_000)
	putPiece(t, s, "a", a, nil)
	putPiece(t, s, "a2", a, nil)
	putPiece(t, s, "b", b, nil)
	putPiece(t, s, "c", content(9, 1_000), nil)
	if err := must(s.OpenPiece(ctx, "b")).Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Owner("o").SetQuota(ctx, 25_000); err != nil {
		t.Fatal(err)
	}
	o := &cairn.PieceOptions{Owner: "o"}
	putPiece(t, s, "o/1", content(3, 15_000), o)
	putPiece(t, s, "o/2", content(4, 15_000), o)
	cancel()
	var got []string
	for e := range events {
		got = append(got, fmt.Sprintf("%v %t %v %d", e.Reason, e.Hash != cairn.Hash{}, e.Keys, e.Size))
	}
	want := []string{"evicted true [a a2] 20000", "deleted true [b] 20000", "over quota true [o/1] 15000"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	mustBeSound(t, s)
	once := s.Events(t.Context())
	if err := must(s.OpenPiece(t.Context(), "o/2")).Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range once {
		break
	}
	for range once { // or this would wait for the end of the store
		t.Error("a sequence is ranged over twice")
	}
}

func TestQuotas(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	shared := content(1, 10_000)
	a, b := &cairn.PieceOptions{Owner: "a"}, &cairn.PieceOptions{Owner: "b"}
	putPiece(t, s, "a/shared", shared, a)
	putPiece(t, s, "a/again", shared, a)
	putPiece(t, s, "b/shared", shared, b)
	putPiece(t, s, "a/own", content(2, 5_000), a)
	for name, want := range map[string]cairn.OwnerUsage{
		"a": {Name: "a", Pieces: 3, Bytes: 15_000, Quota: cairn.Unlimited},
		"b": {Name: "b", Pieces: 1, Bytes: 10_000, Quota: cairn.Unlimited},
	} {
		if u, err := s.Owner(name).Usage(ctx); err != nil || u != want {
			t.Errorf("%+v, %v, want %+v", u, err, want)
		}
	}
	if u, err := s.Usage(ctx); err != nil || u.Used != 15_000 {
		t.Errorf("%+v, %v", u, err)
	}
	if err := s.Owner("a").SetQuota(ctx, 6_000); err != nil {
		t.Fatal(err)
	}
	mustHaveKeys(t, s, "a/own", "b/shared")
	if _, err := openPiece(t, s, "a/x", 7_000, a).WriteAt([]byte("x"), 0); !errors.Is(err, cairn.ErrTooLarge) {
		t.Errorf("above the quota: %v", err)
	}
	if err := s.Owner("none").SetQuota(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := openPiece(t, s, "none/x", 1, &cairn.PieceOptions{Owner: "none"}).WriteAt([]byte("x"), 0); !errors.Is(err, cairn.ErrTooLarge) {
		t.Errorf("quota 0: %v", err)
	}
	if err := s.Owner("a").Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Owner("a").Delete(ctx); !errors.Is(err, cairn.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	mustHaveKeys(t, s, "b/shared")
	mustRead(t, must(s.OpenPiece(ctx, "b/shared")), shared)
	// What was added as a blob is not a piece's to drop.
	free := content(3, 12_000)
	add(t, s, free)
	putPiece(t, s, "b/free", free, b)
	mine := add(t, s, content(4, 1_000))
	if err := s.Owner("b").AddBlob(ctx, mine); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, mine); !errors.Is(err, cairn.ErrConflict) {
		t.Errorf("delete of what an owner has: %v", err)
	}
	if err := s.Owner("b").Delete(ctx); err != nil {
		t.Fatal(err)
	}
	mustHave(t, s, free)
	mustNotHave(t, s, shared)
	mustNotHave(t, s, content(4, 1_000))
	mustBeSound(t, s)
}

// TestSpaceGoesBack empties a store and waits until its file has shrunk.
func TestSpaceGoesBack(t *testing.T) {
	s := open(t, tempPath(t), nil)
	for i := range 20 {
		putPiece(t, s, fmt.Sprint(i), content(uint64(i), 1<<20), nil)
	}
	if _, err := s.DeletePieces(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	for {
		st, err := s.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.FreeBytes == 0 && st.WALBytes == 0 && st.FileBytes < 1<<20 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	mustBeSound(t, s)
}

// TestPutOverHeldPiece puts a piece whose old bytes are held, and used longest ago:
// that they cannot go is found out while the new ones are stored.
func TestPutOverHeldPiece(t *testing.T) {
	s := open(t, tempPath(t), &cairn.Options{Capacity: 120_000})
	if err := s.Owner("poor").SetQuota(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	writePiece(t, openPiece(t, s, "key", 60_000, nil), content(1, 50_000), 0)
	pin, err := s.Pin(t.Context(), cairn.Window{Keys: []string{"key"}})
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Release()
	add(t, s, content(2, 60_000))
	b := content(3, 60_000)
	_, err = s.PutPiece(t.Context(), "key", bytes.NewReader(b), -1, &cairn.PieceOptions{Owner: "poor"})
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, openPiece(t, s, "key", len(b), nil), b)
	mustBeSound(t, s)
	pin.Release()
	add(t, s, content(5, 10)) // the old bytes go
	mustBeSound(t, s)
	if st, err := s.Stats(t.Context()); err != nil || st.StoredBytes > 120_010 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestEvictFirstIsUndone writes to a piece that is to go first, in the transaction
// that has begun with noting that: it goes in the order of use again.
func TestEvictFirstIsUndone(t *testing.T) {
	s := open(t, tempPath(t), &cairn.Options{Capacity: 1 << 20})
	b := content(1, 100_000)
	p := openPiece(t, s, "key", len(b), nil)
	writePiece(t, p, b, 0)
	completePiece(t, p, b)
	if err := p.EvictFirst(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := holdWriter(s)
	results := make(chan error)
	go func() { _, err := p.WriteAt(b[:10], 0); results <- err }()
	waitQueued(s, 1)
	go func() {
		results <- s.OnWriter(t.Context(), func(*sqlite.Conn) error { s.NoteUse(1 << 30); return nil })
	}()
	waitQueued(s, 2)
	last := int64(0)
	go func() {
		results <- s.OnWriter(t.Context(), func(conn *sqlite.Conn) (err error) {
			last, err = sqlitex.ResultInt64(conn.Prep(`select min("last_used") from "blob"`))
			return err
		})
	}()
	waitQueued(s, 3)
	release()
	for range 3 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	if last < 0 {
		t.Error("what was written to still goes first")
	}
}
