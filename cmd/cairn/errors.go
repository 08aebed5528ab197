package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/cairnstore/cairn"
)

// The exit statuses. Scripts depend on them.
const (
	exitDone     = 0
	exitOther    = 1
	exitUsage    = 2
	exitNotFound = 3
	exitDamaged  = 4
	exitFull     = 5
	exitLocked   = 6
)

// A usageError is a command line that makes no sense.
type usageError struct {
	what string // the command, if it is known
	err  error
}

func newUsageError(err error) error {
	what := "usage"
	var parse *kong.ParseError
	if errors.As(err, &parse) {
		if node := parse.Context.Selected(); node != nil {
			what = node.Path()
		}
	}
	return &usageError{what, err}
}

// Error names the command once: the parser does so for some errors.
func (e *usageError) Error() string {
	prefix := e.what + ": "
	return prefix + redact(strings.TrimPrefix(e.err.Error(), prefix))
}

func (e *usageError) Unwrap() error { return e.err }

// userinfo matches what is before the host in a URL, with the user first.
var userinfo = regexp.MustCompile(`(?s)(://[^/:@]*):.*@`)

// redact returns text without the passwords of URLs in it. A command line that
// makes no sense may have one anywhere.
func redact(text string) string { return userinfo.ReplaceAllString(text, "$1:xxxxx@") }

// naming returns a command's error so that it begins with the command. Some of
// the library's begin with the same word.
func naming(what string, err error) error {
	if err == nil || strings.HasPrefix(err.Error(), what+" ") || strings.HasPrefix(err.Error(), what+":") {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// exitStatus returns the exit status for an error.
func exitStatus(err error) int {
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	for _, class := range []struct {
		status int
		errs   []error
	}{
		// Damage first: its cause may be that some row was not found.
		{exitDamaged, []error{cairn.ErrCorrupt, cairn.ErrMismatch}},
		{exitLocked, []error{cairn.ErrLocked}},
		{exitFull, []error{cairn.ErrFull, cairn.ErrTooLarge, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}},
		{exitNotFound, []error{cairn.ErrNotFound, cairn.ErrMissing, fs.ErrNotExist}},
	} {
		for _, target := range class.errs {
			if errors.Is(err, target) {
				return class.status
			}
		}
	}
	return exitOther
}

// report prints an error, unless it is that nobody reads our output any more:
// who closed the pipe wants to hear no more.
func report(w io.Writer, err error) {
	if !errors.Is(err, syscall.EPIPE) {
		fmt.Fprintf(w, "cairn: %s\n", oneLine(err.Error()))
	}
}

// oneLine returns text without line breaks. Joined errors have them, and so
// may file names.
func oneLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines, "; ")
}
