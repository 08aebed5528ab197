package blobhttp

import (
	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// lookSpan is how many chunks of a partial blob are looked for at once, which
// bounds the memory that a blob with many gaps can cost.
const lookSpan = 64 << 20 / bao.ChunkSize

// require returns a [*cairn.MissingError] if a blob of the given size lacks
// some of the ranges. It looks at no more of them than it takes to find some
// that are missing, and names those.
func require(blob *cairn.Blob, size int64, ranges bao.Ranges) error {
	all := bao.Chunks(0, bao.ChunkCount(size))
	want := ranges.Effective(size).Groups().Intersect(all)
	for !want.IsEmpty() {
		start := want.First(1).Bounds()[0]
		span := bao.Chunks(start, start+lookSpan)
		missing, err := blob.Missing(want.Intersect(span))
		if err != nil {
			return err
		}
		if !missing.IsEmpty() {
			return &cairn.MissingError{Hash: blob.Hash(), Ranges: missing}
		}
		want = want.Minus(span)
	}
	return nil
}
