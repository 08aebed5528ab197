package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// addPeer is Cairn adding what is written, where the subject does otherwise.
const addPeer = "cairn-add"

// exchange sends the large blob from one store to another through a pipe:
// encoded and verified at one end, verified and stored at the other. It is
// compared with adding the same file, and with copying it.
func exchange(size int64) workload {
	return workload{
		name:       "exchange",
		title:      formatBytes(float64(size)) + " from store to store",
		durability: "whole at the end",
		peers:      []string{cairnPeer, addPeer, filesPeer},
		size:       size,
		store:      bigStore,
		prepare: func(c *child) error {
			if c.Peer == addPeer {
				return nil
			}
			return c.prepareBig()
		},
		run:      (*child).exchange,
		measures: []measure{elapsed, peakRSS},
	}
}

func (c *child) exchange() error {
	target, err := os.MkdirTemp(filepath.Dir(c.Dir), "target-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(target)
	to := child{task: c.task}
	to.Dir = target
	return to.with(func(s store) error {
		if c.Peer != cairnPeer {
			return c.addFile(s, c.Sizes.Big)
		}
		return c.with(func(from store) error { return c.pipe(from.(cairnStore).Store, s.(cairnStore).Store) })
	})
}

// pipe sends the only blob of one store to another.
func (c *child) pipe(from, to *cairn.Store) error {
	b, err := onlyBlob(from)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := c.start(); err != nil {
		return err
	}
	ctx := context.Background()
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := from.ExportBao(ctx, b.Hash(), bao.All(), w)
		w.CloseWithError(err)
		sent <- err
	}()
	err = to.ImportBao(ctx, b.Hash(), bao.All(), r)
	r.CloseWithError(err)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	return c.stop(1, c.Sizes.Big)
}
