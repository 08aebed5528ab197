package torrent_test

import (
	"bytes"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

// TestWritePastEnd makes writes that no room will ever make possible.
func TestWritePastEnd(t *testing.T) {
	s := openStorage(t, tempPath(t), nil)
	info := infoOfSize(100_000, 60_000)
	p := pieceOf(openTorrent(t, s, info, infoHash("x")), info, 1).PieceImpl
	for _, off := range []int64{-1, 0, 40_000, 1 << 62} {
		if _, err := p.WriteAt(make([]byte, 50_000), off); !errors.Is(err, cairn.ErrTooLarge) {
			t.Errorf("at %d: %v", off, err)
		}
	}
}

// TestNoRoomForAnother fills the memory for blocks with those of a torrent that
// has no room.
func TestNoRoomForAnother(t *testing.T) {
	const pieces, size = 3, 1 << 20
	store := openStore(t, tempPath(t), nil)
	waiting := make(waits, 1)
	s := cairntorrent.New(store, &cairntorrent.Options{Buffer: size, Logger: slog.New(waiting)})
	info := infoOfSize(pieces*size, size)
	full, other := openTorrent(t, s, info, infoHash("a")), openTorrent(t, s, info, infoHash("b"))
	if err := s.Owner(infoHash("a")).SetQuota(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range pieces {
		wg.Go(func() {
			for off := int64(0); off < size; off += blockSize {
				if _, err := pieceOf(full, info, i).WriteAt(make([]byte, blockSize), off); err != nil {
					return
				}
			}
		})
	}
	wait(t, "until there is no room", waiting)
	for i := range pieces {
		fill(t, pieceOf(other, info, i), content(uint64(i), size))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

// TestOpenTwice closes a torrent while blocks of it come through another opening.
func TestOpenTwice(t *testing.T) {
	s := openStorage(t, tempPath(t), nil)
	const size = 1 << 20
	info, data := infoOfSize(size, size), content(1, size)
	for round := range 20 {
		hash := infoHash(string(rune('a' + round)))
		one, two := openTorrent(t, s, info, hash), openTorrent(t, s, info, hash)
		var wg sync.WaitGroup
		wg.Go(func() {
			for off := 0; off < size; off += blockSize {
				if _, err := pieceOf(one, info, 0).WriteAt(data[off:off+blockSize], int64(off)); err != nil {
					return
				}
			}
		})
		for off := 0; off < size; off += blockSize {
			if off == size/2 {
				wg.Go(func() { one.Close() })
			}
			if _, err := pieceOf(two, info, 0).WriteAt(data[off:off+blockSize], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if err := pieceOf(two, info, 0).MarkComplete(); err != nil {
			t.Error(err)
		}
		two.Close()
	}
}

// TestEvictedBeforeMarked takes away what a whole piece has stored while it waits to
// be marked complete. Its blocks are still in memory.
func TestEvictedBeforeMarked(t *testing.T) {
	s := openStorage(t, tempPath(t), nil)
	const size = 1 << 20
	info, data := infoOfSize(size, size), content(1, size)
	p := pieceOf(openTorrent(t, s, info, infoHash("a")), info, 0)
	for off := 0; off < size; off += blockSize {
		if _, err := p.WriteAt(data[off:off+blockSize], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	for stored := int64(0); stored < size; runtime.Gosched() {
		st, err := s.Store().Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stored = st.StoredBytes
	}
	if _, err := s.Store().DeletePieces(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := p.MarkComplete(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if n, err := p.ReadAt(got, 0); n != size || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
