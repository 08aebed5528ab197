package interop_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// open opens a temporary store that must be sound in the end.
func open(t testing.TB) *cairn.Store {
	t.Helper()
	s, err := cairn.Open(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for p, err := range s.Check(context.Background(), nil) {
			if err != nil {
				t.Error(err)
				break
			}
			t.Error(p)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// add stores content for the rest of the test.
func add(t testing.TB, s *cairn.Store, content []byte) cairn.Hash {
	t.Helper()
	tag, err := s.AddBytes(t.Context(), content, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tag.Release)
	return tag.Hash()
}

func export(t testing.TB, s *cairn.Store, hash cairn.Hash, ranges bao.Ranges) []byte {
	t.Helper()
	var response bytes.Buffer
	if err := s.ExportBao(t.Context(), hash, ranges, &response); err != nil {
		t.Fatal(err)
	}
	return response.Bytes()
}

func mustImport(t testing.TB, s *cairn.Store, b *blob, ranges bao.Ranges, response []byte) {
	t.Helper()
	if err := s.ImportBao(t.Context(), cairn.Hash(b.root), ranges, bytes.NewReader(response)); err != nil {
		t.Fatalf("%d bytes, %q: %v", b.size, ranges, err)
	}
}

// mustHave checks that a store has all of a blob.
func mustHave(t testing.TB, s *cairn.Store, b *blob) {
	t.Helper()
	stored, err := s.Blob(t.Context(), cairn.Hash(b.root))
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	if got, err := io.ReadAll(stored); err != nil || !bytes.Equal(got, b.content) {
		t.Fatalf("%d bytes: read %d, which may differ, %v", b.size, len(got), err)
	}
}

// pieces cuts all of a blob into requests for runs of whole groups, in random
// order. The last group is asked for with the proof of the size.
func pieces(rnd *rand.Rand, size int64) (out []bao.Ranges) {
	end := uint64(bao.Groups(size)) * 16
	for at := uint64(0); at < end; {
		next := at + 16*(1+rnd.Uint64N(10))
		if next >= end {
			out = append(out, bao.From(at))
		} else {
			out = append(out, bao.Chunks(at, next))
		}
		at = next
	}
	rnd.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// TestStoreExportsWhatRustMakes compares what a store exports of a complete
// blob.
func TestStoreExportsWhatRustMakes(t *testing.T) {
	r := start(t, treeProgram)
	rnd := newRand(t)
	s := open(t)
	for range cases(15) {
		b := randomBlob(t, rnd, 2<<20)
		r.put(b)
		hash := add(t, s, b.content)
		for range 10 {
			ranges := randomRanges(rnd, b.size)
			_, theirs := r.mustAsk(nil, "encode", boundsOf(ranges))
			if ours := export(t, s, hash, ranges); !bytes.Equal(ours, theirs) {
				t.Fatalf("%d bytes, %q: exported %d bytes, Rust makes other %d", b.size, ranges, len(ours), len(theirs))
			}
		}
		ours, err := s.Outboard(t.Context(), hash)
		if err != nil {
			t.Fatal(err)
		}
		if _, theirs := r.mustAsk(nil, "outboard"); !bytes.Equal(ours, theirs) {
			t.Fatalf("%d bytes: outboards differ", b.size)
		}
	}
}

// TestStoreImportsWhatRustMakes completes blobs in a store from pieces that
// Rust has made, each of which must come out again while the blob is partial.
func TestStoreImportsWhatRustMakes(t *testing.T) {
	r := start(t, treeProgram)
	rnd := newRand(t)
	s := open(t)
	for range cases(15) {
		b := randomBlob(t, rnd, 2<<20)
		r.put(b)
		for _, ranges := range pieces(rnd, b.size) {
			_, response := r.mustAsk(nil, "encode", boundsOf(ranges))
			mustImport(t, s, b, ranges, response)
			if again := export(t, s, cairn.Hash(b.root), ranges); !bytes.Equal(again, response) {
				t.Fatalf("%d bytes, %q: came out as other %d bytes", b.size, ranges, len(again))
			}
		}
		mustHave(t, s, b)
	}
}

// iroh starts the program with iroh's blob store in it.
func iroh(t testing.TB) *rust {
	t.Helper()
	if !*long {
		t.Skip("only with -long")
	}
	return start(t, irohProgram)
}

// storeSizes have the trees' shapes, the sizes at which iroh's store changes
// its ways, and some random sizes.
func storeSizes(rnd *rand.Rand) []int {
	sizes := []int{0, 1, 1023, 1024, 1025, 16_383, 16_384, 16_385, 32_768, 49_159, 100_000, 1 << 20, 1<<20 + 1, 5<<20 + 77}
	for range 100 {
		sizes = append(sizes, randomSize(rnd, 3<<20))
	}
	return sizes
}

// TestIrohStoreExportsTheSame compares with what iroh's store exports, of
// complete blobs.
func TestIrohStoreExportsTheSame(t *testing.T) {
	r := iroh(t)
	rnd := newRand(t)
	s := open(t)
	for _, size := range storeSizes(rnd) {
		b := newBlob(t, noise(size))
		hash := add(t, s, b.content)
		answer, _ := r.mustAsk(b.content, "iroh", "add")
		if answer[0] != hash.String() {
			t.Fatalf("%d bytes: hash is %v, in iroh's store %s", size, hash, answer[0])
		}
		requests := []bao.Ranges{bao.All(), bao.Last(), bao.Chunks(0, 1), bao.Chunks(0, 16)}
		for range 20 {
			requests = append(requests, randomRanges(rnd, b.size))
		}
		for _, ranges := range requests {
			if ranges.IsEmpty() {
				continue // no peer asks for nothing, of which iroh exports the size, and Cairn nothing
			}
			_, theirs := r.mustAsk(nil, "iroh", "export", hash.String(), boundsOf(ranges))
			if ours := export(t, s, hash, ranges); !bytes.Equal(ours, theirs) {
				t.Fatalf("%d bytes, %q: Cairn exports %d bytes, iroh other %d", size, ranges, len(ours), len(theirs))
			}
		}
		r.mustAsk(nil, "iroh", "reset")
	}
}

// TestStoresExchangePieces sends blobs piece by piece from Cairn to iroh's
// store, and at the same time from there to another one of Cairn.
func TestStoresExchangePieces(t *testing.T) {
	r := iroh(t)
	rnd := newRand(t)
	from, to := open(t), open(t)
	for _, size := range storeSizes(rnd) {
		b := newBlob(t, noise(size))
		hash := add(t, from, b.content)
		for _, ranges := range pieces(rnd, b.size) {
			response := export(t, from, hash, ranges)
			r.mustAsk(response, "iroh", "import", hash.String(), boundsOf(ranges))
			_, again := r.mustAsk(nil, "iroh", "export", hash.String(), boundsOf(ranges))
			if !bytes.Equal(again, response) {
				t.Fatalf("%d bytes, %q: came out of iroh's store as other %d bytes", size, ranges, len(again))
			}
			mustImport(t, to, b, ranges, again)
		}
		mustHave(t, to, b)
		r.mustAsk(nil, "iroh", "reset")
	}
}

// TestBothStoresRejectDamage checks that neither store takes a damaged or
// truncated response.
func TestBothStoresRejectDamage(t *testing.T) {
	r := iroh(t)
	rnd := newRand(t)
	s := open(t)
	for range 300 {
		b, ranges := randomRequest(t, rnd)
		response := b.encode(t, ranges)
		if len(response) == 8 {
			continue
		}
		bit := 64 + rnd.IntN(8*(len(response)-8))
		mustReject(t, r, s, b.root, ranges, flipped(response, bit), cairn.ErrMismatch)
		mustReject(t, r, s, b.root, ranges, response[:rnd.IntN(len(response))], io.ErrUnexpectedEOF)
		mustReject(t, r, s, b.root, bao.Last(), restated(b.encode(t, bao.Last()), 0), cairn.ErrMismatch)
	}
}

func mustReject(t testing.TB, r *rust, s *cairn.Store, root bao.CV, ranges bao.Ranges, response []byte, want error) {
	t.Helper()
	r.mustAnswer("failed", response, "iroh", "import", root.String(), boundsOf(ranges))
	err := s.ImportBao(t.Context(), cairn.Hash(root), ranges, bytes.NewReader(response))
	if !errors.Is(err, want) {
		t.Errorf("%q: got error %v, want %v", ranges, err, want)
	}
}

// TestCollections has iroh read collections that were made from their
// description and kept in Cairn, and make the same bytes of them.
func TestCollections(t *testing.T) {
	r := iroh(t)
	s := open(t)
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("folder/file %d", i)
	}
	for _, names := range [][]string{
		{},
		{"a"},
		{"b", "a", "b", ""},
		{"ü/日本語.txt", strings.Repeat("x", 127), strings.Repeat("y", 128), strings.Repeat("z", 20_000)},
		many[:127],
		many[:128],
		many,
	} {
		r.checkCollection(s, names)
	}
}

func (r *rust) checkCollection(s *cairn.Store, names []string) {
	r.t.Helper()
	var links, want []string
	for i, name := range names {
		link := add(r.t, s, noise(i)).String()
		links = append(links, link)
		want = append(want, hex.EncodeToString([]byte(name))+":"+link)
	}
	meta := metaOf(names)
	sequence := hashSeqOf(r.t, append([]string{add(r.t, s, meta).String()}, links...))
	root := add(r.t, s, sequence)
	for _, hash := range []cairn.Hash{root, add(r.t, s, meta)} {
		response := export(r.t, s, hash, bao.All())
		r.mustAsk(response, "iroh", "import", hash.String(), boundsOf(bao.All()))
	}
	got, blobs := r.mustAsk(nil, "iroh", "collection", root.String())
	if !slices.Equal(got, want) {
		r.t.Errorf("%d names: iroh reads %q, want %q", len(names), got, want)
	}
	if !bytes.Equal(blobs, append(meta, sequence...)) {
		r.t.Errorf("%d names: iroh makes other bytes", len(names))
	}
}

// metaOf returns a collection's first child: a fixed text, then the names and
// their number, each length as a varint.
func metaOf(names []string) []byte {
	meta := []byte("CollectionV0.")
	meta = binary.AppendUvarint(meta, uint64(len(names)))
	for _, name := range names {
		meta = binary.AppendUvarint(meta, uint64(len(name)))
		meta = append(meta, name...)
	}
	return meta
}

// hashSeqOf returns the sequence of the given hashes.
func hashSeqOf(t testing.TB, hashes []string) (sequence []byte) {
	t.Helper()
	for _, hash := range hashes {
		b, err := hex.DecodeString(hash)
		if err != nil {
			t.Fatal(err)
		}
		sequence = append(sequence, b...)
	}
	return sequence
}
