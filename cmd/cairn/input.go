package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cairnstore/cairn"
)

// validFile refuses an empty path, which a script may have by mistake.
func validFile(path string) error {
	if path == "" {
		return errors.New("<file> must name a file")
	}
	return nil
}

// openInput opens a file, or standard input. The caller calls what closes it.
func (a *app) openInput(path string) (io.Reader, func() error, error) {
	if path == stdinPath {
		return a.in, func() error { return nil }, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// takeIn has a file, or standard input, taken into the database, and prints the
// piece that take returns.
func (a *app) takeIn(ctx context.Context, path string, take func(*cairn.Store, io.Reader) (*cairn.Piece, error)) (err error) {
	// Opened first: without a file no database is made. And closed last,
	// because it may be the database itself, whose locks would go with it.
	in, closeIn, err := a.openInput(path)
	if err != nil {
		return err
	}
	defer closeIn()
	store, err := a.openWriting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	if path != stdinPath && store.Owns(path) {
		return fmt.Errorf("read %q: it is part of the database", path)
	}
	var bar *meter
	if a.terminal {
		bar = newMeter(a.err, sizeOf(in))
	}
	in, stop := interruptible(ctx, in)
	defer stop()
	piece, err := take(store, io.TeeReader(in, bar))
	bar.finish() // before there is a line of output
	if err != nil {
		return err
	}
	defer piece.Close()
	return printState(ctx, a, piece)
}
