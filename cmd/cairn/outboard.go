package main

import (
	"context"
	"io"

	"github.com/cairnstore/cairn"
)

// sizeLen is the length of the size that an outboard begins with.
const sizeLen = 8

type outboardCmd struct {
	output
	Hash   cairn.Hash `arg:"" name:"hash" help:"The blob."`
	NoSize bool       `name:"no-size" help:"Leave out the blob's size, the first 8 bytes."`
}

func (c *outboardCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	return c.write(ctx, a, store, func(w io.Writer) error {
		if c.NoSize {
			w = &skipWriter{w: w, skip: sizeLen}
		}
		return store.WriteOutboard(ctx, c.Hash, w)
	})
}

// A skipWriter leaves out the first bytes that it is given.
type skipWriter struct {
	w    io.Writer
	skip int
}

func (s *skipWriter) Write(p []byte) (int, error) {
	n := min(s.skip, len(p))
	s.skip -= n
	m, err := s.w.Write(p[n:])
	return n + m, err
}
