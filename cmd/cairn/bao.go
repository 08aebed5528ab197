package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// baoCmd are the commands about range responses.
type baoCmd struct {
	Encode baoEncodeCmd `cmd:"" help:"Write the response to a request for ranges of a blob."`
	Decode baoDecodeCmd `cmd:"" help:"Verify a response to such a request, and store what it has."`
}

type baoEncodeCmd struct {
	output
	Hash   cairn.Hash `arg:"" name:"hash" help:"The blob, complete or partial."`
	Ranges bao.Ranges `name:"ranges" default:"all" placeholder:"R" help:"${ranges_help}"`
}

func (c *baoEncodeCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	bar, err := c.meter(ctx, store, a)
	if err != nil {
		return err
	}
	defer bar.finish()
	return c.write(ctx, a, store, func(w io.Writer) error {
		return store.ExportBao(ctx, c.Hash, c.Ranges, io.MultiWriter(w, bar))
	})
}

// meter returns a meter for the response, or nil if nobody would see it.
func (c *baoEncodeCmd) meter(ctx context.Context, store *cairn.Store, a *app) (*meter, error) {
	if !a.terminal || c.isStdout() {
		return nil, nil
	}
	status, err := store.Status(ctx, c.Hash)
	if err != nil {
		return nil, err
	}
	return newMeter(a.err, bao.ResponseSize(status.Size, c.Ranges)), nil
}

type baoDecodeCmd struct {
	Hash   cairn.Hash `arg:"" name:"hash" help:"The blob."`
	File   string     `arg:"" name:"file" default:"-" help:"The response. Default: -, standard input."`
	Ranges bao.Ranges `name:"ranges" default:"all" placeholder:"R" help:"The ranges that were asked for, exactly. ${ranges_help}"`
}

// Help is shown below the usage.
func (baoDecodeCmd) Help() string {
	return "Prints HASH SIZE STATE RANGES, without the last if no chunk is there.\n\n" +
		"Only whole groups of 16 chunks are stored, because a part of one cannot be verified again. " +
		"What verified before an error is kept; what there is of the blob is printed in any case."
}

// Validate is called by the parser.
func (c *baoDecodeCmd) Validate() error {
	return validFile(c.File)
}

func (c *baoDecodeCmd) Run(ctx context.Context, a *app) (err error) {
	// Opened first: without a response no database is made. And closed last,
	// because it may be the database itself, whose locks would go with it.
	in, closeIn, err := a.openInput(c.File)
	if err != nil {
		return err
	}
	defer closeIn()
	store, err := a.openWriting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	err = c.decode(ctx, store, in, a)
	return errors.Join(err, c.print(ctx, store, a))
}

func (c *baoDecodeCmd) decode(ctx context.Context, store *cairn.Store, in io.Reader, a *app) error {
	var bar *meter
	if a.terminal {
		bar = newMeter(a.err, sizeOf(in))
		defer bar.finish()
	}
	in, stop := interruptible(ctx, in)
	defer stop()
	err := store.ImportBao(ctx, c.Hash, c.Ranges, io.TeeReader(in, bar))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		// Where a response ends follows from its ranges and its size: a short
		// one is not the response that it is said to be.
		return fmt.Errorf("%w: the response is cut off, or not one to this request: %w", cairn.ErrMismatch, err)
	}
	return err
}

// print prints what there is of the blob now, even if the command is being
// interrupted.
func (c *baoDecodeCmd) print(ctx context.Context, store *cairn.Store, a *app) error {
	field, err := holding(context.WithoutCancel(ctx), store, c.Hash)
	if err != nil {
		return err
	}
	return a.print(a.out, fmt.Sprintf("%v %s", c.Hash, heldText(field)), heldObject(c.Hash, field))
}
