package bao

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// ErrMismatch means that a pair or a group does not hash to what its parent,
// or the root, says it must.
var ErrMismatch = errors.New("bao: hash mismatch")

// A TileReader returns the pairs of one stored tile. The slice is only read,
// and only until the next call.
type TileReader interface {
	ReadTile(t Tile) ([]byte, error)
}

// OutboardSize returns the length in bytes of a blob's obao4 outboard with its
// size prefix.
func OutboardSize(size int64) int64 {
	return 8 + PairSize*(Groups(size)-1)
}

// WriteOutboard writes the obao4 outboard of a blob: its size as 8 bytes
// little-endian, then the pairs in pre-order. Every pair is checked against
// the root before it is written; one that does not match is [ErrMismatch].
func WriteOutboard(w io.Writer, root CV, size int64, tiles TileReader) error {
	if err := checkSize(size); err != nil {
		return err
	}
	bw := bufio.NewWriter(w)
	var prefix [8]byte
	binary.LittleEndian.PutUint64(prefix[:], uint64(size))
	bw.Write(prefix[:]) // bufio keeps the error for Flush
	groups := Groups(size)
	ow := outboardWriter{w: bw, tiles: tileLoader{src: tiles, groups: groups}}
	if err := ow.node(0, groups, root, true); err != nil {
		return err
	}
	return bw.Flush()
}

type outboardWriter struct {
	w     *bufio.Writer
	tiles tileLoader
}

// node writes the subtree over the groups [first, first+n).
func (ow *outboardWriter) node(first, n int64, want CV, root bool) error {
	if n == 1 {
		return nil
	}
	pair, err := ow.tiles.pair(first, n)
	if err != nil {
		return err
	}
	if ParentCV(pair, root) != want {
		return nodeMismatch(first, n)
	}
	l, r := CV(pair[:32]), CV(pair[32:])
	if _, err := ow.w.Write(pair[:]); err != nil {
		return err
	}
	left := leftWidth(n)
	if err := ow.node(first, left, l, false); err != nil {
		return err
	}
	return ow.node(first+left, n-left, r, false)
}

// nodeMismatch tells that the pair of the node over [first, first+n) is wrong.
func nodeMismatch(first, n int64) error {
	return &MismatchError{uint64(first) * groupChunks, uint64(first+n) * groupChunks, true}
}

// A tileLoader finds pairs in tiles, of which it keeps one a level.
type tileLoader struct {
	src    TileReader
	groups int64
	loaded [MaxTileLevels]struct {
		tile  Tile
		pairs []byte
	}
}

// pair returns the pair of the node over [first, first+n). It is valid until
// the next call. That there is no such pair in its tile is a mismatch.
func (l *tileLoader) pair(first, n int64) (*[PairSize]byte, error) {
	t, number := pairPlace(first, n)
	slot := &l.loaded[t.Level]
	if slot.pairs == nil || slot.tile != t {
		pairs, err := l.src.ReadTile(t)
		if err != nil && !errors.Is(err, ErrMismatch) {
			return nil, err
		}
		if err != nil || int64(len(pairs)) != (t.Units(l.groups)-1)*PairSize {
			return nil, nodeMismatch(first, n)
		}
		slot.tile, slot.pairs = t, append(slot.pairs[:0], pairs...)
	}
	return Pair(slot.pairs, number), nil
}

// pairPlace returns the tile that has the pair of the node over the groups
// [first, first+n), n > 1, and the pair's number there.
func pairPlace(first, n int64) (Tile, int64) {
	left := leftWidth(n)
	level := 0
	for left>>(TileHeight*level) >= TileUnits {
		level++
	}
	t, unit := TileAbove(first, level)
	return t, unit + left>>(TileHeight*level) - 1
}
