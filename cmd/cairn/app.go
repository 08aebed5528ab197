package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/cairnstore/cairn"
)

// An app is what every command works with.
type app struct {
	streams
	db   string
	json bool
}

// openReading opens the database without the right to change it. The caller
// closes it.
func (a *app) openReading(ctx context.Context) (*cairn.Store, error) {
	return cairn.Open(ctx, a.db, &cairn.Options{ReadOnly: true, Logger: a.logger()})
}

// openWriting opens the database for writing, and makes it if there is none.
// The caller closes it.
func (a *app) openWriting(ctx context.Context) (*cairn.Store, error) {
	return cairn.Open(ctx, a.db, &cairn.Options{Logger: a.logger()})
}

// openExisting opens the database for writing if there is one. The caller
// closes it.
func (a *app) openExisting(ctx context.Context) (*cairn.Store, error) {
	if _, err := os.Stat(a.db); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %q: %w", a.db, cairn.ErrNotFound)
	}
	return a.openWriting(ctx)
}

// logger returns where the store says what goes wrong in the background.
func (a *app) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// closing closes a store at the end of a command; err is the command's result.
func closing(store *cairn.Store, err *error) {
	*err = errors.Join(*err, store.Close())
}

// A field is one of several values that are printed together.
type field struct {
	name  string
	value any
}

// lines returns a line for each field.
func lines(fields []field) string {
	var lines []string
	for _, f := range fields {
		lines = append(lines, fmt.Sprintf("%s %v", f.name, f.value))
	}
	return strings.Join(lines, "\n")
}

// print writes one line: the object with --json, else the text. A line is one
// write, so that whoever reads along gets it whole.
func (a *app) print(w io.Writer, text string, object any) error {
	if !a.json {
		_, err := io.WriteString(w, text+"\n")
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(object)
}
