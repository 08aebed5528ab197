package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cairnstore/cairn"
)

const (
	stressCapacity = 600_000
	stressContents = 40
	stressPinned   = 3 // the first contents are pinned throughout
)

// A stress has many goroutines use a store that evicts all the time. Nobody knows
// what is there; but what somebody holds is, what is read is right, and there is
// never more than the capacity.
type stress struct {
	t        *testing.T
	s        *cairn.Store
	contents [][]byte
}

// TestCapacityStress runs it with a number of goroutines.
func TestCapacityStress(t *testing.T) {
	number := rand.Uint64()
	for run := range max(1, *modelRuns/5) {
		st := &stress{t: t, s: open(t, tempPath(t), &cairn.Options{Capacity: stressCapacity})}
		rnd := rand.New(rand.NewPCG(number, uint64(run)))
		for i := range stressContents {
			st.contents = append(st.contents, content(uint64(i), 1+rnd.IntN(60_000)))
		}
		st.run(number + uint64(run))
		if t.Failed() {
			t.Fatalf("seed %d", number)
		}
	}
}

func (st *stress) run(number uint64) {
	var keys []string
	for i := range stressPinned {
		keys = append(keys, st.key(i))
		putPiece(st.t, st.s, keys[i], st.contents[i], nil)
	}
	pin := must(st.s.Pin(st.t.Context(), cairn.Window{Keys: keys}))
	var over atomic.Bool
	var watchers, workers sync.WaitGroup
	watchers.Go(func() {
		for !over.Load() {
			st.watch()
		}
	})
	for g := range 8 {
		workers.Go(func() {
			rnd := rand.New(rand.NewPCG(number, uint64(g)))
			for range 60 {
				if err := st.step(rnd, g); err != nil && !isExpected(err) {
					st.t.Errorf("goroutine %d: %v", g, err)
					return
				}
			}
		})
	}
	workers.Wait()
	over.Store(true)
	watchers.Wait()
	for i := range stressPinned {
		mustRead(st.t, must(st.s.OpenPiece(st.t.Context(), keys[i])), st.contents[i])
	}
	pin.Release()
	if n := st.s.Guarded(); n > 0 {
		st.t.Errorf("%d things are still protected", n)
	}
	mustBeSound(st.t, st.s)
	if err := st.s.SetCapacity(st.t.Context(), 0); err != nil {
		st.t.Error(err)
	}
	if u, err := st.s.Usage(st.t.Context()); err != nil || u.Used != 0 {
		st.t.Errorf("%+v, %v", u, err)
	}
	mustBeSound(st.t, st.s)
}

func (st *stress) key(i int) string { return fmt.Sprintf("k/%d", i) }

// isExpected tells what may become of a change, or of what nobody holds.
func isExpected(err error) bool {
	return errors.Is(err, cairn.ErrFull) || errors.Is(err, cairn.ErrConflict) || errors.Is(err, cairn.ErrNotFound) ||
		errors.Is(err, cairn.ErrMissing) || errors.Is(err, context.Canceled)
}

// watch looks at what must always hold.
func (st *stress) watch() {
	if u, err := st.s.Usage(st.t.Context()); err != nil || u.Used > stressCapacity {
		st.t.Errorf("%+v, %v", u, err)
	}
	i := rand.IntN(stressPinned)
	p, err := st.s.OpenPiece(st.t.Context(), st.key(i))
	if err != nil {
		st.t.Error(err)
		return
	}
	buf := make([]byte, len(st.contents[i]))
	if _, err := p.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, st.contents[i]) {
		st.t.Errorf("what is pinned: %v", err)
	}
}

// step makes one operation.
func (st *stress) step(rnd *rand.Rand, g int) error {
	ctx, s := st.t.Context(), st.s
	i := stressPinned + rnd.IntN(stressContents-stressPinned)
	key, b := st.key(i), st.contents[i]
	if rnd.IntN(10) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go cancel()
	}
	switch rnd.IntN(11) {
	case 0, 1:
		return st.writeAll(ctx, rnd, key, b)
	case 2, 3:
		return st.readHeld(ctx, key, b)
	case 4:
		tag, err := s.AddBytes(ctx, b, nil)
		if err != nil {
			return err
		}
		defer tag.Release()
		return st.mustHold(b)
	case 5:
		return st.pinned(ctx, key, b)
	case 6:
		_, err := s.PutPiece(ctx, key, bytes.NewReader(b), int64(len(b)), &cairn.PieceOptions{Owner: fmt.Sprint("o", g%2)})
		return err
	case 7:
		p, err := s.OpenPiece(ctx, key)
		if err != nil {
			return err
		}
		if rnd.IntN(2) == 0 {
			return p.Incomplete(ctx)
		}
		return p.Delete(ctx)
	case 8:
		_, err := s.MovePieces(ctx, key, "moved/"+key)
		if err == nil {
			_, err = s.MovePieces(ctx, "moved/"+key, key)
		}
		return err
	case 9:
		tag := s.TempTag(cairn.HashAndFormat{Hash: hashOf(b)})
		defer tag.Release()
		if status, err := s.Status(ctx, hashOf(b)); err != nil || status.State != cairn.Complete {
			return err
		}
		return st.mustHold(b)
	default:
		return s.SetCapacity(ctx, stressCapacity-int64(rnd.IntN(2)*100_000))
	}
}

// writeAll writes a piece in some order and completes it.
func (st *stress) writeAll(ctx context.Context, rnd *rand.Rand, key string, b []byte) error {
	p, err := st.s.Piece(ctx, key, int64(len(b)), &cairn.PieceOptions{Durability: cairn.Durability(rnd.IntN(2))})
	if err != nil {
		return err
	}
	const block = 7_000
	for _, i := range rnd.Perm((len(b) + block - 1) / block) {
		if _, err := p.WriteAt(b[i*block:min(len(b), (i+1)*block)], int64(i*block)); err != nil {
			return err
		}
	}
	hash, err := p.Complete(ctx)
	if err == nil && hash != hashOf(b) {
		return fmt.Errorf("completed as %v, not %v", hash, hashOf(b))
	}
	return err
}

// readHeld reads a piece that must not go while it is read.
func (st *stress) readHeld(ctx context.Context, key string, b []byte) error {
	p, err := st.s.OpenPiece(ctx, key)
	if err != nil {
		return err
	}
	r, err := p.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	for range 3 {
		buf := make([]byte, len(b)+1)
		n, err := r.ReadAt(buf, 0)
		if !bytes.Equal(buf[:n], b[:min(n, len(b))]) {
			return fmt.Errorf("%d wrong bytes of %q", n, key)
		}
		if err != io.EOF && !errors.Is(err, cairn.ErrMissing) && ctx.Err() == nil {
			return fmt.Errorf("a held piece: %s", err) // not an expected error, whatever it is
		}
	}
	return nil
}

// pinned pins a piece and its hash; if it is there then, it must stay.
func (st *stress) pinned(ctx context.Context, key string, b []byte) error {
	pin, err := st.s.Pin(ctx, cairn.Window{Keys: []string{key}, Hashes: []cairn.Hash{hashOf(b)}})
	if err != nil {
		return err
	}
	defer pin.Release()
	p, err := st.s.OpenPiece(ctx, key)
	if err != nil {
		return err
	}
	for range 3 {
		if c, err := p.Completion(st.t.Context()); err != nil || c.State == cairn.Absent {
			return fmt.Errorf("a pinned piece is gone: %v", err)
		}
	}
	return nil
}

// mustHold reads a blob that must not go.
func (st *stress) mustHold(b []byte) error {
	got, err := read(st.t.Context(), st.s, hashOf(b))
	if err != nil || !bytes.Equal(got, b) {
		return fmt.Errorf("a held blob: %d of %d bytes, %v", len(got), len(b), fmt.Sprint(err))
	}
	return nil
}
