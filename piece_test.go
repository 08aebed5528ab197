package cairn_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
)

// openPiece returns a handle on a piece.
func openPiece(t testing.TB, s *cairn.Store, key string, size int, opts *cairn.PieceOptions) *cairn.Piece {
	t.Helper()
	p, err := s.Piece(t.Context(), key, int64(size), opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// writePiece writes b at an offset of a piece.
func writePiece(t testing.TB, p *cairn.Piece, b []byte, off int) {
	t.Helper()
	if n, err := p.WriteAt(b, int64(off)); n != len(b) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
}

// completePiece marks a piece complete, which must have the given content.
func completePiece(t testing.TB, p *cairn.Piece, content []byte) {
	t.Helper()
	if hash, err := p.Complete(t.Context()); err != nil || hash != hashOf(content) {
		t.Fatalf("%v, %v, want %v", hash, err, hashOf(content))
	}
}

// mustRead reads a whole piece, which must have the given content.
func mustRead(t testing.TB, p *cairn.Piece, content []byte) {
	t.Helper()
	buf := make([]byte, len(content)+1)
	if n, err := p.ReadAt(buf, 0); n != len(content) || err != io.EOF || !bytes.Equal(buf[:n], content) {
		t.Fatalf("read %d of %d bytes, %v; equal: %t", n, len(content), err, bytes.Equal(buf[:n], content))
	}
}

// mustAbsent makes sure that there is no such piece.
func mustAbsent(t testing.TB, s *cairn.Store, key string) {
	t.Helper()
	if _, err := s.OpenPiece(t.Context(), key); !errors.Is(err, cairn.ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("piece %q: %v", key, err)
	}
}

func TestPieceSizes(t *testing.T) {
	s := open(t, tempPath(t), nil)
	for _, size := range []int{0, 1, 1023, 16383, 16384, 16385, 32768, 65 * 16384, 1<<20 + 5, 3 << 20} {
		for _, block := range []int{1000, 16384, 20_000, 1 << 20} {
			if size/block > 200 {
				continue
			}
			b := content(uint64(size+block), size)
			p := openPiece(t, s, fmt.Sprintf("%d/%d", size, block), size, nil)
			for _, i := range rand.Perm((size + block - 1) / block) {
				writePiece(t, p, b[i*block:min(size, (i+1)*block)], i*block)
			}
			if size > 0 {
				mustRead(t, p, b)
			}
			completePiece(t, p, b)
			mustRead(t, p, b)
			mustHave(t, s, b)
			checkOutboard(t, s, b)
		}
	}
	mustBeSound(t, s)
}

func TestPieceBadInput(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	b := content(1, 50_000)
	p := openPiece(t, s, "key", len(b), nil)
	for _, test := range []struct {
		name string
		off  int64
		data []byte
		want error
	}{
		{"past the end", 50_000, b[:1], cairn.ErrTooLarge},
		{"across the end", 49_999, b[:2], cairn.ErrTooLarge},
		{"far", 1 << 62, b[:2], cairn.ErrTooLarge},
		{"negative", -1, b[:2], nil},
	} {
		if n, err := p.WriteAt(test.data, test.off); n != 0 || err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %d, %v", test.name, n, err)
		}
	}
	if err := p.WriteBlocks(cairn.Block{Data: b[:10]}, cairn.Block{Off: 49_999, Data: b[:2]}); !errors.Is(err, cairn.ErrTooLarge) {
		t.Errorf("one of two blocks across the end: %v", err)
	}
	if err := p.WriteBlocks(); err != nil {
		t.Errorf("no blocks: %v", err)
	}
	if n, err := p.WriteAt(nil, 50_000); n != 0 || err != nil {
		t.Errorf("empty: %d, %v", n, err)
	}
	mustAbsent(t, s, "key")
	if _, err := p.Complete(ctx); !errors.Is(err, cairn.ErrNotFound) {
		t.Errorf("complete an absent piece: %v", err)
	}
	writePiece(t, p, b[100:300], 100)
	writePiece(t, p, b[40_000:], 40_000)
	var unwritten *cairn.UnwrittenError
	if _, err := p.Complete(ctx); !errors.As(err, &unwritten) || !errors.Is(err, cairn.ErrMissing) {
		t.Fatalf("complete with gaps: %v", err)
	}
	if got := fmt.Sprint(unwritten.Ranges); got != "[{0 100} {300 40000}]" {
		t.Errorf("unwritten %s", got)
	}
	buf := make([]byte, 1000)
	if n, err := p.ReadAt(buf, 200); n != 100 || !errors.As(err, &unwritten) || fmt.Sprint(unwritten.Ranges) != "[{300 1200}]" {
		t.Errorf("read over a gap: %d, %v", n, err)
	}
	if _, err := s.Piece(ctx, "key", 49_999, nil); !errors.Is(err, cairn.ErrMismatch) {
		t.Errorf("another size: %v", err)
	}
	for _, key := range []string{"", strings.Repeat("k", cairn.MaxKeySize+1)} {
		if _, err := s.Piece(ctx, key, 1, nil); err == nil {
			t.Errorf("key of %d bytes is accepted", len(key))
		}
	}
	for _, key := range []string{"a\x00b", "a\x00", "%", "_", "\xff\xfe", strings.Repeat("k", cairn.MaxKeySize), "ä/é"} {
		p := openPiece(t, s, key, 3, nil)
		writePiece(t, p, []byte(key + "..")[:3], 0)
		completePiece(t, p, []byte(key + "..")[:3])
		mustRead(t, p, []byte(key + "..")[:3])
	}
	mustBeSound(t, s)
}

// TestPieceReopen writes to complete pieces, whose content others have or not.
func TestPieceReopen(t *testing.T) {
	s := open(t, tempPath(t), nil)
	ctx := t.Context()
	b := content(2, 200_000)
	one, two := openPiece(t, s, "one", len(b), nil), openPiece(t, s, "two", len(b), nil)
	writePiece(t, one, b, 0)
	completePiece(t, one, b)
	writePiece(t, two, b[:100_000], 0)
	writePiece(t, two, b[50_000:], 50_000)
	completePiece(t, two, b)
	if st, err := s.Stats(ctx); err != nil || st.Blobs != 1 || st.Pieces != 2 || st.StoredBytes != 200_000 {
		t.Fatalf("%+v, %v", st, err)
	}
	changed := bytes.Clone(b)
	copy(changed[70_000:], "changed")
	writePiece(t, one, []byte("changed"), 70_000)
	if c, err := one.Completion(ctx); err != nil || c.State != cairn.Partial || c.Stored != 200_000 {
		t.Errorf("%+v, %v", c, err)
	}
	mustRead(t, one, changed)
	mustRead(t, two, b)
	mustHave(t, s, b)
	completePiece(t, one, changed)
	if err := two.Incomplete(ctx); err != nil {
		t.Fatal(err)
	}
	mustRead(t, two, b)
	mustNotHave(t, s, b)
	completePiece(t, two, b)
	reader, err := two.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := two.Delete(ctx); !errors.Is(err, cairn.ErrConflict) {
		t.Errorf("delete with an open reader: %v", err)
	}
	reader.Close()
	if err := two.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	mustAbsent(t, s, "two")
	mustNotHave(t, s, b)
	mustBeSound(t, s)
}

// TestPieceConcurrent has many goroutines write blocks of many pieces in any
// order, each twice.
func TestPieceConcurrent(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const pieces, size, block = 8, 1 << 20, 16384
	contents := make([][]byte, pieces)
	handles := make([]*cairn.Piece, pieces)
	for i := range contents {
		contents[i] = content(uint64(i), size)
		handles[i] = openPiece(t, s, fmt.Sprint("piece/", i), size, &cairn.PieceOptions{Owner: "o", Durability: cairn.Relaxed})
	}
	blocks := rand.Perm(2 * pieces * size / block)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := g; i < len(blocks); i += 16 {
				n := blocks[i] % (pieces * size / block)
				piece, off := n%pieces, n/pieces*block
				if _, err := handles[piece].WriteAt(contents[piece][off:off+block], int64(off)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, p := range handles {
		wg.Go(func() { completePiece(t, p, contents[i]) })
	}
	wg.Wait()
	for i, p := range handles {
		mustRead(t, p, contents[i])
	}
	usage, err := s.Owner("o").Usage(t.Context())
	if want := (cairn.OwnerUsage{Name: "o", Pieces: pieces, Bytes: pieces * size, Quota: cairn.Unlimited}); err != nil || usage != want {
		t.Errorf("%+v, %v", usage, err)
	}
	mustBeSound(t, s)
	if err := s.Owner("o").Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustBeSound(t, s)
	if u, err := s.Usage(t.Context()); err != nil || u.Used != 0 {
		t.Errorf("%+v, %v", u, err)
	}
}
