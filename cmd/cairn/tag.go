package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cairnstore/cairn"
)

// tagCmd are the commands about tags.
type tagCmd struct {
	Set tagSetCmd `cmd:"" help:"Set a tag, new or not."`
	Rm  tagRmCmd  `cmd:"" help:"Delete a tag."`
	Mv  tagMvCmd  `cmd:"" help:"Give a tag another name."`
	Ls  tagLsCmd  `cmd:"" help:"List tags in byte order of their names."`
}

// tagHelp tells how tags are printed.
var tagHelp = "Prints NAME HASH FORMAT, which is raw or hashseq. " + namesHelp("name", "name")

// contentFormat is how a command reads content that it protects.
type contentFormat struct {
	HashSeq bool `name:"hashseq" help:"The content is a sequence of 32-byte hashes: the blobs of these are protected with it."`
}

func (f contentFormat) format() cairn.Format {
	if f.HashSeq {
		return cairn.HashSeq
	}
	return cairn.Raw
}

// tagObject is what is printed of a tag.
type tagObject struct {
	Name      string     `json:"name"`
	NameBytes []byte     `json:"name_base64,omitempty"`
	Hash      cairn.Hash `json:"hash"`
	Format    string     `json:"format"`
}

func printTag(a *app, w io.Writer, name string, content cairn.HashAndFormat) error {
	text := fmt.Sprintf("%s %v %v", nameText(name), content.Hash, content.Format)
	return a.print(w, text, tagObject{name, nameBytes(name), content.Hash, content.Format.String()})
}

type tagSetCmd struct {
	contentFormat
	Name name       `arg:"" name:"name" help:"The tag."`
	Hash cairn.Hash `arg:"" name:"hash" help:"What it names, whether that is there or not."`
}

// Help is shown below the usage.
func (tagSetCmd) Help() string { return tagHelp }

func (c *tagSetCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openWriting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	content := cairn.HashAndFormat{Hash: c.Hash, Format: c.format()}
	if err := store.SetTag(ctx, string(c.Name), content, nil); err != nil {
		return err
	}
	return printTag(a, a.out, string(c.Name), content)
}

type tagRmCmd struct {
	Name name `arg:"" name:"name" help:"The tag."`
}

func (c *tagRmCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	return store.DeleteTag(ctx, string(c.Name))
}

type tagMvCmd struct {
	Old name `arg:"" name:"old" help:"The tag."`
	New name `arg:"" name:"new" help:"Its new name. A tag that has it is replaced."`
}

// Help is shown below the usage.
func (tagMvCmd) Help() string { return tagHelp }

func (c *tagMvCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	if err := store.RenameTag(ctx, string(c.Old), string(c.New)); err != nil {
		return err
	}
	tag, err := store.Tag(ctx, string(c.New))
	if err != nil {
		return err
	}
	return printTag(a, a.out, tag.Name, tag.HashAndFormat)
}

type tagLsCmd struct {
	Prefix string `arg:"" name:"prefix" default:"" help:"List names that begin with these bytes."`
}

// Help is shown below the usage.
func (tagLsCmd) Help() string { return tagHelp }

func (c *tagLsCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	out := bufio.NewWriter(a.out)
	defer func() { err = errors.Join(err, out.Flush()) }()
	for tag, err := range store.Tags(ctx, &cairn.TagListOptions{Prefix: c.Prefix}) {
		if err != nil {
			return err
		}
		if err := printTag(a, out, tag.Name, tag.HashAndFormat); err != nil {
			return err
		}
	}
	return nil
}
