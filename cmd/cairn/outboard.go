package main

import (
	"context"
	"io"

	"github.com/cairnstore/cairn"
)

// sizeLen is the length of the size that an outboard begins with.
const sizeLen = 8

type outboardCmd struct {
	Hash   cairn.Hash `arg:"" name:"hash" help:"The blob."`
	Output *string    `name:"output" short:"o" placeholder:"FILE" help:"Write to FILE, which is replaced once all is there."`
	NoSize bool       `name:"no-size" help:"Leave out the blob's size, the first 8 bytes."`
}

// Validate is called by the parser.
func (c *outboardCmd) Validate() error { return validOutput(c.Output) }

func (c *outboardCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	outboard, err := store.Outboard(ctx, c.Hash)
	if err != nil {
		return err
	}
	if c.NoSize {
		outboard = outboard[sizeLen:]
	}
	write := func(w io.Writer) error {
		_, err := w.Write(outboard)
		return err
	}
	if c.Output != nil {
		return replaceFile(*c.Output, write)
	}
	return write(a.out)
}
