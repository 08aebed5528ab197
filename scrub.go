package cairn

import (
	"context"
	"errors"
	"iter"

	"github.com/cairnstore/cairn/bao"
)

var errStub = errors.New("not there yet")

// ScrubOptions configure a scrub. Nil is the default: everything, as fast as it
// goes.
type ScrubOptions struct {
	// Prefix is the beginning of the hashes to be looked at, in hexadecimal
	// digits of either case. Default: all.
	Prefix string
	// After is the hash that the scrub begins behind, such as [ScrubReport.Last] of
	// the one before. Default (zero): it begins with the first.
	After Hash
	// Sample is which part of the bytes is hashed, chosen at random: 0 < Sample ≤ 1.
	// Default (0): all.
	Sample float64
	// Rate is the most bytes hashed a second. Default (and if ≤ 0): no limit.
	Rate int64
	// Repair has damage repaired where that is possible.
	Repair bool
	// Progress, if not nil, is called about once every MiB and after each blob,
	// from the goroutine that called Scrub.
	Progress func(ScrubReport)
}

// An Outcome is what a scrub made of damage.
type Outcome int

const (
	// Intact: the content is whole, and what is beside it was not.
	Intact Outcome = iota
	// Repaired: what was damaged is whole again.
	Repaired
	// Lost: the ranges are gone, and the blob is partial.
	Lost
)

// A Finding is damage that a scrub has found in one blob.
type Finding struct {
	Hash Hash
	// Ranges are the chunks concerned, in whole groups.
	Ranges  bao.Ranges
	Outcome Outcome
}

// A ScrubReport tells what a scrub has done so far.
type ScrubReport struct {
	Scanned  int64 // blobs
	Bytes    int64 // hashed
	Damaged  int64 // blobs with findings
	Repaired int64 // of these, blobs that are whole again
	Lost     int64 // of these, blobs that are not
	Last     Hash  // the last blob that was looked at
	Done     bool  // whether that was the last one there is
}

// Scrub hashes every byte.
func (s *Store) Scrub(ctx context.Context, opts *ScrubOptions) (ScrubReport, error) {
	return ScrubReport{}, errStub
}

// Findings is Scrub as a loop over what it finds.
func (s *Store) Findings(ctx context.Context, opts *ScrubOptions) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) { yield(Finding{}, errStub) }
}
