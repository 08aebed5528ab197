package bao_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cairnstore/cairn/bao"
	"lukechampine.com/blake3"
	lukebao "lukechampine.com/blake3/bao"
)

// tree is what a Builder made of some content.
type tree struct {
	root  bao.CV
	size  int64
	tiles map[bao.Tile][]byte
}

var errNoTile = errors.New("no tile")

func (t *tree) ReadTile(tile bao.Tile) ([]byte, error) {
	pairs, ok := t.tiles[tile]
	if !ok {
		return nil, fmt.Errorf("%w %v", errNoTile, tile)
	}
	return pairs, nil
}

func build(t testing.TB, content []byte) *tree {
	t.Helper()
	tr := &tree{size: int64(len(content)), tiles: make(map[bao.Tile][]byte)}
	b := bao.Builder{Emit: func(tile bao.Tile, pairs []byte) error {
		if _, again := tr.tiles[tile]; again {
			t.Errorf("tile %v emitted twice", tile)
		}
		tr.tiles[tile] = pairs
		return nil
	}}
	// Dirt behind the data must not matter.
	buf := new([bao.GroupSize]byte)
	for i := range buf {
		buf[i] = 0xa5
	}
	groups := bao.Groups(tr.size)
	for g := range groups {
		n := copy(buf[:], content[g*bao.GroupSize:])
		if n != bao.GroupLen(tr.size, g) {
			t.Fatalf("group %d of %d bytes: %d bytes, GroupLen says %d", g, tr.size, n, bao.GroupLen(tr.size, g))
		}
		if err := b.Add(bao.GroupCV(buf, n, g, groups == 1)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if tr.root, err = b.Finish(); err != nil {
		t.Fatal(err)
	}
	return tr
}

func (t *tree) outboard() ([]byte, error) {
	var buf bytes.Buffer
	err := bao.WriteOutboard(&buf, t.root, t.size, t)
	return buf.Bytes(), err
}

// pattern is the input of the vectors.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Entries []struct {
			Size        int
			Blake3      string
			Stored      bool    `json:"obao4_stored"`
			Hex         *string `json:"obao4_hex"`
			OutboardLen *int64  `json:"obao4_len"`
			Outboard    *string `json:"obao4_blake3"`
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Entries) == 0 {
		t.Fatal("no vectors")
	}
	stored := 0
	for _, v := range vectors.Entries {
		tr := build(t, pattern(v.Size))
		if tr.root.String() != v.Blake3 {
			t.Errorf("size %d: root %v, want %s", v.Size, tr.root, v.Blake3)
		}
		got, err := tr.outboard()
		if err != nil {
			t.Errorf("size %d: %v", v.Size, err)
			continue
		}
		if int64(len(got)) != bao.OutboardSize(tr.size) {
			t.Errorf("size %d: outboard of %d bytes, OutboardSize says %d", v.Size, len(got), bao.OutboardSize(tr.size))
		}
		if !v.Stored {
			if len(got) != 8 {
				t.Errorf("size %d: outboard of %d bytes, want the size alone", v.Size, len(got))
			}
			continue
		}
		stored++
		if int64(len(got)) != *v.OutboardLen {
			t.Errorf("size %d: outboard of %d bytes, want %d", v.Size, len(got), *v.OutboardLen)
		}
		sum := blake3.Sum256(got)
		if hex.EncodeToString(sum[:]) != *v.Outboard {
			t.Errorf("size %d: outboard differs from the vector", v.Size)
		}
		if v.Hex != nil && hex.EncodeToString(got) != *v.Hex {
			t.Errorf("size %d: outboard differs from the vector's bytes", v.Size)
		}
	}
	if stored == 0 {
		t.Error("no vector with a stored outboard")
	}
}

// TestSizes compares with an independent implementation at every number of
// groups that changes a tile's shape, and some bytes around each.
func TestSizes(t *testing.T) {
	content := make([]byte, 4300*bao.GroupSize)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(rnd.Uint32())
	}
	var groups []int
	for g := range 140 {
		groups = append(groups, g)
	}
	groups = append(groups, 191, 192, 193, 4095, 4096, 4097, 4159, 4160, 4161, 4299)
	for _, g := range groups {
		for _, extra := range []int{0, 1, 1023, 1025, bao.GroupSize - 1} {
			data := content[:g*bao.GroupSize+extra]
			tr := build(t, data)
			want, root := lukebao.EncodeBuf(data, 4, true)
			if tr.root != root {
				t.Errorf("%d bytes: wrong root", len(data))
			}
			got, err := tr.outboard()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: outboard differs (%v)", len(data), err)
			}
			checkTiles(t, tr)
			if testing.Short() {
				break
			}
		}
	}
}

// checkTiles compares the tiles with the geometry, and every group's path with
// the group's CV.
func checkTiles(t *testing.T, tr *tree) {
	t.Helper()
	groups := bao.Groups(tr.size)
	for tile, pairs := range tr.tiles {
		if want := (tile.Units(groups) - 1) * bao.PairSize; int64(len(pairs)) != want || want == 0 {
			t.Errorf("%d groups: tile %v has %d bytes, want %d", groups, tile, len(pairs), want)
		}
	}
	for _, g := range []int64{0, groups / 3, groups - 1} {
		cv, root := tr.root, true
		for level := bao.Tiles(groups) - 1; level >= 0; level-- {
			tile, unit := bao.TileAbove(g, level)
			for _, step := range bao.AppendPath(nil, tile.Units(groups), unit) {
				pair := bao.Pair(tr.tiles[tile], step.Number)
				if bao.ParentCV(pair, root) != cv {
					t.Fatalf("%d groups: way to group %d breaks in %v", groups, g, tile)
				}
				root = false
				cv = step.Child(tr.tiles[tile])
			}
		}
	}
}

// TestCorruptPairs damages every byte's pair in turn; each must be rejected.
func TestCorruptPairs(t *testing.T) {
	for _, groups := range []int{2, 3, 64, 65, 66, 130} {
		tr := build(t, pattern(groups*bao.GroupSize-5))
		for tile, pairs := range tr.tiles {
			for i := 0; i < len(pairs); i += 31 {
				pairs[i] ^= 1
				if _, err := tr.outboard(); !errors.Is(err, bao.ErrMismatch) {
					t.Errorf("%d groups: tile %v with byte %d changed: %v", groups, tile, i, err)
				}
				pairs[i] ^= 1
			}
		}
		if _, err := tr.outboard(); err != nil {
			t.Error(err)
		}
	}
}

func TestShortTile(t *testing.T) {
	tr := build(t, pattern(70*bao.GroupSize))
	tile := bao.Tile{Level: 0, Index: 0}
	tr.tiles[tile] = tr.tiles[tile][:bao.PairSize]
	if _, err := tr.outboard(); !errors.Is(err, bao.ErrMismatch) {
		t.Errorf("got %v", err)
	}
}

func TestBuilderErrors(t *testing.T) {
	var empty bao.Builder
	if _, err := empty.Finish(); err == nil {
		t.Error("a blob without a group was accepted")
	}
	stop := errors.New("stop")
	b := bao.Builder{Emit: func(bao.Tile, []byte) error { return stop }}
	var err error
	for range 65 {
		err = errors.Join(err, b.Add(bao.CV{}))
	}
	if !errors.Is(err, stop) {
		t.Errorf("error of Emit was lost: %v", err)
	}
}

// TestTileNumbers checks that tiles do not overlap in the numbering that the
// database uses.
func TestTileNumbers(t *testing.T) {
	const groups = 1 << 14
	seen := make(map[int64]bao.Tile)
	for level := range bao.MaxTileLevels {
		for i := int64(0); ; i++ {
			tile := bao.Tile{Level: level, Index: i}
			if tile.Units(groups) == 0 {
				break
			}
			key := tile.FirstGroup() | int64(level)
			if other, taken := seen[key]; taken {
				t.Fatalf("%v and %v have the same number", tile, other)
			}
			seen[key] = tile
		}
	}
}

func BenchmarkGroupCV(b *testing.B) {
	buf := new([bao.GroupSize]byte)
	b.SetBytes(bao.GroupSize)
	for b.Loop() {
		bao.GroupCV(buf, bao.GroupSize, 1, false)
	}
}

func BenchmarkBuilder(b *testing.B) {
	const groups = 4096
	b.SetBytes(groups * bao.GroupSize)
	for b.Loop() {
		var builder bao.Builder
		for range groups {
			builder.Add(bao.CV{})
		}
		if _, err := builder.Finish(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHasher writes content in pieces of all kinds, and compares with the
// Builder.
func TestHasher(t *testing.T) {
	for _, size := range []int{0, 1, bao.GroupSize - 1, bao.GroupSize, bao.GroupSize + 1, 65*bao.GroupSize + 7} {
		data := pattern(size)
		want := build(t, data)
		for _, piece := range []int{1000, bao.GroupSize, bao.GroupSize + 1, 3 * bao.GroupSize, 1 << 20} {
			tiles := 0
			h := bao.Hasher{Emit: func(tile bao.Tile, pairs []byte) error {
				if tiles++; !bytes.Equal(pairs, want.tiles[tile]) {
					t.Errorf("%d bytes: tile %v differs", size, tile)
				}
				return nil
			}}
			for rest := data; len(rest) > 0; {
				n, err := h.Write(rest[:min(piece, len(rest))])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			root, err := h.Finish()
			if err != nil || root != want.root || tiles != len(want.tiles) {
				t.Errorf("%d bytes, %d at a time: root %v, %d tiles, %v", size, piece, root, tiles, err)
			}
		}
	}
	stop := errors.New("stop")
	h := bao.Hasher{Emit: func(bao.Tile, []byte) error { return stop }}
	if n, err := h.Write(pattern(70 * bao.GroupSize)); !errors.Is(err, stop) || n != 64*bao.GroupSize {
		t.Errorf("error of Emit: %d, %v", n, err)
	}
}
