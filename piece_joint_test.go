package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
)

// TestJointCancelled cancels some of many writes to one piece that wait
// together. Each of them is either written or withdrawn, never half.
func TestJointCancelled(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const block, blocks = 5_000, 40 // several in a group, others across two
	for round := range 20 {
		key := fmt.Sprint("piece/", round)
		b := content(uint64(round), block*blocks)
		release := holdWriter(s)
		errs := make([]error, blocks)
		cancels := make([]context.CancelFunc, blocks)
		var wg sync.WaitGroup
		for i := range blocks {
			var ctx context.Context
			ctx, cancels[i] = context.WithCancel(t.Context())
			p, err := s.Piece(ctx, key, int64(len(b)), nil)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { _, errs[i] = p.WriteAt(b[i*block:(i+1)*block], int64(i*block)) })
		}
		wg.Go(func() { // some before the writer goes on, some after
			for _, i := range rand.Perm(blocks)[:blocks/2] {
				cancels[i]()
			}
		})
		waitQueued(s, 1)
		release()
		wg.Wait()
		var want []cairn.ByteRange
		for i, err := range errs {
			cancels[i]()
			if err != nil {
				mustBe(t, err, context.Canceled)
			} else if from := int64(i * block); len(want) > 0 && want[len(want)-1].End == from {
				want[len(want)-1].End += block
			} else {
				want = append(want, cairn.ByteRange{Start: from, End: from + block})
			}
		}
		mustHaveWritten(t, s, key, b, want)
	}
	mustBeSound(t, s)
}

// mustHaveWritten makes sure that of a piece exactly some ranges are written,
// with the bytes of content.
func mustHaveWritten(t testing.TB, s *cairn.Store, key string, content []byte, want []cairn.ByteRange) {
	t.Helper()
	p, err := s.Piece(t.Context(), key, int64(len(content)), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Written(t.Context())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("piece %q: written %v, %v, want %v", key, got, err, want)
	}
	for _, r := range want {
		buf := make([]byte, r.End-r.Start)
		if n, err := p.ReadAt(buf, r.Start); n != len(buf) || err != nil || !bytes.Equal(buf, content[r.Start:r.End]) {
			t.Fatalf("piece %q: wrong bytes in %v: %d, %v", key, r, n, err)
		}
	}
}

// TestWriteAfterFailedSync writes to a piece after the store has failed. Every
// write is told so, however many there are.
func TestWriteAfterFailedSync(t *testing.T) {
	s, err := cairn.Open(t.Context(), tempPath(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := content(1, 1<<20)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // rather than to hang
	defer cancel()
	p := must(s.Piece(ctx, "a", int64(20*len(b)), nil))
	writePiece(t, p, b, 0)
	if err := s.BreakSync(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * cairn.QueueBytes / len(b) {
		if _, err := p.WriteAt(b, int64(i%20*len(b))); err == nil || !strings.Contains(err.Error(), "sync") {
			t.Fatalf("write %d after a failed sync: %v", i, err)
		}
	}
}

// TestWriteAfterFailedBegin writes to a piece after a batch could not even begin.
func TestWriteAfterFailedBegin(t *testing.T) {
	s := open(t, tempPath(t), nil)
	b := content(1, 100_000)
	p := openPiece(t, s, "a", len(b), nil)
	writePiece(t, p, b[:50_000], 0)
	for round := range 3 {
		s.BreakBegin(true)
		if _, err := p.WriteAt(b[50_000:], 50_000); err == nil {
			t.Fatal("the batch has begun")
		}
		s.BreakBegin(false)
		if _, err := p.WriteAt(b[50_000:], 50_000); err != nil {
			t.Fatalf("round %d: a later write: %v", round, err)
		}
	}
	mustRead(t, p, b)
	mustBeSound(t, s)
}

// TestWriteRacesComplete completes a piece while it is written to. What it says
// is the hash of what was there at some moment; at the end all that was
// acknowledged is there.
func TestWriteRacesComplete(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const size = 300_000
	for round := range 5 {
		b := content(uint64(round), size)
		p := openPiece(t, s, fmt.Sprint(round), size, nil)
		writePiece(t, p, b, 0)
		final := content(uint64(round)+100, size)
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				for off := w * 7_000; off < size; off += 21_000 {
					writePiece(t, p, final[off:min(size, off+7_000)], off)
				}
			})
		}
		hashes := make(chan cairn.Hash, 100)
		wg.Go(func() {
			for range 10 {
				hash, err := p.Complete(t.Context())
				if err == nil {
					hashes <- hash
				} else if !errors.Is(err, cairn.ErrConflict) {
					t.Error(err)
				}
			}
		})
		wg.Wait()
		close(hashes)
		completePiece(t, p, final)
		mustRead(t, p, final)
		for range hashes {
		}
	}
	mustBeSound(t, s)
}

// TestCompleteInBatch has a piece be hashed while a write to it is made and not
// committed, so that both come into one transaction.
func TestCompleteInBatch(t *testing.T) {
	s := open(t, tempPath(t), nil)
	b := content(1, 100_000)
	p := openPiece(t, s, "a", len(b), nil)
	writePiece(t, p, b, 0)
	before := holdWriter(s)
	b[99_000] ^= 1
	var wg sync.WaitGroup
	wg.Go(func() { writePiece(t, p, b[98_000:], 98_000) })
	waitQueued(s, 1)
	gate, running := make(chan struct{}), make(chan struct{})
	run := sync.OnceFunc(func() { close(running) })
	wg.Go(func() {
		s.OnWriter(context.Background(), func(*sqlite.Conn) error { run(); <-gate; return nil })
	})
	waitQueued(s, 2)
	before()
	<-running // the write is made
	wg.Go(func() { completePiece(t, p, b) })
	waitQueued(s, 1)
	close(gate)
	wg.Wait()
	mustRead(t, p, b)
	mustHave(t, s, b)
	mustBeSound(t, s)
}

// TestCompleteBlocksAgain has the transaction that completes a piece be rolled back
// for a neighbour's sake: it is made again, and is still one.
func TestCompleteBlocksAgain(t *testing.T) {
	s := open(t, tempPath(t), nil)
	b := content(1, 100_000)
	for _, stored := range []int{0, 32 << 10} {
		p := openPiece(t, s, fmt.Sprint("piece", stored), len(b), nil)
		writePiece(t, p, b[:stored], 0)
		release := holdWriter(s)
		results := make(chan error, 2)
		go func() {
			_, err := p.CompleteAtOnce(t.Context(), cairn.Block{Off: int64(stored), Data: b[stored:]})
			results <- err
		}()
		waitQueued(s, 1)
		go func() { results <- s.OnWriter(t.Context(), func(*sqlite.Conn) error { return io.ErrNoProgress }) }()
		waitQueued(s, 2)
		release()
		if one, two := <-results, <-results; one != io.ErrNoProgress && two != io.ErrNoProgress || one != nil && two != nil {
			t.Errorf("with %d bytes stored: %v, %v", stored, one, two)
		}
		mustRead(t, p, b)
		b = content(2, 100_000)
	}
	mustBeSound(t, s)
}

// TestCompleteBlocksCancelled cancels one that waits.
func TestCompleteBlocksCancelled(t *testing.T) {
	s := open(t, tempPath(t), nil)
	b := content(1, 100_000)
	for _, off := range []int{0, 10} {
		p := openPiece(t, s, "piece", len(b), nil)
		ctx, cancel := context.WithCancel(t.Context())
		release := holdWriter(s)
		result := make(chan error, 1)
		go func() {
			_, err := p.CompleteBlocks(ctx, cairn.Block{Off: int64(off), Data: b[off:]})
			result <- err
		}()
		waitQueued(s, 1)
		cancel()
		mustBe(t, <-result, context.Canceled)
		release()
		mustAbsent(t, s, "piece")
	}
}
