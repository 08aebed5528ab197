package main

import (
	"context"
	"io"
)

// Main is main, for scripts.
func Main() { main() }

// Run is run in the test's own process, with standard error a terminal.
func Run(ctx context.Context, args []string, in io.Reader, out, stderr io.Writer) int {
	return run(ctx, args, streams{in: in, out: out, err: stderr, terminal: true})
}

// ExitStatus is exitStatus.
func ExitStatus(err error) int { return exitStatus(err) }
