package bao

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Part is one verified item of a response: a pair, or data.
type Part struct {
	// The part belongs to the node over the chunks [Start, End).
	Start, End uint64
	// Pair is the node's pair, or nil if the part is the node's data.
	Pair *[PairSize]byte
	// Data are the bytes of the chunks: at most a group, less where less was
	// asked for, none for the empty blob.
	Data []byte
}

// Tile returns where a pair is stored: the tile, and its number there. ok is
// false for data and for the pairs below group level, which are not stored.
func (p Part) Tile() (t Tile, number int64, ok bool) {
	if p.Pair == nil || p.End-p.Start <= groupChunks {
		return Tile{}, 0, false
	}
	t, number = pairPlace(groupRange(p.Start, p.End))
	return t, number, true
}

// A Decoder reads the response to a request and verifies it as it comes: no
// part is returned that the hash does not prove. It reads exactly the response
// from its reader, and holds a few tens of KiB whatever the response says.
//
// The sender's statement of the size is proven by the last chunk only. Until
// then every part is proven to be what it is, and data to be where it is; but a
// pair's place depends on the size, and is proven when data below it has come.
//
// It must not be used by several goroutines at once.
type Decoder struct {
	src    io.Reader
	r      *bufio.Reader // set when the header has been read
	ranges Ranges
	root   CV
	err    error // of the last Next, if any

	size     int64
	selected Ranges
	proven   bool
	pending  []node // the next one last
	pair     [PairSize]byte
	buf      [GroupSize]byte
}

// A node is a subtree that the response goes on with.
type node struct {
	lo, hi uint64
	cv     CV
	root   bool
}

// NewDecoder returns a decoder of the response to the given request, made by
// whoever is at the other end of r.
func NewDecoder(r io.Reader, root CV, ranges Ranges) *Decoder {
	return &Decoder{src: r, root: root, ranges: ranges}
}

// Size returns the size in bytes that the sender states. It is 0 before the
// first call of Next, and proven only when SizeProven says so.
func (d *Decoder) Size() int64 { return d.size }

// SizeProven reports whether the last chunk has been verified.
func (d *Decoder) SizeProven() bool { return d.proven }

// Next returns the next part, in pre-order. What it points to is valid until
// the following call. At the end of the response the error is [io.EOF]. Other
// errors stay, too: [io.ErrUnexpectedEOF] if the response was cut off,
// [ErrMismatch] where it is not what the hash says, [ErrTooLarge] for an
// impossible size, and those of the reader.
func (d *Decoder) Next() (Part, error) {
	if d.err != nil {
		return Part{}, d.err
	}
	part, err := d.next()
	d.err = err
	return part, err
}

func (d *Decoder) next() (Part, error) {
	if d.r == nil {
		if d.ranges.IsEmpty() {
			return Part{}, io.EOF
		}
		if err := d.header(); err != nil {
			return Part{}, err
		}
	}
	for len(d.pending) > 0 {
		n := d.pending[len(d.pending)-1]
		d.pending = d.pending[:len(d.pending)-1]
		switch {
		case !d.selected.overlaps(n.lo, n.hi):
		case n.hi-n.lo <= groupChunks && d.selected.covers(n.lo, n.hi):
			return d.leaf(n)
		default:
			return d.parent(n)
		}
	}
	return Part{}, io.EOF
}

// header reads the size. Only what it makes of the response is read after it,
// so that what follows the response stays in the reader.
func (d *Decoder) header() error {
	var header [headerSize]byte
	if err := readFull(d.src, header[:]); err != nil {
		return fmt.Errorf("bao: size: %w", err)
	}
	size := int64(binary.LittleEndian.Uint64(header[:]))
	if err := checkSize(size); err != nil {
		return err
	}
	d.size = size
	d.selected = d.ranges.Effective(d.size)
	body := ResponseSize(d.size, d.ranges) - headerSize
	d.r = bufio.NewReaderSize(io.LimitReader(d.src, body), int(min(ioBuffer, body)))
	d.pending = append(d.pending, node{0, ChunkCount(d.size), d.root, true})
	return nil
}

func (d *Decoder) parent(n node) (Part, error) {
	if err := readFull(d.r, d.pair[:]); err != nil {
		return Part{}, fmt.Errorf("bao: pair of chunks %d..%d: %w", n.lo, n.hi, err)
	}
	if ParentCV(&d.pair, n.root) != n.cv {
		return Part{}, &MismatchError{n.lo, n.hi, true}
	}
	mid := n.lo + uint64(leftWidth(int64(n.hi-n.lo)))
	d.pending = append(d.pending, node{mid, n.hi, CV(d.pair[32:]), false}, node{n.lo, mid, CV(d.pair[:32]), false})
	return Part{Start: n.lo, End: n.hi, Pair: &d.pair}, nil
}

func (d *Decoder) leaf(n node) (Part, error) {
	data := d.buf[:spanLen(d.size, n.lo, n.hi)]
	if err := readFull(d.r, data); err != nil {
		return Part{}, fmt.Errorf("bao: data of chunks %d..%d: %w", n.lo, n.hi, err)
	}
	if chunksCV(&d.buf, len(data), n.lo, n.root) != n.cv {
		return Part{}, &MismatchError{n.lo, n.hi, false}
	}
	if n.hi == ChunkCount(d.size) {
		d.proven = true
	}
	return Part{Start: n.lo, End: n.hi, Data: data}, nil
}

// readFull fills p. That there is too little is always unexpected.
func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) && len(p) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}
