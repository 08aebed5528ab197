package cairn_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cairnstore/cairn"
)

func instanceOf(t testing.TB, p *cairn.Provider, key string) *cairn.Instance {
	t.Helper()
	i, err := p.NewInstance(key)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func putInstance(t testing.TB, p *cairn.Provider, key string, b []byte) {
	t.Helper()
	if err := instanceOf(t, p, key).Put(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
}

// getInstance returns what Get reads.
func getInstance(i *cairn.Instance) ([]byte, error) {
	r, err := i.Get()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// strangeKeys are keys whose bytes mean something elsewhere, or nothing.
var strangeKeys = []string{
	"\x00", "\x00a", "a\x00b", "a\x00", "%", "a%", "_", "a_b", "a", "A", "á", "a/b/c", "/", "//", "a/", ".", "..", "../a",
	" ", "\n", "'", `"`, `\`, "*", "?", "[a-z]", "\xff", "\xff\xff", "a\xff", "\xffa", "\xc3\x28", "\xed\xa0\x80",
	strings.Repeat("k", cairn.MaxKeySize), strings.Repeat("\xff", cairn.MaxKeySize), strings.Repeat("ä", cairn.MaxKeySize/2),
}

func TestProviderKeys(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	p := cairn.NewProvider(s, nil)
	for i, key := range strangeKeys {
		putInstance(t, p, key, []byte(strconv.Itoa(i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, nil)
	p = cairn.NewProvider(s, nil)
	mustHaveKeys(t, s, slices.Sorted(slices.Values(strangeKeys))...)
	for i, key := range strangeKeys {
		if got, err := getInstance(instanceOf(t, p, key)); err != nil || string(got) != strconv.Itoa(i) {
			t.Errorf("%q has %q, %v; want %d", key, got, err, i)
		}
	}
	for _, key := range strangeKeys {
		if err := instanceOf(t, p, key).Delete(); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	mustHaveKeys(t, s)
	mustBeSound(t, s)
}

func TestProviderRefusesKeys(t *testing.T) {
	s := open(t, ":memory:", nil)
	p := cairn.NewProvider(s, nil)
	_, err := p.NewInstance(strings.Repeat("k", cairn.MaxKeySize+1))
	mustBe(t, err, cairn.ErrTooLarge)
	if _, err := p.NewInstance(""); err == nil {
		t.Error("an empty key is a key")
	}
	putInstance(t, p, "a/b", []byte("1"))
	putInstance(t, p, "a/"+strings.Repeat("k", cairn.MaxKeySize-2), []byte("2"))
	before := keysOf(t, s)
	mustBe(t, p.MovePrefix("a/", "long/"), cairn.ErrTooLarge)
	if err := p.MovePrefix("a/b", ""); err == nil {
		t.Error("moved to an empty key")
	}
	mustHaveKeys(t, s, before...)
	mustBeSound(t, s)
}

// TestProviderPrefixes deletes and moves by prefixes that would match too much
// as patterns, in another case or as text.
func TestProviderPrefixes(t *testing.T) {
	all := []string{
		"ab_1/0", "ab_1/1", "ab_1", "abX1/0", "AB_1/0", "ab%1/0", "abb1/0", "ab_1\x00/0", "ab_10/0", "ab_1/\xff",
		"\xff/0", "\xff\xff", "\xff\xff\xff0", "\xfe", "\x00", "\x00\x00", "", "é/0", "É/0", "e\u0301/0",
	}
	for _, prefix := range []string{"ab_1/", "ab_1", "AB_1/", "ab%", "ab%1/", "ab", "_", "%", "", "\xff", "\xff\xff", "\x00", "é", "\xc3", "nothing"} {
		t.Run(fmt.Sprintf("%q", prefix), func(t *testing.T) {
			s := open(t, ":memory:", nil)
			p := cairn.NewProvider(s, nil)
			var want, rest []string
			for _, key := range all {
				key += "k" // none is empty
				putInstance(t, p, key, []byte(key))
				if tail, ok := strings.CutPrefix(key, prefix); ok {
					want = append(want, "~/"+tail)
				} else {
					rest = append(rest, key)
				}
			}
			if err := p.MovePrefix(prefix, "~/"); err != nil {
				t.Fatal(err)
			}
			mustHaveKeys(t, s, slices.Sorted(slices.Values(append(want, rest...)))...)
			for _, key := range want {
				content := prefix + strings.TrimPrefix(key, "~/")
				if got, err := getInstance(instanceOf(t, p, key)); err != nil || string(got) != content {
					t.Errorf("%q has %q, %v; want %q", key, got, err, content)
				}
			}
			if err := p.MovePrefix("~/", prefix); err != nil {
				t.Fatal(err)
			}
			if err := p.DeletePrefix(prefix); err != nil {
				t.Fatal(err)
			}
			mustHaveKeys(t, s, slices.Sorted(slices.Values(rest))...)
			mustBeSound(t, s)
		})
	}
}

func TestMovePrefixReplaces(t *testing.T) {
	s := open(t, ":memory:", nil)
	p := cairn.NewProvider(s, nil)
	for _, key := range []string{"a/0", "a/1", "b/1", "b/2"} {
		putInstance(t, p, key, []byte(key))
	}
	if err := p.MovePrefix("a/", "b/"); err != nil {
		t.Fatal(err)
	}
	mustHaveKeys(t, s, "b/0", "b/1", "b/2")
	for key, want := range map[string]string{"b/0": "a/0", "b/1": "a/1", "b/2": "b/2"} {
		if got, err := getInstance(instanceOf(t, p, key)); err != nil || string(got) != want {
			t.Errorf("%q has %q, %v; want %q", key, got, err, want)
		}
	}
	// Each key moves once, also where the new ones begin like the old ones.
	if err := p.MovePrefix("b/", "b/b/"); err != nil {
		t.Fatal(err)
	}
	mustHaveKeys(t, s, "b/b/0", "b/b/1", "b/b/2")
	if err := p.MovePrefix("b/b", "b"); err != nil {
		t.Fatal(err)
	}
	mustHaveKeys(t, s, "b/0", "b/1", "b/2")
	if err := p.MovePrefix("b", "b"); err != nil {
		t.Fatal(err)
	}
	mustHaveKeys(t, s, "b/0", "b/1", "b/2")
	mustBeSound(t, s)
}

// TestInstanceAbsent uses what is not there.
func TestInstanceAbsent(t *testing.T) {
	s := open(t, ":memory:", nil)
	p := cairn.NewProvider(s, nil)
	i := instanceOf(t, p, "absent")
	_, err := i.Get()
	mustBe(t, err, fs.ErrNotExist)
	_, err = i.Stat()
	mustBe(t, err, fs.ErrNotExist)
	_, err = i.ReadAt(make([]byte, 1), 0)
	mustBe(t, err, fs.ErrNotExist)
	mustBe(t, i.Delete(), fs.ErrNotExist)
	_, err = p.ReadConsecutiveChunks("absent")
	mustBe(t, err, fs.ErrNotExist)
	if names, err := i.Readdirnames(); len(names) != 0 || err != nil {
		t.Errorf("names %q, %v", names, err)
	}
	if err := p.MovePrefix("absent", "x"); err != nil {
		t.Error(err)
	}
	if err := p.DeletePrefix("absent"); err != nil {
		t.Error(err)
	}
}

func TestInstanceStat(t *testing.T) {
	s := open(t, ":memory:", nil)
	p := cairn.NewProvider(s, nil)
	for key, name := range map[string]string{"dir/sub/file": "file", "file": "file", "dir/": "dir", "a%\xff": "a%\xff", "a/\n": "\n"} {
		putInstance(t, p, key, content(1, 20_000))
		info, err := instanceOf(t, p, key).Stat()
		if err != nil {
			t.Fatal(err)
		}
		if info.Name() != name || info.Size() != 20_000 || !info.Mode().IsRegular() || info.IsDir() || info.ModTime().IsZero() || info.Sys() != nil {
			t.Errorf("%q: %v", key, info)
		}
	}
	i := instanceOf(t, p, "growing")
	if _, err := i.WriteAt([]byte("x"), 99); err != nil {
		t.Fatal(err)
	}
	if info, err := i.Stat(); err != nil || info.Size() != 100 {
		t.Errorf("%v, %v", info, err)
	}
	if err := i.Put(strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if info, err := i.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestInstanceGet has the standard library's test of readers look at readers of
// pieces, complete and not.
func TestInstanceGet(t *testing.T) {
	s := open(t, tempPath(t), nil)
	p := cairn.NewProvider(s, nil)
	for _, size := range []int{0, 1, 1000, 16384, 16385, 70_000} {
		want := content(uint64(size), size)
		complete, incomplete := instanceOf(t, p, "complete"), instanceOf(t, p, "incomplete")
		if err := complete.PutSized(bytes.NewReader(want), int64(size)); err != nil {
			t.Fatal(err)
		}
		instances := []*cairn.Instance{complete}
		if size > 0 {
			if _, err := incomplete.WriteAt(want, 0); err != nil {
				t.Fatal(err)
			}
			instances = append(instances, incomplete)
		}
		for _, i := range instances {
			r, err := i.Get()
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(r, want); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			_, err = r.Read(make([]byte, 1))
			mustBe(t, err, cairn.ErrClosed)
		}
	}
}

// TestInstanceReadAt reads across the end, and behind it.
func TestInstanceReadAt(t *testing.T) {
	s := open(t, ":memory:", nil)
	i := instanceOf(t, cairn.NewProvider(s, nil), "key")
	want := content(1, 100)
	if err := i.Put(bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		off       int64
		length, n int
		err       error
	}{
		{0, 100, 100, nil},
		{0, 0, 0, nil},
		{10, 50, 50, nil},
		{50, 100, 50, io.EOF},
		{99, 2, 1, io.EOF},
		{100, 1, 0, io.EOF},
		{101, 1, 0, io.EOF},
		{1 << 62, 1, 0, io.EOF},
	} {
		b := make([]byte, tt.length)
		n, err := i.ReadAt(b, tt.off)
		if err == io.EOF && n == tt.length && tt.off+int64(n) == 100 {
			err = nil // which io.ReaderAt leaves open
		}
		if n != tt.n || err != tt.err || n > 0 && !bytes.Equal(b[:n], want[tt.off:tt.off+int64(n)]) {
			t.Errorf("%d bytes at %d: %d, %v; want %d, %v", tt.length, tt.off, n, err, tt.n, tt.err)
		}
	}
	if n, err := i.ReadAt(make([]byte, 1), -1); n != 0 || err == nil || err == io.EOF {
		t.Errorf("before the start: %d, %v", n, err)
	}
}

// TestInstanceWriteAt writes an instance as a file, with holes.
func TestInstanceWriteAt(t *testing.T) {
	s := open(t, ":memory:", nil)
	p := cairn.NewProvider(s, &cairn.ProviderOptions{Owner: "somebody"})
	i := instanceOf(t, p, "key")
	write := func(text string, off int64) {
		t.Helper()
		if n, err := i.WriteAt([]byte(text), off); n != len(text) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	write("", 0) // nothing happens
	write("", 5)
	_, err := i.Stat()
	mustBe(t, err, fs.ErrNotExist)
	write("world", 7)
	var unwritten *cairn.UnwrittenError
	n, err := i.ReadAt(make([]byte, 20), 0)
	if want := []cairn.ByteRange{{Start: 0, End: 7}}; n != 0 || !errors.As(err, &unwritten) || !slices.Equal(unwritten.Ranges, want) {
		t.Errorf("read a hole: %d, %v", n, err)
	}
	b := make([]byte, 20)
	if n, err := i.ReadAt(b, 7); err != io.EOF || string(b[:n]) != "world" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	write("hello", 0)
	n, err = i.ReadAt(b, 0)
	if want := []cairn.ByteRange{{Start: 5, End: 7}}; string(b[:n]) != "hello" || !errors.As(err, &unwritten) || !slices.Equal(unwritten.Ranges, want) {
		t.Errorf("read %q up to a hole: %v", b[:n], err)
	}
	mustBe(t, err, cairn.ErrMissing)
	if got, err := getInstance(i); string(got) != "hello" || !errors.As(err, &unwritten) {
		t.Errorf("got %q, %v", got, err)
	}
	write("lo, w", 3)
	if got, err := getInstance(i); string(got) != "hello, world" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := i.WriteAt([]byte("x"), -1); err == nil {
		t.Error("wrote before the start")
	}
	_, err = i.WriteAt([]byte("x"), cairn.MaxBlobSize)
	mustBe(t, err, cairn.ErrTooLarge)
	if got, err := getInstance(i); string(got) != "hello, world" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if u, err := s.Owner("somebody").Usage(t.Context()); err != nil || u.Pieces != 1 || u.Bytes != 12 {
		t.Errorf("%+v, %v", u, err)
	}
	mustBeSound(t, s)
}

// TestInstanceWriteAtComplete writes to complete pieces with the same content:
// one changes and grows, the other does not.
func TestInstanceWriteAtComplete(t *testing.T) {
	for _, size := range []int{1, 100, 16384, 16385, 100_000} {
		s := open(t, ":memory:", nil)
		p := cairn.NewProvider(s, nil)
		want := content(1, size)
		putInstance(t, p, "a", want)
		putInstance(t, p, "b", want)
		if _, err := instanceOf(t, p, "a").WriteAt([]byte("end"), int64(size)-1); err != nil {
			t.Fatal(err)
		}
		if got, err := getInstance(instanceOf(t, p, "a")); err != nil || !bytes.Equal(got, append(want[:size-1:size-1], "end"...)) {
			t.Errorf("%d bytes became %d, %v", size, len(got), err)
		}
		if got, err := getInstance(instanceOf(t, p, "b")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of the other one became %d, %v", size, len(got), err)
		}
		mustHave(t, s, want)
		mustBeSound(t, s)
	}
}

// TestInstanceGrowsFromNothing writes to a complete piece of no bytes.
func TestInstanceGrowsFromNothing(t *testing.T) {
	s := open(t, ":memory:", nil)
	p := cairn.NewProvider(s, nil)
	putInstance(t, p, "key", nil)
	i := instanceOf(t, p, "key")
	for _, off := range []int64{10, 0} {
		if _, err := i.WriteAt([]byte("0123456789"), off); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := getInstance(i); err != nil || string(got) != "01234567890123456789" {
		t.Errorf("got %q, %v", got, err)
	}
	mustBeSound(t, s)
}

// TestInstancePutSized has readers that have less or more than they should, or
// break.
func TestInstancePutSized(t *testing.T) {
	broken := errors.New("broken")
	for _, size := range []int64{10, 16384, 3 << 20} {
		b := content(uint64(size), int(size)+1)
		for _, old := range [][]byte{nil, content(99, 20_000)} {
			s := open(t, ":memory:", nil)
			p := cairn.NewProvider(s, nil)
			i := instanceOf(t, p, "key")
			if old != nil {
				putInstance(t, p, "key", old)
			}
			for name, tt := range map[string]struct {
				r    io.Reader
				want error
			}{
				"short":  {bytes.NewReader(b[:size-1]), io.ErrUnexpectedEOF},
				"empty":  {bytes.NewReader(nil), io.ErrUnexpectedEOF},
				"long":   {bytes.NewReader(b), cairn.ErrMismatch},
				"broken": {io.MultiReader(bytes.NewReader(b[:size-1]), iotest.ErrReader(broken)), broken},
			} {
				err := i.PutSized(tt.r, size)
				if !errors.Is(err, tt.want) {
					t.Errorf("%s: %v", name, err)
				}
				if got, err := getInstance(i); old == nil && !errors.Is(err, fs.ErrNotExist) || old != nil && !bytes.Equal(got, old) {
					t.Errorf("%s: %d bytes are there, %v", name, len(got), err)
				}
			}
			mustBe(t, i.Put(iotest.ErrReader(broken)), broken)
			if err := i.PutSized(bytes.NewReader(nil), -1); err == nil {
				t.Error("a negative size was stored")
			}
			if err := i.PutSized(iotest.OneByteReader(bytes.NewReader(b[:10])), 10); err != nil {
				t.Error(err)
			}
			if got, err := getInstance(i); err != nil || !bytes.Equal(got, b[:10]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if st, err := s.Stats(t.Context()); err != nil || st.Bytes != 10 || st.Pieces != 1 {
				t.Errorf("%+v, %v", st, err)
			}
			mustBeSound(t, s)
		}
	}
}

// TestProviderCapacity stores what can never fit: it is an error before it is
// written, and nothing goes for it.
func TestProviderCapacity(t *testing.T) {
	s := open(t, ":memory:", nil)
	p := cairn.NewProvider(s, nil)
	putInstance(t, p, "old", content(1, 600))
	if err := s.SetCapacity(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	i := instanceOf(t, p, "new")
	large := content(2, 2000)
	mustBe(t, i.Put(bytes.NewReader(large)), cairn.ErrTooLarge)
	mustBe(t, i.PutSized(bytes.NewReader(large), 2000), cairn.ErrTooLarge)
	_, err := i.WriteAt(large, 0)
	mustBe(t, err, cairn.ErrTooLarge)
	_, err = i.WriteAt(large[:1], 1000)
	mustBe(t, err, cairn.ErrTooLarge)
	mustHaveKeys(t, s, "old")
	putInstance(t, p, "new", large[:700])
	mustHaveKeys(t, s, "new")
	if err := s.SetCapacity(t.Context(), cairn.Unlimited); err != nil {
		t.Fatal(err)
	}
	putInstance(t, p, "large", large)
	mustHaveKeys(t, s, "large", "new")
	mustBeSound(t, s)
}

func TestReaddirnames(t *testing.T) {
	s := open(t, ":memory:", nil)
	p := cairn.NewProvider(s, nil)
	for _, key := range []string{
		"d", "d/", "d/a", "d/a/1", "d/a/2", "d/a!x", "d/a0", "d/\x00", "d/\xff", "d/\xff/1", "d/%/x", "d//x", "D/z", "d0", "d!",
		"e/f/g/h", "\xff/\xff\xff", "/root/x", "/root",
	} {
		putInstance(t, p, key, []byte(key))
	}
	for i := range 600 { // more than are read at once
		putInstance(t, p, "many/"+strconv.Itoa(i), nil)
		putInstance(t, p, "deep/"+strconv.Itoa(i%3)+"/"+strconv.Itoa(i), nil)
	}
	var many []string
	for i := range 600 {
		many = append(many, strconv.Itoa(i))
	}
	slices.Sort(many)
	for key, want := range map[string][]string{
		"d":     {"", "\x00", "%", "a", "a!x", "a0", "\xff"},
		"d/a":   {"1", "2"},
		"d/":    {"x"},
		"D":     {"z"},
		"e":     {"f"},
		"e/f":   {"g"},
		"e/f/g": {"h"},
		"\xff":  {"\xff\xff"},
		"/":     nil,
		"/root": {"x"},
		"x":     nil,
		"many":  many,
		"deep":  {"0", "1", "2"},
	} {
		if got, err := instanceOf(t, p, key).Readdirnames(); err != nil || !slices.Equal(got, want) {
			t.Errorf("below %q: %q, %v; want %q", key, got, err, want)
		}
	}
}

// FuzzPrefixEnd compares ranges of keys with what prefixes are.
func FuzzPrefixEnd(f *testing.F) {
	for _, seed := range [][2]string{{"", ""}, {"a", "ab"}, {"ab_1/", "abX1/"}, {"a\xff", "b"}, {"\xff", "\xff\xff"}, {"\xff\xff", "\xff"}, {"a", "a\x00"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, prefix, key string) {
		if len(key) > cairn.MaxKeySize {
			return
		}
		end := cairn.PrefixEnd(prefix)
		if in := key >= prefix && key < end; in != strings.HasPrefix(key, prefix) {
			t.Errorf("prefix %q, key %q: up to %q", prefix, key, end)
		}
	})
}
