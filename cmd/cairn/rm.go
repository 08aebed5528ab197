package main

import (
	"context"

	"github.com/cairnstore/cairn"
)

type rmCmd struct {
	Hash cairn.Hash `arg:"" name:"hash" help:"The blob."`
}

func (c *rmCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	return store.Delete(ctx, c.Hash)
}
