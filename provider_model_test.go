package cairn_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
)

// A resource is what an instance must be: bytes, and which of them are written.
type resource struct {
	data    []byte
	written []bool
}

func newResource(b []byte) *resource {
	return &resource{b, slices.Repeat([]bool{true}, len(b))}
}

// readable returns how many bytes from off on can be read, length at most.
func (r *resource) readable(off, length int) int {
	n := 0
	for n < length && off+n < len(r.data) && r.written[off+n] {
		n++
	}
	return n
}

// A providerModel is what the pieces of a store must look like, in memory.
type providerModel struct {
	t         *testing.T
	rnd       *rand.Rand
	path      string
	s         *cairn.Store
	p         *cairn.Provider
	resources map[string]*resource
}

// TestProviderModel runs random operations on a provider and on a model of it.
func TestProviderModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for run := range *modelRuns {
		if !t.Run(fmt.Sprint(seed+uint64(run)), func(t *testing.T) { runProviderModel(t, seed+uint64(run)) }) {
			t.Fatalf("repeat with -run TestProviderModel -seed %d -runs 1", seed+uint64(run))
		}
	}
}

func runProviderModel(t *testing.T, seed uint64) {
	m := &providerModel{
		t:         t,
		rnd:       rand.New(rand.NewPCG(seed, 1)),
		path:      ":memory:",
		resources: make(map[string]*resource),
	}
	if m.rnd.IntN(4) > 0 {
		m.path = tempPath(t)
	}
	m.reopen()
	ops := []func(){
		m.put, m.put, m.putSized, m.putSized, m.writeAt, m.writeAt, m.writeAt, m.readAt, m.readAt, m.get, m.stat,
		m.remove, m.readdirnames, m.movePrefix, m.deletePrefix, m.readChunks, m.readChunks,
	}
	for range 150 {
		ops[m.rnd.IntN(len(ops))]()
		if m.path != ":memory:" && m.rnd.IntN(60) == 0 {
			if err := m.s.Close(); err != nil {
				t.Fatal(err)
			}
			m.reopen()
		}
		if t.Failed() {
			return
		}
	}
	m.compare()
	mustBeSound(t, m.s)
}

func (m *providerModel) reopen() {
	m.s = open(m.t, m.path, nil)
	m.p = cairn.NewProvider(m.s, &cairn.ProviderOptions{Owner: "model"})
}

// compare compares all there is.
func (m *providerModel) compare() {
	mustHaveKeys(m.t, m.s, slices.Sorted(maps.Keys(m.resources))...)
	for key, r := range m.resources {
		m.compareOne(key, r)
	}
	if u, err := m.s.Owner("model").Usage(m.t.Context()); err == nil && u.Pieces != int64(len(m.resources)) {
		m.t.Errorf("the owner has %d pieces, %v", u.Pieces, err)
	}
}

func (m *providerModel) compareOne(key string, r *resource) {
	b, err := getInstance(instanceOf(m.t, m.p, key))
	n := r.readable(0, len(r.data))
	if !bytes.Equal(b, r.data[:n]) || (err != nil) != (n < len(r.data)) || err != nil && !errors.Is(err, cairn.ErrMissing) {
		m.t.Errorf("%q has %d bytes, %v; want %d of %d", key, len(b), err, n, len(r.data))
	}
}

// pick returns one of some texts.
func (m *providerModel) pick(texts ...string) string { return texts[m.rnd.IntN(len(texts))] }

// prefix returns the beginning of many keys. Some begin like others.
func (m *providerModel) prefix() string {
	return m.pick("ab_1/", "abX1/", "AB_1/", "%", "a\x00/", "\xff", "\xff\xff", "ab_1/ab_1/", "a", "")
}

// key returns a key, of which there are few.
func (m *providerModel) key() string {
	return m.prefix() + m.pick("0", "10", "20", "300", "x", "x/1", "x/2", "\xff")
}

// content returns content, of which there is not much, so that the same comes
// under several keys.
func (m *providerModel) content() []byte {
	sizes := []int{0, 1, 10, 10, 280, 16384, 16385, 40_000}
	return content(m.rnd.Uint64N(2), sizes[m.rnd.IntN(len(sizes))])
}

func (m *providerModel) put() {
	key, b := m.key(), m.content()
	putInstance(m.t, m.p, key, b)
	m.resources[key] = newResource(b)
}

// putSized says a size that may not be true.
func (m *providerModel) putSized() {
	key, b := m.key(), m.content()
	size := len(b) + max(-len(b), m.rnd.IntN(3)-1)
	err := instanceOf(m.t, m.p, key).PutSized(bytes.NewReader(b), int64(size))
	switch {
	case size > len(b):
		mustBe(m.t, err, io.ErrUnexpectedEOF)
	case size < len(b):
		mustBe(m.t, err, cairn.ErrMismatch)
	case err != nil:
		m.t.Error(err)
	default:
		m.resources[key] = newResource(b)
	}
}

func (m *providerModel) writeAt() {
	key, b := m.key(), m.content()
	off := m.rnd.IntN(3) * m.rnd.IntN(20_000)
	if n, err := instanceOf(m.t, m.p, key).WriteAt(b, int64(off)); n != len(b) || err != nil {
		m.t.Errorf("wrote %d of %d, %v", n, len(b), err)
	}
	if len(b) == 0 {
		return
	}
	old := m.resources[key]
	if old == nil {
		old = new(resource)
	}
	size := max(len(old.data), off+len(b))
	r := &resource{make([]byte, size), make([]bool, size)}
	copy(r.data, old.data)
	copy(r.written, old.written)
	copy(r.data[off:], b)
	copy(r.written[off:], slices.Repeat([]bool{true}, len(b)))
	m.resources[key] = r
}

func (m *providerModel) readAt() {
	key, off := m.key(), m.rnd.IntN(30_000)*m.rnd.IntN(2)
	b := make([]byte, m.rnd.IntN(30_000))
	n, err := instanceOf(m.t, m.p, key).ReadAt(b, int64(off))
	r := m.resources[key]
	if r == nil {
		mustBe(m.t, err, fs.ErrNotExist)
		return
	}
	want := r.readable(off, len(b))
	if n != want || n > 0 && !bytes.Equal(b[:n], r.data[off:off+n]) {
		m.t.Errorf("%q: %d of %d bytes at %d, want %d", key, n, len(b), off, want)
	}
	switch atEnd := off+n >= len(r.data); {
	case n == len(b) && !atEnd:
		if err != nil {
			m.t.Errorf("%q: %v", key, err)
		}
	case atEnd:
		if err != io.EOF && (err != nil || n < len(b)) {
			m.t.Errorf("%q: at the end: %v", key, err)
		}
	default:
		mustBe(m.t, err, cairn.ErrMissing)
	}
}

func (m *providerModel) get() {
	key := m.key()
	if r := m.resources[key]; r != nil {
		m.compareOne(key, r)
		return
	}
	_, err := instanceOf(m.t, m.p, key).Get()
	mustBe(m.t, err, fs.ErrNotExist)
}

func (m *providerModel) stat() {
	key := m.key()
	info, err := instanceOf(m.t, m.p, key).Stat()
	if r := m.resources[key]; r == nil {
		mustBe(m.t, err, fs.ErrNotExist)
	} else if err != nil || info.Size() != int64(len(r.data)) {
		m.t.Errorf("%q: %v, %v", key, info, err)
	}
}

func (m *providerModel) remove() {
	key := m.key()
	err := instanceOf(m.t, m.p, key).Delete()
	if m.resources[key] == nil {
		mustBe(m.t, err, fs.ErrNotExist)
	} else if err != nil {
		m.t.Error(err)
	}
	delete(m.resources, key)
}

func (m *providerModel) readdirnames() {
	dir := strings.TrimSuffix(m.prefix(), "/")
	if dir == "" {
		dir = "a"
	}
	want := make(map[string]bool)
	for key := range m.resources {
		if tail, ok := strings.CutPrefix(key, dir+"/"); ok {
			name, _, _ := strings.Cut(tail, "/")
			want[name] = true
		}
	}
	names, err := instanceOf(m.t, m.p, dir).Readdirnames()
	if err != nil || !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
		m.t.Errorf("below %q: %q, %v; want %v", dir, names, err, want)
	}
}

func (m *providerModel) movePrefix() {
	from, to := m.prefix(), m.prefix()
	err := m.p.MovePrefix(from, to)
	if m.resources[from] != nil && to == "" {
		mustBe(m.t, err, cairn.ErrMismatch) // a key would be empty
		return
	}
	if err != nil {
		m.t.Errorf("move %q to %q: %v", from, to, err)
	}
	moved := make(map[string]*resource)
	for key, r := range m.resources {
		if tail, ok := strings.CutPrefix(key, from); ok {
			moved[to+tail] = r
			delete(m.resources, key)
		}
	}
	maps.Copy(m.resources, moved)
	mustHaveKeys(m.t, m.s, slices.Sorted(maps.Keys(m.resources))...)
}

func (m *providerModel) deletePrefix() {
	prefix := m.prefix()
	if prefix == "" {
		prefix = "a" // not always everything
	}
	if err := m.p.DeletePrefix(prefix); err != nil {
		m.t.Errorf("delete %q: %v", prefix, err)
	}
	maps.DeleteFunc(m.resources, func(key string, _ *resource) bool { return strings.HasPrefix(key, prefix) })
	mustHaveKeys(m.t, m.s, slices.Sorted(maps.Keys(m.resources))...)
}

// readChunks reads the chunks below a prefix, which may be none, and puts some
// there that are.
func (m *providerModel) readChunks() {
	prefix := m.prefix()
	want, broken := m.chunks(prefix)
	r, err := m.p.ReadConsecutiveChunks(prefix)
	if broken != nil {
		mustBe(m.t, err, broken)
		if prefix != "" {
			m.putChunks(prefix)
		}
		return
	}
	if err != nil {
		m.t.Errorf("chunks of %q: %v", prefix, err)
		return
	}
	n := want.readable(0, len(want.data))
	b, err := io.ReadAll(r)
	if !bytes.Equal(b, want.data[:n]) || (err != nil) != (n < len(want.data)) || err != nil && !errors.Is(err, cairn.ErrMissing) {
		m.t.Errorf("chunks of %q: %d bytes, %v; want %d of %d", prefix, len(b), err, n, len(want.data))
	}
}

// putChunks replaces what is below a prefix by chunks.
func (m *providerModel) putChunks(prefix string) {
	if err := m.p.DeletePrefix(prefix); err != nil {
		m.t.Error(err)
	}
	maps.DeleteFunc(m.resources, func(key string, _ *resource) bool { return strings.HasPrefix(key, prefix) })
	for start := 0; start < 30_000; {
		b := m.content()
		key := prefix + strconv.Itoa(start)
		putInstance(m.t, m.p, key, b)
		m.resources[key] = newResource(b)
		start += max(1, len(b))
		if len(b) == 0 {
			return
		}
	}
}

// chunks returns what is to be read below a prefix, or what is wrong with it.
func (m *providerModel) chunks(prefix string) (*resource, error) {
	parts := make(map[int]*resource)
	for key, r := range m.resources {
		name, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		start, err := strconv.Atoi(name)
		if err != nil {
			return nil, cairn.ErrMismatch
		}
		parts[start] = r
	}
	if len(parts) == 0 {
		return nil, fs.ErrNotExist
	}
	all := new(resource)
	for _, start := range slices.Sorted(maps.Keys(parts)) {
		if start > len(all.data) {
			return nil, cairn.ErrMissing
		}
		if start < len(all.data) {
			return nil, cairn.ErrMismatch
		}
		all.data = append(all.data, parts[start].data...)
		all.written = append(all.written, parts[start].written...)
	}
	return all, nil
}
