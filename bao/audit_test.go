package bao_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/cairnstore/cairn/bao"
)

// damage is a blob of which some is damaged: a source, and what is known of it.
type damage struct {
	*blob
	data    []byte
	lost    map[int64]bool   // groups that cannot be read
	bad     map[int64]bool   // groups that are not what they were, or lost
	halves  map[span][2]bool // of the pairs, what is not as it was
	present bao.Ranges
	reads   int // of groups
}

func newDamage(b *blob) *damage {
	d := &damage{
		blob:    &blob{tree: &tree{root: b.root, size: b.size, tiles: make(map[bao.Tile][]byte)}, pairs: b.pairs},
		data:    bytes.Clone(b.content),
		lost:    make(map[int64]bool),
		bad:     make(map[int64]bool),
		halves:  make(map[span][2]bool),
		present: bao.Chunks(0, bao.ChunkCount(b.size)),
	}
	for t, pairs := range b.tiles {
		d.tiles[t] = bytes.Clone(pairs)
	}
	return d
}

func (d *damage) ReadTile(t bao.Tile) ([]byte, error) { return d.tiles[t], nil }

func (d *damage) GroupCVs(group int64) ([]bao.CV, error) {
	d.reads++
	if d.lost[group] {
		return nil, nil
	}
	buf := new([bao.GroupSize]byte)
	n := copy(buf[:], d.data[group*bao.GroupSize:])
	return []bao.CV{bao.GroupCV(buf, n, group, d.size <= bao.GroupSize)}, nil
}

// spanOf returns the chunks of a node of groups.
func (d *damage) spanOf(first, n int64) span {
	return span{uint64(first) * 16, min(uint64(first+n)*16, chunkCount(d.size))}
}

// damageGroup changes a group, or has it be lost.
func (d *damage) damageGroup(group int64, lost bool) {
	if d.bad[group] {
		return
	}
	d.bad[group] = true
	if lost || d.size == 0 {
		d.lost[group] = true
	} else {
		d.data[group*bao.GroupSize] ^= 1
	}
}

// pairAt returns where the pair of a node is stored, nil if its tile is lost.
func (d *damage) pairAt(s span) []byte {
	pair := d.pairs[s]
	t, number, ok := bao.Part{Start: s.lo, End: s.hi, Pair: &pair}.Tile()
	if !ok {
		panic("no node")
	}
	if int64(len(d.tiles[t])) < (number+1)*bao.PairSize {
		return nil
	}
	return bao.Pair(d.tiles[t], number)[:]
}

// damagePair changes halves of a node's pair.
func (d *damage) damagePair(s span, left, right bool) {
	was := d.halves[s]
	pair := d.pairAt(s)
	for i, hit := range []bool{left, right} {
		if hit && !was[i] && pair != nil {
			pair[32*i+5] ^= 0x10
		}
	}
	d.halves[s] = [2]bool{was[0] || left, was[1] || right}
}

// nodes returns the spans of all nodes above group level.
func (d *damage) nodes() (list []span) {
	for s := range d.pairs {
		if s.hi-s.lo > 16 {
			list = append(list, s)
		}
	}
	return list
}

// A finding is what an audit must find.
type finding struct {
	bad    map[int64]bool
	mended map[span]bool
}

// expect is what can be known, by what is damaged and not by hashing: a half of a
// pair can be known if it is whole, or if both halves of the pair below it can be
// or, below the lowest, the data is whole.
func (d *damage) expect() finding {
	f := finding{make(map[int64]bool), make(map[span]bool)}
	groups := bao.Groups(d.size)
	there := func(s span) (any, all bool) {
		all = true
		for c := s.lo; c < s.hi; c++ {
			any = any || d.present.Contains(c)
			all = all && d.present.Contains(c)
		}
		return any, all
	}
	groupsOf := func(s span) (first, end int64) { return int64(s.lo / 16), int64((s.hi + 15) / 16) }
	kidsOf := func(s span) [2]span { return [2]span{{s.lo, middle(s.lo, s.hi)}, {middle(s.lo, s.hi), s.hi}} }
	var known func(s span) bool
	known = func(s span) bool {
		if first, end := groupsOf(s); end-first == 1 {
			_, all := there(s)
			return all && !d.bad[first]
		}
		broken := d.halves[s]
		for i, kid := range kidsOf(s) {
			if broken[i] && !known(kid) {
				return false
			}
		}
		return true
	}
	var walk func(s span)
	walk = func(s span) {
		any, _ := there(s)
		if !any {
			return
		}
		first, end := groupsOf(s)
		if end-first == 1 {
			if d.bad[first] {
				f.bad[first] = true
			}
			return
		}
		kids := kidsOf(s)
		broken := d.halves[s]
		if !known(s) {
			for g := first; g < end; g++ {
				if d.present.Contains(uint64(g) * 16) {
					f.bad[g] = true
				}
			}
			return
		}
		if broken != [2]bool{} {
			f.mended[s] = true
		}
		walk(kids[0])
		walk(kids[1])
	}
	walk(d.spanOf(0, groups))
	return f
}

// audit compares what an audit finds with what it must find.
func (d *damage) audit(t *testing.T, what string) {
	t.Helper()
	want := d.expect()
	got := finding{make(map[int64]bool), make(map[span]bool)}
	bad, err := bao.Audit(d.root, d.size, d.present, d, func(p bao.Part) error {
		s := span{p.Start, p.End}
		if pair, ok := d.pairs[s]; !ok || *p.Pair != pair {
			t.Errorf("%s: the pair of chunks %v is mended wrongly", what, s)
		}
		if got.mended[s] {
			t.Errorf("%s: the pair of chunks %v is mended twice", what, s)
		}
		got.mended[s] = true
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for g := range bao.Groups(d.size) {
		if bad.Contains(uint64(g) * 16) {
			got.bad[g] = true
		}
	}
	if !maps.Equal(got.bad, want.bad) || !maps.Equal(got.mended, want.mended) {
		t.Fatalf("%s of %d bytes: found %v, want %v", what, d.size, got, want)
	}
	if !bad.Minus(d.present).IsEmpty() {
		t.Errorf("%s: %v is bad, of %v", what, bad, d.present)
	}
	if len(want.bad)+len(want.mended) == 0 && d.reads > int(bao.Groups(d.size)) {
		t.Errorf("%s: %d groups were read, of %d", what, d.reads, bao.Groups(d.size))
	}
}

// TestAuditEach damages every group, every half of every pair, every tile, and
// each of these together with each group, of all small blobs.
func TestAuditEach(t *testing.T) {
	for groups := range 9 {
		for _, size := range []int{groups * bao.GroupSize, groups*bao.GroupSize + 1} {
			b := newBlob(t, noise(size))
			newDamage(b).audit(t, "nothing")
			list := newDamage(b).nodes()
			for g := range bao.Groups(b.size) {
				for _, lost := range []bool{false, true} {
					d := newDamage(b)
					d.damageGroup(g, lost)
					d.audit(t, fmt.Sprintf("group %d", g))
				}
			}
			for _, s := range list {
				for halves := 1; halves < 4; halves++ {
					what := fmt.Sprintf("pair %v, halves %d", s, halves)
					d := newDamage(b)
					d.damagePair(s, halves&1 != 0, halves&2 != 0)
					d.audit(t, what)
					for g := range bao.Groups(b.size) {
						d := newDamage(b)
						d.damagePair(s, halves&1 != 0, halves&2 != 0)
						d.damageGroup(g, g%2 == 0)
						d.audit(t, fmt.Sprintf("%s and group %d", what, g))
					}
					for _, other := range list {
						d := newDamage(b)
						d.damagePair(s, halves&1 != 0, halves&2 != 0)
						d.damagePair(other, true, false)
						d.audit(t, fmt.Sprintf("%s and pair %v", what, other))
					}
				}
			}
		}
	}
}

// loseTile takes away what is stored of a tile from a pair on.
func (d *damage) loseTile(t bao.Tile, from int64) {
	d.tiles[t] = d.tiles[t][:from*bao.PairSize]
	for _, s := range d.nodes() {
		pair := d.pairs[s]
		tile, number, _ := bao.Part{Start: s.lo, End: s.hi, Pair: &pair}.Tile()
		if tile == t && number >= from {
			d.halves[s] = [2]bool{true, true}
		}
	}
}

// TestAuditTiles loses each tile, or its end, of blobs with several levels, with
// groups and pairs here and there.
func TestAuditTiles(t *testing.T) {
	rnd := newRand(t)
	for _, groups := range []int{64, 65, 66, 130, 64*64 + 3} {
		b := newBlob(t, noise(groups*bao.GroupSize-5))
		list := newDamage(b).nodes()
		n := 0
		for tile, pairs := range b.tiles {
			if n++; n > 6 {
				break
			}
			for _, from := range []int64{0, int64(len(pairs)/bao.PairSize) / 2} {
				d := newDamage(b)
				d.loseTile(tile, from)
				d.audit(t, fmt.Sprintf("tile %v from %d", tile, from))
				d.reads = 0
				for range rnd.IntN(4) {
					d.damageGroup(rnd.Int64N(int64(groups)), rnd.IntN(2) == 0)
				}
				for range rnd.IntN(4) {
					d.damagePair(list[rnd.IntN(len(list))], true, rnd.IntN(2) == 0)
				}
				d.audit(t, fmt.Sprintf("tile %v from %d, and more", tile, from))
			}
		}
	}
}

// TestAuditUpperTile loses a tile of an upper level, and a group: with the tops of
// the tiles below, only that group is lost.
func TestAuditUpperTile(t *testing.T) {
	for _, groups := range []int{130, 64*64 + 70} {
		b := newBlob(t, noise(groups*bao.GroupSize-5))
		for tile := range b.tiles {
			if tile.Level == 0 {
				continue
			}
			for _, garbage := range []bool{false, true} {
				d := newDamage(b)
				if garbage {
					for _, s := range d.nodes() {
						pair := d.pairs[s]
						if at, _, _ := (bao.Part{Start: s.lo, End: s.hi, Pair: &pair}).Tile(); at == tile {
							d.damagePair(s, true, true)
						}
					}
				} else {
					d.loseTile(tile, 0)
				}
				d.damageGroup(1, false)
				d.damageGroup(int64(groups)-1, true)
				d.audit(t, fmt.Sprintf("tile %v, garbage %v", tile, garbage))
			}
		}
	}
}

// TestAuditModel damages much at random, of blobs and of parts of them, of which
// the pairs are there that lead to what is.
func TestAuditModel(t *testing.T) {
	rnd := newRand(t)
	blobs := make(map[int]*blob)
	for round := range 4000 {
		size := randomSize(rnd, 40*bao.GroupSize)
		if round%4 > 0 {
			size = 17*bao.GroupSize + 5
		}
		if blobs[size] == nil {
			blobs[size] = newBlob(t, noise(size))
		}
		d := newDamage(blobs[size])
		groups := bao.Groups(d.size)
		list := d.nodes()
		if rnd.IntN(2) == 0 {
			for range rnd.IntN(4) {
				first := rnd.Int64N(groups)
				d.present = d.present.Minus(bao.Chunks(uint64(first)*16, uint64(first+1+rnd.Int64N(5))*16))
			}
			for _, s := range list {
				if d.present.Intersect(bao.Chunks(s.lo, s.hi)).IsEmpty() {
					d.damagePair(s, true, true)
				}
			}
			for g := range groups {
				if !d.present.Contains(uint64(g) * 16) {
					d.lost[g] = true
				}
			}
		}
		for range rnd.IntN(4) {
			d.damageGroup(rnd.Int64N(groups), rnd.IntN(2) == 0)
		}
		for n := rnd.IntN(5); n > 0 && len(list) > 0; n-- {
			d.damagePair(list[rnd.IntN(len(list))], rnd.IntN(3) > 0, rnd.IntN(2) == 0)
		}
		d.audit(t, fmt.Sprintf("round %d", round))
	}
}

// TestAuditErrors: an error of the source or of who mends ends the audit, and a
// size that no blob has is one.
func TestAuditErrors(t *testing.T) {
	b := newBlob(t, noise(5*bao.GroupSize))
	d := newDamage(b)
	for _, s := range d.nodes() {
		d.damagePair(s, true, true)
	}
	all := bao.Chunks(0, 80)
	if _, err := bao.Audit(d.root, d.size, all, d, func(bao.Part) error { return errStop }); !errors.Is(err, errStop) {
		t.Errorf("error of mend: %v", err)
	}
	for n := range 30 {
		src := &failingSource{d, n}
		_, err := bao.Audit(d.root, d.size, all, src, func(bao.Part) error { return nil })
		if failed := src.left < 0; failed != errors.Is(err, errStop) {
			t.Errorf("error of call %d: %v", n, err)
		}
	}
	if _, err := bao.Audit(d.root, -1, all, d, nil); !errors.Is(err, bao.ErrTooLarge) {
		t.Errorf("size -1: %v", err)
	}
}

// A failingSource fails after some calls.
type failingSource struct {
	*damage
	left int
}

func (f *failingSource) ReadTile(t bao.Tile) ([]byte, error) {
	if f.left--; f.left < 0 {
		return nil, errStop
	}
	return f.damage.ReadTile(t)
}

func (f *failingSource) GroupCVs(group int64) ([]bao.CV, error) {
	if f.left--; f.left < 0 {
		return nil, errStop
	}
	return f.damage.GroupCVs(group)
}
