package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/alecthomas/kong"
	"github.com/cairnstore/cairn"
)

type exportCmd struct {
	Hash      cairn.Hash `arg:"" name:"hash" help:"The blob."`
	Target    target     `arg:"" name:"target" help:"The file, which is replaced once all is there. Missing directories are made."`
	Reference bool       `name:"reference" help:"Have the bytes of a blob of 128 KiB and more in the file only. What changes there is damaged data here."`
}

// Help is shown below the usage.
func (exportCmd) Help() string { return "Prints HASH SIZE TARGET." }

// A target is the path of a file to be written.
type target string

// Decode is called by the parser, which would make U+FFFD of what is no UTF-8 for
// an UnmarshalText.
func (t *target) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("target")
	if err != nil {
		return err
	}
	*t = target(token.String())
	switch *t {
	case "":
		return errors.New("must name a file")
	case stdoutPath:
		return errors.New("must be a file: get writes to standard output")
	}
	return nil
}

// exported is what is printed of an export.
type exported struct {
	Hash   cairn.Hash `json:"hash"`
	Size   int64      `json:"size"`
	Target string     `json:"target"`
}

func (c *exportCmd) Run(ctx context.Context, a *app) (err error) {
	open, mode := a.openReading, cairn.Copy
	if c.Reference {
		open, mode = a.openExisting, cairn.Reference
	}
	store, err := open(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	status, err := store.Status(ctx, c.Hash)
	if err != nil {
		return err
	}
	var bar *meter
	if a.terminal {
		bar = newMeter(a.err, status.Size)
	}
	target := string(c.Target)
	err = exportFile(ctx, store, c.Hash, target, mode, bar)
	bar.finish() // before there is a line of output
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%v %d %s", c.Hash, status.Size, target)
	return a.print(a.out, text, exported{c.Hash, status.Size, target})
}

// exportFile writes a whole blob to the file at a path.
func exportFile(ctx context.Context, store *cairn.Store, hash cairn.Hash, path string, mode cairn.Mode, bar *meter) error {
	target, err := replaceable(store, path)
	if err != nil {
		return err
	}
	return store.Export(ctx, hash, target, &cairn.ExportOptions{Mode: mode, Progress: bar.progress})
}
