package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
)

// TestMoveAndBack writes to a piece under another name that it has for a while.
func TestMoveAndBack(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	first, second := content(1, 100_000), content(2, 100_000)
	a := openPiece(t, s, "a/1", len(first), nil)
	writePiece(t, a, first, 0)
	if n, err := s.MovePieces(ctx, "a/", "b/"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	writePiece(t, openPiece(t, s, "b/1", len(first), nil), second, 0)
	if n, err := s.MovePieces(ctx, "b/", "a/"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	completePiece(t, a, second)
	mustRead(t, a, second)
	mustBeSound(t, s)
}

// TestWriteWhileRead writes to a complete piece, and takes its completion back,
// while somebody holds its content by the hash: that must stay, or the change be
// refused.
func TestWriteWhileRead(t *testing.T) {
	b := content(1, 100_000)
	for name, change := range map[string]func(p *cairn.Piece) error{
		"write":      func(p *cairn.Piece) error { _, err := p.WriteAt([]byte("changed"), 5); return err },
		"incomplete": func(p *cairn.Piece) error { return p.Incomplete(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, tempPath(t), nil)
			putPiece(t, s, "a", b, nil)
			handle, err := s.Blob(t.Context(), hashOf(b))
			if err != nil {
				t.Fatal(err)
			}
			defer handle.Close()
			if err := change(openPiece(t, s, "a", len(b), nil)); err != nil && !errors.Is(err, cairn.ErrConflict) {
				t.Fatal(err)
			}
			mustHave(t, s, b)
			if got, err := io.ReadAll(handle); err != nil || !bytes.Equal(got, b) {
				t.Errorf("held: %d bytes, %v", len(got), err)
			}
			mustBeSound(t, s)
		})
	}
}

// TestIncompleteWithoutRoom takes back the completion of a piece that shares its
// content with another one, where there is no room for a copy.
func TestIncompleteWithoutRoom(t *testing.T) {
	s := open(t, tempPath(t), nil)
	b := content(1, 100_000)
	putPiece(t, s, "a", b, nil)
	putPiece(t, s, "b", b, nil)
	if err := s.SetCapacity(t.Context(), 150_000); err != nil {
		t.Fatal(err)
	}
	pin, err := s.Pin(t.Context(), cairn.Window{Hashes: []cairn.Hash{hashOf(b)}})
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Release()
	mustBe(t, must(s.OpenPiece(t.Context(), "a")).Incomplete(t.Context()), cairn.ErrFull)
	mustHaveKeys(t, s, "a", "b")
	mustBeSound(t, s)
}

// TestAddOverPartial adds what is there in part, where the part is what would
// be evicted to make room.
func TestAddOverPartial(t *testing.T) {
	for _, size := range []int{50_000, 3 << 20} {
		s := open(t, tempPath(t), nil)
		b := content(1, size)
		importRanges(t, s, b, "0..16")
		add(t, s, content(2, size+30_000))
		if err := s.SetCapacity(t.Context(), int64(2*size+35_000)); err != nil {
			t.Fatal(err)
		}
		add(t, s, b)
		mustHave(t, s, b)
		mustBeSound(t, s)
	}
}

// TestOwnerCompletesPartial has an owner's partial blob be completed, where that
// is more than the quota has room for.
func TestOwnerCompletesPartial(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	b := content(1, 50_000)
	importRanges(t, s, b, "0..16")
	o := s.Owner("o")
	if err := o.AddBlob(ctx, hashOf(b)); err != nil {
		t.Fatal(err)
	}
	putPiece(t, s, "o/1", content(2, 40_000), &cairn.PieceOptions{Owner: "o"})
	if err := o.SetQuota(ctx, 60_000); err != nil {
		t.Fatal(err)
	}
	putPiece(t, s, "free", b, nil)
	mustHave(t, s, b)
	mustBeSound(t, s)
	add(t, s, b)
	mustBeSound(t, s)
}

// TestAddBlobOverQuota gives an owner the blob that was used longest ago of all
// it has then, above its quota.
func TestAddBlobOverQuota(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	old := add(t, s, content(1, 10_000))
	putPiece(t, s, "o/1", content(2, 15_000), &cairn.PieceOptions{Owner: "o"})
	if err := s.Owner("o").SetQuota(ctx, 20_000); err != nil {
		t.Fatal(err)
	}
	if err := s.Owner("o").AddBlob(ctx, old); err == nil {
		if u, err := s.Owner("o").Usage(ctx); err != nil || u.Bytes != 10_000 {
			t.Errorf("%+v, %v", u, err)
		}
	}
	mustHave(t, s, content(1, 10_000))
	mustBeSound(t, s)
}

// TestPutPieceOverQuota stores what is there already for an owner who has no
// room for it.
func TestPutPieceOverQuota(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	o := &cairn.PieceOptions{Owner: "o"}
	b := content(1, 10_000)
	add(t, s, b)
	putPiece(t, s, "o/1", content(2, 15_000), o)
	if err := s.Owner("o").SetQuota(ctx, 20_000); err != nil {
		t.Fatal(err)
	}
	pin, err := s.Pin(ctx, cairn.Window{Keys: []string{"o/1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Release()
	_, err = s.PutPiece(ctx, "o/2", bytes.NewReader(b), 10_000, o)
	mustBe(t, err, cairn.ErrFull)
	mustHaveKeys(t, s, "o/1")
	mustBeSound(t, s)
}

// TestCapacityInBatch sets the first capacity in the same batch with writes that
// it has no room for.
func TestCapacityInBatch(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	putPiece(t, s, "held", content(1, 90_000), nil)
	pin, err := s.Pin(ctx, cairn.Window{Keys: []string{"held"}})
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Release()
	open := holdWriter(s)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.SetCapacity(ctx, 100_000); err != nil {
			t.Error(err)
		}
	})
	waitQueued(s, 1)
	p := openPiece(t, s, "new", 20_000, nil)
	var written error
	wg.Go(func() { _, written = p.WriteAt(content(2, 20_000), 0) })
	waitQueued(s, 2)
	open()
	wg.Wait()
	mustBe(t, written, cairn.ErrFull)
	mustHaveKeys(t, s, "held")
	mustBeSound(t, s)
}

// TestHeldWhileEvicting has somebody get hold of each victim just when it is
// being evicted, again and again.
func TestHeldWhileEvicting(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	const n, size = 20, 1_000
	for i := range n {
		add(t, s, content(uint64(i), size))
	}
	if err := s.SetCapacity(ctx, n*size); err != nil {
		t.Fatal(err)
	}
	now, cancel := context.WithCancel(ctx)
	cancel() // to hold something at once or not at all
	var pins []*cairn.Pin
	err := s.OnWriter(ctx, func(conn *sqlite.Conn) error {
		next := cairn.Window{Hashes: []cairn.Hash{hashOf(content(uint64(len(pins)), size))}}
		if pin, err := s.Pin(now, next); err == nil && len(pins) < 10 {
			pins = append(pins, pin)
		}
		return execOn(conn, `update setting set value = 15000 where name = 'capacity'`)
	})
	if err != nil {
		mustBe(t, err, cairn.ErrFull)
	}
	for i, pin := range pins {
		mustHave(t, s, content(uint64(i), size))
		pin.Release()
	}
	mustBeSound(t, s)
}

// TestOpenWithLeftovers opens a store with a capacity that what a crash has left
// is above.
func TestOpenWithLeftovers(t *testing.T) {
	path := tempPath(t)
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := content(1, 10_000)
	add(t, s, b)
	if err := s.ExecScript(t.Context(), `
		insert into blob (id, size, state, stored, created, last_used) values (1000, 0, 0, 200000, 1, 1);`); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, &cairn.Options{Capacity: 100_000})
	mustHave(t, s, b)
	mustBeSound(t, s)
}

// TestQuotaMakesRoom has what an owner loses to its quota be room enough for the
// capacity, so that nothing else has to go.
func TestQuotaMakesRoom(t *testing.T) {
	for _, recursive := range []bool{true, false} {
		s := open(t, tempPath(t), nil)
		if err := s.OutsideTransaction(t.Context(), fmt.Sprintf("pragma recursive_triggers = %t", recursive)); err != nil {
			t.Fatal(err)
		}
		o := &cairn.PieceOptions{Owner: "o"}
		putPiece(t, s, "first", content(1, 10_000), nil)
		putPiece(t, s, "o/1", content(2, 20_000), o)
		if err := s.Owner("o").SetQuota(t.Context(), 30_000); err != nil {
			t.Fatal(err)
		}
		if err := s.SetCapacity(t.Context(), 30_000); err != nil {
			t.Fatal(err)
		}
		p := openPiece(t, s, "o/2", 20_000, o)
		writePiece(t, p, content(3, 20_000), 0)
		mustHaveKeys(t, s, "first", "o/2")
		mustBeSound(t, s)
	}
}

// TestPinFollowsKey writes to a pinned piece whose content others have: from
// then on the pin protects the piece's own bytes, and not the content.
func TestPinFollowsKey(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	b := content(1, 10_000)
	add(t, s, b)
	putPiece(t, s, "a", b, nil)
	putPiece(t, s, "c", content(2, 10_000), nil)
	pin, err := s.Pin(ctx, cairn.Window{Keys: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Release()
	for _, capacity := range []int64{15_000, 30_000} {
		if err := s.SetCapacity(ctx, capacity); err != nil {
			t.Fatal(err)
		}
	}
	mustHaveKeys(t, s, "a")
	putPiece(t, s, "d", content(3, 10_000), nil)
	writePiece(t, openPiece(t, s, "a", len(b), nil), []byte("changed"), 0)
	putPiece(t, s, "e", content(4, 10_000), nil)
	mustHaveKeys(t, s, "a", "d", "e")
	mustNotHave(t, s, b)
	mustBeSound(t, s)
}
