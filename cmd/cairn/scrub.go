package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

type scrubCmd struct {
	Repair bool      `name:"repair" help:"Repair what can be repaired."`
	Sample percent   `name:"sample" placeholder:"PCT" help:"Hash about PCT percent of the bytes, chosen at random. Default: 100."`
	Prefix hexPrefix `name:"prefix" placeholder:"HEX" help:"Look at hashes that begin with HEX."`
}

// Help is shown below the usage.
func (scrubCmd) Help() string {
	return "Prints HASH RANGES STATE for what is damaged: ok if the content is whole and what is beside it is not, repaired, " +
		"or lost, which makes the blob partial. Then how many blobs were looked at (scanned), the bytes hashed, " +
		"and how many blobs were damaged, are repaired, and are lost."
}

// A percent is a part of everything, as more than 0 and at most 1.
type percent float64

// UnmarshalText is called by the parser.
func (p *percent) UnmarshalText(text []byte) error {
	number := strings.TrimSuffix(string(text), "%")
	n, err := strconv.ParseFloat(number, 64)
	*p = percent(n / 100)
	// The library parses more than what people write, like 1e1 and infinity.
	if err != nil || strings.Trim(number, "0123456789.") != "" || !(*p > 0 && *p <= 1) {
		return fmt.Errorf("%q is no percentage above 0 and up to 100", text)
	}
	return nil
}

// damage is what is printed of a finding.
type damage struct {
	Hash   cairn.Hash `json:"hash"`
	Ranges bao.Ranges `json:"ranges"`
	State  string     `json:"state"`
}

// scrubbed is what is printed of a whole scrub.
type scrubbed struct {
	Scanned  int64 `json:"scanned"`
	Bytes    int64 `json:"bytes"`
	Damaged  int64 `json:"damaged"`
	Repaired int64 `json:"repaired"`
	Lost     int64 `json:"lost"`
}

func (c *scrubCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	report, err := c.scrub(ctx, store, a)
	if err != nil {
		return err
	}
	if err := printScrubbed(a, report); err != nil {
		return err
	}
	if bad := report.Damaged - report.Repaired; bad > 0 {
		return fmt.Errorf("%w: blobs not repaired: %d", cairn.ErrCorrupt, bad)
	}
	return nil
}

// scrub prints what is found, and returns the totals.
func (c *scrubCmd) scrub(ctx context.Context, store *cairn.Store, a *app) (report cairn.ScrubReport, err error) {
	bar, err := c.meter(ctx, store, a)
	if err != nil {
		return report, err
	}
	defer bar.finish()
	opts := &cairn.ScrubOptions{Prefix: string(c.Prefix), Sample: float64(c.Sample), Repair: c.Repair}
	opts.Progress = func(r cairn.ScrubReport) {
		report = r
		bar.at(r.Bytes)
	}
	for finding, err := range store.Findings(ctx, opts) {
		if err != nil {
			return report, err
		}
		bar.finish() // before there is a line of output
		if err := printFinding(a, finding); err != nil {
			return report, err
		}
	}
	return report, nil
}

// meter returns a meter for what is going to be hashed, or nil if nobody would
// see it. How much a selection has is not known.
func (c *scrubCmd) meter(ctx context.Context, store *cairn.Store, a *app) (*meter, error) {
	if !a.terminal {
		return nil, nil
	}
	if c.Prefix != "" || c.Sample != 0 {
		return newMeter(a.err, -1), nil
	}
	stats, err := store.Stats(ctx)
	if err != nil {
		return nil, err
	}
	return newMeter(a.err, stats.StoredBytes+stats.ExternalBytes), nil
}

// states are how a scrub's outcomes are printed.
var states = map[cairn.Outcome]string{
	cairn.Intact:   "ok",
	cairn.Repaired: "repaired",
	cairn.Lost:     "lost",
}

func printFinding(a *app, f cairn.Finding) error {
	state := states[f.Outcome]
	return a.print(a.out, fmt.Sprintf("%v %v %s", f.Hash, f.Ranges, state), damage{f.Hash, f.Ranges, state})
}

func printScrubbed(a *app, r cairn.ScrubReport) error {
	text := lines([]field{
		{"scanned", r.Scanned},
		{"bytes", r.Bytes},
		{"damaged", r.Damaged},
		{"repaired", r.Repaired},
		{"lost", r.Lost},
	})
	return a.print(a.out, text, scrubbed{r.Scanned, r.Bytes, r.Damaged, r.Repaired, r.Lost})
}
