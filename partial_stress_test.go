package cairn_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// TestPartialStress reads and sends a blob from long-lived handles while honest
// and lying peers bring it, until it is complete. Whatever comes out must be
// right, and whatever does not must be missing and nothing else.
func TestPartialStress(t *testing.T) {
	number := rand.Uint64()
	for run := range max(1, *modelRuns/4) {
		stressPartial(t, number+uint64(run))
		if t.Failed() {
			t.Fatalf("seed %d", number+uint64(run))
		}
	}
}

func stressPartial(t *testing.T, number uint64) {
	rnd := rand.New(rand.NewPCG(number, 0))
	groups := 2 + rnd.IntN(300)
	data := content(number, groups*bao.GroupSize-rnd.IntN(bao.GroupSize))
	hash := hashOf(data)
	s := open(t, tempPath(t), nil)
	importRanges(t, s, data, "0..16")
	var over atomic.Bool
	var readers, peers sync.WaitGroup
	for i, f := range []func(*rand.Rand) error{
		handleReader(t, s, hash, data),
		handleReader(t, s, hash, data),
		exporter(t, s, hash, data),
	} {
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(number, uint64(i)+1))
			for !over.Load() {
				if err := f(rnd); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 3 {
		honest := i == 0
		peers.Go(func() { bring(t, s, data, groups, honest, rand.New(rand.NewPCG(number, uint64(i)+10))) })
	}
	peers.Wait()
	importRanges(t, s, data, "all")
	over.Store(true)
	readers.Wait()
	mustHave(t, s, data)
	mustBeSound(t, s)
}

// bring imports ranges, as an honest peer or as one that states other sizes.
func bring(t *testing.T, s *cairn.Store, data []byte, groups int, honest bool, rnd *rand.Rand) {
	sd := newSeed(t, data)
	for range 40 {
		if !honest {
			sd.size = 1 + rnd.Int64N(2*int64(groups)*bao.GroupSize)
		}
		start := rnd.Uint64N(uint64(groups)) * 16
		ranges := bao.Chunks(start, start+16*(1+rnd.Uint64N(8)))
		response, whole := sd.response(t, ranges)
		err := s.ImportBao(t.Context(), hashOf(data), ranges, bytes.NewReader(response))
		if honest && (err != nil || !whole) {
			t.Errorf("an honest peer was refused: %v", err)
		}
	}
}

// handleReader returns a function that reads something from one handle, by
// ReadAt or in small pieces, and compares it.
func handleReader(t *testing.T, s *cairn.Store, hash cairn.Hash, data []byte) func(*rand.Rand) error {
	b, err := s.Blob(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return func(rnd *rand.Rand) error {
		off := rnd.IntN(len(data))
		buf := make([]byte, 1+rnd.IntN(100_000))
		var n int
		var err error
		if rnd.IntN(2) == 0 {
			n, err = b.ReadAt(buf, int64(off))
		} else if _, err = b.Seek(int64(off), io.SeekStart); err == nil {
			n, err = io.ReadFull(struct{ io.Reader }{io.LimitReader(b, 40_000)}, buf)
		}
		if !bytes.Equal(buf[:n], data[off:min(off+n, len(data))]) {
			return errors.New("wrong bytes")
		}
		return onlyMissing(err)
	}
}

// exporter returns a function that exports something to another store.
func exporter(t *testing.T, s *cairn.Store, hash cairn.Hash, data []byte) func(*rand.Rand) error {
	to := open(t, ":memory:", nil)
	return func(rnd *rand.Rand) error {
		start := rnd.Uint64N(bao.ChunkCount(int64(len(data))))
		ranges := bao.Chunks(start, start+1+rnd.Uint64N(500))
		var response bytes.Buffer
		if err := s.ExportBao(t.Context(), hash, ranges, &response); err != nil {
			return onlyMissing(err)
		}
		return to.ImportBao(t.Context(), hash, ranges, &response)
	}
}

func onlyMissing(err error) error {
	if errors.Is(err, cairn.ErrMissing) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
