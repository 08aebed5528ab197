// Package bao does the arithmetic of BLAKE3 verified streaming at the
// granularity that iroh uses, the 16 KiB chunk group. It does no I/O beyond
// the one-method readers it is given, starts no goroutines, and is safe for
// concurrent use wherever a type does not say otherwise.
//
// # The tree
//
// A blob is cut into chunks of 1,024 bytes; the empty blob is one empty chunk.
// A subtree of k > 1 chunks splits at the largest power of two below k, so the
// left side is always full. The chaining value (CV) of a chunk is keyed by its
// absolute index; the CV of a parent hashes the 64-byte pair of its children's
// CVs. The last compression of the whole blob, and only that one, carries the
// ROOT flag, and its CV is the blob's hash.
//
// 16 chunks are a group of 16,384 bytes. Cairn keeps the pairs above group
// level and none below: a group is the smallest thing that can be verified
// alone.
//
// # Tiles
//
// Number the nodes above group level in order: the node whose left child
// begins at group s and spans 2^(L-1) groups has the number s + 2^(L-1) - 1.
// The G groups of a blob have exactly the nodes 0 to G-2, whatever G is, so a
// node's number does not depend on a size that nobody has proven yet. A [Tile]
// is a subtree six levels high, at most 63 pairs in that order: one small
// database row. Because the numbers have no gaps, the tile at the right edge
// of a blob is a prefix of the full one. A path from the root to any group of
// a 1 TiB blob crosses five tiles.
//
// # Source
//
// The tree is that of the BLAKE3 paper, section 2.1. The pre-order outboard
// written by [WriteOutboard] is the obao4 file of iroh's flat store: an 8-byte
// little-endian size, then the pairs of all nodes above group level, each node
// before its left and its left before its right subtree.
package bao

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"

	"lukechampine.com/blake3/guts"
)

const (
	// ChunkSize is the length of a BLAKE3 leaf in bytes.
	ChunkSize = 1024
	// GroupSize is the length of a chunk group in bytes: 16 chunks.
	GroupSize = 16 * ChunkSize
	// PairSize is the length in bytes of a node's two children's CVs.
	PairSize = 64

	groupChunks = GroupSize / ChunkSize
)

// A CV is the chaining value of a node or, for the root, a blob's hash.
type CV [32]byte

// String returns the CV as 64 lower-case hexadecimal digits.
func (cv CV) String() string { return hex.EncodeToString(cv[:]) }

// ChunkCount returns the number of chunks of a blob of size bytes. It is at
// least 1: the empty blob has one empty chunk.
func ChunkCount(size int64) uint64 {
	return uint64(1 + max(0, size-1)/ChunkSize)
}

// Groups returns the number of chunk groups of a blob of size bytes. It is at
// least 1: the empty blob has one empty group.
func Groups(size int64) int64 {
	return 1 + max(0, size-1)/GroupSize
}

// GroupLen returns the length in bytes of the given group (0 ≤ group <
// Groups(size)) of a blob of size bytes. Only the last one is shorter than
// [GroupSize].
func GroupLen(size, group int64) int {
	return int(min(GroupSize, size-group*GroupSize))
}

// GroupCV returns the chaining value of one group. The buffer's first n bytes
// (0 ≤ n ≤ GroupSize) are the data; what follows them is ignored, but must be
// there because the vector units read whole groups. root is set for the only
// group of a blob of at most [GroupSize] bytes, whose CV is the blob's hash.
func GroupCV(buf *[GroupSize]byte, n int, group int64, root bool) CV {
	return chunksCV(buf, n, uint64(group)*groupChunks, root)
}

// chunksCV is GroupCV for a subtree of a group, too: the one over the n bytes
// from the given chunk on.
func chunksCV(buf *[GroupSize]byte, n int, chunk uint64, root bool) CV {
	return nodeCV(guts.CompressBuffer(buf, n, &guts.IV, chunk, 0), root)
}

// ParentCV returns the chaining value of the node with the given pair.
func ParentCV(pair *[PairSize]byte, root bool) CV {
	var l, r [8]uint32
	for i := range 8 {
		l[i] = binary.LittleEndian.Uint32(pair[4*i:])
		r[i] = binary.LittleEndian.Uint32(pair[32+4*i:])
	}
	return nodeCV(guts.ParentNode(l, r, &guts.IV, 0), root)
}

func nodeCV(node guts.Node, root bool) (cv CV) {
	if root {
		node.Flags |= guts.FlagRoot
	}
	for i, w := range guts.ChainingValue(node) {
		binary.LittleEndian.PutUint32(cv[4*i:], w)
	}
	return cv
}

// leftWidth returns how many of n > 1 units belong to the left subtree: the
// largest power of two below n.
func leftWidth(n int64) int64 {
	return 1 << (bits.Len64(uint64(n-1)) - 1)
}
