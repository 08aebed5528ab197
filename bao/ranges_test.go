package bao_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cairnstore/cairn/bao"
)

func TestParseRanges(t *testing.T) {
	const top = "18446744073709551615"
	for _, c := range []struct {
		text, want string
		bounds     []uint64
	}{
		{"", "", nil},
		{"all", "all", []uint64{0}},
		{"0..", "all", []uint64{0}},
		{"last", "last", []uint64{math.MaxUint64}},
		{top + "..", "last", []uint64{math.MaxUint64}},
		{"0..1", "0..1", []uint64{0, 1}},
		{"007..08", "7..8", []uint64{7, 8}},
		{"7..", "7..", []uint64{7}},
		{"0.." + top, "0.." + top, []uint64{0, math.MaxUint64}},
		{"3.." + top + ",last", "3..", []uint64{3}},
		{"18446744073709551614.." + top, "18446744073709551614.." + top, []uint64{math.MaxUint64 - 1, math.MaxUint64}},
		{"0..1,last", "0..1,last", []uint64{0, 1, math.MaxUint64}},
		{"last,0..1", "0..1,last", []uint64{0, 1, math.MaxUint64}},
		{"5..7,3..5", "3..7", []uint64{3, 7}},
		{"3..5,5..7,7..9", "3..9", []uint64{3, 9}},
		{"3..5,6..7", "3..5,6..7", []uint64{3, 5, 6, 7}},
		{"9..,1..3,2..8", "1..8,9..", []uint64{1, 8, 9}},
		{"9..12,10..,1..2", "1..2,9..", []uint64{1, 2, 9}},
		{"all,last,5..6", "all", []uint64{0}},
		{"5..6,5..6", "5..6", []uint64{5, 6}},
	} {
		r, err := bao.ParseRanges(c.text)
		if err != nil || r.String() != c.want || !slices.Equal(r.Bounds(), c.bounds) {
			t.Errorf("%q: %q %v, %v; want %q %v", c.text, r, r.Bounds(), err, c.want, c.bounds)
			continue
		}
		again, err := bao.FromBounds(r.Bounds()...)
		if err != nil || !again.Equal(r) || !r.Equal(parse(t, c.want)) {
			t.Errorf("%q: from its bounds %q, %v", c.text, again, err)
		}
		var decoded struct{ R bao.Ranges }
		text, err := json.Marshal(struct{ R bao.Ranges }{r})
		if err == nil {
			err = json.Unmarshal(text, &decoded)
		}
		if err != nil || !decoded.R.Equal(r) {
			t.Errorf("%q: by way of %s %q, %v", c.text, text, decoded.R, err)
		}
	}
}

func TestParseRangesErrors(t *testing.T) {
	for _, text := range []string{
		"5..5", "5..3", "..3", "..", ".", "5", "5.6", "5...6", "5..6..7", "a..b", "5..b", "a..", "0x1..2",
		"1..2,", ",1..2", ",", "1..2,,3..4", "1..2;3..4", "-1..2", "1..-2", "+1..2", "1..+2", "1_0..20",
		" 1..2", "1 ..2", "1..2 ", "1.. 2", " ", "All", "all..", "last..", "..last", "allx", "\x00",
		"18446744073709551616..", "18446744073709551616", "1..18446744073709551616", "99999999999999999999999..",
		"١..٢",
	} {
		if r, err := bao.ParseRanges(text); err == nil {
			t.Errorf("%q is accepted as %q", text, r)
		}
		r := bao.Chunks(3, 4)
		if err := r.UnmarshalText([]byte(text)); err == nil || r.String() != "3..4" {
			t.Errorf("%q: unmarshalled to %q, %v", text, r, err)
		}
	}
}

func TestFromBounds(t *testing.T) {
	for _, bounds := range [][]uint64{{5, 5}, {5, 3}, {1, 2, 2}, {1, 2, 1, 3}, {math.MaxUint64, 0}, {math.MaxUint64, math.MaxUint64}} {
		if r, err := bao.FromBounds(bounds...); err == nil {
			t.Errorf("%v is accepted as %q", bounds, r)
		}
	}
	// Ranges that were handed out must not change with their parameters.
	bounds := []uint64{1, 2, 3}
	r, err := bao.FromBounds(bounds...)
	bounds[0] = 100
	r.Bounds()[1] = 100
	if err != nil || r.String() != "1..2,3.." {
		t.Errorf("%q, %v", r, err)
	}
}

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		start, end uint64
		want       string
	}{
		{0, 0, ""}, {5, 5, ""}, {6, 5, ""}, {math.MaxUint64, math.MaxUint64, ""}, {math.MaxUint64, 0, ""},
		{0, 1, "0..1"}, {0, 1023, "0..1"}, {0, 1024, "0..1"}, {0, 1025, "0..2"},
		{1023, 1024, "0..1"}, {1023, 1025, "0..2"}, {1024, 1025, "1..2"}, {1024, 3072, "1..3"},
		{math.MaxUint64 - 1, math.MaxUint64, "18014398509481983..18014398509481984"},
		{0, math.MaxUint64, "0..18014398509481984"},
		{1 << 63, 1<<63 + 1024, "9007199254740992..9007199254740993"},
	} {
		if got := bao.Bytes(c.start, c.end); got.String() != c.want {
			t.Errorf("bytes %d to %d: %q, want %q", c.start, c.end, got, c.want)
		}
	}
	for _, c := range [][2]uint64{{0, 0}, {5, 5}, {5, 3}, {math.MaxUint64, 0}} {
		if r := bao.Chunks(c[0], c[1]); !r.IsEmpty() {
			t.Errorf("chunks %d to %d: %q", c[0], c[1], r)
		}
	}
}

// A model is a set over 64 chunks from base on. The last of them stands for all
// chunks behind it, too.
type model struct {
	base uint64
	set  [64]bool
}

// bases are where sums of chunk numbers overflow, and where they do not.
var bases = []uint64{0, 1 << 32, 1<<63 - 32, math.MaxUint64 - 63}

func randomModel(rnd *rand.Rand, base uint64) model {
	m := model{base: base}
	in, stay := rnd.IntN(2) == 0, 1+rnd.IntN(12)
	for i := range m.set {
		if rnd.IntN(stay) == 0 {
			in = !in
		}
		m.set[i] = in
	}
	return m
}

func (m model) ranges(t *testing.T) bao.Ranges {
	t.Helper()
	var bounds []uint64
	for i, in := range m.set {
		if in != (len(bounds)%2 == 1) {
			bounds = append(bounds, m.base+uint64(i))
		}
	}
	r, err := bao.FromBounds(bounds...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// check compares a set with the model of it.
func (m model) check(t *testing.T, what string, got bao.Ranges) {
	t.Helper()
	want := m.ranges(t)
	if !got.Equal(want) || got.String() != want.String() {
		t.Fatalf("%s: %q, want %q", what, got, want)
	}
	for i, in := range m.set {
		if got.Contains(m.base+uint64(i)) != in {
			t.Fatalf("%s: %q: Contains(%d) is %v", what, got, m.base+uint64(i), !in)
		}
	}
	open := m.set[63]
	if got.Contains(math.MaxUint64) != open || got.IsOpen() != open || m.base > 0 && got.Contains(m.base-1) {
		t.Fatalf("%s: %q: wrong at the ends", what, got)
	}
	parts := strings.Split(want.String(), ",")
	if want.String() == "" {
		parts = nil
	}
	if got.Len() != len(parts) || got.IsEmpty() != (len(parts) == 0) {
		t.Fatalf("%s: %q: Len is %d", what, got, got.Len())
	}
	for n := range len(parts) + 2 {
		if first := got.First(n).String(); first != strings.Join(parts[:min(n, len(parts))], ",") {
			t.Fatalf("%s: %q: First(%d) is %q", what, got, n, first)
		}
	}
	// The order and the overlaps of the text must not matter.
	rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	if text := strings.Join(append(parts, parts...), ","); !got.Equal(parse(t, text)) {
		t.Fatalf("%s: %q is parsed to %q", what, text, parse(t, text))
	}
}

// rounded is the model of Groups.
func (m model) rounded() model {
	out := m
	for i, in := range m.set {
		if !in {
			continue
		}
		end := i&^15 + 16
		if end == 64 && !m.set[63] {
			end = i + 1 // it would be 2^64
		}
		for j := i &^ 15; j < end; j++ {
			out.set[j] = true
		}
	}
	return out
}

func TestRangesModel(t *testing.T) {
	rnd := newRand(t)
	rounds := 4000
	if testing.Short() {
		rounds = 400
	}
	for range rounds {
		base := bases[rnd.IntN(len(bases))]
		a, b := randomModel(rnd, base), randomModel(rnd, base)
		ra, rb := a.ranges(t), b.ranges(t)
		what := fmt.Sprintf("%q and %q", ra, rb)
		a.check(t, what, ra)
		for name, op := range map[string]struct {
			got  bao.Ranges
			keep func(a, b bool) bool
		}{
			"union":     {ra.Union(rb), func(a, b bool) bool { return a || b }},
			"intersect": {ra.Intersect(rb), func(a, b bool) bool { return a && b }},
			"minus":     {ra.Minus(rb), func(a, b bool) bool { return a && !b }},
		} {
			want := model{base: base}
			for i := range want.set {
				want.set[i] = op.keep(a.set[i], b.set[i])
			}
			want.check(t, what+": "+name, op.got)
		}
		if ra.Equal(rb) != (a == b) {
			t.Fatalf("%s: Equal is %v", what, ra.Equal(rb))
		}
		a.check(t, what+": operands must not change", ra)
	}
}

func TestGroups(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""}, {"all", "all"}, {"0..1", "0..16"}, {"15..16", "0..16"}, {"15..17", "0..32"}, {"16..32", "16..32"},
		{"17..", "16.."}, {"0..1,15..16", "0..16"}, {"0..1,16..17", "0..32"}, {"0..1,32..33", "0..16,32..48"},
		{"3..4,18..", "0.."}, {"3..4,33..", "0..16,32.."}, {"last", "18446744073709551600.."},
		{"18446744073709551598..18446744073709551599", "18446744073709551584..18446744073709551600"},
		{"18446744073709551600..18446744073709551601", "18446744073709551600..18446744073709551601"},
		{"18446744073709551603..18446744073709551615", "18446744073709551600..18446744073709551615"},
		{"18446744073709551603..18446744073709551604,last", "18446744073709551600.."},
	} {
		if got := parse(t, c.text).Groups(); !got.Equal(parse(t, c.want)) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
	rnd := newRand(t)
	for range 4000 {
		m := randomModel(rnd, bases[rnd.IntN(len(bases))])
		if m.base+63 != math.MaxUint64 && !m.set[63] {
			clear(m.set[48:]) // rounded up, it would end where the model does
		}
		r := m.ranges(t)
		m.rounded().check(t, fmt.Sprintf("groups of %q", r), r.Groups())
		if got := r.Groups(); !got.Groups().Equal(got) {
			t.Fatalf("groups of %q: %q, rounded once more %q", r, got, got.Groups())
		}
	}
}

func TestEffective(t *testing.T) {
	for _, c := range []struct {
		text string
		size int64
		want string
	}{
		{"", 0, ""}, {"", 5000, ""}, {"all", 0, "0..1"}, {"last", 0, "0..1"}, {"7..9", 0, "0..1"}, {"0..1", 0, "0..1"},
		{"all", 1024, "0..1"}, {"all", 1025, "0..2"}, {"0..1", 1025, "0..1"}, {"1..2", 1024, "0..1"},
		{"10..12", 7 * 1024, "6..7"}, {"2..3,10..12", 7 * 1024, "2..3,6..7"}, {"5..6,7..8", 7 * 1024, "5..7"},
		{"6..7", 7 * 1024, "6..7"}, {"0..7", 7 * 1024, "0..7"}, {"0..6", 7 * 1024, "0..6"}, {"0..6,last", 7 * 1024, "0..7"},
		{"9223372036854775808..18446744073709551615", 7 * 1024, "6..7"},
		{"18446744073709551614..18446744073709551615", 7 * 1024, "6..7"},
		{"0..18446744073709551615", 7 * 1024, "0..7"},
		{"last", bao.MaxSize, "1073741823..1073741824"},
		{"1073741824..1073741825", bao.MaxSize, "1073741823..1073741824"},
	} {
		if got := parse(t, c.text).Effective(c.size); !got.Equal(parse(t, c.want)) {
			t.Errorf("%q of %d bytes: %q, want %q", c.text, c.size, got, c.want)
		}
	}
	rnd := newRand(t)
	for range 4000 {
		size := int64(randomSize(rnd, 100*1024))
		r := randomRanges(rnd, chunkCount(size))
		got := r.Effective(size)
		for chunk, in := range effective(r, size) {
			if got.Contains(uint64(chunk)) != in {
				t.Fatalf("%q of %d bytes: %q", r, size, got)
			}
		}
		if got.IsOpen() || got.Minus(bao.Chunks(0, chunkCount(size))).Len() != 0 || got.IsEmpty() != r.IsEmpty() {
			t.Fatalf("%q of %d bytes: %q", r, size, got)
		}
	}
}
