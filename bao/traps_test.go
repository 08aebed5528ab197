package bao_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/cairnstore/cairn/bao"
	lukebao "lukechampine.com/blake3/bao"
)

// TestTraps has a test for each mistake that other implementations of verified
// slices have made.
func TestTraps(t *testing.T) {
	b := newBlob(t, noise(49*1024-3))
	empty := newBlob(t, nil)
	wrong := bao.CV{1, 2, 3}
	none := bao.Ranges{}

	// A slice of length 0 hashes nothing, and so "verifies" against any root.
	t.Run("nothing asked for proves nothing", func(t *testing.T) {
		for _, r := range []bao.Ranges{none, bao.Bytes(5, 5), bao.Chunks(5, 5), bao.All().First(0)} {
			c := &counter{Reader: zeros{}}
			d := bao.NewDecoder(c, wrong, r)
			if part, err := d.Next(); err != io.EOF || part.Data != nil || d.SizeProven() || d.Size() != 0 || c.n > 0 {
				t.Errorf("%q: %v, %v, size %d, proven %v", r, part, err, d.Size(), d.SizeProven())
			}
		}
	})

	// Any slice of an empty blob verifies against any root, because there is no
	// data to hash; the empty chunk must be hashed all the same.
	t.Run("empty blob is verified", func(t *testing.T) {
		for _, text := range requests {
			r := parse(t, text)
			response := empty.mustEncode(t, r)
			d := bao.NewDecoder(bytes.NewReader(response), empty.root, r)
			part, err := d.Next()
			if err != nil || part.Pair != nil || len(part.Data) > 0 || part.End != 1 || !d.SizeProven() {
				t.Errorf("%q: %v, %v, proven %v", r, part, err, d.SizeProven())
			}
			for _, root := range []bao.CV{wrong, b.root, {}} {
				d := bao.NewDecoder(bytes.NewReader(response), root, r)
				if part, err := d.Next(); !errors.Is(err, bao.ErrMismatch) || part.Pair != nil || part.Data != nil || d.SizeProven() {
					t.Errorf("%q with root %v: %v, %v", r, root, part, err)
				}
				if got, err := encode(root, 0, r, empty); !errors.Is(err, bao.ErrMismatch) || len(got) > 8 {
					t.Errorf("%q with root %v: encoded to %x, %v", r, root, got, err)
				}
			}
		}
	})

	// Offset plus length overflows, the slice becomes empty, and any root fits.
	t.Run("ranges near 2^64", func(t *testing.T) {
		const top = math.MaxUint64
		last := b.mustEncode(t, bao.Last())
		for _, r := range []bao.Ranges{
			bao.Chunks(1<<63, top), bao.Chunks(1<<63-1, 1<<63), bao.Chunks(1<<63, 1<<63+1), bao.Chunks(top-1, top),
			bao.From(1 << 63), bao.From(top - 1), bao.Bytes(1<<63, top), bao.Bytes(top-1, top), bao.Chunks(1<<54, top),
		} {
			if got := b.mustEncode(t, r); !bytes.Equal(got, last) {
				t.Errorf("%q is not the last chunk", r)
			}
			b.mustDecode(t, last, r, b.items(bao.Last()))
			d := bao.NewDecoder(bytes.NewReader(last), wrong, r)
			if part, err := d.Next(); !errors.Is(err, bao.ErrMismatch) || part.Pair != nil || part.Data != nil {
				t.Errorf("%q with a wrong root: %v, %v", r, part, err)
			}
			if _, err := encode(wrong, b.size, r, b); !errors.Is(err, bao.ErrMismatch) {
				t.Errorf("%q with a wrong root: encoded, %v", r, err)
			}
		}
	})

	// No data at all is a correct chunk of any root.
	t.Run("no data", func(t *testing.T) {
		for _, size := range []uint64{0, 1, 1024, 20000} {
			header := binary.LittleEndian.AppendUint64(nil, size)
			d := bao.NewDecoder(bytes.NewReader(header), wrong, bao.All())
			if part, err := d.Next(); err == nil || err == io.EOF || d.SizeProven() {
				t.Errorf("size %d: %v, %v", size, part, err)
			}
		}
	})

	// The size of the header is taken for proven, though only the last chunk
	// proves it.
	t.Run("size is not proven by other chunks", func(t *testing.T) {
		for _, c := range []struct {
			ranges string
			proven bool
		}{{"0..16", false}, {"0..48", false}, {"47..48", false}, {"48..49", true}, {"all", true}, {"0..1,last", true}, {"49..50", true}} {
			r := parse(t, c.ranges)
			d := bao.NewDecoder(bytes.NewReader(b.mustEncode(t, r)), b.root, r)
			for {
				part, err := d.Next()
				if d.SizeProven() && part.End != 49 && err == nil {
					t.Errorf("%q: proven by %d..%d", r, part.Start, part.End)
				}
				if err == io.EOF {
					break
				}
			}
			if d.SizeProven() != c.proven {
				t.Errorf("%q: proven is %v", r, d.SizeProven())
			}
		}
	})

	// A size cut off is "an invalid length", though it is a lost connection.
	t.Run("truncated header", func(t *testing.T) {
		for n := range 8 {
			d := bao.NewDecoder(bytes.NewReader(make([]byte, n)), b.root, bao.All())
			if _, err := d.Next(); !errors.Is(err, io.ErrUnexpectedEOF) || d.Size() != 0 {
				t.Errorf("after %d bytes: %v", n, err)
			}
		}
	})

	// Content behind the given size is ignored, whatever the root is.
	t.Run("size below the content's", func(t *testing.T) {
		for _, size := range []int64{b.size - 1, b.size - 1024, 48 * 1024, 16384, 1, 0} {
			if got, err := encode(b.root, size, bao.All(), b); !errors.Is(err, bao.ErrMismatch) {
				t.Errorf("size %d: %d bytes, %v", size, len(got), err)
			}
		}
	})

	// Slices are whole groups, where the protocol sends single chunks.
	t.Run("chunks, not groups", func(t *testing.T) {
		if n := len(b.mustEncode(t, bao.Chunks(0, 1))); n != 8+6*64+1024 {
			t.Errorf("%d bytes", n)
		}
	})

	// Vector units read a whole group, so that what is behind a short one is
	// hashed, too.
	t.Run("dirt behind a short group", func(t *testing.T) {
		for range 3 { // so that buffers are used again
			for size := 16384*2 + 1; size < 16384*3; size += 1023 {
				b := newBlob(t, noise(size))
				items, _, want := b.response(bao.All())
				if got := b.mustEncode(t, bao.All()); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes: encoded wrongly", size)
				}
				b.mustDecode(t, want, bao.All(), items)
			}
		}
	})
}

// TestPartialSource serves what a partial blob has: pairs on the way to it, and
// holes elsewhere.
func TestPartialSource(t *testing.T) {
	b := newBlob(t, noise(200*bao.GroupSize+77))
	for _, text := range []string{"0..16", "1600..1616", "3201..", "last", "1008..1040,3000..3002"} {
		r := parse(t, text)
		groups := r.Groups()
		tiles, content := receive(t, b, b.mustEncode(t, groups), groups, nil, nil)
		partial := &blob{tree: &tree{tiles: tiles}, ReaderAt: bytes.NewReader(content)}
		got, err := encode(b.root, b.size, r, partial)
		if err != nil || !bytes.Equal(got, b.mustEncode(t, r)) {
			t.Errorf("%q: %v", r, err)
		}
		_, err = encode(b.root, b.size, bao.All(), partial)
		if !errors.Is(err, bao.ErrMismatch) && !errors.Is(err, errNoTile) {
			t.Errorf("%q: all of it: %v", r, err)
		}
	}
}

// receive stores what a response has, as a store of partial blobs does.
func receive(t *testing.T, b *blob, response []byte, r bao.Ranges, tiles map[bao.Tile][]byte, content []byte) (map[bao.Tile][]byte, []byte) {
	t.Helper()
	if tiles == nil {
		tiles, content = make(map[bao.Tile][]byte), make([]byte, b.size)
	}
	d := bao.NewDecoder(bytes.NewReader(response), b.root, r)
	for {
		part, err := d.Next()
		if err == io.EOF {
			return tiles, content
		}
		if err != nil {
			t.Fatal(err)
		}
		if part.Pair == nil {
			copy(content[part.Start*1024:], part.Data)
		}
		if tile, number, ok := part.Tile(); ok {
			if tiles[tile] == nil {
				tiles[tile] = make([]byte, (tile.Units(bao.Groups(d.Size()))-1)*bao.PairSize)
			}
			*bao.Pair(tiles[tile], number) = *part.Pair
		}
	}
}

// TestReassemble receives a blob in pieces, in any order.
func TestReassemble(t *testing.T) {
	rnd := newRand(t)
	for _, size := range []int{0, 1, 16385, 49*1024 - 3, 70*bao.GroupSize + 5} {
		b := newBlob(t, noise(size))
		var tiles map[bao.Tile][]byte
		var content []byte
		missing := bao.Chunks(0, chunkCount(b.size))
		for !missing.IsEmpty() {
			r := randomRanges(rnd, chunkCount(b.size)).Union(missing.First(1 + rnd.IntN(2))).Groups()
			tiles, content = receive(t, b, b.mustEncode(t, r), r, tiles, content)
			missing = missing.Minus(r.Effective(b.size))
		}
		if !bytes.Equal(content, b.content) || len(tiles) != len(b.tiles) {
			t.Errorf("%d bytes: content or tiles differ", size)
		}
		for tile, pairs := range tiles {
			if !bytes.Equal(pairs, b.tiles[tile]) {
				t.Errorf("%d bytes: %v differs", size, tile)
			}
		}
		want, _ := lukebao.EncodeBuf(b.content, 4, true)
		if got, err := (&tree{b.root, b.size, tiles}).outboard(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: outboard differs: %v", size, err)
		}
	}
}

// A speck is a blob of the largest size of which there is only one group.
type speck struct {
	*tree
	group int64
	data  [bao.GroupSize]byte
}

func (s *speck) ReadAt(p []byte, off int64) (int, error) {
	if off < s.group*bao.GroupSize || off+int64(len(p)) > (s.group+1)*bao.GroupSize {
		return 0, errStop
	}
	return copy(p, s.data[off-s.group*bao.GroupSize:]), nil
}

func newSpeck(group int64) *speck {
	s := &speck{tree: &tree{size: bao.MaxSize, tiles: make(map[bao.Tile][]byte)}, group: group}
	copy(s.data[:], noise(bao.GroupSize))
	s.root = bao.GroupCV(&s.data, bao.GroupSize, group, false)
	groups := bao.Groups(s.size)
	for level := range bao.Tiles(groups) {
		tile, unit := bao.TileAbove(group, level)
		units := tile.Units(groups)
		pairs := noise(int(units-1) * bao.PairSize)
		s.tiles[tile] = pairs
		for i, step := range slices.Backward(bao.AppendPath(nil, units, unit)) {
			pair := bao.Pair(pairs, step.Number)
			half := pair[:32]
			if step.Right {
				half = pair[32:]
			}
			copy(half, s.root[:])
			s.root = bao.ParentCV(pair, i == 0 && level == bao.Tiles(groups)-1)
		}
	}
	return s
}

// TestLargest sends and receives parts of a blob of 1 TiB.
func TestLargest(t *testing.T) {
	const lastGroup = bao.MaxSize/bao.GroupSize - 1
	for _, group := range []int64{0, 1, 63, 64, 1<<25 - 1, 1 << 25, 123456, lastGroup} {
		s := newSpeck(group)
		first := uint64(group) * 16
		requests := []bao.Ranges{bao.Chunks(first, first+16), bao.Chunks(first+3, first+7), bao.Chunks(first+15, first+16)}
		if group == lastGroup {
			requests = append(requests, bao.Last(), bao.From(first), bao.Chunks(first+16, first+17))
		}
		for _, r := range requests {
			response, err := encode(s.root, s.size, r, s)
			if err != nil || int64(len(response)) != bao.ResponseSize(s.size, r) {
				t.Fatalf("group %d, %q: %d bytes, %v", group, r, len(response), err)
			}
			d := bao.NewDecoder(bytes.NewReader(response), s.root, r)
			for {
				part, err := d.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("group %d, %q: %v", group, r, err)
				}
				if tile, number, ok := part.Tile(); ok && *bao.Pair(s.tiles[tile], number) != *part.Pair {
					t.Errorf("group %d, %q: pair of %d..%d is not number %d of %v", group, r, part.Start, part.End, number, tile)
				}
				if part.Pair == nil && !bytes.Equal(part.Data, s.data[(part.Start-first)*1024:(part.End-first)*1024]) {
					t.Errorf("group %d, %q: wrong data of %d..%d", group, r, part.Start, part.End)
				}
			}
			if want := r.Effective(s.size).Contains(1<<30 - 1); d.SizeProven() != want {
				t.Errorf("group %d, %q: proven is %v", group, r, d.SizeProven())
			}
		}
	}
	if got, want := bao.ResponseSize(bao.MaxSize, bao.All()), int64(8+1<<40+64*(1<<26-1)); got != want {
		t.Errorf("ResponseSize of everything is %d, want %d", got, want)
	}
}
