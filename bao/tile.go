package bao

import "fmt"

const (
	// TileHeight is the number of tree levels in a tile.
	TileHeight = 6
	// TileUnits is the number of subtrees a full tile joins. At level 0 they
	// are groups, so a tile covers 1 MiB; at level l, tiles of level l-1.
	TileUnits = 1 << TileHeight
	// TilePairs is the number of pairs in a full tile, TilePairs*PairSize its
	// length in bytes: 4,032.
	TilePairs = TileUnits - 1
	// MaxTileLevels is the number of tile levels of the largest blob, 2^26
	// groups or 1 TiB.
	MaxTileLevels = 5
)

// A Tile names six levels of the tree over a run of groups.
type Tile struct {
	Level int   // 0 ≤ Level < MaxTileLevels; level 0 joins groups
	Index int64 // position among the tiles of its level, from the left
}

// FirstGroup returns the first group that the tile covers, a multiple of 64.
func (t Tile) FirstGroup() int64 {
	return t.Index << (TileHeight * (t.Level + 1))
}

// Tiles returns the number of levels of tiles of a blob with the given number
// of groups: 0 for one group, which has no pairs.
func Tiles(groups int64) (levels int) {
	for units := groups; units > 1; units = (units + TileUnits - 1) / TileUnits {
		levels++
	}
	return levels
}

// Units returns how many subtrees (1 to 64) the tile joins in a blob with the
// given number of groups. A tile of one unit has no pairs and is not stored;
// one wholly past the end, or of a level that there is not, has zero.
func (t Tile) Units(groups int64) int64 {
	if t.Level < 0 || t.Level >= MaxTileLevels {
		return 0
	}
	width := int64(1) << (TileHeight * t.Level)
	units := (groups+width-1)/width - t.Index*TileUnits
	return max(0, min(units, TileUnits))
}

// TileAbove returns the tile of the given level above a group, and which of
// its units (0 to 63) the group lies in.
func TileAbove(group int64, level int) (t Tile, unit int64) {
	u := group >> (TileHeight * level)
	return Tile{Level: level, Index: u / TileUnits}, u % TileUnits
}

// Pair returns the tile's pair with the given in-order number.
func Pair(pairs []byte, number int64) *[PairSize]byte {
	return (*[PairSize]byte)(pairs[number*PairSize:])
}

// A Step is one node on the way from a tile's top to one of its units.
type Step struct {
	Number int64 // in-order number of the node's pair in the tile
	Right  bool  // whether the way goes on to the right child
}

// Child returns the chaining value that the way goes on to, from the tile's
// pairs.
func (s Step) Child(pairs []byte) CV {
	pair := Pair(pairs, s.Number)
	if s.Right {
		return CV(pair[32:])
	}
	return CV(pair[:32])
}

// AppendPath appends to steps the way from the top of a tile that joins the
// given number of units to one of them (0 ≤ unit < units ≤ 64): at most six
// steps, none where units is 1.
func AppendPath(steps []Step, units, unit int64) []Step {
	start := int64(0)
	for units > 1 {
		left := leftWidth(units)
		right := unit >= start+left
		steps = append(steps, Step{Number: start + left - 1, Right: right})
		if right {
			start += left
			units -= left
		} else {
			units = left
		}
	}
	return steps
}

// A Builder makes the tiles and the root of a blob from its groups' chaining
// values, in one pass and without knowing the size. Its memory grows with the
// logarithm of the blob: at most 64 CVs a level. It must not be used by
// several goroutines at once. The zero Builder discards the tiles.
type Builder struct {
	// Emit takes each tile as soon as it is complete, children before
	// parents. It owns the pairs. An error ends the building.
	Emit func(t Tile, pairs []byte) error

	pending [MaxTileLevels + 1][]CV
	flushed [MaxTileLevels + 1]int64
}

// Add appends the chaining value of the next group. The only group of a blob
// must come with the ROOT flag already applied; see [GroupCV].
func (b *Builder) Add(cv CV) error { return b.push(0, cv) }

// push leaves a full tile unflushed until a further unit shows that it is not
// the top of the tree, because only the top carries the ROOT flag.
func (b *Builder) push(level int, cv CV) error {
	if len(b.pending[level]) == TileUnits {
		if level == MaxTileLevels-1 {
			return fmt.Errorf("bao: blob exceeds %d groups", int64(1)<<(TileHeight*MaxTileLevels))
		}
		if _, err := b.flush(level, false); err != nil {
			return err
		}
	}
	b.pending[level] = append(b.pending[level], cv)
	return nil
}

// flush emits the pending units of a level as a tile and, unless that is the
// root, hands its CV to the level above.
func (b *Builder) flush(level int, root bool) (CV, error) {
	units := b.pending[level]
	pairs := make([]byte, (len(units)-1)*PairSize)
	top := fillPairs(pairs, units, 0, root)
	b.pending[level] = units[:0]
	t := Tile{Level: level, Index: b.flushed[level]}
	b.flushed[level]++
	if len(pairs) > 0 && b.Emit != nil {
		if err := b.Emit(t, pairs); err != nil {
			return CV{}, err
		}
	}
	if root {
		return top, nil
	}
	return top, b.push(level+1, top)
}

// Finish emits the tiles at the right edge and returns the blob's hash. At
// least one group must have been added; the Builder is used up.
func (b *Builder) Finish() (root CV, err error) {
	for level := 0; ; level++ {
		if len(b.pending[level]) == 0 {
			return CV{}, fmt.Errorf("bao: a blob has at least one group")
		}
		if b.isTop(level) {
			if level == 0 && len(b.pending[0]) == 1 {
				return b.pending[0][0], nil
			}
			return b.flush(level, true)
		}
		if _, err := b.flush(level, false); err != nil {
			return CV{}, err
		}
	}
}

func (b *Builder) isTop(level int) bool {
	return b.flushed[level] == 0
}

// fillPairs computes the nodes over units, writes their pairs in order from
// number first on, and returns the CV of the topmost.
func fillPairs(pairs []byte, units []CV, first int64, root bool) CV {
	if len(units) == 1 {
		return units[0]
	}
	left := leftWidth(int64(len(units)))
	pair := Pair(pairs, first+left-1)
	l := fillPairs(pairs, units[:left], first, false)
	r := fillPairs(pairs, units[left:], first+left, false)
	copy(pair[:32], l[:])
	copy(pair[32:], r[:])
	return ParentCV(pair, root)
}
