package cairn_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
)

// crashFile is the file of a child's blob. It has "old" before an export to it.
func crashFile(path string, seed uint64, size int) string {
	return filepath.Join(path+".files", fmt.Sprintf("%d-%d", seed, size))
}

// filesForever adds files by reference, and exports blobs by reference, from
// several goroutines, and prints what is acknowledged. Some comes into the database
// again.
func filesForever(ctx context.Context, s *cairn.Store, path string) error {
	if err := os.MkdirAll(path+".files", 0o700); err != nil {
		return err
	}
	fmt.Println("ready")
	var mu sync.Mutex
	errs := make(chan error)
	for range 4 {
		go func() {
			for {
				seed, size := rand.Uint64()&0xffffff, crashSize()
				if rand.IntN(2) == 0 {
					size = rand.IntN(3 * cairn.DropGroups << 14) // moved in several commits
				}
				data := content(seed, size)
				name := crashFile(path, seed, size)
				say := func(what string) {
					mu.Lock()
					defer mu.Unlock()
					fmt.Println(what, seed, size, "ok")
				}
				if err := oneFile(ctx, s, name, data, say); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// oneFile adds one file by reference, or exports to it.
func oneFile(ctx context.Context, s *cairn.Store, name string, data []byte, say func(what string)) error {
	if rand.IntN(2) == 0 {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return err
		}
		tag, err := s.AddFile(ctx, name, byReference)
		if err != nil {
			return err
		}
		defer tag.Release()
		say("referenced")
	} else {
		if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
			return err
		}
		tag, err := s.AddBytes(ctx, data, nil)
		if err != nil {
			return err
		}
		defer tag.Release()
		say("added")
		if err := s.Export(ctx, tag.Hash(), name, moveOut); err != nil {
			return err
		}
		say("exported")
	}
	if rand.IntN(3) > 0 {
		return nil
	}
	tag, err := s.AddBytes(ctx, data, nil)
	if err != nil {
		return err
	}
	tag.Release()
	say("added") // again
	return nil
}

// TestKillFiles kills a process in the middle of adds and exports by reference.
// What was acknowledged must be there, wholly, and each file as it was or whole.
func TestKillFiles(t *testing.T) {
	path := tempPath(t)
	type blob struct {
		seed uint64
		size int
	}
	for round := range *kills {
		acked := make(map[blob]string)
		c := startChild(t, "files", path)
		timer := time.AfterFunc(time.Duration(rand.IntN(600))*time.Millisecond, func() { c.cmd.Process.Kill() })
		for c.stdout.Scan() {
			var what string
			var b blob
			var whole string // the last line may be torn
			if _, err := fmt.Sscan(c.stdout.Text(), &what, &b.seed, &b.size, &whole); err == nil && whole == "ok" {
				acked[b] = what
			}
		}
		timer.Stop()
		c.kill(t)

		s, err := cairn.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatalf("kill %d: %v", round, err)
		}
		mustBeSound(t, s)
		for b, what := range acked {
			data := content(b.seed, b.size)
			mustHave(t, s, data)
			switch got, err := os.ReadFile(crashFile(path, b.seed, b.size)); {
			case err != nil:
				t.Error(err)
			case string(got) != "old" && !bytes.Equal(got, data):
				t.Errorf("kill %d: %s %d bytes, and the file has %d others", round, what, b.size, len(got))
			case what != "added" && !bytes.Equal(got, data):
				t.Errorf("kill %d: %s %d bytes, and the file has not", round, what, b.size)
			}
		}
		for info, err := range s.Blobs(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			if _, err := read(t.Context(), s, info.Hash); err != nil {
				t.Errorf("kill %d: %v of %d bytes, %d outside: %v", round, info.State, info.Size, info.External, err)
			}
			if err := s.Delete(t.Context(), info.Hash); err != nil {
				t.Fatal(err)
			}
		}
		mustBeEmpty(t, s)
		if n := count(t, s, "path"); n != 0 {
			t.Errorf("kill %d: %d paths are left", round, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		mustLeaveOnlyTemps(t, path+".files", len(acked)+4*2)
	}
}

// mustLeaveOnlyTemps empties a directory, in which each goroutine may have left one
// temporary file.
func mustLeaveOnlyTemps(t *testing.T, dir string, files int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	temps := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".tmp") {
			temps++
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if temps > 4 || len(entries) > files {
		t.Errorf("%d files, %d of them temporary", len(entries), temps)
	}
}
