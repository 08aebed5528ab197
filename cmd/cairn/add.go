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
	contentFormat
	Tag       name     `name:"tag" xor:"tag" placeholder:"NAME" help:"Set the tag NAME to what is added, which must be one file or standard input."`
	AutoTag   bool     `name:"auto-tag" xor:"tag" help:"Give each file a tag with a new name, which is printed with --json."`
	Reference bool     `name:"reference" help:"Leave the bytes in the files. What changes there is damaged data here."`
	Paths     []string `arg:"" name:"path" help:"Files, or directories for every regular file below; - is standard input."`
}

// Help is shown below the usage.
func (addCmd) Help() string {
	return "Prints HASH SIZE PATH, once the file is durable. Files below a directory come in byte order of their paths. " +
		"Symbolic links are followed as arguments, and skipped below directories; so is the database itself. " +
		"Without a tag, the next gc sweeps what was added."
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
	if c.Reference && first >= 0 {
		return errors.New("--reference needs a file, and standard input is none")
	}
	return c.validTag()
}

// validTag refuses to have one tag name several contents. A directory is refused
// whatever is in it: what a command line means must not depend on that.
func (c *addCmd) validTag() error {
	if c.Tag == "" || len(c.Paths) == 0 {
		return nil
	}
	if len(c.Paths) > 1 {
		return errors.New("--tag names the content of one file")
	}
	path := c.Paths[0]
	if info, err := os.Stat(path); err == nil && info.IsDir() && path != stdinPath {
		return fmt.Errorf("--tag names the content of one file, and %q is a directory", path)
	}
	return nil
}

// options returns how each file is added.
func (c *addCmd) options(bar *meter) *cairn.AddOptions {
	opts := &cairn.AddOptions{
		Format:   c.format(),
		Tag:      string(c.Tag),
		AutoTag:  c.AutoTag,
		Progress: bar.progress,
	}
	if c.Reference {
		opts.Mode = cairn.Reference
	}
	return opts
}

// added is what is printed of a file.
type added struct {
	Hash     cairn.Hash `json:"hash"`
	Size     int64      `json:"size"`
	Path     string     `json:"path"`
	Tag      string     `json:"tag"`
	TagBytes []byte     `json:"tag_base64,omitempty"`
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
	ad.opts = c.options(ad.meter)
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
	opts  *cairn.AddOptions
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
		tag, err := ad.store.AddFile(ctx, path, ad.opts)
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
	tag, err := ad.store.Add(ctx, in, ad.opts)
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
	return ad.print(ad.out, text, added{tag.Hash(), status.Size, path, tag.Tag(), nameBytes(tag.Tag())})
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
