// Command cairn stores files in a Cairn database, gets them back, and exchanges
// them with others.
//
// Data goes to standard output, everything else to standard error. The exit
// status is 0 if all was done, 2 for a command line that makes no sense, 3 if
// what was asked for is not there, 4 for data that is damaged or fails
// verification, 5 if there is no room, 6 if another process has the database
// open for writing, and 1 for any other error. An error is one line: "cairn:
// what: why".
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() { os.Exit(runProcess()) }

// runProcess runs the command with what the process was given.
func runProcess() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal lets the command clean up; a second one ends it where
	// it stands, in case it waits for somebody who does not read.
	context.AfterFunc(ctx, stop)
	// Without this, a write to a closed pipe would end the process before the
	// store is closed.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return run(ctx, os.Args[1:], streams{
		in:       os.Stdin,
		out:      os.Stdout,
		err:      os.Stderr,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
	})
}

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	terminal bool // err is one, so that a progress bar makes sense
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, std streams) int {
	if len(args) == 0 {
		printUsage(std.err)
		return exitUsage
	}
	cmd, err := parse(args, std.out)
	if err == nil {
		err = cmd.run(ctx, std)
	}
	if err == nil || err == errHelp {
		return exitDone
	}
	report(std.err, err)
	return exitStatus(err)
}
