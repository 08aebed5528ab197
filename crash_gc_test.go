package cairn_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
)

// crashTag is the name of a tag, from which its content can be made: a sequence
// of n children, or without any a content of its own.
func crashTag(seed uint64, size, children int) string {
	return fmt.Sprintf("tag/%d/%d/%d", seed, size, children)
}

// crashContents returns what the tag of a name protects, the tagged content last.
func crashContents(name string) (list [][]byte, err error) {
	var seed uint64
	var size, children int
	if _, err := fmt.Sscanf(name, "tag/%d/%d/%d", &seed, &size, &children); err != nil {
		return nil, fmt.Errorf("tag %q: %w", name, err)
	}
	if children == 0 {
		return [][]byte{content(seed, size)}, nil
	}
	hashes := fillers(seed, children*100)
	for i := range children {
		data := content(seed+uint64(i), size)
		list = append(list, data)
		hashes[i*100] = hashOf(data)
	}
	return append(list, sequence(hashes...)), nil
}

// collectForever adds and tags from several goroutines, takes tags away again, and
// collects all the time. It says what it has tagged, and what it is going to
// untag.
func collectForever(ctx context.Context, s *cairn.Store) error {
	fmt.Println("ready")
	var mu sync.Mutex
	say := func(what, name string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(what, name, ".")
	}
	errs := make(chan error)
	for range 4 {
		go func() {
			for {
				if err := tagOne(ctx, s, say); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	for range 2 {
		go func() {
			for {
				if _, err := s.GC(ctx, &cairn.GCOptions{Budget: time.Duration(rand.IntN(3_000_000))}); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// tagOne adds something, tags it, and perhaps untags it again.
func tagOne(ctx context.Context, s *cairn.Store, say func(what, name string)) error {
	name := crashTag(rand.Uint64()&0xffffff, crashSize()%200_000, rand.IntN(3)*rand.IntN(20))
	contents, err := crashContents(name)
	if err != nil {
		return err
	}
	for i, data := range contents {
		opts := &cairn.AddOptions{}
		if i == len(contents)-1 {
			opts.Tag = name
			if i > 0 {
				opts.Format = cairn.HashSeq
			}
		}
		tag, err := s.AddBytes(ctx, data, opts)
		if err != nil {
			return err
		}
		defer tag.Release()
	}
	say("tagged", name)
	tag, err := s.AddBytes(ctx, content(rand.Uint64(), crashSize()%100_000), nil) // for nobody
	if err != nil {
		return err
	}
	tag.Release()
	if rand.IntN(3) > 0 {
		say("untagging", name)
		return s.DeleteTag(ctx, name)
	}
	return nil
}

// TestKillCollecting kills a process in the middle of collections, again and again
// on one database. Nothing that is tagged is lost, nor what a tagged sequence names;
// the database is sound; and the next collection does the rest.
func TestKillCollecting(t *testing.T) {
	path := tempPath(t)
	tagged := make(map[string]bool)
	for round := range *kills {
		c := startChild(t, "gc", path)
		timer := time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() { c.cmd.Process.Kill() })
		for c.stdout.Scan() {
			var what, name, end string
			if n, _ := fmt.Sscan(c.stdout.Text(), &what, &name, &end); n < 3 {
				continue // the last line may be torn
			}
			if what == "tagged" {
				tagged[name] = true
			} else {
				delete(tagged, name) // perhaps
			}
		}
		timer.Stop()
		c.kill(t)
		s, err := cairn.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatalf("kill %d: %v", round, err)
		}
		mustBeSound(t, s)
		keep := mustHaveTagged(t, s)
		for name := range tagged {
			if _, err := s.Tag(t.Context(), name); err != nil {
				t.Fatalf("kill %d: %v", round, err)
			}
		}
		collectAll(t, s)
		mustBeSound(t, s)
		if keep := mustHaveTagged(t, s); len(keep) > 0 {
			if st := must(s.Stats(t.Context())); st.Blobs != int64(len(keep)) || st.Partial != 0 {
				t.Fatalf("kill %d: %+v, want %d blobs", round, st, len(keep))
			}
		}
		if round%3 == 2 || len(keep) > 300 { // keep the database small
			if _, err := s.DeleteTags(t.Context(), "tag/"); err != nil {
				t.Fatal(err)
			}
			clear(tagged)
			collectAll(t, s)
			if st := must(s.Stats(t.Context())); st.Blobs != 0 || st.Bytes != 0 {
				t.Fatalf("kill %d: nothing is tagged, but %+v", round, st)
			}
			mustBeSound(t, s)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// mustHaveTagged reads all that is tagged, and returns its hashes.
func mustHaveTagged(t *testing.T, s *cairn.Store) map[cairn.Hash]bool {
	t.Helper()
	keep := make(map[cairn.Hash]bool)
	for tag, err := range s.Tags(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(tag.Name, "tag/") {
			t.Fatalf("%+v", tag)
		}
		contents, err := crashContents(tag.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range contents {
			mustHave(t, s, data)
			keep[hashOf(data)] = true
		}
	}
	return keep
}
