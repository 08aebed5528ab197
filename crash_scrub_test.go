package cairn_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// scrubOnce scrubs, and prints what it finds.
func scrubOnce(ctx context.Context, s *cairn.Store) error {
	fmt.Println("ready")
	for f, err := range s.Findings(ctx, &cairn.ScrubOptions{Repair: true}) {
		if err != nil {
			return err
		}
		fmt.Println("found", f.Hash, int(f.Outcome), f.Ranges, ".")
	}
	return nil
}

// A scrubVictim is a blob that TestKillScrub damages.
type scrubVictim struct {
	data []byte
	key  string     // of the piece that has it, if one does
	lost bao.Ranges // what is damaged of the content; else it is the outboard
}

// TestKillScrub kills a process in the middle of a scrub of a damaged database,
// again and again. After each the database is sound, what was told to be found has
// been acted upon, and scrubs find the rest.
func TestKillScrub(t *testing.T) {
	for round := range max(1, *kills/4) {
		path := tempPath(t)
		victims := makeVictims(t, path)
		// A few are killed, and one goes on to the end.
		for kill := range 4 {
			c := startChild(t, "scrub", path)
			timer := time.NewTimer(time.Duration(rand.IntN(40)) * time.Millisecond)
			if kill < 3 {
				go func() { <-timer.C; c.cmd.Process.Kill() }()
			}
			found := make(map[cairn.Hash]bool)
			for c.stdout.Scan() {
				var hash, end string
				var outcome int
				var ranges string
				if n, _ := fmt.Sscan(c.stdout.Text(), new(string), &hash, &outcome, &ranges, &end); n == 5 && end == "." {
					found[must(cairn.ParseHash(hash))] = true
				}
			}
			c.cmd.Process.Kill()
			c.cmd.Wait()
			t.Logf("round %d, kill %d: %d found", round, kill, len(found))
			mustBeScrubbed(t, path, victims, found, kill == 3)
			if t.Failed() {
				t.Fatalf("round %d, kill %d", round, kill)
			}
		}
	}
}

// makeVictims makes a database with damaged blobs, in a way that leaves it sound.
func makeVictims(t *testing.T, path string) map[cairn.Hash]*scrubVictim {
	t.Helper()
	s := must(cairn.Open(t.Context(), path, nil))
	defer s.Close()
	victims := make(map[cairn.Hash]*scrubVictim)
	for i := range uint64(24) {
		v := &scrubVictim{data: content(i, 1+rand.IntN(100*bao.GroupSize))}
		first, end := int64(0), bao.Groups(int64(len(v.data)))
		switch {
		case i == 0: // more than is removed in one transaction
			v.data = content(i, 3000*bao.GroupSize)
			first, end = 50, 2900
		case i%3 == 0:
			v.key = fmt.Sprint("key", i)
		}
		hash := hashOf(v.data)
		victims[hash] = v
		if v.key != "" {
			must(s.PutPiece(t.Context(), v.key, bytes.NewReader(v.data), -1, nil))
		} else {
			add(t, s, v.data)
		}
		id := idOf(t, s, hash)
		if i%4 == 1 && end > 1 {
			script(t, s, fmt.Sprintf(`update outboard set pairs = zeroblob(length(pairs)) where id between %d and %d`, id, id+1<<cairn.GroupBits-1))
			continue
		}
		if i > 0 {
			first = rand.Int64N(end)
			end = first + 1
		}
		script(t, s, fmt.Sprintf(`update "row" set data = zeroblob(length(data)) where id between %d and %d`, id+first, id+end-1))
		v.lost = bao.Chunks(uint64(first)*16, uint64(end)*16).Intersect(bao.Chunks(0, bao.ChunkCount(int64(len(v.data)))))
	}
	return victims
}

// mustBeScrubbed compares a database with what was found in it, or with all that
// there is to be found.
func mustBeScrubbed(t *testing.T, path string, victims map[cairn.Hash]*scrubVictim, found map[cairn.Hash]bool, all bool) {
	t.Helper()
	s := must(cairn.Open(t.Context(), path, nil))
	defer s.Close()
	mustBeSound(t, s)
	if all {
		mustBeClean(t, s)
	}
	for hash, v := range victims {
		whole := bao.Chunks(0, bao.ChunkCount(int64(len(v.data))))
		st := must(s.Status(t.Context(), hash))
		switch {
		case v.key != "" && !v.lost.IsEmpty():
			p := must(s.OpenPiece(t.Context(), v.key))
			c := must(p.Completion(t.Context()))
			if c.State == cairn.Complete {
				if all || found[hash] {
					t.Errorf("piece %s: %+v", v.key, c)
				}
				continue
			}
			kept := whole.Minus(v.lost)
			var want []cairn.ByteRange
			bounds := kept.Bounds()
			for i := 0; i < len(bounds); i += 2 {
				want = append(want, cairn.ByteRange{Start: int64(bounds[i]) * 1024, End: min(int64(bounds[i+1])*1024, int64(len(v.data)))})
			}
			mustHaveWritten(t, s, v.key, v.data, want)
			mustNotHave(t, s, v.data)
		case st.State == cairn.Complete && !v.lost.IsEmpty() && (all || found[hash]):
			t.Errorf("blob %v: %+v", hash, st)
		case st.State == cairn.Partial && !all && !found[hash]: // the first part of it may be
			if now := must(s.Ranges(t.Context(), hash)); !whole.Minus(v.lost).Minus(now).IsEmpty() {
				t.Errorf("blob %v: %v is there, though only %v was damaged", hash, now, v.lost)
			}
		case all || found[hash]:
			mustHaveRanges(t, s, v.data, whole.Minus(v.lost).String())
			mustReadRanges(t, s, v.data)
		}
	}
}
