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
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

const (
	gcStressWorkers  = 6
	gcStressShared   = 12
	gcStressCapacity = 3_000_000
)

// A gcStress has many goroutines use a store that collects and evicts all the
// time. What one of them protects is there at every moment.
type gcStress struct {
	t      *testing.T
	s      *cairn.Store
	shared [][]byte // contents that all of them use
	mu     sync.Mutex
	tagged map[string][][]byte // what is to stay, by tag
}

// TestGCWhileEverything runs it without a capacity, and with one.
func TestGCWhileEverything(t *testing.T) {
	number := rand.Uint64()
	for run := range max(2, *modelRuns/10) {
		opts := &cairn.Options{}
		if run%2 == 1 {
			opts.Capacity = gcStressCapacity
		}
		st := &gcStress{t: t, s: open(t, tempPath(t), opts), tagged: make(map[string][][]byte)}
		rnd := rand.New(rand.NewPCG(number, uint64(run)))
		for i := range gcStressShared {
			st.shared = append(st.shared, content(uint64(i), 1+rnd.IntN(50_000)))
		}
		st.run(number, run)
		if t.Failed() {
			t.Fatalf("seed %d, run %d", number, run)
		}
	}
}

func (st *gcStress) run(number uint64, run int) {
	var over atomic.Bool
	var collectors, workers sync.WaitGroup
	for g := range 2 {
		collectors.Go(func() {
			rnd := rand.New(rand.NewPCG(number, uint64(run*100+50+g)))
			for !over.Load() && !st.t.Failed() {
				st.collect(rnd)
			}
		})
	}
	for g := range gcStressWorkers {
		workers.Go(func() {
			rnd := rand.New(rand.NewPCG(number, uint64(run*100+g)))
			for i := range 15 {
				name := fmt.Sprintf("%d/%d", g, i)
				steps := []func(rnd *rand.Rand, name string) error{st.add, st.addShared, st.download, st.noise, st.readShared, st.swap}
				if err := steps[rnd.IntN(len(steps))](rnd, name); err != nil && !errors.Is(err, cairn.ErrFull) {
					st.t.Errorf("%s: %v", name, err)
				}
				if st.t.Failed() {
					return
				}
			}
		})
	}
	workers.Wait()
	over.Store(true)
	collectors.Wait()
	st.end()
}

// end looks at what one collection leaves when nobody holds anything.
func (st *gcStress) end() {
	if n := st.s.Guarded(); n > 0 {
		st.t.Errorf("%d things are still protected", n)
	}
	mustBeSound(st.t, st.s)
	collectAll(st.t, st.s)
	mustBeSound(st.t, st.s)
	want := make(map[cairn.Hash]bool)
	for _, contents := range st.tagged {
		for _, data := range contents {
			mustHave(st.t, st.s, data)
			want[hashOf(data)] = true
		}
	}
	for info, err := range st.s.Blobs(st.t.Context(), nil) {
		if err != nil {
			st.t.Fatal(err)
		}
		if !want[info.Hash] {
			st.t.Errorf("%+v is left", info)
		}
	}
	if n := len(tagNames(st.t, st.s, nil)); n != len(st.tagged) {
		st.t.Errorf("%d tags, want %d", n, len(st.tagged))
	}
}

func (st *gcStress) collect(rnd *rand.Rand) {
	opts := &cairn.GCOptions{DryRun: rnd.IntN(6) == 0}
	if rnd.IntN(2) == 0 {
		opts.Budget = time.Duration(rnd.IntN(2_000_000))
	}
	if rnd.IntN(3) == 0 {
		opts.Protect = func(ctx context.Context, add func(cairn.HashAndFormat)) error {
			add(raw(hashOf(st.shared[rnd.IntN(len(st.shared))])))
			return nil
		}
	}
	if _, err := st.s.GC(st.t.Context(), opts); err != nil {
		st.t.Errorf("GC: %v", err)
	}
}

// look reads what must be there, and says at which point it was not.
func (st *gcStress) look(where string, contents ...[]byte) error {
	for _, data := range contents {
		got, err := read(st.t.Context(), st.s, hashOf(data))
		if err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("%s: %d bytes of %d: %w", where, len(got), len(data), errors.Join(errLost, err))
		}
	}
	return nil
}

var errLost = errors.New("what is protected is gone")

// keep notes what a tag protects, for the end.
func (st *gcStress) keep(name string, contents ...[]byte) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.tagged[name] = contents
}

// add adds a content of its own, protects it in turn by a temp tag and a tag, and
// drops it, or leaves it tagged.
func (st *gcStress) add(rnd *rand.Rand, name string) error {
	size := rnd.IntN(30_000)
	if rnd.IntN(20) == 0 {
		size = cairn.SegmentSize + rnd.IntN(100_000)
	}
	return st.addTagged(rnd, name, content(rnd.Uint64(), size))
}

// addShared does that with a content that others use.
func (st *gcStress) addShared(rnd *rand.Rand, name string) error {
	return st.addTagged(rnd, name, st.shared[rnd.IntN(len(st.shared))])
}

func (st *gcStress) addTagged(rnd *rand.Rand, name string, data []byte) error {
	ctx := st.t.Context()
	opts := &cairn.AddOptions{}
	if rnd.IntN(2) == 0 {
		opts.Tag = name
	}
	tag, err := st.s.AddBytes(ctx, data, opts)
	if err != nil {
		return err
	}
	defer tag.Release()
	if err := st.look("with its temp tag", data); err != nil {
		return err
	}
	if opts.Tag == "" {
		if err := st.s.SetTag(ctx, name, raw(tag.Hash()), nil); err != nil {
			return err
		}
	}
	tag.Release()
	for range rnd.IntN(4) {
		if err := st.look("with its tag", data); err != nil {
			return err
		}
	}
	if rnd.IntN(2) == 0 && len(data) < 100_000 {
		st.keep(name, data)
		return nil
	}
	temp := st.s.TempTag(raw(hashOf(data)))
	defer temp.Release()
	if err := st.s.DeleteTag(ctx, name); err != nil {
		return err
	}
	return st.look("with another temp tag", data)
}

// download imports a sequence and its children, in parts, under a temp tag.
func (st *gcStress) download(rnd *rand.Rand, name string) error {
	ctx := st.t.Context()
	const groups = 3
	hashes := fillers(rnd.Uint64(), groups*groupChildren-rnd.IntN(groupChildren))
	children := make([][]byte, 0, groups)
	for g := range groups {
		data := content(rnd.Uint64(), 1+rnd.IntN(40_000))
		if rnd.IntN(3) == 0 {
			data = st.shared[rnd.IntN(len(st.shared))]
		}
		children = append(children, data)
		hashes[g*groupChildren+rnd.IntN(5)] = hashOf(data)
	}
	data := sequence(hashes...)
	temp := st.s.TempTag(seqOf(hashOf(data)))
	defer temp.Release()
	for n, g := range rnd.Perm(groups) {
		if err := st.importGroups(ctx, data, g, g+1); err != nil {
			return err
		}
		child := children[g]
		parts := int(bao.Groups(int64(len(child))))
		for _, part := range rnd.Perm(parts) {
			if err := st.importGroups(ctx, child, part, part+1); err != nil {
				return err
			}
			if ranges, err := st.s.Ranges(ctx, hashOf(child)); err != nil || ranges.Intersect(bao.Chunks(uint64(part)*16, uint64(part)*16+1)).IsEmpty() {
				return fmt.Errorf("group %d of a child of %d, download %d: %v, %w", part, parts, n, ranges, errors.Join(errLost, err))
			}
		}
		if err := st.look(fmt.Sprint("child after download ", n), child); err != nil {
			return err
		}
	}
	all := append([][]byte{data}, children...)
	if err := st.look("downloaded", all...); err != nil {
		return err
	}
	if rnd.IntN(2) == 0 {
		return nil
	}
	if err := st.s.SetTag(ctx, name, seqOf(hashOf(data)), nil); err != nil {
		return err
	}
	temp.Release()
	if err := st.look("tagged download", all...); err != nil {
		return err
	}
	if rnd.IntN(3) == 0 {
		st.keep(name, all...)
		return nil
	}
	return st.s.DeleteTag(ctx, name)
}

func (st *gcStress) importGroups(ctx context.Context, data []byte, from, to int) error {
	ranges := bao.Chunks(uint64(from)*16, uint64(to)*16).Intersect(bao.Chunks(0, bao.ChunkCount(int64(len(data)))))
	response, _ := newSeed(st.t, data).response(st.t, ranges)
	return st.s.ImportBao(ctx, hashOf(data), ranges, bytes.NewReader(response))
}

// noise adds what nobody protects.
func (st *gcStress) noise(rnd *rand.Rand, name string) error {
	for range 3 {
		data := content(rnd.Uint64(), rnd.IntN(300_000))
		if rnd.IntN(2) == 0 {
			data = st.shared[rnd.IntN(len(st.shared))]
		}
		tag, err := st.s.AddBytes(st.t.Context(), data, nil)
		if err != nil {
			return err
		}
		tag.Release()
	}
	return nil
}

// readShared opens what may be there; what is open can be read to its end, unless
// it is being downloaded.
func (st *gcStress) readShared(rnd *rand.Rand, name string) error {
	data := st.shared[rnd.IntN(len(st.shared))]
	b, err := st.s.Blob(st.t.Context(), hashOf(data))
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Close()
	first, err := io.ReadAll(b)
	if errors.Is(err, cairn.ErrMissing) {
		return nil
	}
	if err != nil || !bytes.Equal(first, data) {
		return fmt.Errorf("an open blob: %d of %d bytes: %w", len(first), len(data), errors.Join(errLost, err))
	}
	for range rnd.IntN(4) {
		again := make([]byte, len(data))
		if _, err := b.ReadAt(again, 0); err != nil || !bytes.Equal(again, data) {
			return fmt.Errorf("an open blob, again: %w", errors.Join(errLost, err))
		}
	}
	return nil
}

// swap has the protection of a content go from tag to tag, by renames and
// conditional sets.
func (st *gcStress) swap(rnd *rand.Rand, name string) error {
	ctx := st.t.Context()
	data := content(rnd.Uint64(), 1+rnd.IntN(5000))
	tag, err := st.s.AddBytes(ctx, data, &cairn.AddOptions{Tag: name + "/x"})
	if err != nil {
		return err
	}
	tag.Release()
	for range 3 {
		if err := st.s.RenameTag(ctx, name+"/x", name+"/y"); err != nil {
			return err
		}
		if err := st.look("renamed", data); err != nil {
			return err
		}
		content := raw(hashOf(data))
		if err := st.s.SetTag(ctx, name+"/x", content, &cairn.TagOptions{Expect: &cairn.HashAndFormat{}}); err != nil {
			return err
		}
		if err := st.look("tagged twice", data); err != nil {
			return err
		}
	}
	if err := st.s.DeleteTag(ctx, name+"/y"); err != nil {
		return err
	}
	if err := st.look("tagged once again", data); err != nil {
		return err
	}
	return st.s.DeleteTag(ctx, name+"/x")
}
