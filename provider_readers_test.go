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

// putChunks stores content in chunks of the given sizes.
func putChunks(t testing.TB, p *cairn.Provider, prefix string, b []byte, sizes ...int) {
	t.Helper()
	start := 0
	for _, size := range sizes {
		putInstance(t, p, prefix+strconv.Itoa(start), b[start:start+size])
		start += size
	}
}

func TestReadConsecutiveChunks(t *testing.T) {
	s := open(t, tempPath(t), nil)
	p := cairn.NewProvider(s, nil)
	want := content(1, 70_000)
	putChunks(t, p, "ab_1/", want, 9, 1, 90, 16384, 900, 20_000, 0, 32_616)
	putChunks(t, p, "abX1/", content(2, 200), 9, 100)
	putChunks(t, p, "AB_1/", content(3, 200), 9, 100)
	putChunks(t, p, "\xff%", want, 70_000)
	putChunks(t, p, "empty", nil, 0)
	if _, err := instanceOf(t, p, "written/0").WriteAt(want[:30_000], 0); err != nil {
		t.Fatal(err)
	}
	putInstance(t, p, "written/30000", want[30_000:])
	for prefix, want := range map[string][]byte{"ab_1/": want, "\xff%": want, "written/": want, "empty": nil, "abX1/": content(2, 200)[:109]} {
		r, err := p.ReadConsecutiveChunks(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, want); err != nil {
			t.Errorf("%q: %v", prefix, err)
		}
		if r, err = p.ReadConsecutiveChunks(prefix); err != nil {
			t.Fatal(err)
		}
		var head [5]byte
		n, _ := io.ReadFull(r, head[:])
		var rest bytes.Buffer
		if m, err := io.Copy(&rest, r); err != nil || int(m) != len(want)-n || !bytes.Equal(rest.Bytes(), want[n:]) {
			t.Errorf("%q: copied %d, %v", prefix, m, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		_, err = r.Read(head[:])
		mustBe(t, err, cairn.ErrClosed)
	}
}

// TestReadConsecutiveChunksThatAreNot lists what is no sequence.
func TestReadConsecutiveChunksThatAreNot(t *testing.T) {
	for _, tt := range []struct {
		chunks map[string]int // and their sizes
		want   error
	}{
		{map[string]int{"1": 10}, cairn.ErrMissing},
		{map[string]int{"0": 10, "11": 10}, cairn.ErrMissing},
		{map[string]int{"0": 10, "9": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "10": 10, "15": 0}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "00": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "010": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "+10": 10}, cairn.ErrMismatch},
		{map[string]int{"-0": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "-10": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, " 10": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "10/0": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "x": 10}, cairn.ErrMismatch},
		{map[string]int{"0": 10, "9223372036854775808": 10}, cairn.ErrMismatch},
	} {
		s := open(t, ":memory:", nil)
		p := cairn.NewProvider(s, nil)
		for name, size := range tt.chunks {
			putInstance(t, p, "chunks/"+name, content(1, size))
		}
		_, err := p.ReadConsecutiveChunks("chunks/")
		if !errors.Is(err, tt.want) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: %v", tt.chunks, err)
		}
	}
}

// TestReadConsecutiveChunksSnapshot changes what is being read.
func TestReadConsecutiveChunksSnapshot(t *testing.T) {
	s := open(t, tempPath(t), nil)
	p := cairn.NewProvider(s, nil)
	want := content(1, 100_000)
	putChunks(t, p, "a/", want, 50_000, 50_000)
	start := func() io.Reader {
		r, err := p.ReadConsecutiveChunks("a/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := start()
	putInstance(t, p, "a/100000", []byte("more"))
	if err := p.MovePrefix("a/", "b/"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(before); err != nil || !bytes.Equal(got, want[10:]) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if err := p.MovePrefix("b/", "a/"); err != nil {
		t.Fatal(err)
	}

	replaced, deleted := start(), start()
	putInstance(t, p, "a/50000", content(2, 50_000))
	got, err := io.ReadAll(replaced)
	mustBe(t, err, fs.ErrNotExist)
	if !bytes.HasPrefix(want[10:], got) {
		t.Errorf("%d bytes are not those that were there", len(got))
	}
	if err := p.DeletePrefix("a/"); err != nil {
		t.Fatal(err)
	}
	got, err = io.ReadAll(deleted)
	mustBe(t, err, fs.ErrNotExist)
	if !bytes.HasPrefix(want[10:], got) {
		t.Errorf("%d bytes are not those that were there", len(got))
	}
}

// TestPutOfChunks has the store write what it reads, as the completion of a
// torrent's piece does, at once and with one reading connection.
func TestPutOfChunks(t *testing.T) {
	s := open(t, tempPath(t), &cairn.Options{Readers: 1})
	p := cairn.NewProvider(s, nil)
	want := content(1, 3<<20)
	sizes := slices.Repeat([]int{16384}, 192)
	putChunks(t, p, "incompleted/x/", want, sizes...)
	for _, sized := range []bool{true, false} {
		r, err := p.ReadConsecutiveChunks("incompleted/x/")
		if err != nil {
			t.Fatal(err)
		}
		i := instanceOf(t, p, "completed/x")
		if sized {
			err = i.PutSized(r, int64(len(want)))
		} else {
			err = i.Put(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := getInstance(i); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if err := p.DeletePrefix("incompleted/x/"); err != nil {
		t.Fatal(err)
	}
	mustHaveKeys(t, s, "completed/x")
	mustBeSound(t, s)
}

func FuzzParseOffset(f *testing.F) {
	for _, text := range []string{"", "0", "1", "16384", "00", "-1", "+1", " 1", "1_0", "0x1", "9223372036854775807", "9223372036854775808", "１"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := cairn.ParseOffset(text)
		if err == nil && (n < 0 || fmt.Sprint(n) != text) {
			t.Errorf("%q is %d", text, n)
		}
		if err != nil && !errors.Is(err, cairn.ErrMismatch) {
			t.Errorf("%q: %v", text, err)
		}
		if strings.Trim(text, "0123456789") == "" && text != "" && text[0] != '0' && len(text) < 19 && err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
