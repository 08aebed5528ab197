package main

import (
	"context"
	"fmt"

	"github.com/cairnstore/cairn"
)

type capacityCmd struct {
	Bytes *byteLimit `arg:"" optional:"" name:"bytes" help:"${limit_help} Default: it stays as it is."`
}

// Help is shown below the usage.
func (capacityCmd) Help() string {
	return "The capacity bounds the bytes of all blobs and pieces. The database remembers it. " +
		"What is above it goes at once, what was used longest ago first."
}

// capacityObject is what is printed of a store's capacity, in bytes.
type capacityObject struct {
	Capacity *int64 `json:"capacity"` // nil for none
	Used     int64  `json:"used"`
	Pinned   int64  `json:"pinned"`
}

func (c *capacityCmd) Run(ctx context.Context, a *app) (err error) {
	open := a.openReading
	if c.Bytes != nil {
		open = a.openWriting
	}
	store, err := open(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	if c.Bytes != nil {
		if err := store.SetCapacity(ctx, int64(*c.Bytes)); err != nil {
			return err
		}
	}
	usage, err := store.Usage(ctx)
	if err != nil {
		return err
	}
	return printCapacity(a, usage)
}

func printCapacity(a *app, u cairn.Usage) error {
	text := fmt.Sprintf("capacity %s\nused %d\npinned %d", limitText(u.Capacity), u.Used, u.Pinned)
	return a.print(a.out, text, capacityObject{limitObject(u.Capacity), u.Used, u.Pinned})
}
