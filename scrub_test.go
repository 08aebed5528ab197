package cairn_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// scrub scrubs a store, and returns what was found, which the report must be of.
func scrub(t testing.TB, s *cairn.Store, opts *cairn.ScrubOptions) []cairn.Finding {
	t.Helper()
	if opts == nil {
		opts = &cairn.ScrubOptions{}
	}
	var last cairn.ScrubReport
	copied := *opts
	copied.Progress = func(r cairn.ScrubReport) { last = r }
	var list []cairn.Finding
	var want cairn.ScrubReport
	for f, err := range s.Findings(t.Context(), &copied) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
		want.Damaged++
		switch f.Outcome {
		case cairn.Repaired:
			want.Repaired++
		case cairn.Lost:
			want.Lost++
		}
	}
	if !last.Done || last.Damaged != want.Damaged || last.Repaired != want.Repaired || last.Lost != want.Lost {
		t.Errorf("report %+v of findings %v", last, list)
	}
	return list
}

// mustFind fails unless a scrub finds exactly one thing.
func mustFind(t testing.TB, s *cairn.Store, opts *cairn.ScrubOptions, want cairn.Finding) {
	t.Helper()
	if got := scrub(t, s, opts); len(got) != 1 || got[0].Hash != want.Hash || got[0].Outcome != want.Outcome || !got[0].Ranges.Equal(want.Ranges) {
		t.Fatalf("found %v, want %v", got, want)
	}
}

// mustBeClean fails if a scrub finds anything.
func mustBeClean(t testing.TB, s *cairn.Store) {
	t.Helper()
	if got := scrub(t, s, nil); len(got) != 0 {
		t.Errorf("found %v", got)
	}
}

// fetch imports exactly the given ranges of a blob, which is complete then.
func fetch(t testing.TB, s *cairn.Store, data []byte, ranges bao.Ranges) {
	t.Helper()
	response, _ := newSeed(t, data).response(t, ranges)
	if err := s.ImportBao(t.Context(), hashOf(data), ranges, bytes.NewReader(response)); err != nil {
		t.Fatal(err)
	}
	mustHave(t, s, data)
}

// groupsOf returns the chunks of some groups of a blob.
func groupsOf(size int, groups ...int64) (r bao.Ranges) {
	for _, g := range groups {
		r = r.Union(bao.Chunks(uint64(g)*16, uint64(g+1)*16))
	}
	return r.Intersect(bao.Chunks(0, bao.ChunkCount(int64(size))))
}

// mustLack fails unless a partial blob lacks exactly some ranges, and reads
// elsewhere.
func mustLack(t testing.TB, s *cairn.Store, data []byte, lost bao.Ranges) {
	t.Helper()
	all := bao.Chunks(0, bao.ChunkCount(int64(len(data))))
	mustHaveRanges(t, s, data, all.Minus(lost).String())
	mustReadRanges(t, s, data)
	for want, err := range s.Missing(t.Context(), cairn.HashAndFormat{Hash: hashOf(data)}) {
		if err != nil || !want.Ranges.Intersect(all).Equal(lost) {
			t.Errorf("missing is %v, %v, not %v", want.Ranges, err, lost)
		}
	}
	mustBeSound(t, s)
}

// idOf returns the id of a blob's first row.
func idOf(t testing.TB, s *cairn.Store, hash cairn.Hash) int64 {
	t.Helper()
	id, err := s.BlobID(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	return id << cairn.GroupBits
}

var scrubSizes = []int{0, 1, bao.GroupSize, bao.GroupSize + 1, 5*bao.GroupSize - 7, 65*bao.GroupSize + 3, 130 * bao.GroupSize}

// someGroups returns the groups of a blob at which something changes, all of a
// small one.
func someGroups(size int) (list []int64) {
	groups := bao.Groups(int64(size))
	for g := range groups {
		if groups < 10 || g < 2 || g%64 < 2 || g%64 > 62 || g > groups-3 {
			list = append(list, g)
		}
	}
	return list
}

// TestScrubRows damages each row in every way. Exactly that group is lost, and
// fetching it is all that it takes.
func TestScrubRows(t *testing.T) {
	for _, size := range scrubSizes {
		s := open(t, ":memory:", nil)
		other := add(t, s, content(9, 40_000))
		data := content(3, size)
		hash := add(t, s, data)
		mustBeClean(t, s)
		for i, g := range someGroups(size) {
			for j, how := range []string{
				`update "row" set data = cast(x'00' || substr(data, 2) as blob) where id = %d`,
				`update "row" set data = cast(substr(data, 1, length(data) - 1) || x'55' as blob) where id = %d`,
				`update "row" set data = cast(substr(data, 2) as blob) where id = %d`,
				`update "row" set data = cast(data || x'00' as blob) where id = %d`,
				`update "row" set data = cast(data || substr(data, 1, 1) || data as blob) where id = %d`,
				`delete from "row" where id = %d`,
			} {
				if size == 0 && strings.Contains(how, "substr") || size > 1<<20 && i%6 != j {
					continue
				}
				script(t, s, fmt.Sprintf(how, idOf(t, s, hash)+g))
				lost := groupsOf(size, g)
				if size == 0 { // what its content is, is known
					mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: lost, Outcome: cairn.Intact})
					mustFind(t, s, &cairn.ScrubOptions{Repair: true}, cairn.Finding{Hash: hash, Ranges: lost, Outcome: cairn.Repaired})
					mustBeClean(t, s)
					mustBeSound(t, s)
					continue
				}
				mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: lost, Outcome: cairn.Lost})
				mustLack(t, s, data, lost)
				mustBeClean(t, s)
				fetch(t, s, data, lost)
				checkOutboard(t, s, data)
				mustBeSound(t, s)
			}
		}
		if _, err := read(t.Context(), s, other); err != nil {
			t.Error(err)
		}
	}
}

// TestScrubOutboard damages each pair, and each tile as a whole. All data stays.
func TestScrubOutboard(t *testing.T) {
	for _, size := range scrubSizes {
		s := open(t, ":memory:", nil)
		data := content(3, size)
		hash := add(t, s, data)
		groups := bao.Groups(int64(size))
		for level := range bao.Tiles(groups) {
			for index := int64(0); ; index++ {
				tile := bao.Tile{Level: level, Index: index}
				pairs := tile.Units(groups) - 1
				if pairs < 0 {
					break
				}
				for pair := int64(0); pair < pairs; pair++ {
					if groups > 10 && level == 0 && pair > 2 && pair < pairs-2 {
						continue
					}
					for _, half := range []int64{1, 33} {
						at := pair*bao.PairSize + half
						mustRepair(t, s, data, fmt.Sprintf(`update outboard set pairs = cast(substr(pairs, 1, %d) || x'0102' || substr(pairs, %d) as blob)`, at, at+3), hash, tile)
					}
				}
				if pairs == 0 {
					continue
				}
				for _, how := range []string{
					`delete from outboard`,
					`update outboard set pairs = x''`,
					`update outboard set pairs = cast(substr(pairs, 1, 64) || x'0102' as blob)`,
					`update outboard set pairs = cast(pairs || x'0102' as blob)`,
					`update outboard set pairs = cast(pairs || pairs as blob)`,
					`update outboard set pairs = zeroblob(length(pairs))`,
					`insert into outboard select id + 21, pairs from outboard`,
				} {
					mustRepair(t, s, data, how, hash, tile)
				}
			}
		}
		mustBeClean(t, s)
	}
}

// mustRepair damages a tile, and has a scrub find and repair that.
func mustRepair(t *testing.T, s *cairn.Store, data []byte, how string, hash cairn.Hash, tile bao.Tile) {
	t.Helper()
	id := idOf(t, s, hash) | tile.FirstGroup() | int64(tile.Level)
	script(t, s, fmt.Sprintf(how+` where id = %d`, id))
	first := scrub(t, s, nil)
	if len(first) != 1 || first[0].Outcome != cairn.Intact || first[0].Ranges.IsEmpty() {
		t.Fatalf("%v, %s: found %v", tile, how, first)
	}
	mustFind(t, s, &cairn.ScrubOptions{Repair: true}, cairn.Finding{Hash: hash, Ranges: first[0].Ranges, Outcome: cairn.Repaired})
	mustHave(t, s, data)
	checkOutboard(t, s, data)
	mustBeSound(t, s)
	mustBeClean(t, s)
}

// TestScrubLarge damages rows and tiles of a blob with three levels of tiles, of
// which more rows are lost than go in one transaction.
func TestScrubLarge(t *testing.T) {
	s := open(t, tempPath(t), nil)
	size := 4099*bao.GroupSize + 10
	data := content(3, size)
	hash := add(t, s, data)
	id := idOf(t, s, hash)
	script(t, s, fmt.Sprintf(`update "row" set data = zeroblob(length(data)) where id between %d and %d`, id+100, id+1500))
	script(t, s, fmt.Sprintf(`update "row" set data = x'00' where id between %d and %d`, id+2000, id+2010))
	script(t, s, fmt.Sprintf(`delete from "row" where id between %d and %d`, id+3000, id+3999))
	script(t, s, fmt.Sprintf(`delete from "outboard" where id in (%d, %d)`, id+4032, id+2))
	lost := bao.Chunks(100*16, 1501*16).Union(bao.Chunks(2000*16, 2011*16)).Union(bao.Chunks(3000*16, 4000*16))
	mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: lost, Outcome: cairn.Lost})
	mustLack(t, s, data, lost)
	mustBeClean(t, s)
	fetch(t, s, data, lost)
	mustBeSound(t, s)
	if report := must(s.Scrub(t.Context(), nil)); report.Bytes != int64(size) || report.Damaged != 0 {
		t.Errorf("%+v of %d bytes", report, size)
	}
}

// TestScrubPartial damages what is there of partial blobs.
func TestScrubPartial(t *testing.T) {
	for _, tt := range []struct {
		size   int
		ranges string
		damage []int64
	}{
		{100 * bao.GroupSize, "0..16,48..64", []int64{0}},
		{100 * bao.GroupSize, "0..16,48..64", []int64{3}},
		{100 * bao.GroupSize, "0..16,48..64", []int64{0, 3}},
		{100 * bao.GroupSize, "1024..", []int64{64, 99}},
		{100*bao.GroupSize - 5, "1584..", []int64{99}},
		{100*bao.GroupSize - 5, "16..1024", []int64{63}},
		{300 * bao.GroupSize, "320..3200", []int64{20, 64, 65, 199}},
	} {
		s := open(t, ":memory:", nil)
		data := content(3, tt.size)
		hash := hashOf(data)
		importRanges(t, s, data, tt.ranges)
		mustBeClean(t, s)
		was := must(s.Ranges(t.Context(), hash))
		for _, g := range tt.damage {
			script(t, s, fmt.Sprintf(`update "row" set data = cast(x'00' || substr(data, 2) as blob) where id = %d`, idOf(t, s, hash)+g))
		}
		lost := groupsOf(tt.size, tt.damage...)
		mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: lost, Outcome: cairn.Lost})
		mustHaveRanges(t, s, data, was.Minus(lost).String())
		mustReadRanges(t, s, data)
		mustBeSound(t, s)
		mustBeClean(t, s)
		fetch(t, s, data, bao.All().Minus(was).Union(lost))
	}
}

// TestScrubPartialOutboard zeroes pairs above what is there of a partial blob.
// What cannot be derived, for want of the data beside it, is lost.
func TestScrubPartialOutboard(t *testing.T) {
	s := open(t, ":memory:", nil)
	data := content(3, 8*bao.GroupSize)
	hash := hashOf(data)
	importRanges(t, s, data, "0..48")
	pair := func(number int) {
		script(t, s, fmt.Sprintf(`update outboard set pairs = cast(substr(pairs, 1, %d) || zeroblob(64) || substr(pairs, %d) as blob)`, number*64, number*64+65))
	}
	pair(0) // of groups 0 and 1, which are there
	mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: bao.Chunks(0, 32), Outcome: cairn.Intact})
	mustFind(t, s, &cairn.ScrubOptions{Repair: true}, cairn.Finding{Hash: hash, Ranges: bao.Chunks(0, 32), Outcome: cairn.Repaired})
	mustReadRanges(t, s, data)
	pair(2) // of groups 2 and 3, of which only one is
	mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: bao.Chunks(32, 48), Outcome: cairn.Lost})
	mustHaveRanges(t, s, data, "0..32")
	mustBeSound(t, s)
	pair(3) // the root's
	mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: bao.Chunks(0, 32), Outcome: cairn.Lost})
	mustHaveRanges(t, s, data, "")
	mustBeSound(t, s)
	fetch(t, s, data, bao.All())
}

// TestScrubSize has a blob's size be wrong. Whatever is made of it, an honest peer
// can complete the blob, and nothing wrong is read.
func TestScrubSize(t *testing.T) {
	for _, real := range []int{1, 16384, 100_000, 5 * bao.GroupSize, 6 * bao.GroupSize, 70*bao.GroupSize + 5} {
		for _, size := range []int{1, 16384, 16385, 99_999, 100_001, 5 * bao.GroupSize, 6 * bao.GroupSize, 7 * bao.GroupSize, 64 * bao.GroupSize, 1 << 22} {
			if size == real {
				continue
			}
			s := open(t, ":memory:", nil)
			data := content(1, real)
			add(t, s, data)
			script(t, s, fmt.Sprintf("update blob set size = %d, stored = %d", size, size))
			list := scrub(t, s, nil)
			if len(list) != 1 || list[0].Outcome != cairn.Lost {
				t.Fatalf("size %d for %d: %v", size, real, list)
			}
			fetch(t, s, data, bao.All())
			mustBeSound(t, s)
		}
	}
	for _, size := range []int64{0, 1 << 45, 1 << 62} {
		s := open(t, ":memory:", nil)
		hash := add(t, s, content(1, 100_000))
		script(t, s, fmt.Sprintf("update blob set size = %d, stored = %d", size, size))
		mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: bao.All(), Outcome: cairn.Lost})
		mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: bao.All(), Outcome: cairn.Lost})
		mustBe(t, s.Delete(t.Context(), hash), nil)
		mustBeClean(t, s)
	}
}

// TestScrubReadOnly: a store that is only read tells what a scrub would do.
func TestScrubReadOnly(t *testing.T) {
	path := tempPath(t)
	s := must(cairn.Open(t.Context(), path, nil))
	data := content(1, 100*bao.GroupSize)
	hash := add(t, s, data)
	script(t, s, fmt.Sprintf(`delete from "row" where id = %d`, idOf(t, s, hash)+7))
	mustBe(t, s.Close(), nil)
	lost := groupsOf(len(data), 7)
	reader := open(t, path, &cairn.Options{ReadOnly: true})
	for range 2 {
		mustFind(t, reader, nil, cairn.Finding{Hash: hash, Ranges: lost, Outcome: cairn.Lost})
		if got, err := reader.Recheck(t.Context(), hash); err != nil || !got.Equal(lost) {
			t.Errorf("%v, %v", got, err)
		}
	}
	if st := must(reader.Status(t.Context(), hash)); st.State != cairn.Complete {
		t.Errorf("%+v", st)
	}
}

// TestRecheck looks at one blob.
func TestRecheck(t *testing.T) {
	s := open(t, tempPath(t), &cairn.Options{Readers: 1})
	data := content(1, 20*bao.GroupSize)
	if bad, err := s.Recheck(t.Context(), hashOf(data)); err != nil || !bad.IsEmpty() {
		t.Errorf("%v, %v", bad, err)
	}
	hash := add(t, s, data)
	script(t, s, `update outboard set pairs = zeroblob(length(pairs))`)
	if bad, err := s.Recheck(t.Context(), hash); err != nil || !bad.IsEmpty() {
		t.Errorf("%v, %v", bad, err)
	}
	mustHave(t, s, data)
	mustBeClean(t, s)
	script(t, s, fmt.Sprintf(`update "row" set data = zeroblob(length(data)) where id in (%d, %d)`, idOf(t, s, hash)+3, idOf(t, s, hash)+19))
	lost := groupsOf(len(data), 3, 19)
	old := must(s.Blob(t.Context(), hash))
	defer old.Close()
	if bad, err := s.Recheck(t.Context(), hash); err != nil || !bad.Equal(lost) {
		t.Errorf("%v, %v", bad, err)
	}
	mustLack(t, s, data, lost)
	for b, err := range s.Observe(t.Context(), hash) {
		if err != nil || b.State != cairn.Partial || !b.Ranges.Equal(bao.Chunks(0, 320).Minus(lost)) {
			t.Errorf("%+v, %v", b, err)
		}
		break
	}
	buf := make([]byte, bao.GroupSize)
	for g := range int64(20) { // by a handle that was opened before
		_, err := old.ReadAt(buf, g*bao.GroupSize)
		if gone := g == 3 || g == 19; gone != (err != nil) || !gone && !bytes.Equal(buf, data[g*bao.GroupSize:][:len(buf)]) {
			t.Errorf("group %d: %v", g, err)
		}
	}
	fetch(t, s, data, lost)
	if _, err := old.ReadAt(buf, 3*bao.GroupSize); err != nil || !bytes.Equal(buf, data[3*bao.GroupSize:][:len(buf)]) {
		t.Errorf("fetched again: %v", err)
	}
}

// TestScrubIsObserved: who observes a blob is told that it has become partial.
func TestScrubIsObserved(t *testing.T) {
	s := open(t, ":memory:", nil)
	hash := add(t, s, content(1, 100_000))
	script(t, s, `delete from "row" where id & 7 = 2`)
	for b, err := range s.Observe(t.Context(), hash) {
		if err != nil {
			t.Fatal(err)
		}
		if b.State == cairn.Partial {
			break
		}
		if _, err := s.Scrub(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
}
