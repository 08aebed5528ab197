package bao_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/cairnstore/cairn/bao"
	"lukechampine.com/blake3"
	lukebao "lukechampine.com/blake3/bao"
)

// encode is the way from a source to a response in memory.
func encode(root bao.CV, size int64, r bao.Ranges, src bao.Source) ([]byte, error) {
	var buf bytes.Buffer
	err := bao.Encode(&buf, root, size, r, src)
	return buf.Bytes(), err
}

func (b *blob) mustEncode(t testing.TB, r bao.Ranges) []byte {
	t.Helper()
	response, err := encode(b.root, b.size, r, b)
	if err != nil {
		t.Fatalf("%d bytes, %q: %v", b.size, r, err)
	}
	return response
}

func hashOf(b []byte) string {
	sum := blake3.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// TestResponseVectors compares with what iroh's own implementation makes.
func TestResponseVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Entries []struct {
			Size   int
			Slices []struct {
				Name, Hash        string
				Ranges, Effective [][2]*uint64
				Parents, Leaves   int
				Payload           int     `json:"payload_bytes"`
				Body              string  `json:"body_blake3"`
				Len               int64   `json:"response_len"`
				Response          string  `json:"response_blake3"`
				Hex               *string `json:"response_hex"`
			}
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, v := range vectors.Entries {
		b := newBlob(t, pattern(v.Size))
		for _, s := range v.Slices {
			ran++
			what := fmt.Sprintf("%d bytes, %s", v.Size, s.Name)
			r := fromBounds(t, s.Ranges)
			if got, want := r.Effective(b.size), fromBounds(t, s.Effective); !got.Equal(want) {
				t.Errorf("%s: %q is effectively %q, want %q", what, r, got, want)
			}
			if got := bao.ResponseSize(b.size, r); got != s.Len {
				t.Errorf("%s: ResponseSize is %d, want %d", what, got, s.Len)
			}
			response := b.mustEncode(t, r)
			if int64(len(response)) != s.Len || hashOf(response) != s.Response || hashOf(response[8:]) != s.Body {
				t.Errorf("%s: response differs from the vector", what)
			}
			if s.Hex != nil && hex.EncodeToString(response) != *s.Hex {
				t.Errorf("%s: response differs from the vector's bytes", what)
			}
			got := counts{}
			d := bao.NewDecoder(bytes.NewReader(response), b.root, r)
			items, err := b.drain(t, d)
			for _, it := range items {
				got.add(b, it)
			}
			if want := (counts{s.Parents, s.Leaves, s.Payload}); err != io.EOF || got != want {
				t.Errorf("%s: decoded to %v, %v; want %v", what, got, err, want)
			}
			if wantProven := effective(r, b.size)[chunkCount(b.size)-1]; d.SizeProven() != wantProven || d.Size() != b.size {
				t.Errorf("%s: size %d, proven %v", what, d.Size(), d.SizeProven())
			}
		}
	}
	if ran < 419 {
		t.Errorf("only %d vectors", ran)
	}
}

// counts are what the vectors say about a response's parts.
type counts struct{ pairs, leaves, bytes int }

func (c *counts) add(b *blob, it item) {
	if it.pair {
		c.pairs++
		return
	}
	c.leaves++
	c.bytes += len(b.bytesOf(it))
}

// TestEncodeModel compares with the format's description.
func TestEncodeModel(t *testing.T) {
	rnd := newRand(t)
	blobs := 150
	if testing.Short() {
		blobs = 20
	}
	for range blobs {
		b := newBlob(t, noise(randomSize(rnd, 600*1024)))
		for range 20 {
			r := randomRanges(rnd, chunkCount(b.size))
			items, _, want := b.response(r)
			if got := b.mustEncode(t, r); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, %q: response differs", b.size, r)
			}
			if got := bao.ResponseSize(b.size, r); got != int64(len(want)) {
				t.Fatalf("%d bytes, %q: ResponseSize is %d, want %d", b.size, r, got, len(want))
			}
			b.mustDecode(t, want, r, items)
		}
	}
}

// TestEncodeLuke compares with an independent implementation where it makes the
// same: all of a blob, and one run of whole groups.
func TestEncodeLuke(t *testing.T) {
	sizes := []int{0, 1, 1023, 1024, 1025, 16383, 16384, 16385, 49*1024 - 3, 64 * 1024, 300 * 1024, 300*1024 + 1}
	rnd := newRand(t)
	limit := 400 * 1024
	if testing.Short() {
		limit = 70 * 1024
		sizes = slices.DeleteFunc(sizes, func(n int) bool { return n > limit })
	}
	for range 20 {
		sizes = append(sizes, randomSize(rnd, limit))
	}
	for _, size := range sizes {
		b := newBlob(t, noise(size))
		all, _ := lukebao.EncodeBuf(b.content, 4, false)
		if !bytes.Equal(b.mustEncode(t, bao.All()), all) {
			t.Errorf("%d bytes: all of it differs", size)
		}
		outboard, _ := lukebao.EncodeBuf(b.content, 4, true)
		for start := 0; start < size; start += bao.GroupSize {
			for end := start + bao.GroupSize; ; end += bao.GroupSize {
				end = min(end, size)
				var want bytes.Buffer
				data := b.content[start:end]
				if err := lukebao.ExtractSlice(&want, bytes.NewReader(data), bytes.NewReader(outboard), 4, uint64(start), uint64(len(data))); err != nil {
					t.Fatal(err)
				}
				if got := b.mustEncode(t, bao.Bytes(uint64(start), uint64(end))); !bytes.Equal(got, want.Bytes()) {
					t.Errorf("%d bytes, %d to %d: differs", size, start, end)
				}
				if end == size {
					break
				}
			}
		}
	}
}

// A recorder remembers which chunks are read. What it returns of tiles is valid
// until the next call, and no longer.
type recorder struct {
	*blob
	chunks map[uint64]int
	tiles  map[bao.Tile]int
	tile   []byte
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	for at := off; at < off+int64(len(p)); at += 1024 {
		r.chunks[uint64(at)/1024]++
	}
	return r.blob.ReadAt(p, off)
}

func (r *recorder) ReadTile(t bao.Tile) ([]byte, error) {
	r.tiles[t]++
	clear(r.tile)
	pairs, err := r.blob.ReadTile(t)
	r.tile = append(r.tile[:0], pairs...)
	return r.tile, err
}

// TestEncodeReads checks that an encoder reads the groups it needs, and those
// once, whatever it reads ahead.
func TestEncodeReads(t *testing.T) {
	rnd := newRand(t)
	rounds := 200
	if testing.Short() {
		rounds = 30
	}
	// So many groups that tiles of two levels are needed in turn.
	b := newBlob(t, noise(200*bao.GroupSize-100))
	for range rounds {
		r := randomRanges(rnd, chunkCount(b.size))
		rec := &recorder{blob: b, chunks: map[uint64]int{}, tiles: map[bao.Tile]int{}}
		got, err := encode(b.root, b.size, r, rec)
		if err != nil || !bytes.Equal(got, b.mustEncode(t, r)) {
			t.Fatalf("%q: %v", r, err)
		}
		want := r.Effective(b.size).Groups().Intersect(bao.Chunks(0, chunkCount(b.size)))
		for chunk := range chunkCount(b.size) {
			if n := rec.chunks[chunk]; n > 1 || n == 1 != want.Contains(chunk) {
				t.Errorf("%q: chunk %d is read %d times", r, chunk, n)
			}
		}
		for tile, n := range rec.tiles {
			if n != 1 {
				t.Errorf("%q: tile %v is read %d times", r, tile, n)
			}
		}
	}
}

// TestEncodeCorruptSource damages every stored pair and every group in turn, or
// every chunk where there are few.
func TestEncodeCorruptSource(t *testing.T) {
	for _, size := range []int{1, 1024, 16384, 16385, 49*1024 - 3, 70*bao.GroupSize + 5} {
		b := newBlob(t, noise(size))
		src := *b
		content := slices.Clone(b.content)
		src.ReaderAt = bytes.NewReader(content)
		step := uint64(1)
		if size > 1<<20 {
			step = 15
		}
		for _, text := range []string{"all", "last", "0..1", "16..32", "20..21,40..900"} {
			r := parse(t, text)
			items, starts, want := b.response(r)
			// An encoder must notice what is wrong with the source if it comes
			// by there, and write everything before and nothing from there on.
			check := func(wrong bao.MismatchError) {
				t.Helper()
				got, err := encode(b.root, b.size, r, &src)
				i := slices.IndexFunc(items, func(it item) bool {
					return it.lo >= wrong.Start && it.hi <= wrong.End && (it.span == span{wrong.Start, wrong.End} || !wrong.Pair)
				})
				if i < 0 {
					if err != nil || !bytes.Equal(got, want) {
						t.Fatalf("%d bytes, %q, with %v elsewhere: %v", size, r, &wrong, err)
					}
					return
				}
				if !bytes.Equal(got, want[:starts[i]]) {
					t.Fatalf("%d bytes, %q, with %v: wrote %d bytes, want %d", size, r, &wrong, len(got), starts[i])
				}
				mismatch, ok := errors.AsType[*bao.MismatchError](err)
				if !ok || *mismatch != wrong || !errors.Is(err, bao.ErrMismatch) {
					t.Fatalf("%d bytes, %q, with %v: %v", size, r, &wrong, err)
				}
			}
			for place, pair := range b.pairs {
				part := bao.Part{Start: place.lo, End: place.hi, Pair: &pair}
				tile, number, ok := part.Tile()
				if !ok {
					continue // it is not stored
				}
				stored := bao.Pair(src.tiles[tile], number)
				if *stored != pair {
					t.Fatalf("%d bytes: pair of chunks %v is not stored as number %d of %v", size, place, number, tile)
				}
				i := (place.lo + place.hi) % bao.PairSize
				stored[i] ^= 0x10
				check(bao.MismatchError{Start: place.lo, End: place.hi, Pair: true})
				stored[i] ^= 0x10
			}
			for chunk := uint64(0); chunk < chunkCount(b.size); chunk += step {
				at := min(len(content)-1, int(chunk)*1024+int(chunk*7)%1024)
				content[at] ^= 0x80
				group := chunk &^ 15
				check(bao.MismatchError{Start: group, End: min(group+16, chunkCount(b.size))})
				content[at] ^= 0x80
			}
		}
	}
}

func TestMismatchError(t *testing.T) {
	for want, err := range map[string]error{
		"bao: hash mismatch: pair of chunks 16..49": &bao.MismatchError{Start: 16, End: 49, Pair: true},
		"bao: hash mismatch: data of chunks 0..1":   &bao.MismatchError{Start: 0, End: 1},
	} {
		if err.Error() != want || !errors.Is(err, bao.ErrMismatch) || errors.Is(err, bao.ErrTooLarge) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestEncodeWrong gives an encoder another root, size, or content.
func TestEncodeWrong(t *testing.T) {
	b := newBlob(t, noise(49*1024-3))
	short := newBlob(t, b.content[:33*1024])
	for _, c := range []struct {
		what string
		root bao.CV
		size int64
		src  *blob
		want error
	}{
		{"root", short.root, b.size, b, bao.ErrMismatch},
		{"zero root", bao.CV{}, b.size, b, bao.ErrMismatch},
		{"size too small by a byte", b.root, b.size - 1, b, bao.ErrMismatch},
		{"size too small by a group", b.root, b.size - bao.GroupSize, b, bao.ErrMismatch},
		{"empty", b.root, 0, b, bao.ErrMismatch},
		{"content cut off", b.root, b.size, &blob{tree: b.tree, ReaderAt: short}, io.ErrUnexpectedEOF},
		{"content behind the end", short.root, short.size, &blob{tree: short.tree, ReaderAt: b}, nil},
		{"tiles of another", b.root, b.size, &blob{tree: short.tree, ReaderAt: b}, bao.ErrMismatch},
		{"no tiles", b.root, b.size, &blob{tree: &tree{}, ReaderAt: b}, errNoTile},
		{"no content", b.root, b.size, &blob{tree: b.tree, ReaderAt: failingReaderAt{}}, errStop},
		{"negative size", b.root, -1, b, bao.ErrTooLarge},
		{"least size", b.root, math.MinInt64, b, bao.ErrTooLarge},
		{"too large", b.root, bao.MaxSize + 1, b, bao.ErrTooLarge},
		{"much too large", b.root, math.MaxInt64, b, bao.ErrTooLarge},
	} {
		got, err := encode(c.root, c.size, bao.All(), c.src)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if errors.Is(err, bao.ErrTooLarge) && len(got) > 0 {
			t.Errorf("%s: %d bytes are written", c.what, len(got))
		}
		// A size is stated before anything can be verified.
		if c.size == b.size && !bytes.HasPrefix(b.mustEncode(t, bao.All()), got) {
			t.Errorf("%s: what is written is wrong", c.what)
		}
	}
}

type failingReaderAt struct{}

func (failingReaderAt) ReadAt([]byte, int64) (int, error) { return 0, errStop }

// A limitedWriter fails when the limit is reached.
type limitedWriter struct {
	bytes.Buffer
	limit int
	calls int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	w.calls++
	if room := w.limit - w.Len(); len(p) > room {
		w.Buffer.Write(p[:room])
		return room, errStop
	}
	return w.Buffer.Write(p)
}

func TestEncodeFailingWriter(t *testing.T) {
	b := newBlob(t, noise(300*1024))
	want := b.mustEncode(t, bao.All())
	for limit := 0; limit < len(want); limit += 997 {
		w := &limitedWriter{limit: limit}
		if err := bao.Encode(w, b.root, b.size, bao.All(), b); !errors.Is(err, errStop) || !bytes.Equal(w.Bytes(), want[:limit]) {
			t.Fatalf("after %d bytes: %v", limit, err)
		}
	}
	if err := bao.Encode(&limitedWriter{limit: len(want)}, b.root, b.size, bao.All(), b); err != nil {
		t.Error(err)
	}
	// The empty request has no response, not even a header.
	w := &limitedWriter{}
	nothing := &blob{tree: &tree{}, ReaderAt: failingReaderAt{}}
	if err := bao.Encode(w, b.root, b.size, bao.Ranges{}, nothing); err != nil || w.calls > 0 {
		t.Errorf("no ranges: %v, %d writes", err, w.calls)
	}
	if n := bao.ResponseSize(b.size, bao.Ranges{}); n != 0 {
		t.Errorf("no ranges: ResponseSize is %d", n)
	}
}
