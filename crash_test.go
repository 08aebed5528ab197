package cairn_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
)

var kills = flag.Int("kills", 10, "how often TestKill kills a process; 200 in the long run")

// childEnv tells a process of this test binary to be a child: ROLE PATH.
const childEnv = "CAIRN_TEST_CHILD"

func TestMain(m *testing.M) {
	if role, path, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		if err := runChild(role, path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A child is a process that uses a store and is going to be killed.
type child struct {
	cmd    *exec.Cmd
	stdout *bufio.Scanner
	pipe   io.Closer
}

// startChild starts a child and waits for its first line.
func startChild(t *testing.T, role, path string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(exe)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+role+" "+path)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdout, c.pipe = bufio.NewScanner(out), in
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill(); c.cmd.Wait() })
	if !c.stdout.Scan() {
		t.Fatal("child said nothing")
	}
	return c
}

// kill ends the child as kill -9 does.
func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.cmd.Wait()
}

func runChild(role, path string) error {
	ctx := context.Background()
	s, err := cairn.Open(ctx, path, nil)
	if role == "tryhold" && errors.Is(err, cairn.ErrLocked) {
		fmt.Println(err)
		return nil
	}
	if err != nil {
		return err
	}
	switch role {
	case "hold", "tryhold":
		if _, err := s.AddBytes(ctx, []byte("held"), nil); err != nil {
			return err
		}
		fmt.Println("ready")
		_, err := io.Copy(io.Discard, os.Stdin) // until killed
		return err
	case "bulk":
		return childBulk(s, path, func(text string) { fmt.Println(text) })
	case "add":
		return addForever(ctx, s)
	case "files":
		return filesForever(ctx, s, path)
	case "import":
		return importForever(ctx, s)
	case "pieces":
		return piecesForever(ctx, s)
	case "scrub":
		return scrubOnce(ctx, s)
	case "gc":
		return collectForever(ctx, s)
	case "evict":
		return evictForever(ctx, s)
	}
	return fmt.Errorf("no role %q", role)
}

// addForever adds, and deletes some, from several goroutines, and prints each
// seed and size once it is acknowledged.
func addForever(ctx context.Context, s *cairn.Store) error {
	fmt.Println("ready")
	var mu sync.Mutex
	errs := make(chan error)
	for range 6 {
		go func() {
			for {
				seed, size := rand.Uint64()&0xffffff, crashSize()
				tag, err := s.AddBytes(ctx, content(seed, size), nil)
				if err != nil {
					errs <- err
					return
				}
				mu.Lock()
				fmt.Println("added", seed, size)
				mu.Unlock()
				tag.Release()
				if rand.IntN(4) == 0 {
					mu.Lock()
					fmt.Println("deleting", seed, size)
					mu.Unlock()
					if err := s.Delete(ctx, tag.Hash()); err != nil {
						errs <- err
						return
					}
				}
			}
		}()
	}
	return <-errs
}

// crashSize returns sizes of all the ways that an add can go.
func crashSize() int {
	switch rand.IntN(4) {
	case 0:
		return rand.IntN(100)
	case 1:
		return rand.IntN(100_000)
	case 2:
		return rand.IntN(cairn.SegmentSize * 2)
	default:
		return rand.IntN(20 * cairn.SegmentSize)
	}
}

// TestKill kills a process in the middle of adds and deletions, again and
// again on one database. Every acknowledged blob must be there, wholly; the
// database must be sound; nothing else may remain of what was cut short.
func TestKill(t *testing.T) {
	path := tempPath(t)
	type blob struct {
		seed uint64
		size int
	}
	acked := make(map[blob]bool) // false: a deletion has begun
	for round := range *kills {
		c := startChild(t, "add", path)
		timer := time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() { c.cmd.Process.Kill() })
		for c.stdout.Scan() {
			var what string
			var b blob
			if _, err := fmt.Sscan(c.stdout.Text(), &what, &b.seed, &b.size); err != nil {
				continue // the last line may be torn
			}
			acked[b] = what == "added"
		}
		timer.Stop()
		c.kill(t)

		s, err := cairn.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatalf("kill %d: %v", round, err)
		}
		mustBeSound(t, s)
		known := make(map[cairn.Hash]bool)
		for b, there := range acked {
			data := content(b.seed, b.size)
			known[hashOf(data)] = true
			if there {
				mustHave(t, s, data)
			}
			// Keep the database small.
			if err := s.Delete(t.Context(), hashOf(data)); err != nil && there {
				t.Fatal(err)
			}
			delete(acked, b)
		}
		unknown := 0
		for info, err := range s.Blobs(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			unknown++ // committed, and killed before it could say so
			if _, err := read(t.Context(), s, info.Hash); err != nil {
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), info.Hash); err != nil {
				t.Fatal(err)
			}
		}
		if unknown > 6 {
			t.Errorf("kill %d: %d blobs that were not acknowledged, from 6 goroutines", round, unknown)
		}
		st, err := s.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Blobs != 0 || st.Bytes != 0 {
			t.Errorf("kill %d: everything deleted, but %+v", round, st)
		}
		mustBeSound(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
