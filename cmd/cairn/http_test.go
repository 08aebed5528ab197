package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	command "github.com/cairnstore/cairn/cmd/cairn"
	"github.com/rogpeppe/go-internal/testscript"
)

// A server is "cairn serve" in another process.
type server struct {
	cmd    *exec.Cmd
	addr   string
	stdout *bufio.Reader // behind the address
	stderr *bytes.Buffer
	warned string // what it must say to stderr
}

// startServer starts a server on a free port, with a write token in its
// environment if that is not empty, and waits for its address.
func startServer(t fatal, token string, args ...string) *server {
	s := &server{stderr: new(bytes.Buffer)}
	if token != "" && !slices.Contains(args, "--write-token") {
		s.warned = "cairn: serve: adding blobs is allowed by CAIRN_WRITE_TOKEN\n"
	}
	s.cmd = exec.Command("cairn", append(args, "serve", "--addr", "127.0.0.1:0")...)
	s.cmd.Env = append(os.Environ(), "CAIRN_WRITE_TOKEN="+token)
	s.cmd.Stderr = s.stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	s.stdout = bufio.NewReader(stdout)
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		s.cmd.Wait()
		t.Fatalf("serve: %v, %s", err, s.stderr)
	}
	s.addr = strings.TrimSuffix(line, "\n")
	return s
}

// stop ends the server, which must go quietly: beside its address it may only
// have said where a token is from.
func (s *server) stop(sig os.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	rest, err := io.ReadAll(s.stdout)
	if err := errors.Join(err, s.cmd.Wait()); err != nil {
		return fmt.Errorf("%w: %s", err, s.stderr)
	}
	if len(rest) > 0 || s.stderr.String() != s.warned {
		return fmt.Errorf("printed %q, said %q", rest, s.stderr)
	}
	return nil
}

// serversKey is where a script has its servers, by address.
type serversKey struct{}

func servers(ts *testscript.TestScript) map[string]*server {
	return ts.Value(serversKey{}).(map[string]*server)
}

func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	db := ts.MkAbs(args[1])
	s := startServer(ts, ts.Getenv("CAIRN_WRITE_TOKEN"), append([]string{"--db", db}, args[2:]...)...)
	servers(ts)[s.addr] = s
	ts.Setenv(args[0], s.addr)
	ts.Defer(func() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	})
}

func scriptEnd(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	sig := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM}[args[1]]
	ts.Check(servers(ts)[args[0]].stop(sig))
}

func scriptRequest(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3)
	var body io.Reader
	if len(args) > 3 {
		body = strings.NewReader(ts.ReadFile(args[3]))
	}
	req, err := http.NewRequest(args[1], args[2], body)
	ts.Check(err)
	if len(args) > 4 {
		req.Header.Set("Authorization", "Bearer "+args[4])
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("status %s, want %s", got, args[0])
	}
}

func scriptProxy(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 4)
	n, err := strconv.ParseInt(args[3], 10, 64)
	ts.Check(err)
	p := httptest.NewServer(proxy(args[1], args[2], n, make(chan struct{})))
	ts.Defer(p.Close)
	ts.Setenv(args[0], p.URL)
}

// proxy passes on what the server at addr says of blobs, up to its byte n.
// What happens there depends on the manner:
//
//	cut    the connection is closed, and nothing else is answered
//	tear   the connection is closed, with each response anew
//	flip   the byte is changed
//	stall  nothing more comes; stalled is closed
func proxy(addr, manner string, n int64, stalled chan struct{}) http.Handler {
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	p.FlushInterval = -1
	p.ModifyResponse = func(resp *http.Response) error {
		resp.Body = &spoiled{
			Reader: io.LimitReader(resp.Body, n),
			Closer: resp.Body,
			rest:   resp.Body,
			at:     func(b []byte) (int, error) { return spoil(resp, manner, stalled, b) },
		}
		return nil
	}
	p.ErrorLog = log.New(io.Discard, "", 0) // to end connections is its purpose
	var requests atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) > 1 && manner == "cut" {
			http.Error(w, "no more", http.StatusForbidden)
			return
		}
		p.ServeHTTP(w, r)
	})
}

// spoil does to a response what the proxy's manner is; b is the next byte.
func spoil(resp *http.Response, manner string, stalled chan struct{}, b []byte) (int, error) {
	switch manner {
	case "flip":
		b[0] ^= 1
		return 1, nil
	case "stall":
		close(stalled)
		<-resp.Request.Context().Done()
	}
	return 0, errors.New(manner)
}

// A spoiled body is as it was up to some byte.
type spoiled struct {
	io.Reader // up to the byte
	io.Closer
	rest io.Reader
	at   func(b []byte) (int, error) // what becomes of the byte; nil once asked
}

func (s *spoiled) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if n > 0 && err == io.EOF {
		return n, nil // the next read looks further
	}
	if err != io.EOF || s.at == nil {
		return n, err
	}
	if n, err := io.ReadFull(s.rest, p[:1]); err != nil {
		return n, err // the body ends before it
	}
	at := s.at
	s.at, s.Reader = nil, s.rest
	return at(p[:1])
}

// bigBlob is more than a fetch reads before it first tells of its progress.
const bigBlob = 12 << 20

// fetchLine returns the last field of what a fetch has printed, and the third.
func fetchLine(t *testing.T, out string) (fetched int, state string) {
	t.Helper()
	var hash string
	var size int
	if _, err := fmt.Sscanf(out, "%s %d %s %d\n", &hash, &size, &state, &fetched); err != nil {
		t.Fatalf("printed %q: %v", out, err)
	}
	return fetched, state
}

func TestInterruptedFetch(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot interrupt one process")
	}
	db, hash := fill(t, bigBlob)
	s := startServer(t, "", "--db", db)
	stalled := make(chan struct{})
	p := httptest.NewServer(proxy(s.addr, "stall", bigBlob/4, stalled))
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-stalled
		cancel()
	}()
	var out bytes.Buffer
	if got := command.Run(ctx, []string{"--db", "other.db", "fetch", p.URL, hash}, nil, &out, io.Discard); got != 1 {
		t.Errorf("status %d", got)
	}
	args := []string{"--db", "other.db", "fetch", s.addr, hash}
	first, state := fetchLine(t, out.String())
	if first >= bigBlob || state != "partial" {
		t.Errorf("interrupted: %s", out.String())
	}
	var stderr bytes.Buffer
	out.Reset()
	if got := command.Run(t.Context(), args, nil, &out, &stderr); got != 0 {
		t.Errorf("then status %d: %s", got, &stderr)
	}
	second, state := fetchLine(t, out.String())
	if first+second > bigBlob+bigBlob/16 || second >= bigBlob || state != "complete" {
		t.Errorf("then %s", out.String())
	}
	if !strings.Contains(stderr.String(), " MiB, ") {
		t.Errorf("shown %q", stderr.String())
	}
	if err := s.stop(os.Interrupt); err != nil {
		t.Error(err)
	}
	if got := strings.Join(files(t), " "); got != "a.db content other.db" {
		t.Errorf("left behind: %s", got)
	}
}

func TestSignalledFetch(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot interrupt one process")
	}
	db, hash := fill(t, bigBlob)
	s := startServer(t, "", "--db", db)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		stalled := make(chan struct{})
		p := httptest.NewServer(proxy(s.addr, "stall", bigBlob/4, stalled))
		var stdout, stderr bytes.Buffer
		cmd := exec.Command("cairn", "--db", "other.db", "fetch", p.URL, hash)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-stalled
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		p.Close()
		fetchLine(t, stdout.String())
		said := strings.HasPrefix(stderr.String(), "cairn: fetch "+hash+": ") && strings.Count(stderr.String(), "\n") == 1
		if cmd.ProcessState.ExitCode() != 1 || !said {
			t.Errorf("%v: %v, %q", sig, cmd.ProcessState, &stderr)
		}
		if out, err := exec.Command("cairn", "--db", "other.db", "check").CombinedOutput(); err != nil {
			t.Errorf("%v: then %v: %s", sig, err, out)
		}
	}
	if err := s.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// A server that is told to end lets those finish who are being served.
func TestGracefulEnd(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot interrupt one process")
	}
	const size = 64 << 20 // more than any connection holds on its way
	db, hash := fill(t, size)
	s := startServer(t, "", "--db", db)
	resp, err := http.Get("http://" + s.addr + "/blob/" + hash)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	waitRefused(t, s.addr)
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// waitRefused returns when a server takes no more connections.
func waitRefused(t *testing.T, addr string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		resp, err := client.Get("http://" + addr + "/blobs")
		if err != nil {
			return
		}
		resp.Body.Close()
	}
}
