package main

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// copySize is how much of a range is read at once. At its ends groups may be
// verified a second time, so it is many of them.
const copySize = 1 << 20

type getCmd struct {
	output
	Hash   cairn.Hash `arg:"" name:"hash" help:"The blob."`
	Offset int64      `name:"offset" placeholder:"N" help:"Skip the first N bytes."`
	Length *int64     `name:"length" placeholder:"N" help:"Stop after N bytes."`
}

// Validate is called by the parser.
func (c *getCmd) Validate() error {
	if c.Offset < 0 {
		return errors.New("--offset must not be negative")
	}
	if c.Length != nil && *c.Length < 0 {
		return errors.New("--length must not be negative")
	}
	return c.output.Validate()
}

func (c *getCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	if err := c.require(ctx, store); err != nil {
		return err
	}
	if c.isStdout() {
		return c.copy(ctx, store, a.out)
	}
	bar, err := c.meter(ctx, store, a)
	if err != nil {
		return err
	}
	defer bar.finish()
	if c.Offset == 0 && c.Length == nil {
		return exportFile(ctx, store, c.Hash, *c.Output, cairn.Copy, bar)
	}
	return c.write(ctx, a, store, func(w io.Writer) error {
		return c.copy(ctx, store, io.MultiWriter(w, bar))
	})
}

// require returns an error if a partial blob lacks anything of the chosen range,
// so that what is written is all of it or, but for damage, nothing.
func (c *getCmd) require(ctx context.Context, store *cairn.Store) error {
	field, err := holding(ctx, store, c.Hash)
	if err != nil || field.State != cairn.Partial {
		return err
	}
	if missing := c.asked(field).Minus(field.Ranges); !missing.IsEmpty() {
		return &cairn.MissingError{Hash: c.Hash, Ranges: missing}
	}
	return nil
}

// asked returns the chunks that have the chosen range of a blob. A size that
// nobody has proven bounds nothing.
func (c *getCmd) asked(field cairn.Bitfield) bao.Ranges {
	start, end := uint64(c.Offset), uint64(math.MaxUint64)
	if c.Length != nil {
		end = start + uint64(*c.Length)
	}
	if field.SizeProven {
		end = min(end, uint64(field.Size))
	}
	if end == math.MaxUint64 {
		return bao.From(start / bao.ChunkSize)
	}
	return bao.Bytes(start, end)
}

// meter returns a meter for what is going to be written, or nil if nobody
// would see it.
func (c *getCmd) meter(ctx context.Context, store *cairn.Store, a *app) (*meter, error) {
	if !a.terminal {
		return nil, nil
	}
	status, err := store.Status(ctx, c.Hash)
	if err != nil {
		return nil, err
	}
	total := max(0, status.Size-c.Offset)
	if c.Length != nil {
		total = min(total, *c.Length)
	}
	return newMeter(a.err, total), nil
}

// copy writes the chosen range of the blob. Like pread, it finds nothing
// behind the end.
func (c *getCmd) copy(ctx context.Context, store *cairn.Store, w io.Writer) error {
	blob, err := store.Blob(ctx, c.Hash)
	if err != nil {
		return err
	}
	defer blob.Close()
	if _, err := blob.Seek(c.Offset, io.SeekStart); err != nil {
		return err
	}
	if c.Length == nil {
		_, err = blob.WriteTo(w)
		return err
	}
	// Hidden in a struct, w cannot bring a smaller buffer of its own.
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(blob, *c.Length), make([]byte, copySize))
	return err
}
