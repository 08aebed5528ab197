package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cairnstore/cairn"
)

var (
	modelSeed = flag.Uint64("seed", 0, "seed of the first round of TestModel; 0 takes a random one")
	modelRuns = flag.Int("runs", 20, "rounds of TestModel; thousands in the long run")
)

// A model is what a store must look like, in memory.
type model struct {
	t     *testing.T
	rnd   *rand.Rand
	path  string
	s     *cairn.Store
	blobs map[cairn.Hash][]byte
	// partials are those that are there and not complete.
	partials map[cairn.Hash]*partialModel
	tags     map[cairn.Hash][]*cairn.TempTag
	open     []*cairn.Blob
}

// TestModel runs random operations on a store and on a model of it.
func TestModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for run := range *modelRuns {
		if !t.Run(fmt.Sprint(seed+uint64(run)), func(t *testing.T) { runModel(t, seed+uint64(run)) }) {
			t.Fatalf("repeat with -run TestModel -seed %d -runs 1", seed+uint64(run))
		}
	}
}

func runModel(t *testing.T, seed uint64) {
	m := &model{
		t:        t,
		rnd:      rand.New(rand.NewPCG(seed, 0)),
		path:     ":memory:",
		blobs:    make(map[cairn.Hash][]byte),
		partials: make(map[cairn.Hash]*partialModel),
		tags:     make(map[cairn.Hash][]*cairn.TempTag),
	}
	if m.rnd.IntN(4) > 0 {
		m.path = tempPath(t)
	}
	m.s = open(t, m.path, nil)
	ops := []func(){m.add, m.add, m.addBroken, m.remove, m.remove, m.openBlob, m.closeBlob, m.readAt, m.readAt, m.readAt, m.release, m.list, m.status, m.importPart, m.importPart, m.importPart, m.readPart}
	for range 120 {
		ops[m.rnd.IntN(len(ops))]()
		if m.path != ":memory:" && m.rnd.IntN(60) == 0 {
			m.reopen()
		}
	}
	for h, b := range m.blobs {
		if got, err := read(t.Context(), m.s, h); err != nil || !bytes.Equal(got, b) {
			t.Errorf("blob of %d bytes: %v", len(b), err)
		}
	}
	mustBeSound(t, m.s)
	for _, b := range m.open {
		b.Close()
	}
}

func (m *model) size() int {
	switch m.rnd.IntN(5) {
	case 0:
		return m.rnd.IntN(3)
	case 1:
		return 16384*m.rnd.IntN(70) + m.rnd.IntN(3) - min(1, m.rnd.IntN(2))
	case 2:
		return m.rnd.IntN(4 << 20)
	default:
		return m.rnd.IntN(40_000)
	}
}

func (m *model) add() {
	b := content(m.rnd.Uint64()%20, max(0, m.size()))
	tag, err := m.s.AddBytes(m.t.Context(), b, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.blobs[tag.Hash()] = b
	delete(m.partials, tag.Hash())
	m.tags[tag.Hash()] = append(m.tags[tag.Hash()], tag)
}

func (m *model) addBroken() {
	n := m.size()
	ctx, cancel := context.WithCancel(m.t.Context())
	r := io.MultiReader(bytes.NewReader(content(m.rnd.Uint64(), max(0, n))), cancelReader(cancel), bytes.NewReader([]byte("x")))
	if _, err := m.s.Add(ctx, r, nil); !errors.Is(err, context.Canceled) {
		m.t.Errorf("cancelled add: %v", err)
	}
}

// any returns one of the blobs, or a hash that is none.
func (m *model) any() cairn.Hash {
	if len(m.blobs) == 0 || m.rnd.IntN(10) == 0 { // never a partial one
		return hashOf(fmt.Append(nil, m.rnd.Uint64()))
	}
	hashes := make([]cairn.Hash, 0, len(m.blobs))
	for h := range m.blobs {
		hashes = append(hashes, h)
	}
	slices.SortFunc(hashes, func(a, b cairn.Hash) int { return bytes.Compare(a[:], b[:]) })
	return hashes[m.rnd.IntN(len(hashes))]
}

func (m *model) protected(h cairn.Hash) bool {
	return len(m.tags[h]) > 0 || slices.ContainsFunc(m.open, func(b *cairn.Blob) bool { return b.Hash() == h })
}

func (m *model) remove() {
	h := m.any()
	err := m.s.Delete(m.t.Context(), h)
	switch _, there := m.blobs[h]; {
	case !there:
		mustBe(m.t, err, cairn.ErrNotFound)
	case m.protected(h):
		mustBe(m.t, err, cairn.ErrConflict)
	case err != nil:
		m.t.Error(err)
	default:
		delete(m.blobs, h)
	}
}

func (m *model) release() {
	h := m.any()
	if tags := m.tags[h]; len(tags) > 0 {
		tags[0].Release()
		m.tags[h] = tags[1:]
	}
}

func (m *model) openBlob() {
	h := m.any()
	b, err := m.s.Blob(m.t.Context(), h)
	if _, there := m.blobs[h]; !there {
		mustBe(m.t, err, cairn.ErrNotFound)
	} else if err != nil {
		m.t.Error(err)
	} else {
		m.open = append(m.open, b)
	}
}

func (m *model) closeBlob() {
	if len(m.open) > 0 {
		i := m.rnd.IntN(len(m.open))
		m.open[i].Close()
		m.open = slices.Delete(m.open, i, i+1)
	}
}

func (m *model) readAt() {
	if len(m.open) == 0 {
		return
	}
	b := m.open[m.rnd.IntN(len(m.open))]
	want := m.blobs[b.Hash()]
	off := m.rnd.Int64N(int64(len(want)) + 10)
	p := make([]byte, m.rnd.IntN(100_000))
	n, err := b.ReadAt(p, off)
	end := min(int64(len(want)), off+int64(len(p)))
	if off >= int64(len(want)) {
		if n != 0 || err != io.EOF {
			m.t.Errorf("behind the end: %d, %v", n, err)
		}
	} else if !bytes.Equal(p[:n], want[off:end]) || (err != nil) != (n < len(p)) || err != nil && err != io.EOF {
		m.t.Errorf("ReadAt(%d, %d) of %d: %d, %v", len(p), off, len(want), n, err)
	}
}

func (m *model) list() {
	n := 0
	for info, err := range m.s.Blobs(m.t.Context(), nil) {
		if err != nil {
			m.t.Fatal(err)
		}
		if b, there := m.blobs[info.Hash]; there == (m.partials[info.Hash] != nil) || there && info.Size != int64(len(b)) {
			m.t.Errorf("listed %v", info)
		}
		n++
	}
	if n != len(m.blobs)+len(m.partials) {
		m.t.Errorf("listed %d of %d and %d", n, len(m.blobs), len(m.partials))
	}
	var bytes int64
	for _, b := range m.blobs {
		bytes += int64(len(b))
	}
	for _, p := range m.partials {
		bytes += int64(len(p.data))
	}
	if st, err := m.s.Stats(m.t.Context()); err != nil || st.Blobs != int64(len(m.blobs)) || st.Partial != int64(len(m.partials)) || st.Bytes != bytes {
		m.t.Errorf("%+v, %v; want %d blobs of %d bytes", st, err, len(m.blobs), bytes)
	}
}

func (m *model) status() {
	h := m.any()
	st, err := m.s.Status(m.t.Context(), h)
	if b, there := m.blobs[h]; err != nil || (st.State == cairn.Complete) != there || st.Size != int64(len(b)) {
		m.t.Errorf("%+v, %v", st, err)
	}
}

func (m *model) reopen() {
	for _, b := range m.open {
		b.Close()
	}
	m.open = nil
	clear(m.tags)
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.s = open(m.t, m.path, nil)
}
