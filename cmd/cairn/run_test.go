package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cairnstore/cairn"
	command "github.com/cairnstore/cairn/cmd/cairn"
	"lukechampine.com/blake3"
)

// fill makes a database with one blob of that many bytes and returns its path
// and the blob's hash. The working directory is a new one.
func fill(t *testing.T, size int) (db, hash string) {
	t.Helper()
	return fillWith(t, bytes.Repeat([]byte("cairn"), size/5+1)[:size])
}

// fillWith is fill with a content of the caller's.
func fillWith(t *testing.T, content []byte) (db, hash string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("content", content, 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cairn", "--db", "a.db", "add", "content").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return "a.db", fmt.Sprintf("%x", blake3.Sum256(content))
}

// exitCode runs cmd and returns its exit status and what it wrote to standard
// error.
func exitCode(t *testing.T, cmd *exec.Cmd) (int, string) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// files returns the names of what is in the working directory.
func files(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(".*")
	if err != nil {
		t.Fatal(err)
	}
	return append(hidden, names...)
}

func TestExitStatus(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{errors.New("any other"), 1},
		{cairn.ErrClosed, 1},
		{cairn.ErrReadOnly, 1},
		{cairn.ErrConflict, 1},
		{cairn.ErrNotCairn, 1},
		{cairn.ErrNewerSchema, 1},
		{context.Canceled, 1},
		{syscall.EPIPE, 1},
		{cairn.ErrNotFound, 3},
		{cairn.ErrMissing, 3},
		{fs.ErrNotExist, 3},
		{cairn.ErrCorrupt, 4},
		{cairn.ErrMismatch, 4},
		{&cairn.CorruptError{Err: fs.ErrNotExist}, 4},
		{cairn.ErrFull, 5},
		{cairn.ErrTooLarge, 5},
		{&fs.PathError{Err: syscall.ENOSPC}, 5},
		{cairn.ErrLocked, 6},
		{&cairn.LockedError{}, 6},
	} {
		if got := command.ExitStatus(fmt.Errorf("what: %w", test.err)); got != test.want {
			t.Errorf("%v: status %d, want %d", test.err, got, test.want)
		}
	}
}

func TestOutputIsFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no device that is always full: %v", err)
	}
	defer full.Close()
	db, hash := fill(t, 1)
	if out, err := exec.Command("cairn", "--db", db, "bao", "encode", hash, "-o", "all.bao").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, args := range [][]string{
		{"get", hash}, {"ls"}, {"stat"}, {"outboard", hash}, {"add", "content"}, {"ranges", hash},
		{"bao", "encode", hash}, {"bao", "decode", hash, "all.bao"},
		{"serve", "--addr", "127.0.0.1:0"}, {"fetch", "127.0.0.1:0", hash},
		{"piece", "put", "key", "content"}, {"piece", "get", "key"}, {"piece", "ls"},
		{"owner", "quota", "name", "10"}, {"owner", "ls"}, {"capacity"}, {"export", hash, "file"},
		{"tag", "set", "name", hash}, {"tag", "ls"}, {"gc"}, {"scrub"},
	} {
		cmd := exec.Command("cairn", append([]string{"--db", db}, args...)...)
		cmd.Stdout = full
		status, stderr := exitCode(t, cmd)
		const why = "write /dev/stdout: no space left on device\n"
		oneLine := strings.HasPrefix(stderr, "cairn: ") && strings.HasSuffix(stderr, why) && strings.Count(stderr, "\n") == 1
		if status != 5 || !oneLine {
			t.Errorf("%s: status %d, %q", args[0], status, stderr)
		}
	}
}

func TestNobodyReads(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGPIPE")
	}
	db, hash := fill(t, 1<<20)
	for _, args := range [][]string{
		{"get", hash}, {"ls"}, {"stat", "--json"}, {"add", "content"}, {"--help"}, {"bao", "encode", hash},
		{"ranges", hash}, {"serve", "--addr", "127.0.0.1:0"},
		{"piece", "put", "key", "content"}, {"piece", "get", "key"}, {"piece", "ls"}, {"capacity"},
		{"tag", "set", "name", hash}, {"tag", "ls"}, {"gc"}, {"scrub"},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		cmd := exec.Command("cairn", append([]string{"--db", db}, args...)...)
		cmd.Stdout = w
		status, stderr := exitCode(t, cmd)
		w.Close()
		if status < 1 || stderr != "" {
			t.Errorf("%s: status %d, %q", args[0], status, stderr)
		}
	}
	if got := strings.Join(files(t), " "); got != "a.db content" {
		t.Errorf("left behind: %s", got)
	}
}

func TestInterruptedAdd(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot interrupt one process")
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		db, hash := fill(t, 100)
		cmd, stdin := startHolder(t, db, "content")
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		stdin.Close()
		stderr := cmd.Stderr.(*bytes.Buffer).String()
		if got := cmd.ProcessState.ExitCode(); got != 1 || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "cairn: add: ") {
			t.Errorf("%v: status %d, %q", sig, got, stderr)
		}
		if got := strings.Join(files(t), " "); got != "a.db content" {
			t.Errorf("%v: left behind: %s", sig, got)
		}
		out, err := exec.Command("cairn", "--db", db, "ls").Output()
		if want := hash + " 100 complete\n"; err != nil || string(out) != want {
			t.Errorf("%v: then lists %q, %v", sig, out, err)
		}
	}
}

// A canceller cancels when something is written to it: the progress bar of a
// transfer under way.
type canceller struct{ cancel context.CancelFunc }

func (c canceller) Write(p []byte) (int, error) {
	c.cancel()
	return len(p), nil
}

func TestInterruptedGet(t *testing.T) {
	db, hash := fill(t, 40<<20)
	if err := os.WriteFile("old", []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"get", hash, "-o", "old"},
		{"get", hash, "-o", "old", "--offset", "1"},
		{"get", hash, "-o", "new"},
		{"get", hash, "-o", "new", "--length", "40000000"},
		{"export", hash, "old"},
		{"export", hash, "new"},
		{"export", hash, "new", "--reference"},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		var out bytes.Buffer
		if got := command.Run(ctx, append(args, "--db", db), strings.NewReader(""), &out, canceller{cancel}); got != 1 {
			t.Errorf("%v: status %d", args, got)
		}
		cancel()
		if got := strings.Join(files(t), " "); got != "a.db content old" {
			t.Errorf("%v: left behind: %s", args, got)
		}
	}
	if old, err := os.ReadFile("old"); err != nil || string(old) != "old" {
		t.Errorf("the old file has changed: %d bytes, %v", len(old), err)
	}
}

func TestProgress(t *testing.T) {
	db, hash := fill(t, 3<<20)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"add", "content"}, "3.0/3.0 MiB"},
		{[]string{"add", "content", "content"}, "6.0/6.0 MiB"},
		{[]string{"add", "content", "-"}, " MiB, "},
		{[]string{"get", hash, "-o", "new"}, "3.0/3.0 MiB"},
		{[]string{"get", hash, "-o", "new", "--offset", "1048576"}, "2.0/2.0 MiB"},
		{[]string{"export", hash, "new"}, "3.0/3.0 MiB"},
		{[]string{"scrub"}, "3.0/3.0 MiB"},
		{[]string{"scrub", "--sample", "100"}, " MiB, "},
		{[]string{"add", "--reference", "content"}, "3.0/3.0 MiB"},
		{[]string{"bao", "encode", hash, "-o", "new"}, "3.0/3.0 MiB"},
		{[]string{"piece", "put", "key", "content"}, "3.0/3.0 MiB"},
		{[]string{"piece", "put", "key"}, "( 1 B, "},
		{[]string{"piece", "write", "other", "5MiB", "1MiB", "content"}, "3.0/3.0 MiB"},
		{[]string{"bao", "decode", hash, "new"}, "3.0/3.0 MiB"},
		{[]string{"bao", "encode", hash, "-o", "part", "--ranges", "0..2048"}, "2.0/2.0 MiB"},
	} {
		var out, stderr bytes.Buffer
		got := command.Run(t.Context(), append(test.args, "--db", db), strings.NewReader("x"), &out, &stderr)
		if got != 0 || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%v: status %d, shown %q", test.args, got, stderr.String())
		}
		if strings.Contains(out.String(), "MiB") {
			t.Errorf("%v: printed %q", test.args, out.String())
		}
	}
}

// The bar has nothing to show for no bytes, and a missing file is no reason
// to fail before its turn.
func TestProgressOfNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("empty", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	if got := command.Run(t.Context(), []string{"add", "empty", "missing"}, nil, &out, &stderr); got != 3 {
		t.Errorf("status %d", got)
	}
	if want := fmt.Sprintf("%x 0 empty\n", blake3.Sum256(nil)); out.String() != want {
		t.Errorf("printed %q", out.String())
	}
	if !strings.HasPrefix(stderr.String(), "cairn: add: ") {
		t.Errorf("said %q", stderr.String())
	}
}
