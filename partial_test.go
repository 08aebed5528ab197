package cairn_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// A seed makes responses of content that is in memory, for any size that it
// is told to state.
type seed struct {
	data  []byte
	root  bao.CV
	tiles map[bao.Tile][]byte
	size  int64 // as stated
}

func newSeed(t testing.TB, data []byte) *seed {
	t.Helper()
	sd := &seed{data: data, tiles: make(map[bao.Tile][]byte), size: int64(len(data))}
	h := bao.Hasher{Emit: func(tile bao.Tile, pairs []byte) error {
		sd.tiles[tile] = pairs
		return nil
	}}
	_, err := h.Write(data)
	if err == nil {
		sd.root, err = h.Finish()
	}
	if err != nil {
		t.Fatal(err)
	}
	return sd
}

func (sd *seed) ReadTile(tile bao.Tile) ([]byte, error) {
	pairs := make([]byte, max(0, tile.Units(bao.Groups(sd.size))-1)*bao.PairSize)
	copy(pairs, sd.tiles[tile])
	return pairs, nil
}

func (sd *seed) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(sd.data)) {
		copy(p, sd.data[off:])
	}
	return len(p), nil
}

// response returns the response to a request, as far as what is stated of the
// size leads, and whether that is to its end.
func (sd *seed) response(t testing.TB, ranges bao.Ranges) (response []byte, whole bool) {
	t.Helper()
	var buf bytes.Buffer
	err := bao.Encode(&buf, sd.root, sd.size, ranges, sd)
	if err != nil && !errors.Is(err, bao.ErrMismatch) {
		t.Fatal(err)
	}
	return buf.Bytes(), err == nil
}

func parse(t testing.TB, text string) bao.Ranges {
	t.Helper()
	r, err := bao.ParseRanges(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func respond(t testing.TB, data []byte, ranges string) []byte {
	t.Helper()
	response, whole := newSeed(t, data).response(t, parse(t, ranges))
	if !whole {
		t.Fatal("content does not have its own hash")
	}
	return response
}

func importRanges(t testing.TB, s *cairn.Store, data []byte, ranges string) {
	t.Helper()
	if err := s.ImportBao(t.Context(), hashOf(data), parse(t, ranges), bytes.NewReader(respond(t, data, ranges))); err != nil {
		t.Fatal(err)
	}
}

func mustHaveRanges(t testing.TB, s *cairn.Store, data []byte, want string) {
	t.Helper()
	got, err := s.Ranges(t.Context(), hashOf(data))
	if err != nil || got.String() != want {
		t.Errorf("ranges %v (%v), want %s", got, err, want)
	}
}

func TestImportBao(t *testing.T) {
	const k = 1024
	for _, tt := range []struct {
		size   int
		ranges string
		want   string // what is there then
		state  cairn.State
		proven bool
	}{
		{0, "all", "0..1", cairn.Complete, true},
		{0, "7..8", "0..1", cairn.Complete, true},
		{0, "last", "0..1", cairn.Complete, true},
		{1, "all", "0..1", cairn.Complete, true},
		{1, "last", "0..1", cairn.Complete, true},
		{16 * k, "0..16", "0..16", cairn.Complete, true},
		{16 * k, "0..15", "", cairn.Absent, false},
		{16 * k, "last", "", cairn.Partial, true},
		{16*k + 1, "last", "16..17", cairn.Partial, true},
		{16*k + 1, "0..16", "0..16", cairn.Partial, false},
		{100 * k, "", "", cairn.Absent, false},
		{100 * k, "0..1", "", cairn.Absent, false},
		{100 * k, "3..40", "16..32", cairn.Partial, false},
		{100 * k, "0..16,48..64", "0..16,48..64", cairn.Partial, false},
		{100 * k, "96..", "96..100", cairn.Partial, true},
		{100 * k, "97..", "", cairn.Partial, true},
		{100 * k, "500..600", "", cairn.Partial, true},
		{100 * k, "0..", "0..100", cairn.Complete, true},
		{3000 * k, "1000..2000", "1008..2000", cairn.Partial, false},
		{20000*k + 5, "all", "0..20001", cairn.Complete, true},
	} {
		t.Run(fmt.Sprintf("%d %s", tt.size, tt.ranges), func(t *testing.T) {
			s := open(t, ":memory:", nil)
			data := content(5, tt.size)
			for range 2 { // the second time changes nothing
				importRanges(t, s, data, tt.ranges)
				mustHaveRanges(t, s, data, tt.want)
				st, err := s.Status(t.Context(), hashOf(data))
				if err != nil || st.State != tt.state || st.SizeProven != tt.proven {
					t.Errorf("status %+v, %v", st, err)
				}
				if tt.state != cairn.Absent && st.Size != int64(tt.size) {
					t.Errorf("size %d", st.Size)
				}
				mustBeSound(t, s)
			}
			mustReadRanges(t, s, data)
			if tt.state == cairn.Complete {
				mustHave(t, s, data)
				checkOutboard(t, s, data)
				if n := count(t, s, "presence"); n != 0 {
					t.Errorf("%d bitmaps of a complete blob", n)
				}
			}
		})
	}
}

// mustReadRanges reads each group of a blob: what is there must be right, what
// is not must be named.
func mustReadRanges(t testing.TB, s *cairn.Store, data []byte) {
	t.Helper()
	hash := hashOf(data)
	b, err := s.Blob(t.Context(), hash)
	if errors.Is(err, cairn.ErrNotFound) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	present, err := s.Ranges(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(data); off += bao.GroupSize {
		want := data[off:min(off+bao.GroupSize, len(data))]
		got := make([]byte, len(want))
		_, err := b.ReadAt(got, int64(off))
		if present.Contains(uint64(off / bao.ChunkSize)) {
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("group at %d: %v", off, err)
			}
			continue
		}
		var missing *cairn.MissingError
		if !errors.As(err, &missing) || !errors.Is(err, cairn.ErrMissing) {
			t.Fatalf("group at %d, which is not there: %v", off, err)
		}
		want0 := bao.Bytes(uint64(off), uint64(off+len(want)))
		if missing.Hash != hash || !missing.Ranges.Equal(want0) {
			t.Errorf("missing %v, want %v", missing.Ranges, want0)
		}
	}
}

// TestReadAcross reads over the edge of what is there.
func TestReadAcross(t *testing.T) {
	s := open(t, ":memory:", nil)
	data := content(1, 100*1024)
	importRanges(t, s, data, "0..32,64..80")
	b, err := s.Blob(t.Context(), hashOf(data))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	buf := make([]byte, len(data)+1)
	for _, tt := range []struct {
		off, length int
		n           int
		missing     string
	}{
		{5, 40_000, 32*1024 - 5, "32..40"},
		{0, len(data), 32 * 1024, "32..64,80..100"},
		{0, len(data) + 1, 32 * 1024, "32..64,80..101"},
		{64 * 1024, 16 * 1024, 16 * 1024, ""},
		{200 * 1024, 1, 0, "200..201"},
		{200 * 1024, 0, 0, ""},
	} {
		n, err := b.ReadAt(buf[:tt.length], int64(tt.off))
		if n != tt.n || !bytes.Equal(buf[:n], data[min(tt.off, len(data)):][:n]) {
			t.Errorf("%d bytes at %d: %d read (%v), want %d", tt.length, tt.off, n, err, tt.n)
		}
		var missing *cairn.MissingError
		if errors.As(err, &missing); tt.missing == "" && missing != nil || tt.missing != "" && (missing == nil || missing.Ranges.String() != tt.missing) {
			t.Errorf("%d bytes at %d: %v, want missing %s", tt.length, tt.off, err, tt.missing)
		}
	}
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); !errors.Is(err, cairn.ErrMissing) || !bytes.Equal(out.Bytes(), data[:32*1024]) {
		t.Errorf("WriteTo: %d bytes, %v", out.Len(), err)
	}
	mustBe(t, s.Export(t.Context(), hashOf(data), tempPath(t), nil), cairn.ErrMissing)
	_, err = s.Outboard(t.Context(), hashOf(data))
	mustBe(t, err, cairn.ErrMissing)

	// Once the size is proven, what lies behind it is no more missing than
	// that of a complete blob.
	importRanges(t, s, data, "last")
	if n, err := b.ReadAt(buf[:1], 200*1024); n != 0 || err != io.EOF {
		t.Errorf("behind the proven end: %d, %v", n, err)
	}
	// The handle sees the rest arrive.
	importRanges(t, s, data, "all")
	if n, err := b.ReadAt(buf, 0); n != len(data) || err != io.EOF || !bytes.Equal(buf[:n], data) {
		t.Errorf("after completion: %d, %v", n, err)
	}
}

// TestImportAnyOrder completes a blob with its groups in random order, some of
// them several times and several at once.
func TestImportAnyOrder(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(3, 150*bao.GroupSize+700)
	sd := newSeed(t, data)
	order := append(rand.Perm(151), rand.Perm(151)...)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < len(order); i += 8 {
				start := uint64(order[i] * 16)
				ranges := bao.Chunks(start, start+uint64(rand.IntN(40)+16))
				response, _ := sd.response(t, ranges)
				if err := s.ImportBao(t.Context(), hashOf(data), ranges, bytes.NewReader(response)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	mustHave(t, s, data)
	checkOutboard(t, s, data)
	mustBeSound(t, s)
	if st, err := s.Stats(t.Context()); err != nil || st.Blobs != 1 || st.Partial != 0 || st.StoredBytes != int64(len(data)) {
		t.Errorf("%+v, %v", st, err)
	}
	if n := s.Guarded(); n != 0 {
		t.Errorf("%d hashes are still protected", n)
	}
}

// TestStatedSizes imports groups of one blob under true and false statements of
// its size, in random order. Whatever was accepted must stay readable, and
// the truth must prevail.
func TestStatedSizes(t *testing.T) {
	seedNumber := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seedNumber, 0))
	accepted := 0
	for range *modelRuns {
		groups := 1 + rnd.IntN(90)
		data := content(rnd.Uint64(), groups*bao.GroupSize-rnd.IntN(bao.GroupSize))
		s := open(t, ":memory:", nil)
		sd := newSeed(t, data)
		for range 15 {
			sd.size = int64(len(data))
			if rnd.IntN(3) > 0 {
				sd.size = rnd.Int64N(2*int64(groups)) * bao.GroupSize
				if rnd.IntN(2) == 0 {
					sd.size = max(0, sd.size-rnd.Int64N(bao.GroupSize))
				}
			}
			start := uint64(rnd.IntN(groups+2)) * 16
			ranges := bao.Chunks(start, start+16*uint64(1+rnd.IntN(3)))
			response, whole := sd.response(t, ranges)
			err := s.ImportBao(t.Context(), hashOf(data), ranges, bytes.NewReader(response))
			if sd.size == int64(len(data)) && err != nil {
				t.Fatalf("seed %d: an honest peer was refused: %v", seedNumber, err)
			}
			if !whole && err == nil {
				t.Fatalf("seed %d: half a response was accepted", seedNumber)
			}
			if err == nil && sd.size != int64(len(data)) {
				accepted++
			}
			mustReadRanges(t, s, data)
			if st, err := s.Status(t.Context(), hashOf(data)); err != nil || st.Size > 2*int64(groups)*bao.GroupSize {
				t.Fatalf("seed %d: %+v, %v", seedNumber, st, err)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seedNumber)
			}
		}
		mustBeSound(t, s)
		sd.size = int64(len(data))
		response, _ := sd.response(t, bao.All())
		if err := s.ImportBao(t.Context(), hashOf(data), bao.All(), bytes.NewReader(response)); err != nil {
			t.Fatalf("seed %d: %v", seedNumber, err)
		}
		mustHave(t, s, data)
		mustBeSound(t, s)
		s.Close()
	}
	if accepted == 0 {
		t.Error("no false statement ever got through: the test does not test")
	}
}

// TestSparse keeps three groups of a 64 GiB blob, most of which nobody has.
func TestSparse(t *testing.T) {
	const groups = 64 << 30 / bao.GroupSize
	known := map[int64]bool{0: true, groups/2 + 7: true, groups - 1: true}
	zero := new([bao.GroupSize]byte)
	sd := &seed{tiles: make(map[bao.Tile][]byte), size: 64 << 30}
	b := bao.Builder{Emit: func(tile bao.Tile, pairs []byte) error {
		for g := range known {
			if above, _ := bao.TileAbove(g, tile.Level); above == tile {
				sd.tiles[tile] = pairs
			}
		}
		return nil
	}}
	for g := range int64(groups) {
		cv := bao.CV{byte(g), byte(g >> 8), byte(g >> 16), 1}
		if known[g] {
			cv = bao.GroupCV(zero, len(zero), g, false)
		}
		if err := b.Add(cv); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if sd.root, err = b.Finish(); err != nil {
		t.Fatal(err)
	}
	s := open(t, tempPath(t), nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for g := range known {
		ranges := bao.Chunks(uint64(g)*16, uint64(g)*16+16)
		response, whole := sd.response(t, ranges)
		if !whole {
			t.Fatal("no response")
		}
		if err := s.ImportBao(t.Context(), cairn.Hash(sd.root), ranges, bytes.NewReader(response)); err != nil {
			t.Fatal(err)
		}
	}
	blob, err := s.Blob(t.Context(), cairn.Hash(sd.root))
	if err != nil {
		t.Fatal(err)
	}
	for g := range known {
		if _, err := blob.ReadAt(make([]byte, 100), g*bao.GroupSize); err != nil {
			t.Error(err)
		}
	}
	blob.Close()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("%d bytes allocated", used)
	}
	if rows, tiles, bitmaps := count(t, s, "row"), count(t, s, "outboard"), count(t, s, "presence"); rows != 3 || tiles != 10 || bitmaps != 3 {
		t.Errorf("%d rows, %d tiles, %d bitmaps", rows, tiles, bitmaps)
	}
	mustBeSound(t, s)
	if err := s.Delete(t.Context(), cairn.Hash(sd.root)); err != nil {
		t.Error(err)
	}
	if n := count(t, s, "row") + count(t, s, "outboard") + count(t, s, "presence") + count(t, s, "blob"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}
