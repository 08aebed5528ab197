package cairn_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
)

// put stores a complete piece, and holds nobody up if that fails.
func put(s *cairn.Store, key string, b []byte) error {
	_, err := s.PutPiece(context.Background(), key, bytes.NewReader(b), -1, nil)
	return err
}

// TestMadeAndReplacedInOneBatch has one request make what is held already, and
// the next one of the same batch take it away.
func TestMadeAndReplacedInOneBatch(t *testing.T) {
	s := open(t, tempPath(t), nil)
	a, b := content(1, 50_000), content(2, 50_000)
	tag := s.TempTag(cairn.HashAndFormat{Hash: hashOf(a)})
	release := holdWriter(s)
	var wg sync.WaitGroup
	for i, c := range [][]byte{a, b} {
		wg.Go(func() {
			if err := put(s, "k", c); err != nil {
				t.Error(err)
			}
		})
		waitQueued(s, i+1)
	}
	release()
	wg.Wait()
	mustHave(t, s, a)
	mustHave(t, s, b)
	tag.Release()
	mustBeSound(t, s)
}

// TestHeldAgain releases what a deleted piece was, and takes hold of it again
// before anything is written.
func TestHeldAgain(t *testing.T) {
	s := open(t, tempPath(t), nil)
	a := content(1, 50_000)
	putPiece(t, s, "k", a, nil)
	tag := s.TempTag(cairn.HashAndFormat{Hash: hashOf(a)})
	if err := must(s.OpenPiece(t.Context(), "k")).Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	tag.Release()
	b := must(s.Blob(t.Context(), hashOf(a)))
	add(t, s, content(9, 10))
	if _, err := b.ReadAt(make([]byte, 100), 0); err != nil {
		t.Errorf("what is open is gone: %v", err)
	}
	b.Close()
	add(t, s, content(8, 10))
	mustNotHave(t, s, a)
	mustBeSound(t, s)
}

// TestReplacedPinnedPieces replaces the content of a pinned key again and again:
// what it was leaves no rows.
func TestReplacedPinnedPieces(t *testing.T) {
	const n = 1 << 20
	s := open(t, tempPath(t), &cairn.Options{Capacity: 4 * n})
	putPiece(t, s, "k", content(0, n), nil)
	pin := must(s.Pin(t.Context(), cairn.Window{Keys: []string{"k"}}))
	defer pin.Release()
	for i := range 12 {
		putPiece(t, s, fmt.Sprint("x", i), content(uint64(100+i), n), nil)
		if err := put(s, "k", content(uint64(200+i), n)); err != nil {
			t.Fatal(err)
		}
	}
	add(t, s, []byte("one more transaction"))
	u := must(s.Usage(t.Context()))
	if rows := count(t, s, "row"); int64(rows) > u.Used/16384+1 {
		t.Errorf("%d rows for %d bytes", rows, u.Used)
	}
	mustBeSound(t, s)
}

// TestReadBeforeTheWrite reads a piece before a write is made that joins a batch
// which has begun already.
func TestReadBeforeTheWrite(t *testing.T) {
	const n = 100_000
	s := open(t, tempPath(t), &cairn.Options{Capacity: 3 * n})
	for i := range uint64(3) {
		putPiece(t, s, fmt.Sprint("k", i), content(i, n), nil)
	}
	release := holdWriter(s)
	p := must(s.OpenPiece(t.Context(), "k0"))
	if _, err := p.ReadAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := put(s, "new", content(50, n)); err != nil {
			t.Error(err)
		}
	})
	waitQueued(s, 1)
	release()
	wg.Wait()
	mustHaveKeys(t, s, "k0", "k2", "new")
}

// TestSharedDamage writes a damaged piece anew that another key shares.
func TestSharedDamage(t *testing.T) {
	path := tempPath(t)
	a := content(1, 50_000)
	s := open(t, path, nil)
	for _, key := range []string{"k1", "k2"} {
		putPiece(t, s, key, a, nil)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sql(t, path, `update row set data = zeroblob(16384) where id = (select min(id) from row)`)
	s = open(t, path, nil)
	p := openPiece(t, s, "k1", len(a), nil)
	if err := p.Incomplete(t.Context()); err != nil {
		t.Fatal(err)
	}
	writePiece(t, p, a, 0)
	completePiece(t, p, a)
	mustRead(t, p, a)
	mustRead(t, openPiece(t, s, "k2", len(a), nil), a)
	checkOutboard(t, s, a)
	mustBeSound(t, s)
}

// TestCapacityIsANumber has another program set a capacity that cannot be one.
func TestCapacityIsANumber(t *testing.T) {
	s := open(t, tempPath(t), &cairn.Options{Capacity: 1000})
	for _, value := range []string{"'30000'", "-1", "1.5", "x'00'"} {
		if err := s.Exec(t.Context(), `update "setting" set "value" = `+value); err == nil {
			t.Errorf("capacity %s is accepted", value)
		}
	}
}
