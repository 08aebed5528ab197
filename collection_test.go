package cairn_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cairnstore/cairn"
)

// collectionVectors were made by postcard and by iroh.
type collectionVectors struct {
	V0      string `json:"collection_v0"`
	Empty   string `json:"collection_v0_empty"`
	Old     string `json:"collection_old"`
	Example struct {
		Names      []string
		Links      []cairn.Hash
		MetaHex    string     `json:"meta_hex"`
		MetaBlake3 cairn.Hash `json:"meta_blake3"`
		HashSeqHex string     `json:"hashseq_hex"`
		RootBlake3 cairn.Hash `json:"root_blake3"`
	} `json:"collection_v0_example"`
}

func readVectors(t testing.TB, v any) {
	t.Helper()
	text, err := os.ReadFile("testdata/collection.json")
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// named makes a collection of names without hashes.
func named(names ...string) cairn.Collection {
	c := make(cairn.Collection, len(names))
	for i, name := range names {
		c[i].Name = name
	}
	return c
}

func TestCollectionNames(t *testing.T) {
	var v collectionVectors
	readVectors(t, &v)
	for _, tt := range []struct {
		hex  string
		want cairn.Collection
	}{
		{v.V0, named("test", "a", "ü/b.txt")},
		{v.Empty, named()},
		{v.Example.MetaHex, named(v.Example.Names...)},
	} {
		encoded, err := cairn.EncodeNames(tt.want)
		if err != nil || hex.EncodeToString(encoded) != tt.hex {
			t.Errorf("%v encodes to %x, %v, want %s", tt.want, encoded, err, tt.hex)
		}
		got, err := cairn.DecodeNames(string(unhex(t, tt.hex)), int64(len(tt.want)))
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s decodes to %v, %v", tt.hex, got, err)
		}
	}
	_, err := cairn.DecodeNames(string(unhex(t, v.Old)), 2)
	mustBe(t, err, cairn.ErrMismatch)
}

// TestCollectionVarints has the vectors of varints as numbers of names and as
// lengths.
func TestCollectionVarints(t *testing.T) {
	var v map[string]any
	readVectors(t, &v)
	tried := 0
	for key, value := range v {
		var n uint64
		if _, err := fmt.Sscanf(key, "varint_%d", &n); err != nil {
			continue
		}
		tried++
		varint := unhex(t, value.(string))
		if n <= 1<<20 {
			long := strings.Repeat("x", int(n))
			encoded, err := cairn.EncodeNames(named(long))
			if want := fmt.Sprintf("CollectionV0.\x01%s%s", varint, long); err != nil || string(encoded) != want {
				t.Errorf("a name of %d bytes begins with %x, %v", n, encoded[:min(30, len(encoded))], err)
			}
			if c, err := cairn.DecodeNames(string(encoded), 1); err != nil || !slices.Equal(c, named(long)) {
				t.Errorf("a name of %d bytes: %v", n, err)
			}
			encoded, err = cairn.EncodeNames(make(cairn.Collection, n))
			if want := fmt.Sprintf("CollectionV0.%s%s", varint, make([]byte, n)); err != nil || string(encoded) != want {
				t.Errorf("%d names begin with %x, %v", n, encoded[:min(30, len(encoded))], err)
			}
			continue
		}
		// Nothing of such a size is made, whatever is said elsewhere.
		for _, tt := range []struct {
			names string
			n     int64
		}{
			{"CollectionV0.\x01" + string(varint), 1},
			{"CollectionV0.\x01" + string(varint) + "rest", 1},
			{"CollectionV0." + string(varint), int64(n)},
			{"CollectionV0." + string(varint) + "\x00\x00", int64(n)},
		} {
			c, err := cairn.DecodeNames(tt.names, tt.n)
			mustBe(t, err, cairn.ErrMismatch)
			if c != nil {
				t.Errorf("%q: a collection with an error", tt.names)
			}
		}
	}
	if tried < 10 {
		t.Errorf("only %d vectors", tried)
	}
}

func TestDecodeCollectionNames(t *testing.T) {
	const header = "CollectionV0."
	for _, tt := range []struct {
		names string
		n     int64
		want  cairn.Collection // nil: refused
	}{
		{"", 0, nil},
		{header, 0, nil},
		{header[1:] + "\x00", 0, nil},
		{"CollectionV1.\x00", 0, nil},
		{header + "\x00", 0, named()},
		{header + "\x00", 1, nil},
		{header + "\x01\x00", 0, nil},
		{header + "\x01\x00", 1, named("")},
		{header + "\x01\x02ab", 1, named("ab")},
		{header + "\x01\x02a", 1, nil},
		{header + "\x02\x02ab", 2, nil},
		{header + "\x02\x01a\x01b", 2, named("a", "b")},
		{header + "\x02\x01a\x01b behind it", 2, named("a", "b")},
		{header + "\x02\x01a\x01a", 2, named("a", "a")},
		// Varints: longer than need be, of 64 bits, of more, without an end.
		{header + "\x81\x00\x82\x80\x80\x00ab", 1, named("ab")},
		{header + "\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00\x01a", 1, named("a")},
		{header + "\x81\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x01a", 1, nil},
		{header + "\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02\x01a", 1, nil},
		{header + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", -1, nil},
		{header + "\x80\x80\x80\x80\x80\x80\x80\x80\x10", 1 << 60, nil},
		{header + "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1, nil},
		{header + "\x01\x80", 1, nil},
		{header + "\x80", 0, nil},
		// UTF-8: cut short, longer than need be, a surrogate, beyond the end.
		{header + "\x01\x02\xc3\xbc", 1, named("ü")},
		{header + "\x01\x01\xc3", 1, nil},
		{header + "\x01\x02\xc0\x80", 1, nil},
		{header + "\x01\x03\xed\xa0\x80", 1, nil},
		{header + "\x01\x04\xf4\x90\x80\x80", 1, nil},
		{header + "\x01\x04\xf4\x8f\xbf\xbf", 1, named("\U0010ffff")},
	} {
		got, err := cairn.DecodeNames(tt.names, tt.n)
		if tt.want == nil {
			mustBe(t, err, cairn.ErrMismatch)
		} else if err != nil {
			t.Errorf("%q: %v", tt.names, err)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q for %d is %q, want %q", tt.names, tt.n, got, tt.want)
		}
	}
}

// FuzzCollection compares the decoder with one that goes by the book. What both
// take is written again byte for byte if it was written in the shortest form.
func FuzzCollection(f *testing.F) {
	var v collectionVectors
	readVectors(f, &v)
	f.Add(unhex(f, v.V0), int64(3))
	f.Add(unhex(f, v.Empty), int64(0))
	f.Add(unhex(f, v.Old), int64(2))
	f.Add(unhex(f, v.Example.MetaHex), int64(3))
	f.Add([]byte("CollectionV0.\x81\x00\x82\x80\x00ab!"), int64(1))
	f.Add([]byte("CollectionV0.\x80\x80\x80\x80\x80\x80\x80\x80\x10"), int64(1<<60))
	f.Fuzz(func(t *testing.T, names []byte, n int64) {
		if n < 0 {
			return
		}
		got, err := cairn.DecodeNames(string(names), n)
		want, shortest, ok := decodeByTheBook(names, uint64(n))
		if (err == nil) != ok || !slices.Equal(got, want) {
			t.Fatalf("%q, %v, want %q, %v", got, err, want, ok)
		}
		if err != nil {
			mustBe(t, err, cairn.ErrMismatch)
			return
		}
		encoded, err := cairn.EncodeNames(got)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(names, encoded) != shortest {
			t.Errorf("%q became %q", names, encoded)
		}
		again, err := cairn.DecodeNames(string(encoded), n)
		if err != nil || !slices.Equal(again, got) {
			t.Errorf("%q became %q, %v", got, again, err)
		}
	})
}

// decodeByTheBook decodes names a byte at a time, as postcard does.
func decodeByTheBook(b []byte, n uint64) (c cairn.Collection, shortest, ok bool) {
	shortest = true
	take := func() (byte, bool) {
		if len(b) == 0 {
			return 0, false
		}
		first := b[0]
		b = b[1:]
		return first, true
	}
	varint := func() (v uint64, ok bool) {
		for i := range 10 {
			x, ok := take()
			if !ok {
				return 0, false
			}
			v |= uint64(x&0x7f) << (7 * i)
			if x < 0x80 {
				if x == 0 && i > 0 {
					shortest = false
				}
				return v, i < 9 || x <= 1
			}
		}
		return 0, false
	}
	for _, want := range []byte("CollectionV0.") {
		if got, ok := take(); !ok || got != want {
			return nil, false, false
		}
	}
	if count, ok := varint(); !ok || count != n {
		return nil, false, false
	}
	for range n {
		size, ok := varint()
		var name []byte
		for range size {
			x, more := take()
			if !ok || !more {
				return nil, false, false
			}
			name = append(name, x)
		}
		if !ok || !utf8.Valid(name) {
			return nil, false, false
		}
		c = append(c, cairn.CollectionEntry{Name: string(name)})
	}
	return c, shortest, true
}

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

func TestAddHashSeq(t *testing.T) {
	s := open(t, ":memory:", nil)
	for _, n := range []int{0, 1, 2, 511, 512, 513, cairn.SegmentSize / 32, cairn.SegmentSize/32 + 1, 100_000} {
		data := content(uint64(n), 32*n)
		var hashes []cairn.Hash
		for h := range slices.Chunk(data, 32) {
			hashes = append(hashes, cairn.Hash(h))
		}
		tag, err := s.AddHashSeq(t.Context(), slices.Values(hashes), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := (cairn.HashAndFormat{Hash: hashOf(data), Format: cairn.HashSeq}); tag.HashAndFormat() != want {
			t.Fatalf("%v of %d hashes, want %v", tag.HashAndFormat(), n, want)
		}
		mustHave(t, s, data)
		i := 0
		for h, err := range s.HashSeq(t.Context(), tag.Hash()) {
			if err != nil || h != hashes[i] {
				t.Fatalf("hash %d of %d is %v, %v", i, n, h, err)
			}
			if i++; i == 90_000 {
				break
			}
		}
		if i != min(n, 90_000) {
			t.Errorf("%d hashes of %d", i, n)
		}
		tag.Release()
		if err := s.Delete(t.Context(), tag.Hash()); err != nil { // the loop holds nothing
			t.Error(err)
		}
	}
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

// sequenceOf is what hashes are stored as.
func sequenceOf(children ...cairn.Hash) (b []byte) {
	for _, h := range children {
		b = append(b, h[:]...)
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

// TestHashSeqOfUnprovenSize is told a wrong size, whose length would do.
func TestHashSeqOfUnprovenSize(t *testing.T) {
	s := open(t, ":memory:", nil)
	data := content(1, 40*1024+5)
	sd := newSeed(t, data)
	sd.size = 40*1024 + 32
	response, _ := sd.response(t, parse(t, "0..32"))
	if err := s.ImportBao(t.Context(), hashOf(data), parse(t, "0..32"), bytes.NewReader(response)); err != nil {
		t.Fatal(err)
	}
	i := 0
	var last error
	for h, err := range s.HashSeq(t.Context(), hashOf(data)) {
		if last = err; err != nil {
			break
		}
		if h != cairn.Hash(data[32*i:]) {
			t.Fatalf("hash %d is wrong", i)
		}
		if i++; i == 3 { // the truth arrives in the middle
			importRanges(t, s, data, "32..")
		}
	}
	mustBe(t, last, cairn.ErrMismatch)
	if want := len(data) / 32; i != want {
		t.Errorf("%d hashes, want %d", i, want)
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
	tag.Release()
	for _, h := range []cairn.Hash{tag.Hash(), second} {
		if err := s.Delete(t.Context(), h); err != nil {
			t.Error(err)
		}
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
