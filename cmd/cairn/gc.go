package main

import (
	"context"
	"errors"
	"time"

	"github.com/cairnstore/cairn"
)

type gcCmd struct {
	DryRun bool           `name:"dry-run" help:"Only tell what would be swept."`
	Budget *time.Duration `name:"budget" placeholder:"DUR" help:"Stop sweeping after about this long, like 500ms or 1m30s; the next gc goes on from there. Default: sweep everything."`
}

// Help is shown below the usage.
func (gcCmd) Help() string {
	return "What a tag, a piece or an owner has stays, and so do the blobs of a tagged sequence of hashes. " +
		"All others are swept, complete or partial. If a tagged sequence cannot be read, nothing is.\n\n" +
		"Prints how many blobs stay (marked) and go (swept), how many bytes these have in the database, " +
		"whether that was a dry run, and whether all is done. Then what was swept, by reason, and how many tags had expired."
}

// Validate is called by the parser.
func (c *gcCmd) Validate() error {
	if c.Budget != nil && *c.Budget <= 0 {
		return errors.New("--budget must be positive")
	}
	return nil
}

// collected is what is printed of a garbage collection. Sizes are in bytes.
type collected struct {
	Marked           int64 `json:"marked"`
	Swept            int64 `json:"swept"`
	SweptBytes       int64 `json:"swept_bytes"`
	DryRun           bool  `json:"dry_run"`
	Done             bool  `json:"done"`
	Unprotected      int64 `json:"unprotected"`
	UnprotectedBytes int64 `json:"unprotected_bytes"`
	Partial          int64 `json:"partial"`
	PartialBytes     int64 `json:"partial_bytes"`
	ExpiredTags      int64 `json:"expired_tags"`
}

func (c *gcCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	opts := &cairn.GCOptions{DryRun: c.DryRun}
	if c.Budget != nil {
		opts.Budget = *c.Budget
	}
	report, err := store.GC(ctx, opts)
	if err != nil {
		return err
	}
	object := newCollected(report)
	return a.print(a.out, object.text(), object)
}

func newCollected(r cairn.GCReport) collected {
	return collected{
		Marked:           r.Marked,
		Swept:            r.Swept,
		SweptBytes:       r.SweptBytes,
		DryRun:           r.DryRun,
		Done:             r.Done,
		Unprotected:      r.Unprotected.Blobs,
		UnprotectedBytes: r.Unprotected.Bytes,
		Partial:          r.Partial.Blobs,
		PartialBytes:     r.Partial.Bytes,
		ExpiredTags:      r.ExpiredTags,
	}
}

// text returns a line for each field.
func (c collected) text() string {
	return lines([]field{
		{"marked", c.Marked},
		{"swept", c.Swept},
		{"swept_bytes", c.SweptBytes},
		{"dry_run", c.DryRun},
		{"done", c.Done},
		{"unprotected", c.Unprotected},
		{"unprotected_bytes", c.UnprotectedBytes},
		{"partial", c.Partial},
		{"partial_bytes", c.PartialBytes},
		{"expired_tags", c.ExpiredTags},
	})
}
