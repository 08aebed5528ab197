package cairn_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/cairnstore/cairn"
)

// exampleCollection is the collection of the vectors.
func exampleCollection(v *collectionVectors) cairn.Collection {
	c := named(v.Example.Names...)
	for i := range c {
		c[i].Hash = v.Example.Links[i]
	}
	return c
}

func TestCollectionExample(t *testing.T) {
	var v collectionVectors
	readVectors(t, &v)
	c := exampleCollection(&v)
	s := open(t, ":memory:", nil)
	opts := &cairn.AddOptions{Format: cairn.Raw}
	tag, err := s.AddCollection(t.Context(), c, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer tag.Release()
	want := cairn.HashAndFormat{Hash: v.Example.RootBlake3, Format: cairn.HashSeq}
	if tag.HashAndFormat() != want || opts.Format != cairn.Raw {
		t.Errorf("%v with format %v in the options, want %v", tag.HashAndFormat(), opts.Format, want)
	}
	mustHave(t, s, unhex(t, v.Example.HashSeqHex))
	mustHave(t, s, unhex(t, v.Example.MetaHex))
	if st, err := s.Stats(t.Context()); err != nil || st.Blobs != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	mustBeCollection(t, s, want.Hash, c)

	// Another peer's, as it comes.
	other := open(t, ":memory:", nil)
	add(t, other, unhex(t, v.Example.HashSeqHex))
	add(t, other, unhex(t, v.Example.MetaHex))
	mustBeCollection(t, other, want.Hash, c)
}

func mustBeCollection(t testing.TB, s *cairn.Store, hash cairn.Hash, want cairn.Collection) {
	t.Helper()
	got, err := s.Collection(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d entries differ from the %d that were added", len(got), len(want))
	}
}

// randomCollection makes up names of up to some bytes.
func randomCollection(rnd *rand.Rand, n, longest int) cairn.Collection {
	c := make(cairn.Collection, n)
	for i := range c {
		name := make([]byte, 0, longest)
		for len(name) < rnd.IntN(longest+1) {
			name = utf8.AppendRune(name, rnd.Int32N(0x10ffff))
		}
		c[i].Name = string(name)
		for j := range 4 {
			binary.LittleEndian.PutUint64(c[i].Hash[8*j:], rnd.Uint64())
		}
	}
	return c
}

// TestCollectionSizes has blobs of one row, of many, and of several transactions.
func TestCollectionSizes(t *testing.T) {
	s := open(t, ":memory:", nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct{ n, longest int }{
		{0, 0}, {1, 0}, {1, 300}, {126, 5}, {510, 40}, {511, 40}, {512, 40}, {40_000, 60}, {20, 400_000},
	} {
		c := randomCollection(rnd, tt.n, tt.longest)
		tag, err := s.AddCollection(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		mustBeCollection(t, s, tag.Hash(), c)
		var hashes []cairn.Hash
		for child, err := range s.HashSeq(t.Context(), tag.Hash()) {
			if err != nil {
				t.Fatal(err)
			}
			hashes = append(hashes, child)
		}
		if len(hashes) != tt.n+1 {
			t.Fatalf("%d hashes of %d entries", len(hashes), tt.n)
		}
		for i, e := range c {
			if hashes[i+1] != e.Hash {
				t.Fatalf("hash %d of %d is wrong", i+1, tt.n)
			}
		}
		tag.Release()
	}
	mustBeSound(t, s)
}

// nameBlob is what a collection's names are stored as.
func nameBlob(t testing.TB, list ...string) []byte {
	t.Helper()
	b, err := cairn.EncodeNames(named(list...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestNoCollection reads what is stored, but is none.
func TestNoCollection(t *testing.T) {
	var v collectionVectors
	readVectors(t, &v)
	s := open(t, ":memory:", nil)
	child := hashOf([]byte("child"))
	two := add(t, s, nameBlob(t, "a", "b"))
	for _, tt := range []struct {
		name    string
		content []byte
		want    error
		text    string
	}{
		{"empty", nil, cairn.ErrMismatch, "empty sequence"},
		{"a rest", append(sequenceOf(two, child, child), 0), cairn.ErrMismatch, "multiple of 32"},
		{"short", make([]byte, 31), cairn.ErrMismatch, "multiple of 32"},
		{"too few hashes", sequenceOf(two, child), cairn.ErrMismatch, "2 names"},
		{"too many", sequenceOf(two, child, child, child), cairn.ErrMismatch, "2 names"},
		{"only names", sequenceOf(two), cairn.ErrMismatch, "2 names"},
		{"names absent", sequenceOf(child), cairn.ErrMissing, child.String()},
		{"names empty", sequenceOf(cairn.EmptyHash), cairn.ErrMismatch, "CollectionV0."},
		{"names of iroh 0.11", sequenceOf(add(t, s, unhex(t, v.Old)), child, child), cairn.ErrMismatch, "iroh 0.11"},
		{"names are a file", sequenceOf(add(t, s, content(1, 100_000)), child), cairn.ErrMismatch, "CollectionV0."},
		{"no name but one is claimed", sequenceOf(add(t, s, []byte("CollectionV0.\x01")), child), cairn.ErrMismatch, "not whole"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := s.Collection(t.Context(), add(t, s, tt.content))
			mustBe(t, err, tt.want)
			if c != nil || err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, %v", c, err)
			}
		})
	}
	_, err := s.Collection(t.Context(), child)
	mustBe(t, err, cairn.ErrNotFound)
	odd := content(2, 60*1024+1)
	importRanges(t, s, odd, "48..")
	_, err = s.Collection(t.Context(), hashOf(odd)) // partial, but no sequence whatever comes
	mustBe(t, err, cairn.ErrMismatch)
	for _, h := range []cairn.Hash{child, add(t, s, make([]byte, 33))} {
		for h, err := range s.HashSeq(t.Context(), h) {
			if err == nil {
				t.Errorf("hash %v", h)
			}
		}
	}
	for _, err := range s.HashSeq(t.Context(), child) {
		mustBe(t, err, cairn.ErrNotFound)
	}
	for _, err := range s.HashSeq(t.Context(), add(t, s, make([]byte, 33))) {
		mustBe(t, err, cairn.ErrMismatch)
	}
}

// TestPartialCollection lacks some of either blob.
func TestPartialCollection(t *testing.T) {
	c := randomCollection(rand.New(rand.NewPCG(3, 4)), 2000, 60)
	second, err := cairn.EncodeNames(c)
	if err != nil {
		t.Fatal(err)
	}
	first := sequenceOf(hashOf(second))
	for _, e := range c {
		first = append(first, e.Hash[:]...)
	}
	root := hashOf(first)
	for _, tt := range []struct {
		first, second string
		missing       cairn.Hash
		ranges        string
		hashes        int // that can be read
	}{
		{"0..16", "all", root, "16..63", 512},
		{"0..32,48..64", "all", root, "32..48", 1024},
		{"16..32,last", "all", root, "0..16,32..63", 0},
		{"0..16", "0..16", root, "16..63", 512},
		{"all", "0..16", hashOf(second), "", 2001},
		{"all", "16..32", hashOf(second), "", 2001},
		{"all", "", hashOf(second), "all", 2001},
	} {
		t.Run(tt.first+" and "+tt.second, func(t *testing.T) {
			s := open(t, ":memory:", nil)
			importRanges(t, s, first, tt.first)
			if tt.second != "" {
				importRanges(t, s, second, tt.second)
			}
			_, err := s.Collection(t.Context(), root)
			var missing *cairn.MissingError
			if !errors.As(err, &missing) || missing.Hash != tt.missing {
				t.Fatal(err)
			}
			if tt.ranges != "" && missing.Ranges.String() != tt.ranges {
				t.Errorf("missing %v, want %v", missing.Ranges, tt.ranges)
			}
			i := 0
			for h, err := range s.HashSeq(t.Context(), root) {
				if err != nil {
					mustBe(t, err, cairn.ErrMissing)
					break
				}
				if h != cairn.Hash(first[32*i:]) {
					t.Fatalf("hash %d is wrong", i)
				}
				i++
			}
			if i != tt.hashes {
				t.Errorf("%d hashes, want %d", i, tt.hashes)
			}
			importRanges(t, s, first, "all")
			importRanges(t, s, second, "all")
			mustBeCollection(t, s, root, c)
		})
	}
}

// TestCollectionProtection deletes what a temp tag has.
func TestCollectionProtection(t *testing.T) {
	s := open(t, ":memory:", nil)
	c := randomCollection(rand.New(rand.NewPCG(5, 6)), 3, 10)
	tag, err := s.AddCollection(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	var second cairn.Hash
	for h, err := range s.HashSeq(t.Context(), tag.Hash()) {
		if err != nil {
			t.Fatal(err)
		}
		second = h
		break
	}
	mustBe(t, s.Delete(t.Context(), tag.Hash()), cairn.ErrConflict)
	mustBe(t, s.Delete(t.Context(), second), cairn.ErrConflict)
	tag.Release()
	for _, h := range []cairn.Hash{tag.Hash(), second} {
		if err := s.Delete(t.Context(), h); err != nil {
			t.Error(err)
		}
	}
}

// TestCollectionTag sweeps with a tag, and without it.
func TestCollectionTag(t *testing.T) {
	s := open(t, ":memory:", nil)
	batch := s.Batch()
	var c cairn.Collection
	for i := range 3 {
		child, err := batch.AddBytes(t.Context(), content(uint64(i), 100), nil)
		if err != nil {
			t.Fatal(err)
		}
		c = append(c, cairn.CollectionEntry{Name: fmt.Sprint(i), Hash: child.Hash()})
	}
	root, err := batch.AddCollection(t.Context(), c, &cairn.AddOptions{Tag: "files"})
	if err != nil {
		t.Fatal(err)
	}
	auto, err := batch.AddHashSeq(t.Context(), slices.Values([]cairn.Hash{root.Hash()}), &cairn.AddOptions{AutoTag: true})
	if err != nil {
		t.Fatal(err)
	}
	batch.Close()
	for name, want := range map[string]cairn.HashAndFormat{"files": root.HashAndFormat(), auto.Tag(): auto.HashAndFormat()} {
		tag, err := s.Tag(t.Context(), name)
		if err != nil || tag.HashAndFormat != want || want.Format != cairn.HashSeq {
			t.Errorf("tag %q: %+v, %v", name, tag, err)
		}
	}
	// The sequence that names the collection protects its root alone.
	for _, step := range []struct {
		remove string
		swept  int64
	}{{"", 0}, {"files", 4}, {auto.Tag(), 2}} {
		if step.remove != "" {
			if err := s.DeleteTag(t.Context(), step.remove); err != nil {
				t.Fatal(err)
			}
		}
		if report, err := s.GC(t.Context(), nil); err != nil || report.Swept != step.swept {
			t.Errorf("without %q %d blobs are swept, %v, want %d", step.remove, report.Swept, err, step.swept)
		}
	}
	mustBeSound(t, s)
}

// TestAddCollectionBesideGC adds collections while everything that nothing
// protects is swept.
func TestAddCollectionBesideGC(t *testing.T) {
	s := open(t, ":memory:", nil)
	rnd := rand.New(rand.NewPCG(7, 8))
	var quit atomic.Bool
	swept := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !quit.Load() {
			_, err = s.GC(t.Context(), nil)
		}
		swept <- err
	}()
	for i := range 100 {
		c := randomCollection(rnd, i, 10)
		tag, err := s.AddCollection(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Collection(t.Context(), tag.Hash())
		if err != nil || !slices.Equal(got, c) {
			t.Errorf("%d entries became %d, %v", len(c), len(got), err)
		}
		tag.Release()
	}
	quit.Store(true)
	if err := <-swept; err != nil {
		t.Error(err)
	}
	if _, err := s.GC(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if n := count(t, s, "blob"); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
}

// TestAddCollectionFails leaves nothing, or the names without protection.
func TestAddCollectionFails(t *testing.T) {
	empty := func(t *testing.T, s *cairn.Store) {
		t.Helper()
		if st, err := s.Stats(t.Context()); err != nil || st.Blobs != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	}
	t.Run("not UTF-8", func(t *testing.T) {
		s := open(t, ":memory:", nil)
		_, err := s.AddCollection(t.Context(), named("a", "b\xff"), nil)
		mustBe(t, err, cairn.ErrMismatch)
		empty(t, s)
	})
	t.Run("names too large", func(t *testing.T) {
		s := open(t, ":memory:", nil)
		_, err := s.AddCollection(t.Context(), named("a", strings.Repeat("b", cairn.MaxCollectionSize)), nil)
		mustBe(t, err, cairn.ErrTooLarge)
		empty(t, s)
	})
	t.Run("too many entries", func(t *testing.T) {
		s := open(t, ":memory:", nil)
		_, err := s.AddCollection(t.Context(), make(cairn.Collection, cairn.MaxCollectionSize/33), nil)
		mustBe(t, err, cairn.ErrTooLarge)
		empty(t, s)
	})
	t.Run("cancelled", func(t *testing.T) {
		s := open(t, ":memory:", nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.AddCollection(ctx, named("a"), nil)
		mustBe(t, err, context.Canceled)
		empty(t, s)
	})
	t.Run("read-only", func(t *testing.T) {
		path := tempPath(t)
		open(t, path, nil).Close()
		s := open(t, path, &cairn.Options{ReadOnly: true})
		_, err := s.AddCollection(t.Context(), named("a"), nil)
		mustBe(t, err, cairn.ErrReadOnly)
		_, err = s.AddHashSeq(t.Context(), slices.Values([]cairn.Hash{{1}}), nil)
		mustBe(t, err, cairn.ErrReadOnly)
	})
	t.Run("between the blobs", func(t *testing.T) {
		s := open(t, ":memory:", nil)
		if err := s.SetCapacity(t.Context(), 2000); err != nil {
			t.Fatal(err)
		}
		_, err := s.AddCollection(t.Context(), make(cairn.Collection, 1000), nil)
		mustBe(t, err, cairn.ErrTooLarge)
		second := hashOf(nameBlob(t, make([]string, 1000)...))
		if err := s.Delete(t.Context(), second); err != nil {
			t.Error(err)
		}
		empty(t, s)
		mustBeSound(t, s)
	})
}

// TestDamagedCollection changes a byte of either blob.
func TestDamagedCollection(t *testing.T) {
	c := named("a", "b")
	for id, text := range map[int]string{1: "names", 2: "sequence"} {
		t.Run(text, func(t *testing.T) {
			s := open(t, tempPath(t), nil)
			tag, err := s.AddCollection(t.Context(), c, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tag.Release()
			mustBeCollection(t, s, tag.Hash(), c)
			script(t, s, fmt.Sprintf(`update "row" set data = cast(substr(data, 1, length(data) - 1) || x'55' as blob)
				where id >> %d = %d`, cairn.GroupBits, id))
			got, err := s.Collection(t.Context(), tag.Hash())
			mustBe(t, err, cairn.ErrCorrupt)
			if got != nil {
				t.Errorf("%v with an error", got)
			}
		})
	}
}

// TestLargeSequenceIsNoCollection does not take memory by what a stranger's
// sequence says of its length.
func TestLargeSequenceIsNoCollection(t *testing.T) {
	s := open(t, ":memory:", nil)
	n := 200_000
	second := binary.AppendUvarint([]byte("CollectionV0."), uint64(n))
	first := append(sequenceOf(add(t, s, second)), make([]byte, 32*n)...)
	root := add(t, s, first)
	refused := func() {
		_, err := s.Collection(t.Context(), root)
		mustBe(t, err, cairn.ErrMismatch)
	}
	refused() // the first time fills the store's caches
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	refused()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes of memory for names of %d bytes", n, len(second))
	}
}

// TestCollectionTooLarge has names that are larger than it would read.
func TestCollectionTooLarge(t *testing.T) {
	s := open(t, tempPath(t), nil)
	r := io.MultiReader(strings.NewReader("CollectionV0.\x00"), io.LimitReader(endless{}, cairn.MaxCollectionSize))
	tag, err := s.Add(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tag.Release()
	_, err = s.Collection(t.Context(), add(t, s, sequenceOf(tag.Hash())))
	mustBe(t, err, cairn.ErrTooLarge)
}

// A directory, shared with iroh's peers as a collection.
func ExampleStore_AddCollection() {
	ctx := context.Background()
	store, err := cairn.Open(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	var files cairn.Collection
	for name, text := range map[string]string{"notes/hello.txt": "hello"} {
		tag, err := store.AddBytes(ctx, []byte(text), nil)
		if err != nil {
			log.Fatal(err)
		}
		defer tag.Release() // the collection protects the file by then
		files = append(files, cairn.CollectionEntry{Name: name, Hash: tag.Hash()})
	}
	tag, err := store.AddCollection(ctx, files, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer tag.Release()

	files, err = store.Collection(ctx, tag.Hash())
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		fmt.Println(f.Name, f.Hash)
	}
	// Output: notes/hello.txt ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
}
