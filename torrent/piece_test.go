package torrent_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	g "github.com/anacrolix/generics"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

var (
	absent   = storage.Completion{Ok: true}
	complete = storage.Completion{Ok: true, Complete: true}
)

const blockSize = 16 << 10

// infoOfSize describes a torrent of which only the sizes matter.
func infoOfSize(size, pieceLength int64) *metainfo.Info {
	pieces := (size + pieceLength - 1) / pieceLength
	return &metainfo.Info{Name: "sizes", Length: size, PieceLength: pieceLength, Pieces: make([]byte, 20*pieces)}
}

func infoHash(name string) metainfo.Hash { return metainfo.HashBytes([]byte(name)) }

// openTorrent opens a torrent as the client does.
func openTorrent(t testing.TB, s *cairntorrent.Storage, info *metainfo.Info, hash metainfo.Hash) *storage.Torrent {
	t.Helper()
	tor, err := storage.NewClient(s).OpenTorrent(t.Context(), info, hash)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tor.Close() })
	return tor
}

// pieceOf returns a piece whose hash is not known.
func pieceOf(tor *storage.Torrent, info *metainfo.Info, index int) storage.Piece {
	return tor.PieceWithHash(info.Piece(index), g.None[[]byte]())
}

// fill writes a piece, and completes it.
func fill(t testing.TB, p storage.Piece, data []byte) {
	t.Helper()
	for off := 0; off < len(data); off += blockSize {
		mustWrite(t, p, data[off:min(off+blockSize, len(data))], int64(off))
	}
	if err := p.MarkComplete(); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t testing.TB, p storage.Piece, b []byte, off int64) {
	t.Helper()
	if n, err := p.WriteAt(b, off); n != len(b) || err != nil {
		t.Fatalf("wrote %d of %d: %v", n, len(b), err)
	}
}

// mustRead reads a range, through the piece itself and through a reader.
func mustRead(t testing.TB, p storage.Piece, off int64, want []byte, wantErr error) {
	t.Helper()
	r, err := p.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, from := range []io.ReaderAt{p.PieceImpl, r} {
		b := make([]byte, max(1, len(want)))
		n, err := from.ReadAt(b, off)
		if err == io.EOF && n == len(b) {
			err = nil // as io.ReaderAt may, at the end
		}
		if err != wantErr || !bytes.Equal(b[:n], want[:min(n, len(want))]) || wantErr == nil && n != len(want) {
			t.Fatalf("%T read %d bytes at %d, error %v, want %d and exactly %v", from, n, off, err, len(want), wantErr)
		}
	}
}

func mustBeState(t testing.TB, p storage.Piece, want storage.Completion) {
	t.Helper()
	if got := p.Completion(); got != want {
		t.Fatalf("completion is %+v, want %+v", got, want)
	}
}

func mustBe(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

// TestPiece goes through the life of a piece.
func TestPiece(t *testing.T) {
	s := openStorage(t, tempPath(t), nil)
	info := infoOfSize(100_000, 60_000)
	tor := openTorrent(t, s, info, infoHash("life"))
	data := content(1, 40_000)
	p := pieceOf(tor, info, 1)

	mustBeState(t, p, absent)
	mustRead(t, p, 0, nil, io.EOF)
	if err := p.MarkNotComplete(); err != nil {
		t.Fatal(err)
	}
	mustBe(t, p.MarkComplete(), cairn.ErrNotFound)
	if n, err := p.WriteTo(io.Discard); n != 0 || err != io.EOF {
		t.Fatalf("an absent piece wrote %d bytes, error %v", n, err)
	}

	mustWrite(t, p, data[:20_000], 0)
	mustBeState(t, p, absent)
	mustRead(t, p, 5000, data[5000:9000], nil)
	mustRead(t, p, 19_000, data[19_000:21_000], io.EOF)
	mustRead(t, p, 30_000, nil, io.EOF)
	mustBe(t, p.MarkComplete(), cairn.ErrMissing)
	if _, err := p.WriteTo(io.Discard); err != io.EOF {
		t.Fatalf("half a piece was written, error %v", err)
	}

	mustWrite(t, p, data[20_000:], 20_000)
	mustBeState(t, p, absent)
	mustHash(t, p, data)
	for range 2 {
		if err := p.MarkComplete(); err != nil {
			t.Fatal(err)
		}
		mustBeState(t, p, complete)
	}
	mustHash(t, p, data)
	mustRead(t, p, 39_000, data[39_000:], nil)
	mustRead(t, p, 40_000, nil, io.EOF)

	for range 2 {
		if err := p.MarkNotComplete(); err != nil {
			t.Fatal(err)
		}
		mustBeState(t, p, absent)
	}
	mustHash(t, p, data)
	fill(t, p, data)
	other := content(2, 40_000)
	mustWrite(t, p, other[:1000], 0)
	mustBeState(t, p, absent)
	mustHash(t, p, append(other[:1000:1000], data[1000:]...))
}

// mustHash writes a whole piece, as the client does to hash it.
func mustHash(t testing.TB, p storage.Piece, want []byte) {
	t.Helper()
	var got bytes.Buffer
	if n, err := p.WriteTo(&got); err != nil || n != int64(len(want)) || !bytes.Equal(got.Bytes(), want) {
		t.Fatalf("wrote %d bytes that are to be hashed, of %d: %v", n, len(want), err)
	}
}

// TestPieceConcurrent writes a piece from many goroutines, as a client with
// many peers does.
func TestPieceConcurrent(t *testing.T) {
	s := openStorage(t, tempPath(t), nil)
	info := infoOfSize(4<<20, 1<<20)
	tor := openTorrent(t, s, info, infoHash("concurrent"))
	for i := range info.NumPieces() {
		p, data := pieceOf(tor, info, i), content(uint64(i), 1<<20)
		var writers sync.WaitGroup
		for off := 0; off < len(data); off += blockSize {
			writers.Go(func() {
				if _, err := pieceOf(tor, info, i).WriteAt(data[off:off+blockSize], int64(off)); err != nil {
					t.Error(err)
				}
			})
		}
		writers.Wait()
		mustHash(t, p, data)
		if err := p.MarkComplete(); err != nil {
			t.Fatal(err)
		}
		mustHash(t, p, data)
	}
}

// TestReopen looks for the pieces of a torrent in a new process's eyes.
func TestReopen(t *testing.T) {
	path := tempPath(t)
	info, hash := infoOfSize(10*blockSize, blockSize), infoHash("reopen")
	data := content(3, blockSize)
	s, err := cairntorrent.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	tor := openTorrent(t, s, info, hash)
	for i := range info.NumPieces() {
		if i%3 == 0 {
			fill(t, pieceOf(tor, info, i), data)
		} else if i%3 == 1 {
			mustWrite(t, pieceOf(tor, info, i), data[:100], 7)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStorage(t, path, nil)
	tor = openTorrent(t, s, info, hash)
	for range 2 {
		for i := range info.NumPieces() {
			want := absent
			if i%3 == 0 {
				want = complete
			}
			mustBeState(t, pieceOf(tor, info, i), want)
		}
	}
	mustRead(t, pieceOf(tor, info, 1), 7, data[:100], nil)
}

// TestCompletionOfManyPieces asks in all orders for the completion of more
// pieces than are listed at once, while some change.
func TestCompletionOfManyPieces(t *testing.T) {
	const n = 5000
	store := openStore(t, ":memory:", nil)
	s := cairntorrent.New(store, nil)
	defer s.Close()
	info, hash := infoOfSize(n, 1), infoHash("many")
	tor := openTorrent(t, s, info, hash)
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := w; i < n; i += 8 {
				if i%7 != 0 {
					fill(t, pieceOf(tor, info, i), []byte{byte(i)})
				}
			}
		})
	}
	writers.Wait()
	have := func(i int) storage.Completion {
		if i%7 == 0 {
			return absent
		}
		return complete
	}
	for i := range n {
		mustBeState(t, pieceOf(tor, info, i), have(i))
	}
	for i := n - 1; i >= 0; i-- {
		mustBeState(t, pieceOf(tor, info, i), have(i))
	}
	// A change through the Storage is seen in the middle of a walk, whichever
	// piece it is about.
	mustBeState(t, pieceOf(tor, info, 1), complete)
	mustBeState(t, pieceOf(tor, info, 2), complete)
	if err := pieceOf(tor, info, 3).MarkNotComplete(); err != nil {
		t.Fatal(err)
	}
	mustBeState(t, pieceOf(tor, info, 3), absent)
	// A deletion that the Storage knows nothing of is seen by the next walk.
	for i := range n {
		mustBeState(t, pieceOf(tor, info, i), pieceOf(tor, info, i).Completion())
	}
	if _, err := store.DeletePieces(t.Context(), hash.HexString()); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		mustBeState(t, pieceOf(tor, info, i), absent)
	}
}

// TestOtherTorrents closes, and removes, one of several torrents, which have
// pieces in common.
func TestOtherTorrents(t *testing.T) {
	store := openStore(t, tempPath(t), nil)
	s := cairntorrent.New(store, nil)
	defer s.Close()
	info := infoOfSize(3*blockSize, blockSize)
	var tors []*storage.Torrent
	for i, name := range []string{"a", "b", "c"} {
		tor := openTorrent(t, s, info, infoHash(name))
		fill(t, pieceOf(tor, info, 0), content(99, blockSize)) // that of all
		fill(t, pieceOf(tor, info, 1), content(uint64(i), blockSize))
		tors = append(tors, tor)
	}
	if err := tors[0].Close(); err != nil {
		t.Fatal(err)
	}
	mustBe(t, pieceOf(tors[0], info, 0).Completion().Err, cairn.ErrClosed)
	_, err := pieceOf(tors[0], info, 2).WriteAt([]byte{1}, 0)
	mustBe(t, err, cairn.ErrClosed)
	mustBeState(t, pieceOf(tors[1], info, 0), complete)

	r, err := pieceOf(tors[1], info, 1).NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.ReadAt(make([]byte, 100), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveTorrent(t.Context(), infoHash("b")); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveTorrent(t.Context(), infoHash("b")); err != nil {
		t.Fatal(err)
	}
	mustBe(t, pieceOf(tors[1], info, 0).Completion().Err, cairn.ErrClosed)
	_, err = s.Owner(infoHash("b")).Usage(t.Context())
	mustBe(t, err, cairn.ErrNotFound)
	mustHash(t, pieceOf(tors[2], info, 0), content(99, blockSize))
	mustHash(t, pieceOf(tors[2], info, 1), content(2, blockSize))
	again := openTorrent(t, s, info, infoHash("b"))
	mustBeState(t, pieceOf(again, info, 0), absent)
	mustBeState(t, pieceOf(openTorrent(t, s, info, infoHash("a")), info, 1), complete)
	for info, err := range store.Pieces(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if owner, _, _ := strings.Cut(info.Key, "/"); owner != info.Owner {
			t.Errorf("the owner of %q is %q", info.Key, info.Owner)
		}
	}
}

// TestPieceGone reads pieces that have been evicted or deleted.
func TestPieceGone(t *testing.T) {
	s := openStorage(t, tempPath(t), capped(4*blockSize))
	info := infoOfSize(10*blockSize, blockSize)
	tor := openTorrent(t, s, info, infoHash("gone"))
	for i := range 6 {
		fill(t, pieceOf(tor, info, i), content(uint64(i), blockSize))
	}
	for i := range 6 {
		p := pieceOf(tor, info, i)
		if i < 2 {
			mustBeState(t, p, absent)
			mustRead(t, p, 0, nil, io.EOF)
			continue
		}
		mustBeState(t, p, complete)
		mustHash(t, p, content(uint64(i), blockSize))
	}
	// One that is written anew, through the same handle.
	fill(t, pieceOf(tor, info, 0), content(0, blockSize))
	mustHash(t, pieceOf(tor, info, 0), content(0, blockSize))
}

// TestPinYields reads one piece while others are written. What is being read is
// not evicted, until there is room for nothing else.
func TestPinYields(t *testing.T) {
	s := openStorage(t, tempPath(t), capped(3*blockSize))
	info := infoOfSize(10*blockSize, blockSize)
	tor := openTorrent(t, s, info, infoHash("pin"))
	fill(t, pieceOf(tor, info, 0), content(0, blockSize))
	r, err := pieceOf(tor, info, 0).NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, 1000)
	if _, err := r.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 8; i++ {
		fill(t, pieceOf(tor, info, i), content(uint64(i), blockSize))
	}
	if _, err := r.ReadAt(b, 5000); err != nil || !bytes.Equal(b, content(0, blockSize)[5000:6000]) {
		t.Fatal("a pinned piece:", err)
	}
	var others []storage.PieceReader
	for i := range 10 {
		if i == 0 || i == 6 || i == 7 { // those that are there
			r, err := pieceOf(tor, info, i).NewReader()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := r.ReadAt(b, 0); err != nil {
				t.Fatal(i, err)
			}
			others = append(others, r)
		}
	}
	fill(t, pieceOf(tor, info, 9), content(9, blockSize))
	gone := 0
	for _, r := range others {
		if _, err := r.ReadAt(b, 0); err == io.EOF {
			gone++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if gone != 1 {
		t.Fatalf("%d pieces gone, want 1", gone)
	}
}

// TestClosed uses a storage that has been closed: nothing panics or waits.
func TestClosed(t *testing.T) {
	s := openStorage(t, tempPath(t), nil)
	info := infoOfSize(blockSize, blockSize)
	tor := openTorrent(t, s, info, infoHash("before"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	late := openTorrent(t, s, info, infoHash("after"))
	for _, tor := range []*storage.Torrent{tor, late} {
		p := pieceOf(tor, info, 0)
		mustBe(t, p.Completion().Err, cairn.ErrClosed)
		mustBe(t, p.MarkComplete(), cairn.ErrClosed)
		mustBe(t, p.MarkNotComplete(), cairn.ErrClosed)
		_, err := p.WriteAt([]byte{1}, 0)
		mustBe(t, err, cairn.ErrClosed)
		_, err = p.ReadAt(make([]byte, 1), 0)
		mustBe(t, err, cairn.ErrClosed)
		_, err = p.WriteTo(io.Discard)
		mustBe(t, err, cairn.ErrClosed)
		r, err := p.NewReader()
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.ReadAt(make([]byte, 1), 0)
		mustBe(t, err, cairn.ErrClosed)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	mustBe(t, s.RemoveTorrent(t.Context(), infoHash("before")), cairn.ErrClosed)
}

// TestV2WithoutHashes opens a v2 torrent before its piece layers have come.
func TestV2WithoutHashes(t *testing.T) {
	s := openStorage(t, tempPath(t), nil)
	info := &metainfo.Info{
		Name: "v2", PieceLength: blockSize, MetaVersion: 2,
		FileTree: metainfo.FileTree{Dir: map[string]metainfo.FileTree{
			"a": {File: metainfo.FileTreeFile{Length: 3*blockSize + 5, PiecesRoot: strings.Repeat("a", 32)}},
			"b": {File: metainfo.FileTreeFile{Length: 7, PiecesRoot: strings.Repeat("b", 32)}},
		}},
	}
	tor := openTorrent(t, s, info, infoHash("v2"))
	for i, size := range []int{blockSize, blockSize, blockSize, 5, 7} {
		fill(t, pieceOf(tor, info, i), content(uint64(i), size))
	}
	for i, size := range []int{blockSize, blockSize, blockSize, 5, 7} {
		p := tor.PieceWithHash(info.Piece(i), g.Some(make([]byte, 32)))
		mustBeState(t, p, complete)
		mustHash(t, p, content(uint64(i), size))
	}
}
