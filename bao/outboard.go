package bao

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
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
	if size < 0 || Tiles(Groups(size)) > MaxTileLevels {
		return fmt.Errorf("%w: no blob has %d bytes", ErrMismatch, size)
	}
	bw := bufio.NewWriter(w)
	var prefix [8]byte
	binary.LittleEndian.PutUint64(prefix[:], uint64(size))
	bw.Write(prefix[:]) // bufio keeps the error for Flush
	ow := outboardWriter{w: bw, groups: Groups(size), tiles: tiles}
	if err := ow.node(0, ow.groups, root, true); err != nil {
		return err
	}
	return bw.Flush()
}

type outboardWriter struct {
	w      *bufio.Writer
	groups int64
	tiles  TileReader
	loaded [MaxTileLevels]struct {
		tile  Tile
		pairs []byte
	}
}

// node writes the subtree over the groups [first, first+n).
func (ow *outboardWriter) node(first, n int64, want CV, root bool) error {
	if n == 1 {
		return nil
	}
	pair, err := ow.pair(first, n)
	if err != nil {
		return err
	}
	if ParentCV(&pair, root) != want {
		return fmt.Errorf("%w: pair over groups %d to %d", ErrMismatch, first, first+n-1)
	}
	if _, err := ow.w.Write(pair[:]); err != nil {
		return err
	}
	left := leftWidth(n)
	if err := ow.node(first, left, CV(pair[:32]), false); err != nil {
		return err
	}
	return ow.node(first+left, n-left, CV(pair[32:]), false)
}

// pair returns a copy of the pair of the node over [first, first+n).
func (ow *outboardWriter) pair(first, n int64) ([PairSize]byte, error) {
	left := leftWidth(n)
	level := 0
	for left>>(TileHeight*level) >= TileUnits {
		level++
	}
	t, unit := TileAbove(first, level)
	slot := &ow.loaded[level]
	if slot.pairs == nil || slot.tile != t {
		pairs, err := ow.tiles.ReadTile(t)
		if err != nil {
			return [PairSize]byte{}, err
		}
		if int64(len(pairs)) != (t.Units(ow.groups)-1)*PairSize {
			return [PairSize]byte{}, fmt.Errorf("%w: tile %d of level %d has %d bytes", ErrMismatch, t.Index, t.Level, len(pairs))
		}
		slot.tile, slot.pairs = t, append(slot.pairs[:0], pairs...)
	}
	return *Pair(slot.pairs, unit+left>>(TileHeight*level)-1), nil
}
