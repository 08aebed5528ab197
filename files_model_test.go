package cairn_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// A modelFiles is what a store and the files beside it must be like.
type modelFiles struct {
	t     *testing.T
	rng   *rand.Rand
	path  string
	s     *cairn.Store
	names []string
	blobs []*outsideModel
}

// An outsideModel is one content, and where its groups are.
type outsideModel struct {
	data  []byte
	there bool
	rows  map[int64]bool
	out   map[int64]bool
	paths map[string]bool
}

func (b *outsideModel) groups() int64 { return bao.Groups(int64(len(b.data))) }

func (b *outsideModel) group(g int64) []byte {
	return b.data[g*bao.GroupSize:][:bao.GroupLen(int64(len(b.data)), g)]
}

func (b *outsideModel) all() map[int64]bool {
	set := make(map[int64]bool)
	for g := range b.groups() {
		set[g] = true
	}
	return set
}

func (b *outsideModel) complete() bool {
	return b.there && int64(len(b.rows)+len(b.out)) == b.groups()
}

func (b *outsideModel) size(set map[int64]bool) (n int) {
	for g := range set {
		n += len(b.group(g))
	}
	return n
}

// isIn reports whether a file has a group.
func (b *outsideModel) isIn(path string, g int64) bool {
	file, _ := os.ReadFile(path)
	return bytes.HasPrefix(file[min(g*bao.GroupSize, int64(len(file))):], b.group(g))
}

// lose takes away what no file has any more, and reports whether that is anything.
func (b *outsideModel) lose() (lost bool) {
	for g := range b.out {
		good := false
		for path := range b.paths {
			good = good || b.isIn(path, g)
		}
		if !good {
			delete(b.out, g)
			lost = true
		}
	}
	if len(b.out) == 0 {
		clear(b.paths)
	}
	return lost
}

func (b *outsideModel) become(rows, out map[int64]bool, paths ...string) {
	b.there, b.rows, b.out, b.paths = true, rows, out, make(map[string]bool)
	for _, path := range paths {
		b.paths[path] = true
	}
}

// TestFilesModel makes random operations on a store and on files beside it.
func TestFilesModel(t *testing.T) {
	for range 4 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := modelFiles{t: t, rng: rand.New(rand.NewPCG(seed, 1)), path: tempPath(t)}
			m.s = open(t, m.path, nil)
			dir := t.TempDir()
			for i := range 6 {
				m.names = append(m.names, filepath.Join(dir, fmt.Sprint(i)))
			}
			for i, size := range []int{100, 128<<10 - 1, 128 << 10, 70*bao.GroupSize + 3} {
				m.blobs = append(m.blobs, &outsideModel{data: content(seed+uint64(i), size)})
			}
			for range 150 {
				m.step()
			}
			m.compare()
		})
	}
}

func (m *modelFiles) step() {
	b, path := m.blobs[m.rng.IntN(len(m.blobs))], m.names[m.rng.IntN(len(m.names))]
	switch n := m.rng.IntN(12); n {
	case 0:
		writeFile(m.t, path, b.data)
	case 1, 2:
		m.refer(path)
	case 3:
		add(m.t, m.s, b.data)
		if !b.complete() || len(b.out) > 0 {
			b.become(b.all(), nil)
		}
	case 4, 5, 6:
		m.export(b, path, n == 4)
	case 7:
		if err := m.s.Delete(m.t.Context(), hashOf(b.data)); errors.Is(err, cairn.ErrNotFound) == b.there {
			m.t.Fatal(err)
		}
		b.there, b.rows, b.out, b.paths = false, nil, nil, nil
	case 8:
		m.fetch(b)
	case 9:
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			spoil(m.t, path, m.rng.Int64N(info.Size()))
		}
	case 10:
		if info, err := os.Stat(path); err == nil && m.rng.IntN(2) == 0 {
			os.Truncate(path, m.rng.Int64N(info.Size()+1))
		} else if err == nil {
			os.Remove(path)
		}
	case 11:
		m.compare()
		if m.rng.IntN(3) == 0 {
			m.s.Close()
			m.s = open(m.t, m.path, nil)
		}
	}
}

// refer adds a file by reference, if it has one of the contents.
func (m *modelFiles) refer(path string) {
	file, err := os.ReadFile(path)
	i := slices.IndexFunc(m.blobs, func(b *outsideModel) bool { return bytes.Equal(b.data, file) })
	if err != nil || i < 0 {
		return
	}
	refer(m.t, m.s, path)
	switch b := m.blobs[i]; {
	case !b.complete():
		b.become(nil, b.all(), path)
	case len(b.out) > 0:
		b.paths[path] = true
	}
}

func (m *modelFiles) export(b *outsideModel, path string, reference bool) {
	opts := &cairn.ExportOptions{}
	if reference {
		opts.Mode = cairn.Reference
	}
	err := m.s.Export(m.t.Context(), hashOf(b.data), path, opts)
	taken := slices.ContainsFunc(m.blobs, func(other *outsideModel) bool { return other != b && other.paths[path] })
	switch {
	case !b.there:
		mustBe(m.t, err, cairn.ErrNotFound)
	case !b.complete():
		mustBe(m.t, err, cairn.ErrMissing)
	case taken:
		mustBe(m.t, err, cairn.ErrConflict)
	case b.lose():
		mustBe(m.t, err, cairn.ErrCorrupt)
	case err != nil:
		m.t.Fatal(err)
	case reference && (len(b.data) >= 128<<10 || len(b.out) > 0):
		paths := append(slices.Collect(maps.Keys(b.paths)), path)
		b.become(nil, b.all(), paths...)
	}
	if err == nil {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, b.data) {
			m.t.Fatalf("exported %d bytes, %v", len(got), err)
		}
	}
}

// fetch imports what the store says that it lacks, all or some.
func (m *modelFiles) fetch(b *outsideModel) {
	if b.rows == nil {
		b.rows = make(map[int64]bool)
	}
	var want bao.Ranges
	for g := range b.groups() {
		if !b.rows[g] && !b.out[g] && m.rng.IntN(3) > 0 {
			want = want.Union(bao.Bytes(uint64(g*bao.GroupSize), uint64(g*bao.GroupSize)+1)).Groups()
			b.rows[g], b.there = true, true
		}
	}
	if want.IsEmpty() {
		return
	}
	response, _ := newSeed(m.t, b.data).response(m.t, want)
	if err := m.s.ImportBao(m.t.Context(), hashOf(b.data), want, bytes.NewReader(response)); err != nil {
		m.t.Fatal(err)
	}
}

// compare reads all blobs, which notices what is lost, and compares what is there.
func (m *modelFiles) compare() {
	for i, b := range m.blobs {
		got, err := read(m.t.Context(), m.s, hashOf(b.data))
		was := b.complete()
		lost := b.lose() && was // of a partial blob, the read may end before
		switch {
		case !b.there:
			mustBe(m.t, err, cairn.ErrNotFound)
		case lost:
			mustBe(m.t, err, cairn.ErrCorrupt)
		case was:
			if err != nil || !bytes.Equal(got, b.data) {
				m.t.Fatalf("blob %d: %d of %d bytes read, %v", i, len(got), len(b.data), err)
			}
		default:
			// The read has ended where the first bytes are absent.
			if _, err := m.s.Recheck(m.t.Context(), hashOf(b.data)); err != nil {
				m.t.Fatal(err)
			}
			mustReadRanges(m.t, m.s, b.data)
		}
		if !bytes.HasPrefix(b.data, got) {
			m.t.Fatal("wrong bytes")
		}
		if !was && b.there {
			m.settle(b)
		}
		m.compareOne(i, b)
	}
	mustBeSound(m.t, m.s)
}

// settle has the store notice what is lost of a partial blob.
func (m *modelFiles) settle(b *outsideModel) {
	blob, err := m.s.Blob(m.t.Context(), hashOf(b.data))
	if err != nil {
		m.t.Fatal(err)
	}
	defer blob.Close()
	for g := range b.groups() {
		p := make([]byte, len(b.group(g)))
		if n, _ := blob.ReadAt(p, g*bao.GroupSize); !bytes.Equal(p[:n], b.group(g)[:n]) {
			m.t.Fatal("wrong bytes")
		}
	}
}

func (m *modelFiles) compareOne(i int, b *outsideModel) {
	st, err := m.s.Status(m.t.Context(), hashOf(b.data))
	state := cairn.Absent
	if b.complete() {
		state = cairn.Complete
	} else if b.there {
		state = cairn.Partial
	}
	if err != nil || st.State != state || st.Stored != int64(b.size(b.rows)) || st.External != int64(b.size(b.out)) {
		m.t.Fatalf("blob %d: %+v (%v), want %v with %d stored and %d outside", i, st, err, state, b.size(b.rows), b.size(b.out))
	}
	mustHavePaths(m.t, m.s, b.data, slices.Collect(maps.Keys(b.paths))...)
}
