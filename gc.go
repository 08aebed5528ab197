package cairn

import (
	"context"
	"time"
)

// GCOptions configure a garbage collection. Nil is the default.
type GCOptions struct {
	// DryRun has nothing swept, only reported.
	DryRun bool
	// Budget is about how long the sweep may take; the next collection goes on
	// where it has ended. Default (and if ≤ 0): as long as it takes.
	Budget time.Duration
	// Protect, if not nil, is called once, after the collection has found what it
	// would sweep. What it hands to add is protected like by a tag until the
	// collection ends. An error of it ends the collection, and nothing is swept.
	Protect func(ctx context.Context, add func(HashAndFormat)) error
}

// GCTotal is how many blobs, and bytes of them that were in the database.
type GCTotal struct{ Blobs, Bytes int64 }

// A GCReport tells what a garbage collection has done, or would have.
type GCReport struct {
	Marked     int64 // blobs that stay
	Swept      int64 // blobs that do not
	SweptBytes int64 // their bytes in the database
	// Of what was swept, by reason: complete blobs that nothing protected, and
	// partial ones.
	Unprotected, Partial GCTotal
	ExpiredTags          int64 // deleted
	DryRun               bool
	Done                 bool // false if the budget was used up
}

// GC deletes what nothing protects.
func (s *Store) GC(ctx context.Context, opts *GCOptions) (GCReport, error) {
	return GCReport{}, errStub
}
