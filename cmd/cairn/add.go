package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cairnstore/cairn"
)

// stdinPath stands for standard input.
const stdinPath = "-"

type addCmd struct {
	Paths []string `arg:"" name:"path" help:"Files, or directories for every regular file below; - is standard input."`
}

// Help is shown below the usage.
func (addCmd) Help() string {
	return "A file is printed once it is durable. Files below a directory come in byte order of their paths. " +
		"Symbolic links are followed as arguments, and skipped below directories; so is the database itself."
}

// Validate is called by the parser.
func (c *addCmd) Validate() error {
	first := slices.Index(c.Paths, stdinPath)
	if first >= 0 && slices.Contains(c.Paths[first+1:], stdinPath) {
		return errors.New("standard input can be read only once")
	}
	if slices.Contains(c.Paths, "") {
		return errors.New("empty path")
	}
	return nil
}

// added is what is printed of a file.
type added struct {
	Hash cairn.Hash `json:"hash"`
	Size int64      `json:"size"`
	Path string     `json:"path"`
	Tag  string     `json:"tag"`
}

func (c *addCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openWriting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	ad := adder{app: a, store: store}
	if a.terminal {
		ad.meter = newMeter(a.err, ad.totalSize(c.Paths))
		defer ad.meter.finish()
	}
	for _, path := range c.Paths {
		if err := ad.add(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// An adder adds files one after the other.
type adder struct {
	*app
	store *cairn.Store
	meter *meter
}

// add adds what one argument names.
func (ad *adder) add(ctx context.Context, arg string) error {
	if arg == stdinPath {
		return ad.addStdin(ctx)
	}
	for path, err := range files(arg) {
		if err != nil {
			return err
		}
		// To add the database would be of no use, and without end: the
		// write-ahead log grows by what is added.
		if ad.store.Owns(path) {
			if path == arg {
				return fmt.Errorf("add %q: it is part of the database", path)
			}
			continue
		}
		tag, err := ad.store.AddFile(ctx, path, &cairn.AddOptions{Progress: ad.meter.progress})
		if err != nil {
			return err
		}
		if err := ad.printAdded(ctx, tag, path); err != nil {
			return err
		}
	}
	return nil
}

func (ad *adder) addStdin(ctx context.Context) error {
	in, stop := interruptible(ctx, ad.in)
	defer stop()
	tag, err := ad.store.Add(ctx, in, &cairn.AddOptions{Progress: ad.meter.progress})
	if err != nil {
		return err
	}
	return ad.printAdded(ctx, tag, stdinPath)
}

// printAdded prints a file that has become durable.
func (ad *adder) printAdded(ctx context.Context, tag *cairn.TempTag, path string) error {
	defer tag.Release()
	status, err := ad.store.Status(ctx, tag.Hash())
	if err != nil {
		return err
	}
	ad.meter.next(status.Size)
	text := fmt.Sprintf("%v %d %s", tag.Hash(), status.Size, path)
	return ad.print(ad.out, text, added{Hash: tag.Hash(), Size: status.Size, Path: path})
}

// totalSize returns the size of all files that the arguments name, or -1 if
// that cannot be known. What cannot be read does not count: the add says so
// when it comes to it.
func (ad *adder) totalSize(args []string) (total int64) {
	if slices.Contains(args, stdinPath) {
		return -1
	}
	for _, arg := range args {
		for path, err := range files(arg) {
			if err != nil || ad.store.Owns(path) {
				continue
			}
			if info, err := os.Stat(path); err == nil {
				total += info.Size()
			}
		}
	}
	return total
}
