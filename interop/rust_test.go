package interop_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

var long = flag.Bool("long", false, "many more random cases, and iroh's blob store")

// A program is where the built Rust program is, or why there is none: a reason
// to skip the tests, or an error.
type program struct {
	path, skip string
	err        error
}

var (
	treeProgram = sync.OnceValue(func() program { return build("default") })
	irohProgram = sync.OnceValue(func() program { return build("iroh", "--features", "iroh") })
)

// noCrates and noToolchain are what cargo says where the machine lacks
// something. Everything else that goes wrong is a fault of the program.
var (
	noCrates    = []string{"failed to download", "failed to fetch", "offline"}
	noToolchain = []string{"is not supported by the following package", "error: linker `"}
)

// build builds the program in a directory of its own for each set of features,
// so that a run of one kind does not undo what the other has built.
func build(name string, features ...string) program {
	target := filepath.Join("target", name)
	if err := os.MkdirAll(target, 0o777); err != nil {
		return program{skip: fmt.Sprintf("no place to build: %v", err)}
	}
	if err := touchSources(); err != nil {
		return program{err: err}
	}
	if message, err := cargo("--version"); err != nil {
		return program{skip: fmt.Sprintf("%v\n%s", err, message)}
	}
	// Crates are fetched first, and only those that are needed: once they are
	// here, the network is no excuse.
	tree := append([]string{"tree", "--locked"}, features...)
	if message, err := cargo(tree...); err != nil {
		return failed(err, message, noCrates)
	}
	compile := append([]string{"build", "--release", "--locked", "--offline", "--target-dir", target}, features...)
	if message, err := cargo(compile...); err != nil {
		return failed(err, message, noToolchain)
	}
	path, err := filepath.Abs(filepath.Join(target, "release", "cairn-interop"))
	return program{path: path, err: err}
}

// touchSources lets the go command know that the tests depend on these files,
// so that it does not take an old result from its cache.
func touchSources() error {
	sources, err := filepath.Glob("src/*.rs")
	if err != nil {
		return err
	}
	for _, path := range append(sources, "Cargo.toml", "Cargo.lock") {
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
	return nil
}

func cargo(args ...string) (message string, err error) {
	var stderr bytes.Buffer
	cmd := exec.Command("cargo", args...)
	cmd.Env = append(os.Environ(), "CARGO_TERM_COLOR=never")
	cmd.Stderr = &stderr
	err = cmd.Run()
	if err != nil {
		err = fmt.Errorf("cargo %s: %w", args[0], err)
	}
	return stderr.String(), err
}

// failed makes a reason to skip of an error whose message has one of the given
// texts.
func failed(err error, message string, excuses []string) program {
	err = fmt.Errorf("%w\n%s", err, message)
	for _, excuse := range excuses {
		if strings.Contains(message, excuse) {
			return program{skip: err.Error()}
		}
	}
	return program{err: err}
}

// A rust is a running program. It must not be used by several goroutines at
// once.
type rust struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	dead   bool
}

// start starts the program, once for all questions of a test, or skips the
// test.
func start(t testing.TB, built func() program) *rust {
	t.Helper()
	p := built()
	if p.skip != "" {
		t.Skip(p.skip)
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	r := &rust{t: t, cmd: exec.Command(p.path)}
	r.cmd.Stderr = &r.stderr
	in, err := r.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.in, r.out = in, bufio.NewReaderSize(out, 1<<20)
	t.Cleanup(func() {
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// end lets the program come to its end, of which it tells the error.
func (r *rust) end() error {
	if r.dead {
		return nil
	}
	r.dead = true
	err := errors.Join(r.in.Close(), r.cmd.Wait())
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, &r.stderr)
	}
	return err
}

// ask sends a question, and returns the words and the bytes of the answer.
func (r *rust) ask(payload []byte, words ...string) (answer []string, data []byte) {
	r.t.Helper()
	answer, data, err := r.exchange(payload, words)
	if err != nil {
		r.t.Fatalf("%s: %v", words, errors.Join(err, r.end()))
	}
	return answer, data
}

func (r *rust) exchange(payload []byte, words []string) (answer []string, data []byte, err error) {
	// The program reads all of a question before it answers, so neither side
	// waits for the other to read.
	question := append(words, strconv.Itoa(len(payload)))
	if _, err := fmt.Fprintln(r.in, strings.Join(question, " ")); err != nil {
		return nil, nil, err
	}
	if _, err := r.in.Write(payload); err != nil {
		return nil, nil, err
	}
	line, err := r.out.ReadString('\n')
	if err != nil {
		return nil, nil, err
	}
	answer = strings.Fields(line)
	last := len(answer) - 1
	n, err := strconv.Atoi(answer[last])
	if err != nil {
		return nil, nil, err
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r.out, data)
	return answer[:last], data, err
}

// mustAsk is ask for a question that must be answered with ok. The answer is
// what follows that.
func (r *rust) mustAsk(payload []byte, words ...string) (answer []string, data []byte) {
	r.t.Helper()
	answer, data = r.ask(payload, words...)
	if answer[0] != "ok" {
		r.t.Fatalf("%s: %s %q", words, answer, data)
	}
	return answer[1:], data
}
