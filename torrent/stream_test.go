package torrent_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
)

// TestReadThroughGoesFirst reads one of the pieces that fill the capacity from
// start to end. It goes when another one comes, and what is ahead stays.
func TestReadThroughGoesFirst(t *testing.T) {
	const pieces, size = 4, 2 * blockSize
	s := openStorage(t, tempPath(t), capped(pieces*size))
	info := infoOfSize(2*pieces*size, size)
	tor := openTorrent(t, s, info, infoHash("stream"))
	for i := range pieces {
		fill(t, pieceOf(tor, info, i), content(uint64(i), size))
	}
	played := readBlocks(t, pieceOf(tor, info, 0), 0, blockSize)
	defer played.Close() // the client keeps it until it reads the next piece
	served := readBlocks(t, pieceOf(tor, info, 1), blockSize)
	served.Close() // a block for a peer: a use like any other
	fill(t, pieceOf(tor, info, 4), content(4, size))
	mustHavePieces(t, tor, info, 1, 2, 3, 4)
	fill(t, pieceOf(tor, info, 5), content(5, size))
	mustHavePieces(t, tor, info, 1, 3, 4, 5)
}

// readBlocks reads blocks through a reader, which it returns.
func readBlocks(t testing.TB, p storage.Piece, offsets ...int64) storage.PieceReader {
	t.Helper()
	r, err := p.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range offsets {
		if n, err := r.ReadAt(make([]byte, blockSize), off); n != blockSize {
			t.Fatalf("%d bytes at %d, error %v", n, off, err)
		}
	}
	return r
}

func mustHavePieces(t testing.TB, tor *storage.Torrent, info *metainfo.Info, want ...int) {
	t.Helper()
	var got []int
	for i := range info.NumPieces() {
		if pieceOf(tor, info, i).Completion().Complete {
			got = append(got, i)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the pieces %v are there, want %v", got, want)
	}
}

// noErrors is a handler for the log of a client that fails the test for each
// error.
type noErrors struct{ t testing.TB }

func (h noErrors) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (h noErrors) WithAttrs([]slog.Attr) slog.Handler               { return h }
func (h noErrors) WithGroup(string) slog.Handler                    { return h }
func (h noErrors) Handle(_ context.Context, r slog.Record) error {
	h.t.Error("the client logs: ", r.Message)
	return nil
}

// TestStream plays torrents from start to end, as far ahead as the client wants
// to read, with room for a few pieces. Each piece is fetched once, and the client
// sees nothing amiss.
func TestStream(t *testing.T) {
	const pieceLength, pieces = 128 << 10, 32
	data := content(8, pieces*pieceLength)
	mi := describe(t, "stream", data, pieceLength)
	from := seed(t, mi, data)
	for _, room := range []int64{1, 2, 4, 7} {
		config := clientConfig(openStorage(t, tempPath(t), capped(room*pieceLength)))
		config.Slogger = slog.New(noErrors{t})
		tor := addTorrent(t, newClient(t, config), mi)
		connect(tor, address(from))
		mustHold(t, tor, data)
		stats := tor.Stats()
		if got := stats.BytesReadUsefulData.Int64(); got != int64(len(data)) {
			t.Errorf("with room for %d pieces, %d bytes are fetched for %d", room, got, len(data))
		}
	}
}

// TestNoRoomForAPiece opens a torrent of which no piece fits.
func TestNoRoomForAPiece(t *testing.T) {
	mi := describe(t, "large", content(9, 100_000), 64<<10)
	info, hash := infoOf(t, mi), mi.HashInfoBytes()
	for _, quota := range []int64{cairn.Unlimited, 64<<10 - 1} {
		opts := capped(64<<10 - 1)
		if quota != cairn.Unlimited {
			opts = capped(1 << 20)
		}
		s := openStorage(t, tempPath(t), opts)
		if err := s.Owner(hash).SetQuota(t.Context(), quota); err != nil {
			t.Fatal(err)
		}
		client := newClient(t, clientConfig(s))
		_, err := client.AddTorrent(mi)
		mustBe(t, err, cairn.ErrTooLarge)
		// There is room for it after all.
		if err := s.Owner(hash).SetQuota(t.Context(), cairn.Unlimited); err != nil {
			t.Fatal(err)
		}
		if err := s.Store().SetCapacity(t.Context(), 64<<10); err != nil {
			t.Fatal(err)
		}
		openTorrent(t, s, info, hash)
		if _, err := client.AddTorrent(mi); err != nil {
			t.Error(err)
		}
	}
}
