package blobhttp

import (
	"iter"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

const (
	// lookSpan is how many chunks of a partial blob are looked for at once,
	// which bounds the memory that a blob with many gaps can cost.
	lookSpan = 16 << 20 / bao.ChunkSize
	// offerRanges are offered at most; offerSpans are looked at for something to offer in place of what was
	// asked for.
	offerRanges = 64
	offerSpans  = 1024
	// rangesHeader names, in an answer that some of a partial blob is missing,
	// what is there of what was asked for: the first ranges of it.
	rangesHeader = "Cairn-Ranges"
)

// A span is a part of what is wanted of a blob.
type span struct{ wanted, missing bao.Ranges }

// spans goes through what ranges select of a blob of the given size.
func spans(blob *cairn.Blob, size int64, ranges bao.Ranges) iter.Seq2[span, error] {
	return func(yield func(span, error) bool) {
		all := bao.Chunks(0, bao.ChunkCount(size))
		want := ranges.Effective(size).Groups().Intersect(all)
		for !want.IsEmpty() {
			start := want.First(1).Bounds()[0]
			chunks := bao.Chunks(start, start+lookSpan)
			s := span{wanted: want.Intersect(chunks)}
			var err error
			s.missing, err = blob.Missing(s.wanted)
			if !yield(s, err) || err != nil {
				return
			}
			want = want.Minus(chunks)
		}
	}
}

// require returns a [*cairn.MissingError] if a blob of the given size lacks
// some of the ranges. It looks at no more of them than it takes to find some
// that are missing, and names those.
func require(blob *cairn.Blob, size int64, ranges bao.Ranges) error {
	for s, err := range spans(blob, size, ranges) {
		if err != nil {
			return err
		}
		if !s.missing.IsEmpty() {
			return &cairn.MissingError{Hash: blob.Hash(), Ranges: s.missing}
		}
	}
	return nil
}

// offer returns the first of the ranges that a blob has, as far as that is
// cheap to find.
func offer(blob *cairn.Blob, size int64, ranges bao.Ranges) (there bao.Ranges, err error) {
	looked := 0
	for s, err := range spans(blob, size, ranges) {
		if err != nil {
			return there, err
		}
		there = there.Union(s.wanted.Minus(s.missing))
		if looked++; looked == offerSpans || there.Len() > offerRanges {
			break
		}
	}
	return there.First(offerRanges), nil
}
