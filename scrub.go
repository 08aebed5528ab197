package cairn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cairnstore/cairn/bao"
)

// ScrubOptions configure a scrub. Nil is the default: everything, as fast as it
// goes.
type ScrubOptions struct {
	// Prefix is the beginning of the hashes to be looked at, in hexadecimal
	// digits of either case. Default: all.
	Prefix string
	// After is the hash that the scrub begins behind, such as [ScrubReport.Last] of
	// the one before. Default (zero): it begins with the first.
	After Hash
	// Sample is which part of the bytes is hashed, chosen at random, in runs of
	// 1 MiB: 0 < Sample ≤ 1. Of a blob that turns out to be damaged all is. Default
	// (0): all.
	Sample float64
	// Rate is the most bytes hashed a second, on average: up to 1 MiB is hashed at
	// once. Default (and if ≤ 0): no limit.
	Rate int64
	// Repair has damage repaired where that is possible. Without, damage beside
	// the content is only reported.
	Repair bool
	// Progress, if not nil, is called about once every MiB and after each blob,
	// from the goroutine that called Scrub, or that runs the loop over Findings.
	Progress func(ScrubReport)
}

// An Outcome is what a scrub made of damage. In a read-only store, where nothing
// is changed, it is what a scrub would make of it.
type Outcome int

const (
	// Intact: the content is whole, and what is beside it was not: it cannot be
	// read as it is.
	Intact Outcome = iota
	// Repaired: what was damaged is whole again.
	Repaired
	// Lost: the ranges are gone, and the blob is partial. If SQLite cannot even
	// remove them, they stay as they are, and are found again.
	Lost
)

// String returns "intact", "repaired" or "lost".
func (o Outcome) String() string {
	switch o {
	case Intact:
		return "intact"
	case Repaired:
		return "repaired"
	case Lost:
		return "lost"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// A Finding is damage that a scrub has found in one blob.
type Finding struct {
	Hash Hash
	// Ranges are the chunks concerned, in whole groups, those behind the end left
	// out: what is lost or, if nothing is, what lies below damaged pairs of the
	// outboard. They are all chunks ([bao.All]) if it cannot be said which, because
	// the blob's own fields cannot be read or cannot be true.
	Ranges  bao.Ranges
	Outcome Outcome
}

// A ScrubReport tells what a scrub has done so far.
type ScrubReport struct {
	Scanned  int64 // blobs of which something was looked at
	Bytes    int64 // hashed; not those that were hashed again because of damage
	Damaged  int64 // blobs with findings
	Repaired int64 // of these, blobs that are whole again
	Lost     int64 // of these, blobs that are not
	Last     Hash  // the last blob that was done with
	Done     bool  // whether that was the last one there is
}

// Scrub hashes what is stored of the blobs, complete and partial, in the order of
// their hashes, and compares it with them, the outboards included. Pieces that are
// being written have no hash, and are passed over. It reads the database, no cache.
//
// What does not verify is removed, whether or not opts.Repair is set: the blob is
// partial then, and lacks exactly the ranges that were found ([Store.Missing]), so
// that a client fetches only those. A piece that had such a blob as its content is
// one that is being written again, with what is good of it; if several had it, and
// there is no room for a copy of that for each, the last one in the order of the
// keys has it, and the others are empty. What such a blob has in files outside is
// brought into the database for that, as far as there is room without anything
// being evicted, and the piece has what is there then. A damaged outboard is derived from what
// is whole, and written if opts.Repair is set or something is removed.
//
// Each file outside is looked at. One that has nothing of its blob any more, while
// another one has, is forgotten; it is left alone itself.
//
// It may be used beside everything else: no lock, and no snapshot longer than a
// MiB takes, is held. Two goroutines read and hash. A blob that is added meanwhile
// may be missed, and one that is deleted, replaced or completed is no finding. A
// change is durable when its finding is told, as [Options.Durability] says; what an
// interrupted scrub has not found yet the next one finds.
//
// When it ends early, the report is of what was done, and a scrub with opts.After
// set to its Last goes on. Errors: [ErrMismatch] for a prefix that is not
// hexadecimal or a sample that is no part, that of ctx, [ErrFull] if there is no
// room to note what is removed, [ErrCorrupt] if the blobs cannot be listed,
// [ErrClosed].
func (s *Store) Scrub(ctx context.Context, opts *ScrubOptions) (ScrubReport, error) {
	return s.scrub(ctx, opts, func(Finding) bool { return true })
}

// Findings is [Store.Scrub] as a loop over what it finds, in the order of the
// hashes. Nothing is held while the loop's body runs. To go on later, set
// [ScrubOptions.After] to the last finding's hash, or to what Progress told last.
func (s *Store) Findings(ctx context.Context, opts *ScrubOptions) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		stopped := false
		_, err := s.scrub(ctx, opts, func(f Finding) bool {
			stopped = !yield(f, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(Finding{}, err)
		}
	}
}

// scrub is Scrub with a function that is called for each finding, and says whether
// to go on.
func (s *Store) scrub(ctx context.Context, opts *ScrubOptions, found func(Finding) bool) (ScrubReport, error) {
	if opts == nil {
		opts = &ScrubOptions{}
	}
	sc, err := s.newScrubber(ctx, opts, found)
	if err == nil {
		err = sc.run()
	}
	if err != nil {
		return sc.report, fmt.Errorf("scrub: %w", err)
	}
	return sc.report, nil
}

// A scrubber goes through the blobs. The goroutine of the caller owns it: it makes
// tasks, hands them to the workers, and takes the outcomes in the same order.
type scrubber struct {
	s     *Store
	ctx   context.Context
	opts  *ScrubOptions
	found func(Finding) bool
	pace  throttle

	from, to Hash // to be listed
	more     bool // whether there may be any
	page     []blobRow
	next     int64 // run of the page's first blob that is to be looked at
	picked   bool  // whether any run of that blob was

	report  ScrubReport
	looked  bool // at something of the blob that tasks are of
	damaged bool // that blob
	told    int64
}

func (s *Store) newScrubber(ctx context.Context, opts *ScrubOptions, found func(Finding) bool) (*scrubber, error) {
	sc := &scrubber{s: s, ctx: ctx, opts: opts, found: found, more: true, pace: throttle{rate: opts.Rate}}
	if !(opts.Sample >= 0 && opts.Sample <= 1) {
		return sc, fmt.Errorf("%w: a sample of %v", ErrMismatch, opts.Sample)
	}
	var err error
	if sc.from, sc.to, err = prefixRange(opts.Prefix); err != nil {
		return sc, err
	}
	if after := opts.After; after != (Hash{}) && bytes.Compare(after[:], sc.from[:]) >= 0 {
		sc.from, sc.more = nextHash(after)
		sc.report.Last = after
	}
	return sc, nil
}

// run goes through all blobs. A job is handed out when those before it have had
// their time.
func (sc *scrubber) run() error {
	w := sc.startWorkers()
	defer w.stop()
	ahead := scrubWindow
	if sc.pace.rate > 0 {
		ahead = 1 // what is done need not wait for what has to wait
	}
	var window []*scrubJob
	for {
		for len(window) < ahead {
			job, err := sc.nextJob()
			if err != nil {
				return err
			}
			if job == nil {
				break
			}
			if err := sc.pace.wait(sc.ctx, job.cost); err != nil {
				return err
			}
			w.jobs <- job // which has room for all that are in the window
			window = append(window, job)
		}
		if len(window) == 0 {
			sc.report.Done = true
			sc.progress()
			return nil
		}
		job := window[0]
		window = window[1:]
		if more, err := sc.take(job); err != nil || !more {
			return err
		}
	}
}

// take waits for a job and takes its outcome. more tells whether to go on.
func (sc *scrubber) take(job *scrubJob) (more bool, err error) {
	select {
	case <-job.done:
	case <-sc.ctx.Done():
		return false, context.Cause(sc.ctx)
	}
	for i, t := range job.tasks {
		if job.err != nil && i >= job.failed {
			return false, job.err
		}
		sc.damaged = sc.damaged || !t.good
		if !t.end {
			sc.looked = true
			if sc.report.Bytes += t.bytes; sc.report.Bytes-sc.told >= segmentSize {
				sc.progress()
			}
		}
		if !t.end {
			continue
		}
		if more, err := sc.endBlob(t.blob); err != nil || !more {
			return false, err
		}
		if sc.ctx.Err() != nil {
			return false, context.Cause(sc.ctx)
		}
	}
	return true, nil
}

// endBlob is called when all runs of a blob have been looked at.
func (sc *scrubber) endBlob(blob blobRow) (more bool, err error) {
	hash := blob.hash
	more = true
	if sc.damaged {
		f, found, err := sc.s.inspect(sc.ctx, hash, sc.opts.Repair, &sc.pace)
		if err != nil {
			return false, err
		}
		if found {
			sc.count(f)
			more = sc.found(f)
		}
	}
	if more && sc.s.writer != nil && blob.External > 0 {
		if err := sc.s.tendPaths(sc.ctx, hash, &sc.pace); err != nil && !errors.Is(err, errChanged) && !isDamage(err) {
			return false, err
		}
	}
	if sc.looked {
		sc.report.Scanned++
	}
	sc.looked, sc.damaged = false, false
	sc.report.Last = hash
	if more {
		sc.progress()
	}
	return more, nil
}

func (sc *scrubber) count(f Finding) {
	sc.report.Damaged++
	switch f.Outcome {
	case Repaired:
		sc.report.Repaired++
	case Lost:
		sc.report.Lost++
	}
}

func (sc *scrubber) progress() {
	sc.told = sc.report.Bytes
	if sc.opts.Progress != nil {
		sc.opts.Progress(sc.report)
	}
}
