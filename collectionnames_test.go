package cairn_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
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
