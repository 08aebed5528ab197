package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// importSizes are those of the blobs that importForever downloads.
var importSizes = []int{30 * cairn.SegmentSize, 3*cairn.SegmentSize + 5, 200_000}

// importForever downloads blobs in ranges of one to a hundred groups, from
// several goroutines, and one from its beginning to its end, again and again.
// It prints what is acknowledged.
func importForever(ctx context.Context, s *cairn.Store) error {
	fmt.Println("ready")
	var mu sync.Mutex
	errs := make(chan error)
	for i, size := range importSizes {
		sd := newSeed(new(testing.T), content(uint64(i), size))
		hash := cairn.Hash(sd.root)
		download := func(ranges bao.Ranges) {
			r, w := io.Pipe()
			go func() { w.CloseWithError(bao.Encode(w, sd.root, sd.size, ranges, sd)) }()
			if err := s.ImportBao(ctx, hash, ranges, r); err != nil {
				errs <- err
				return
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Println("imported", i, ranges)
		}
		for range 2 {
			go func() {
				for {
					start := rand.Uint64N(bao.ChunkCount(sd.size))
					download(bao.Chunks(start, start+1+rand.Uint64N(1600)).Groups())
				}
			}()
		}
		if i == 0 {
			go download(bao.All())
		}
	}
	return <-errs
}

// TestKillImport kills a process in the middle of downloads, again and again on
// one database, until all is there. No acknowledged group may be lost, and what
// is there must be right.
func TestKillImport(t *testing.T) {
	path := tempPath(t)
	var acked [3]bao.Ranges
	for round := range *kills {
		c := startChild(t, "import", path)
		timer := time.AfterFunc(time.Duration(rand.IntN(300))*time.Millisecond, func() { c.cmd.Process.Kill() })
		for c.stdout.Scan() {
			var i int
			var text string
			if _, err := fmt.Sscan(c.stdout.Text(), new(string), &i, &text); err != nil {
				continue
			}
			ranges, err := bao.ParseRanges(text)
			if err != nil {
				continue // the last line may be torn
			}
			acked[i] = acked[i].Union(ranges)
		}
		timer.Stop()
		c.kill(t)

		s, err := cairn.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatalf("kill %d: %v", round, err)
		}
		mustBeSound(t, s)
		for i, size := range importSizes {
			data := content(uint64(i), size)
			got, err := s.Ranges(t.Context(), hashOf(data))
			if err != nil {
				t.Fatal(err)
			}
			want := acked[i].Intersect(bao.Chunks(0, bao.ChunkCount(int64(size))))
			if lost := want.Minus(got); !lost.IsEmpty() {
				t.Errorf("kill %d: blob %d lost %v", round, i, lost)
			}
			mustReadRanges(t, s, data)
			if rand.IntN(3) > 0 {
				continue
			}
			// Begin anew, so that there is always something to download.
			if err := s.Delete(t.Context(), hashOf(data)); err != nil && !errors.Is(err, cairn.ErrNotFound) {
				t.Fatal(err)
			}
			acked[i] = bao.Ranges{}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, path, nil)
	for i, size := range importSizes {
		data := content(uint64(i), size)
		for want, err := range s.Missing(t.Context(), cairn.HashAndFormat{Hash: hashOf(data)}) {
			if err != nil {
				t.Fatal(err)
			}
			response, _ := newSeed(t, data).response(t, want.Ranges)
			if err := s.ImportBao(t.Context(), want.Hash, want.Ranges, bytes.NewReader(response)); err != nil {
				t.Fatal(err)
			}
		}
		mustHave(t, s, data)
	}
	mustBeSound(t, s)
}
