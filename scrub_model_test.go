package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// TestScrubModel damages rows and tiles of whole and partial blobs at random. What
// a scrub leaves is right, and sound, and no more is lost than what was damaged or
// lies below what cannot be derived; fetching what is lost is all that it takes.
func TestScrubModel(t *testing.T) {
	number := *modelSeed
	if number == 0 {
		number = rand.Uint64()
	}
	for run := range uint64(max(1, *modelRuns)) {
		scrubModel(t, rand.New(rand.NewPCG(number+run, 0)), number+run)
		if t.Failed() {
			t.Fatalf("repeat with -run '^TestScrubModel$' -seed %d", number+run)
		}
	}
}

func scrubModel(t *testing.T, rnd *rand.Rand, number uint64) {
	s := open(t, ":memory:", nil)
	for blob := range uint64(3) {
		size := 1 + rnd.IntN(200*bao.GroupSize)
		if rnd.IntN(2) == 0 {
			size = 1 + rnd.IntN(10*bao.GroupSize)
		}
		data := content(number+blob, size)
		hash := hashOf(data)
		groups := bao.Groups(int64(size))
		if rnd.IntN(2) == 0 {
			for range 1 + rnd.IntN(3) {
				first := rnd.Uint64N(uint64(groups))
				importRanges(t, s, data, bao.Chunks(first*16, (first+1+rnd.Uint64N(uint64(groups)))*16).String())
			}
		} else {
			add(t, s, data)
		}
		was := must(s.Ranges(t.Context(), hash))
		id := idOf(t, s, hash)
		damaged := damageRows(t, s, rnd, id, was, groups)
		outboard := groups > 1 && rnd.IntN(2) == 0
		if outboard {
			damageTiles(t, s, rnd, id)
		}
		repair := rnd.IntN(2) == 0
		found := scrub(t, s, &cairn.ScrubOptions{Repair: repair})
		now := must(s.Ranges(t.Context(), hash))
		lost := was.Minus(now)
		switch {
		case len(found) > 1 || len(found) == 0 && !lost.IsEmpty():
			t.Errorf("found %v, lost %v", found, lost)
		case !damaged.Minus(lost).IsEmpty() || !outboard && !damaged.Equal(lost):
			t.Errorf("lost %v, damaged %v", lost, damaged)
		case !lost.IsEmpty() && (found[0].Outcome != cairn.Lost || !found[0].Ranges.Equal(lost)):
			t.Errorf("found %v, lost %v", found, lost)
		}
		if len(found) > 0 && found[0].Outcome == cairn.Intact {
			if repair {
				t.Errorf("found %v, and did not repair it", found)
			}
			for _, f := range scrub(t, s, &cairn.ScrubOptions{Repair: true}) {
				if f.Outcome != cairn.Repaired || !f.Ranges.Equal(found[0].Ranges) {
					t.Errorf("found %v, after %v", f, found)
				}
			}
		}
		mustReadRanges(t, s, data)
		mustBeSound(t, s)
		mustBeClean(t, s)
		if all := bao.Chunks(0, bao.ChunkCount(int64(size))); !now.Equal(all) {
			fetch(t, s, data, all.Minus(now))
		}
		mustHave(t, s, data)
		checkOutboard(t, s, data)
		mustBeSound(t, s)
	}
}

// damageRows damages some groups of those that are there, and returns them.
func damageRows(t *testing.T, s *cairn.Store, rnd *rand.Rand, id int64, present bao.Ranges, groups int64) (damaged bao.Ranges) {
	t.Helper()
	for range rnd.IntN(4) {
		g := rnd.Int64N(groups)
		if !present.Contains(uint64(g) * 16) {
			continue
		}
		how := []string{
			`update "row" set data = zeroblob(length(data)) where id = %d`,
			`update "row" set data = x'' where id = %d`,
			`update "row" set data = cast(data || x'00' as blob) where id = %d`,
			`delete from "row" where id = %d`,
		}[rnd.IntN(4)]
		script(t, s, fmt.Sprintf(how, id+g))
		damaged = damaged.Union(bao.Chunks(uint64(g)*16, uint64(g+1)*16))
	}
	return damaged.Intersect(present)
}

// damageTiles damages some tiles.
func damageTiles(t *testing.T, s *cairn.Store, rnd *rand.Rand, id int64) {
	t.Helper()
	for range 1 + rnd.IntN(3) {
		at := rnd.IntN(63 * 64)
		how := []string{
			fmt.Sprintf(`update outboard set pairs = cast(substr(pairs, 1, %d) || x'a5' || substr(pairs, %d) as blob) where length(pairs) > %d`, at, at+2, at),
			fmt.Sprintf(`update outboard set pairs = cast(substr(pairs, 1, %d) as blob) where true`, at+1),
			`update outboard set pairs = cast(pairs || x'5a' as blob) where true`,
			`delete from outboard where true`,
		}[rnd.IntN(4)]
		text := fmt.Sprintf(` and id = (select id from outboard where id between %d and %d order by random() limit 1)`, id, id+1<<cairn.GroupBits-1)
		script(t, s, how+text)
	}
}

// TestScrubWhileChanging scrubs beside adds, deletions, imports, pieces and reads,
// of which nothing is damaged: nothing may be found, or be different after it.
func TestScrubWhileChanging(t *testing.T) {
	s := open(t, tempPath(t), nil)
	kept := content(1, 5<<20+3)
	add(t, s, kept)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work sync.WaitGroup
	fail := func(err error) bool {
		if err == nil {
			return false
		}
		t.Error(err)
		return true
	}
	work.Go(func() {
		for i := uint64(0); ctx.Err() == nil; i++ {
			data := content(100+i%7, 1+int(i%7)*300_000)
			tag, err := s.AddBytes(t.Context(), data, nil)
			if fail(err) {
				return
			}
			tag.Release()
			if i%3 > 0 && fail(s.Delete(t.Context(), tag.Hash())) {
				return
			}
		}
	})
	partial := content(2, 3<<20)
	sd := newSeed(t, partial)
	work.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		for ctx.Err() == nil {
			start := rnd.Uint64N(3 << 10)
			ranges := bao.Chunks(start, start+400).Groups()
			response, _ := sd.response(t, ranges)
			if fail(s.ImportBao(t.Context(), hashOf(partial), ranges, bytes.NewReader(response))) {
				return
			}
			if rnd.IntN(8) == 0 {
				if err := s.Delete(t.Context(), hashOf(partial)); err != nil && !errors.Is(err, cairn.ErrNotFound) && fail(err) {
					return
				}
			}
		}
	})
	work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			data := content(uint64(50+i%3), 500_000)
			p, err := s.Piece(t.Context(), fmt.Sprint("key", i%5), len64(data), nil)
			if fail(err) {
				return
			}
			_, err = p.CompleteBlocks(t.Context(), cairn.Block{Data: data})
			if !fail(err) {
				err = p.Delete(t.Context())
			}
			if fail(err) {
				return
			}
		}
	})
	work.Go(func() {
		for ctx.Err() == nil {
			if _, err := read(t.Context(), s, hashOf(kept)); fail(err) {
				return
			}
		}
	})
	for i := range 40 {
		for _, f := range scrub(t, s, &cairn.ScrubOptions{Repair: i%2 == 0, Sample: float64(i%3) / 2}) {
			t.Errorf("found %v", f)
		}
	}
	cancel()
	work.Wait()
	mustHave(t, s, kept)
	mustBeSound(t, s)
	mustBeClean(t, s)
}

func len64(b []byte) int64 { return int64(len(b)) }

// TestScrubWhileFetching has two scrubs find damage again and again while a client
// fetches what is missing. Each time it is found once, and at the end all is there.
func TestScrubWhileFetching(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(1, 200*bao.GroupSize)
	sd := newSeed(t, data)
	hash := add(t, s, data)
	var found, made atomic.Int64
	var over atomic.Bool
	var work sync.WaitGroup
	for i := range 2 {
		work.Go(func() {
			for !over.Load() {
				for f, err := range s.Findings(t.Context(), nil) {
					if err != nil || f.Hash != hash || f.Outcome != cairn.Lost {
						t.Errorf("scrub %d: %v, %v", i, f, err)
						return
					}
					found.Add(int64(len(f.Ranges.Bounds()) / 2))
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	id := idOf(t, s, hash)
	for range 60 {
		g := rnd.Int64N(200)
		script(t, s, fmt.Sprintf(`update "row" set data = zeroblob(length(data)) where id = %d`, id+g))
		made.Add(1)
		for {
			missing := bao.Ranges{}
			for want, err := range s.Missing(t.Context(), cairn.HashAndFormat{Hash: hash}) {
				mustBe(t, err, nil)
				missing = want.Ranges
			}
			if !missing.IsEmpty() {
				response, _ := sd.response(t, missing)
				mustBe(t, s.ImportBao(t.Context(), hash, missing, bytes.NewReader(response)), nil)
				break
			}
			if t.Failed() {
				break
			}
		}
	}
	over.Store(true)
	work.Wait()
	mustHave(t, s, data)
	mustBeSound(t, s)
	if found.Load() != made.Load() {
		t.Errorf("%d were found, of %d", found.Load(), made.Load())
	}
}

// TestScrubDamagedPages overwrites each page of a small database in turn. Where the
// blobs can be listed, a scrub goes to its end; what then is said to be there reads.
func TestScrubDamagedPages(t *testing.T) {
	path := tempPath(t)
	blobs := [][]byte{nil, content(1, 10), content(2, 5000), content(3, 100_000)}
	partial := content(4, 100_000)
	s := open(t, path, nil)
	for _, b := range blobs {
		add(t, s, b)
	}
	importRanges(t, s, partial, "16..48")
	s.Close()
	good := must(os.ReadFile(path))
	scrubbed, found := 0, 0
	for off := 0; off < len(good); off += cairn.PageSize {
		for _, fill := range []byte{0, 0x5a} {
			bad := bytes.Clone(good)
			for i := range cairn.PageSize {
				bad[off+i] = fill ^ byte(i*int(fill)>>3)
			}
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := cairn.Open(t.Context(), path, nil)
			if err != nil {
				continue
			}
			listed := true
			for _, err := range s.Blobs(t.Context(), nil) {
				listed = listed && err == nil
			}
			report, err := s.Scrub(t.Context(), &cairn.ScrubOptions{Repair: fill == 0})
			if err == nil {
				scrubbed++
			} else if listed {
				t.Errorf("page %d filled with %#x: %v after %+v", off/cairn.PageSize, fill, err, report)
			}
			if report.Damaged > 0 {
				found++
			}
			for _, want := range append(blobs, partial) {
				got, err := read(t.Context(), s, hashOf(want))
				if err == nil && !bytes.Equal(got, want) {
					t.Errorf("page %d filled with %#x: wrong bytes", off/cairn.PageSize, fill)
				}
			}
			s.Close()
		}
	}
	if scrubbed == 0 || found < 40 {
		t.Errorf("%d scrubs came to an end, %d found something", scrubbed, found)
	}
}
