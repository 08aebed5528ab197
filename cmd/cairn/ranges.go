package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// rangesHelp tells how ranges are written.
const rangesHelp = "Ranges of 1 KiB chunks: all, last, A..B (B not included) or A.., joined by commas. Default: all."

type rangesCmd struct {
	Hash cairn.Hash `arg:"" name:"hash" help:"The blob."`
}

// Help is shown below the usage.
func (rangesCmd) Help() string {
	return "Prints SIZE STATE RANGES, without the last if no chunk is there."
}

// held is what is printed of how much of a blob is there.
type held struct {
	Hash   cairn.Hash  `json:"hash"`
	Size   int64       `json:"size"`
	State  cairn.State `json:"state"`
	Ranges bao.Ranges  `json:"ranges"`
}

func (c *rangesCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	field, err := holding(ctx, store, c.Hash)
	if err != nil {
		return err
	}
	if field.State == cairn.Absent {
		return fmt.Errorf("ranges of %v: %w", c.Hash, cairn.ErrNotFound)
	}
	return a.print(a.out, heldText(field), heldObject(c.Hash, field))
}

// holding returns how much of a blob is there, all of it from one moment.
func holding(ctx context.Context, store *cairn.Store, hash cairn.Hash) (cairn.Bitfield, error) {
	next, stop := iter.Pull2(store.Observe(ctx, hash))
	defer stop()
	field, err, _ := next()
	return field, err
}

func heldText(field cairn.Bitfield) string {
	text := fmt.Sprintf("%d %v", field.Size, field.State)
	if field.Ranges.IsEmpty() {
		return text // a column with nothing in it would be a blank at the end
	}
	return fmt.Sprintf("%s %v", text, field.Ranges)
}

func heldObject(hash cairn.Hash, field cairn.Bitfield) held {
	return held{Hash: hash, Size: field.Size, State: field.State, Ranges: field.Ranges}
}
