package bao

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	// MaxSize is the size in bytes of the largest blob: 1 TiB.
	MaxSize = GroupSize << (TileHeight*(MaxTileLevels-1) + 2)

	headerSize = 8
	// runGroups are read at once, where they are asked for.
	runGroups = 16
	ioBuffer  = 64 << 10
)

// ErrTooLarge means that a size is above [MaxSize].
var ErrTooLarge = errors.New("bao: blob is larger than 1 TiB")

// A MismatchError tells which chunks of a blob are not what the hash says, or
// lie below a pair that is not. It is [ErrMismatch].
type MismatchError struct {
	Start, End uint64 // half-open
	Pair       bool   // the pair above them, not the data
}

func (e *MismatchError) Error() string {
	what := "data"
	if e.Pair {
		what = "pair"
	}
	return fmt.Sprintf("%v: %s of chunks %d..%d", ErrMismatch, what, e.Start, e.End)
}

// Is reports whether target is [ErrMismatch].
func (e *MismatchError) Is(target error) bool { return target == ErrMismatch }

// A Source is what a response is made from: the stored pairs, and the blob's
// content. Neither needs to have been verified.
type Source interface {
	TileReader
	io.ReaderAt
}

// Encode writes the range response of a blob of size bytes, as iroh's providers
// do: the size as 8 bytes little-endian, then, in pre-order, what proves and
// what is the data that the ranges select. For no ranges it writes nothing.
//
//   - A node above group level that has selected chunks below it: its pair.
//   - A group, or a subtree of one, that is selected whole: its data. Else the
//     pair above its halves, down to single chunks.
//
// Everything is verified before it is written; what is not as the hash says is
// a [*MismatchError]. The rest of a group of which a part is selected must be
// there too, because its pairs are made from it.
func Encode(w io.Writer, root CV, size int64, ranges Ranges, src Source) error {
	if err := checkSize(size); err != nil {
		return err
	}
	if ranges.IsEmpty() {
		return nil
	}
	run := runs.Get().(*[runGroups * GroupSize]byte)
	defer runs.Put(run)
	e := encoder{
		w:        bufio.NewWriterSize(w, ioBuffer),
		size:     size,
		selected: ranges.Effective(size),
		tiles:    tileLoader{src: src, groups: Groups(size)},
		src:      src,
		run:      run,
	}
	var header [headerSize]byte
	binary.LittleEndian.PutUint64(header[:], uint64(size))
	e.w.Write(header[:]) // bufio keeps the error for Flush
	err := e.node(0, ChunkCount(size), root, true)
	// What has been verified before an error still reaches the receiver.
	if flushErr := e.w.Flush(); err == nil {
		err = flushErr
	}
	return err
}

func checkSize(size int64) error {
	if size < 0 || size > MaxSize {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, uint64(size))
	}
	return nil
}

var runs = sync.Pool{New: func() any { return new([runGroups * GroupSize]byte) }}

type encoder struct {
	w        *bufio.Writer
	size     int64
	selected Ranges
	tiles    tileLoader
	src      Source

	run      *[runGroups * GroupSize]byte
	runFirst uint64 // the chunks in run
	runEnd   uint64
}

// node writes the subtree over the chunks [lo, hi).
func (e *encoder) node(lo, hi uint64, want CV, root bool) error {
	if !e.selected.overlaps(lo, hi) {
		return nil
	}
	if hi-lo <= groupChunks {
		return e.group(lo, hi, want, root)
	}
	pair, err := e.tiles.pair(groupRange(lo, hi))
	if err != nil {
		return err
	}
	if ParentCV(pair, root) != want {
		return &MismatchError{lo, hi, true}
	}
	left, right := CV(pair[:32]), CV(pair[32:])
	if _, err := e.w.Write(pair[:]); err != nil {
		return err
	}
	mid := lo + uint64(leftWidth(int64(hi-lo)))
	if err := e.node(lo, mid, left, false); err != nil {
		return err
	}
	return e.node(mid, hi, right, false)
}

// groupRange returns the first group and the number of groups of a node above
// group level.
func groupRange(lo, hi uint64) (first, n int64) {
	return int64(lo / groupChunks), int64((hi - lo + groupChunks - 1) / groupChunks)
}

// group writes what is selected of one group.
func (e *encoder) group(lo, hi uint64, want CV, root bool) error {
	data, err := e.load(lo, hi)
	if err != nil {
		return err
	}
	if subtreeCV(data, lo, root) != want {
		return &MismatchError{lo, hi, false}
	}
	return e.inner(data, lo, hi, root)
}

// inner writes what is selected of a subtree of a group. Its data has been
// verified.
func (e *encoder) inner(data []byte, lo, hi uint64, root bool) error {
	if !e.selected.overlaps(lo, hi) {
		return nil
	}
	if e.selected.covers(lo, hi) {
		_, err := e.w.Write(data)
		return err
	}
	mid := lo + uint64(leftWidth(int64(hi-lo)))
	left, right := data[:(mid-lo)*ChunkSize], data[(mid-lo)*ChunkSize:]
	for _, cv := range []CV{subtreeCV(left, lo, false), subtreeCV(right, mid, false)} {
		if _, err := e.w.Write(cv[:]); err != nil {
			return err
		}
	}
	if err := e.inner(left, lo, mid, false); err != nil {
		return err
	}
	return e.inner(right, mid, hi, false)
}

// load returns a group's data. It reads ahead as far as groups are selected.
func (e *encoder) load(lo, hi uint64) ([]byte, error) {
	if lo < e.runFirst || hi > e.runEnd {
		end := ChunkCount(e.size)
		e.runFirst = lo
		e.runEnd = max(hi, e.selected.runEnd(lo, min(end, lo+runGroups*groupChunks)))
		if e.runEnd != end {
			e.runEnd &^= groupChunks - 1
		}
		n := min(int64(e.runEnd)*ChunkSize, e.size) - int64(lo)*ChunkSize
		if m, err := e.src.ReadAt(e.run[:n], int64(lo)*ChunkSize); int64(m) < n {
			e.runEnd = 0
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	start := (lo - e.runFirst) * ChunkSize
	return e.run[start:][:spanLen(e.size, lo, hi)], nil
}

// spanLen returns the length in bytes of the chunks [lo, hi) of a blob.
func spanLen(size int64, lo, hi uint64) int64 {
	return min(int64(hi)*ChunkSize, size) - int64(lo)*ChunkSize
}

// subtreeCV returns the chaining value of a subtree of at most one group whose
// first chunk is given. Whole groups are hashed in place.
func subtreeCV(data []byte, chunk uint64, root bool) CV {
	if len(data) == GroupSize {
		return chunksCV((*[GroupSize]byte)(data), GroupSize, chunk, root)
	}
	buf := scratch.Get().(*[GroupSize]byte)
	defer scratch.Put(buf)
	return chunksCV(buf, copy(buf[:], data), chunk, root)
}

// scratch has whole groups for the short ones, because the vector units read
// whole groups.
var scratch = sync.Pool{New: func() any { return new([GroupSize]byte) }}

// ResponseSize returns the length in bytes of the response that [Encode]
// writes, its header included, for 0 ≤ size ≤ [MaxSize]. It is computed from the ranges, not from the
// number of chunks they select.
func ResponseSize(size int64, ranges Ranges) int64 {
	if ranges.IsEmpty() {
		return 0
	}
	return headerSize + bodySize(size, ranges.Effective(size), 0, ChunkCount(size))
}

func bodySize(size int64, selected Ranges, lo, hi uint64) int64 {
	if !selected.overlaps(lo, hi) {
		return 0
	}
	if selected.covers(lo, hi) {
		_, groups := groupRange(lo, hi)
		return spanLen(size, lo, hi) + PairSize*(groups-1)
	}
	mid := lo + uint64(leftWidth(int64(hi-lo)))
	return PairSize + bodySize(size, selected, lo, mid) + bodySize(size, selected, mid, hi)
}
