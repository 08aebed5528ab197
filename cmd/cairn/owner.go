package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cairnstore/cairn"
)

// ownerCmd are the commands about owners.
type ownerCmd struct {
	Ls    ownerLsCmd    `cmd:"" help:"List owners in byte order of their names."`
	Rm    ownerRmCmd    `cmd:"" help:"Delete an owner and everything that only it has."`
	Quota ownerQuotaCmd `cmd:"" help:"Set what an owner may have at most."`
}

// ownerHelp tells how owners are printed.
var ownerHelp = "Prints NAME PIECES BYTES QUOTA, with none for no quota. " + namesHelp("name", "owner")

// ownerObject is what is printed of an owner.
type ownerObject struct {
	Owner      string `json:"owner"`
	OwnerBytes []byte `json:"owner_base64,omitempty"`
	Pieces     int64  `json:"pieces"`
	Bytes      int64  `json:"bytes"`
	Quota      *int64 `json:"quota"` // nil for none
}

func printOwner(a *app, w io.Writer, u cairn.OwnerUsage) error {
	text := fmt.Sprintf("%s %d %d %s", nameText(u.Name), u.Pieces, u.Bytes, limitText(u.Quota))
	return a.print(w, text, ownerObject{u.Name, nameBytes(u.Name), u.Pieces, u.Bytes, limitObject(u.Quota)})
}

type ownerLsCmd struct{}

// Help is shown below the usage.
func (ownerLsCmd) Help() string { return ownerHelp }

func (ownerLsCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	out := bufio.NewWriter(a.out)
	defer func() { err = errors.Join(err, out.Flush()) }()
	for usage, err := range store.Owners(ctx) {
		if err != nil {
			return err
		}
		if err := printOwner(a, out, usage); err != nil {
			return err
		}
	}
	return nil
}

type ownerRmCmd struct {
	Name name `arg:"" name:"name" help:"The owner."`
}

func (c *ownerRmCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	return store.Owner(string(c.Name)).Delete(ctx)
}

type ownerQuotaCmd struct {
	Name  name      `arg:"" name:"name" help:"The owner."`
	Bytes byteLimit `arg:"" name:"bytes" help:"${limit_help}"`
}

// Help is shown below the usage.
func (ownerQuotaCmd) Help() string {
	return ownerHelp + "\n\nThe owner is made if there is none. What is above the quota goes at once, what was used longest ago first."
}

func (c *ownerQuotaCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openWriting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	owner := store.Owner(string(c.Name))
	if err := owner.SetQuota(ctx, int64(c.Bytes)); err != nil {
		return err
	}
	usage, err := owner.Usage(ctx)
	if err != nil {
		return err
	}
	return printOwner(a, a.out, usage)
}
