package bao_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cairnstore/cairn/bao"
	lukebao "lukechampine.com/blake3/bao"
)

var randomSeed = flag.Uint64("seed", 0, "seed of the random tests; 0 takes a random one")

// newRand logs its seed, which a failing test thereby prints.
func newRand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -run '^%s$' -seed %d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// noise is content of which no two chunks are alike, unlike pattern's.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

// A span is the chunks [lo, hi).
type span struct{ lo, hi uint64 }

// An item is a part of a response as the format's description has it.
type item struct {
	span
	pair bool
}

// A blob is a [bao.Source] of which everything is known from an implementation
// other than the one tested.
type blob struct {
	*tree
	io.ReaderAt
	content []byte
	pairs   map[span][bao.PairSize]byte // of all nodes down to the chunks
	places  map[[bao.PairSize]byte]span
}

func newBlob(t testing.TB, content []byte) *blob {
	t.Helper()
	b := &blob{
		tree:     build(t, content),
		ReaderAt: bytes.NewReader(content),
		content:  content,
		pairs:    make(map[span][bao.PairSize]byte),
		places:   make(map[[bao.PairSize]byte]span),
	}
	outboard, root := lukebao.EncodeBuf(content, 0, true)
	if b.root != root {
		t.Fatalf("%d bytes: wrong root", len(content))
	}
	pairs := outboard[8:]
	var walk func(lo, hi uint64)
	walk = func(lo, hi uint64) {
		if hi-lo == 1 {
			return
		}
		pair := [bao.PairSize]byte(pairs)
		pairs = pairs[bao.PairSize:]
		b.pairs[span{lo, hi}], b.places[pair] = pair, span{lo, hi}
		walk(lo, middle(lo, hi))
		walk(middle(lo, hi), hi)
	}
	walk(0, chunkCount(b.size))
	return b
}

func chunkCount(size int64) uint64 { return uint64(max(1, (size+1023)/1024)) }

// middle returns where a node of at least two chunks splits.
func middle(lo, hi uint64) uint64 {
	width := uint64(1)
	for 2*width < hi-lo {
		width *= 2
	}
	return lo + width
}

// effective is the description of [bao.Ranges.Effective], chunk by chunk.
func effective(r bao.Ranges, size int64) []bool {
	chunks := make([]bool, chunkCount(size))
	for i := range chunks {
		chunks[i] = r.Contains(uint64(i))
	}
	bounds := r.Bounds()
	if len(bounds)%2 == 1 || len(bounds) > 0 && bounds[len(bounds)-1] > chunkCount(size) {
		chunks[len(chunks)-1] = true
	}
	return chunks
}

// items is the format's description word for word.
func (b *blob) items(r bao.Ranges) (out []item) {
	selected := effective(r, b.size)
	var emit func(lo, hi uint64)
	emit = func(lo, hi uint64) {
		here := selected[lo:hi]
		switch {
		case !slices.Contains(here, true):
		case hi-lo == 1, hi-lo <= 16 && !slices.Contains(here, false):
			out = append(out, item{span{lo, hi}, false})
		default:
			out = append(out, item{span{lo, hi}, true})
			emit(lo, middle(lo, hi))
			emit(middle(lo, hi), hi)
		}
	}
	emit(0, uint64(len(selected)))
	return out
}

// bytesOf returns an item as it is in a response.
func (b *blob) bytesOf(it item) []byte {
	if it.pair {
		pair := b.pairs[it.span]
		return pair[:]
	}
	return b.content[it.lo*1024 : min(it.hi*1024, uint64(b.size))]
}

// response returns what the format's description makes of a request: the items,
// and for each, and for the end, where it begins in the bytes.
func (b *blob) response(r bao.Ranges) (items []item, starts []int, response []byte) {
	if len(r.Bounds()) == 0 {
		return nil, []int{0}, nil
	}
	items = b.items(r)
	response = binary.LittleEndian.AppendUint64(nil, uint64(b.size))
	for _, it := range items {
		starts = append(starts, len(response))
		response = append(response, b.bytesOf(it)...)
	}
	return items, append(starts, len(response)), response
}

// drain decodes to the end, checks that everything on the way is true, and
// returns it with the error of the end.
func (b *blob) drain(t testing.TB, d *bao.Decoder) (items []item, err error) {
	t.Helper()
	var above []bao.Part // the pairs above what comes next, which no data has placed yet
	for {
		part, err := d.Next()
		if d.SizeProven() && d.Size() != b.size {
			t.Fatalf("%d bytes: size %d is called proven", b.size, d.Size())
		}
		if err != nil {
			again, err2 := d.Next()
			if err2 != err || again.Pair != nil || again.Data != nil {
				t.Fatalf("after %v came %v, %v", err, again, err2)
			}
			return items, err
		}
		it := item{span{part.Start, part.End}, part.Pair != nil}
		items = append(items, it)
		for len(above) > 0 && above[len(above)-1].End <= part.Start {
			above = above[:len(above)-1]
		}
		if part.Pair != nil {
			place, known := b.places[*part.Pair]
			if !known || part.Data != nil || d.Size() == b.size && place != it.span {
				t.Fatalf("%d bytes: wrong pair of chunks %v", b.size, it.span)
			}
			pair := *part.Pair // it is valid until the following call
			part.Pair = &pair
			above = append(above, part)
			continue
		}
		b.checkData(t, part)
		for _, pair := range above {
			b.checkPlace(t, pair)
		}
		above = above[:0]
	}
}

// checkPlace checks that a pair belongs where it is said to be stored.
func (b *blob) checkPlace(t testing.TB, part bao.Part) {
	t.Helper()
	place := b.places[*part.Pair]
	wantTile, wantNumber, wantOK := bao.Part{Start: place.lo, End: place.hi, Pair: part.Pair}.Tile()
	tile, number, ok := part.Tile()
	if tile != wantTile || number != wantNumber || ok != wantOK || place.lo != part.Start {
		t.Fatalf("%d bytes: pair of chunks %v came as that of %d..%d", b.size, place, part.Start, part.End)
	}
	if ok && *bao.Pair(b.tiles[tile], number) != *part.Pair {
		t.Fatalf("%d bytes: pair of chunks %v is not stored as number %d of %v", b.size, place, number, tile)
	}
}

func (b *blob) checkData(t testing.TB, part bao.Part) {
	t.Helper()
	start := part.Start * 1024
	end := start + uint64(len(part.Data))
	if end > uint64(b.size) || !bytes.Equal(part.Data, b.content[start:end]) {
		t.Fatalf("%d bytes: wrong data of chunks %d..%d", b.size, part.Start, part.End)
	}
	if want := min(part.End*1024, uint64(b.size)); end != want || len(part.Data) > bao.GroupSize {
		t.Fatalf("%d bytes: data of chunks %d..%d ends at %d", b.size, part.Start, part.End, end)
	}
}

// decode drains the decoder of a response.
func (b *blob) decode(t testing.TB, response []byte, r bao.Ranges) ([]item, error) {
	t.Helper()
	return b.drain(t, bao.NewDecoder(bytes.NewReader(response), b.root, r))
}

// mustDecode checks that a response is decoded to the given items.
func (b *blob) mustDecode(t testing.TB, response []byte, r bao.Ranges, want []item) {
	t.Helper()
	got, err := b.decode(t, response, r)
	if err != io.EOF || !slices.Equal(got, want) {
		t.Errorf("%d bytes, %q: decoded to %v, %v, want %v", b.size, r, got, err, want)
	}
}

func parse(t testing.TB, text string) bao.Ranges {
	t.Helper()
	r, err := bao.ParseRanges(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fromBounds returns the ranges with the given bounds, nil being no end.
func fromBounds(t testing.TB, ranges [][2]*uint64) bao.Ranges {
	t.Helper()
	var bounds []uint64
	for _, r := range ranges {
		bounds = append(bounds, *r[0])
		if r[1] != nil {
			bounds = append(bounds, *r[1])
		}
	}
	r, err := bao.FromBounds(bounds...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// randomRanges returns a request to a blob of n chunks, or to a larger one.
func randomRanges(rnd *rand.Rand, n uint64) bao.Ranges {
	var r bao.Ranges
	for range rnd.IntN(6) {
		start := rnd.Uint64N(n + 3)
		switch rnd.IntN(8) {
		case 0, 1, 2:
			r = r.Union(bao.Chunks(start, start+1+rnd.Uint64N(4)))
		case 3, 4:
			r = r.Union(bao.Chunks(start&^15, start&^15+16*(1+rnd.Uint64N(4))))
		case 5:
			r = r.Union(bao.Chunks(start, start+rnd.Uint64N(n+20)))
		case 6:
			r = r.Minus(bao.Chunks(start, start+rnd.Uint64N(20)))
		case 7:
			r = r.Union(bao.From([]uint64{start, math.MaxUint64 - rnd.Uint64N(3), 1 << 63}[rnd.IntN(3)]))
		}
	}
	return r
}

// randomSize returns a size of which the number of chunks or groups is often
// one at which the tree's shape changes.
func randomSize(rnd *rand.Rand, limit int) int {
	switch rnd.IntN(3) {
	case 0:
		return rnd.IntN(limit)
	case 1:
		return rnd.IntN(20 * 1024)
	}
	unit := []int{1024, 16384}[rnd.IntN(2)]
	return min(limit, max(0, rnd.IntN(limit/unit+1)*unit+rnd.IntN(3)-1))
}

var errStop = errors.New("stop")

// A counter counts what is read from it.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
