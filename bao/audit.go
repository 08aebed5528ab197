package bao

import (
	"math/bits"
	"slices"
)

// An AuditSource is what is stored of a blob, good or bad. What cannot be read
// because it is damaged counts as not there; an error ends the audit.
type AuditSource interface {
	// TileReader returns what is stored of a tile, which may be less than all of
	// it, or nothing.
	TileReader
	// GroupCVs returns the chaining value that a group's data has, with the ROOT
	// flag where the group is the only one: none if it is not there, and several if
	// it is in several places, of which any may be good. They are valid until the
	// next call.
	GroupCVs(group int64) ([]CV, error)
}

// Audit finds out which groups of a blob of size bytes are good: those whose data
// has the chaining value that the root demands. Present is what is said to be
// there, in whole groups but for the end; bad is what of it is not good.
//
// Where all is good, the data of each group is hashed once, in order. The chaining
// values come from the stored pairs, from the root downwards. A pair that is
// damaged is derived, half by half: from what is left of it, from the pairs below
// the child, from all data below it, or from both. If that does not lead to what the
// root demands, nothing below it can be known to be good. Each pair that was derived
// goes to mend, as it must be, parents not always before their children; it is
// valid until mend returns, whose error ends the audit.
//
// It holds one tile a level and no data, and hashes the data below a damaged pair
// again, at most twice for each level of the tree.
func Audit(root CV, size int64, present Ranges, src AuditSource, mend func(Part) error) (bad Ranges, err error) {
	if err := checkSize(size); err != nil {
		return Ranges{}, err
	}
	a := auditor{size: size, present: present, src: src, mend: mend}
	if err := a.node(0, Groups(size), root, true); err != nil {
		return Ranges{}, err
	}
	return Ranges{a.bad}.Intersect(present), nil
}

type auditor struct {
	size    int64
	present Ranges
	src     AuditSource
	mend    func(Part) error
	bad     []uint64 // bounds, in pairs
	loaded  [MaxTileLevels]struct {
		tile  Tile
		valid bool
		pairs [TilePairs * PairSize]byte // zeros where nothing is stored
	}
}

// chunks returns the chunks of the groups [first, first+n).
func (a *auditor) chunks(first, n int64) (lo, hi uint64) {
	return uint64(first) * groupChunks, min(uint64(first+n)*groupChunks, ChunkCount(a.size))
}

// node audits the subtree over the groups [first, first+n), which must have the
// given chaining value.
func (a *auditor) node(first, n int64, want CV, root bool) error {
	lo, hi := a.chunks(first, n)
	if !a.present.overlaps(lo, hi) {
		return nil
	}
	if n == 1 {
		cvs, err := a.src.GroupCVs(first)
		if err == nil && !slices.Contains(cvs, want) {
			a.lose(lo, hi)
		}
		return err
	}
	pair, err := a.stored(first, n)
	if err != nil {
		return err
	}
	d := derivation{halves: halves(first, n), pair: pair}
	if ParentCV(&pair, root) != want {
		found, err := a.derive(&d, want, root)
		if err != nil {
			return err
		}
		if !found {
			a.lose(lo, hi)
			return nil
		}
		if err := a.mend(Part{Start: lo, End: hi, Pair: &d.pair}); err != nil {
			return err
		}
	}
	for i, h := range d.halves {
		cv := CV(d.pair[32*i:])
		if d.computed[i] && d.fromData[i] == cv { // all below it is good
			_, _, err = a.compute(h.first, h.n, true)
		} else {
			err = a.node(h.first, h.n, cv, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lose notes that chunks are not good. They come in order.
func (a *auditor) lose(lo, hi uint64) {
	if n := len(a.bad); n > 0 && a.bad[n-1] == lo {
		a.bad[n-1] = hi
		return
	}
	a.bad = append(a.bad, lo, hi)
}

// stored returns the pair of the node over [first, first+n) as it is stored.
func (a *auditor) stored(first, n int64) (pair [PairSize]byte, err error) {
	t, number := pairPlace(first, n)
	slot := &a.loaded[t.Level]
	if !slot.valid || slot.tile != t {
		pairs, err := a.src.ReadTile(t)
		if err != nil {
			return pair, err
		}
		slot.tile, slot.valid = t, true
		clear(slot.pairs[copy(slot.pairs[:], pairs):])
	}
	return *Pair(slot.pairs[:], number), nil
}

// A half is one child of a node: the subtree over [first, first+n).
type half struct{ first, n int64 }

func halves(first, n int64) [2]half {
	left := leftWidth(n)
	return [2]half{{first, left}, {first + left, n - left}}
}

// A derivation is what a node's pair may be.
type derivation struct {
	halves   [2]half
	pair     [PairSize]byte // at last, what it must be
	computed [2]bool        // whether all data below a child is there
	fromData [2]CV          // its chaining value then
}

// derive looks for the pair that has the given chaining value, and reports
// whether there is one: with what the stored pairs below it say, at first those of
// the next node and then of one more level of tiles at a time, with what the data
// says, and with both.
func (a *auditor) derive(d *derivation, want CV, root bool) (found bool, err error) {
	height := bits.Len64(uint64(d.halves[0].n))
	for depth := 1; depth < height+TileHeight; depth += TileHeight {
		if found, err = a.guess(d, depth, false, want, root); found || err != nil {
			return found, err
		}
	}
	var may [2][]CV
	for i, h := range d.halves {
		may[i] = append(may[i], CV(d.pair[32*i:]))
		if d.fromData[i], d.computed[i], err = a.compute(h.first, h.n, false); err != nil {
			return false, err
		}
		if d.computed[i] {
			may[i] = append(may[i], d.fromData[i])
		}
	}
	if d.choose(may, want, root) {
		return true, nil
	}
	return a.guess(d, height, true, want, root)
}

// guess looks for the pair with what lies below it to a depth, and if there is no
// further pair, and data is set, with the data.
func (a *auditor) guess(d *derivation, depth int, data bool, want CV, root bool) (found bool, err error) {
	var may [2][]CV
	for i := range may {
		if may[i], err = a.half(d.halves[i], CV(d.pair[32*i:]), depth, data); err != nil {
			return false, err
		}
	}
	return d.choose(may, want, root), nil
}

// maxGuesses is the most values that a chaining value is held to be possible of.
const maxGuesses = 32

// half returns what the chaining value of a child may be, the likeliest first:
// what follows from below it, and what is stored. If these agree it is certain.
func (a *auditor) half(h half, stored CV, depth int, data bool) (may []CV, err error) {
	switch lo, hi := a.chunks(h.first, h.n); {
	case h.n == 1 && data && a.present.covers(lo, hi):
		cvs, err := a.src.GroupCVs(h.first)
		if err != nil {
			return nil, err
		}
		may = append(may, cvs...)
	case h.n > 1 && depth > 0 && a.present.overlaps(lo, hi):
		if may, err = a.below(h, depth, data); err != nil {
			return nil, err
		}
	}
	switch {
	case slices.Contains(may, stored):
		return []CV{stored}, nil
	case stored == CV{}: // nothing is stored
		return may, nil
	}
	return append(may, stored), nil
}

// below returns what the chaining value of a node may be by its own pair, as it is
// stored and as it follows from below that.
func (a *auditor) below(h half, depth int, data bool) (may []CV, err error) {
	pair, err := a.stored(h.first, h.n)
	if err != nil {
		return nil, err
	}
	var kids [2][]CV
	for i, kid := range halves(h.first, h.n) {
		if kids[i], err = a.half(kid, CV(pair[32*i:]), depth-1, data); err != nil {
			return nil, err
		}
	}
	for sum := 0; sum < len(kids[0])+len(kids[1])-1; sum++ {
		for i := max(0, sum+1-len(kids[1])); i <= sum && i < len(kids[0]); i++ {
			if len(may) == maxGuesses {
				return may, nil
			}
			copy(pair[:32], kids[0][i][:])
			copy(pair[32:], kids[1][sum-i][:])
			may = append(may, ParentCV(&pair, false))
		}
	}
	return may, nil
}

// choose takes the halves that together have the given chaining value.
func (d *derivation) choose(may [2][]CV, want CV, root bool) bool {
	var pair [PairSize]byte
	for _, l := range may[0] {
		for _, r := range may[1] {
			copy(pair[:32], l[:])
			copy(pair[32:], r[:])
			if ParentCV(&pair, root) == want {
				d.pair = pair
				return true
			}
		}
	}
	return false
}

// compute returns the chaining value that the data of the groups [first, first+n)
// has, if all of it is there. It is known to be good where mended is set: then
// every pair in between is mended that is not as it follows.
func (a *auditor) compute(first, n int64, mended bool) (cv CV, ok bool, err error) {
	lo, hi := a.chunks(first, n)
	if !a.present.covers(lo, hi) {
		return CV{}, false, nil
	}
	if n == 1 {
		cvs, err := a.src.GroupCVs(first)
		if err != nil || len(cvs) == 0 {
			return CV{}, false, err
		}
		return cvs[0], true, nil
	}
	var pair [PairSize]byte
	for i, h := range halves(first, n) {
		cv, ok, err := a.compute(h.first, h.n, mended)
		if err != nil || !ok {
			return CV{}, false, err
		}
		copy(pair[32*i:], cv[:])
	}
	if mended {
		stored, err := a.stored(first, n)
		if err == nil && stored != pair {
			err = a.mend(Part{Start: lo, End: hi, Pair: &pair})
		}
		if err != nil {
			return CV{}, false, err
		}
	}
	return ParentCV(&pair, false), true, nil
}
