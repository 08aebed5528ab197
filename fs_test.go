package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cairnstore/cairn"
)

func TestFS(t *testing.T) {
	s := open(t, tempPath(t), nil)
	var names []string
	for i, size := range []int{0, 1, 100, 16384, 16385, 100_000} {
		names = append(names, add(t, s, content(uint64(i), size)).String())
	}
	importRanges(t, s, content(50, 100_000), "0..16")
	slices.Sort(names)
	view := s.FS(t.Context())
	if err := fstest.TestFS(view, names...); err != nil {
		t.Error(err)
	}
	listed, err := fs.Glob(view, "*")
	if err != nil || !slices.Equal(listed, names) {
		t.Errorf("listed %v, %v; want %v", listed, err, names)
	}
}

// TestFSNames asks for what is no file.
func TestFSNames(t *testing.T) {
	s := open(t, ":memory:", nil)
	there := add(t, s, content(1, 100)).String()
	partial := content(2, 100_000)
	importRanges(t, s, partial, "0..16")
	view := s.FS(t.Context())
	for _, tt := range []struct {
		name string
		want error
	}{
		{hashOf(content(3, 100)).String(), fs.ErrNotExist},
		{hashOf(partial).String(), fs.ErrNotExist},
		{strings.ToUpper(there), fs.ErrNotExist},
		{there[:63], fs.ErrNotExist},
		{there + "0", fs.ErrNotExist},
		{there + "/x", fs.ErrNotExist},
		{"x/" + there, fs.ErrNotExist},
		{"blobs", fs.ErrNotExist},
		{"", fs.ErrInvalid},
		{"/" + there, fs.ErrInvalid},
		{there + "/", fs.ErrInvalid},
		{"./" + there, fs.ErrInvalid},
		{"../" + there, fs.ErrInvalid},
		{"\xff", fs.ErrInvalid},
	} {
		_, openErr := view.Open(tt.name)
		_, statErr := fs.Stat(view, tt.name)
		_, dirErr := fs.ReadDir(view, tt.name)
		for _, err := range []error{openErr, statErr, dirErr} {
			var pathErr *fs.PathError
			if !errors.Is(err, tt.want) || !errors.As(err, &pathErr) || pathErr.Path != tt.name {
				t.Errorf("%q: got %v, want a PathError with %v", tt.name, err, tt.want)
			}
		}
	}
	if _, err := fs.ReadDir(view, there); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of a file: %v", err)
	}
}

// TestFSFile uses the other ways to read that a file has.
func TestFSFile(t *testing.T) {
	s := open(t, ":memory:", nil)
	data := content(1, 100_000)
	h := add(t, s, data)
	f, err := s.FS(t.Context()).Open(h.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.(io.ReadSeeker).Seek(-5, io.SeekEnd); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data[len(data)-5:]) {
		t.Errorf("read %x, %v", got, err)
	}
	p := make([]byte, 7)
	if n, err := f.(io.ReaderAt).ReadAt(p, 20_000); n != 7 || err != nil || !bytes.Equal(p, data[20_000:20_007]) {
		t.Errorf("read %x, %v", p, err)
	}
	if _, err := f.(io.ReadSeeker).Seek(0, io.SeekStart); err != nil {
		t.Error(err)
	}
	var all bytes.Buffer
	if _, err := f.(io.WriterTo).WriteTo(&all); err != nil || !bytes.Equal(all.Bytes(), data) {
		t.Errorf("wrote %d bytes, %v", all.Len(), err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	status, err := s.Status(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != 100_000 || info.Mode() != 0o444 || !info.ModTime().Equal(status.Created) {
		t.Errorf("%v", info)
	}
	mustBe(t, s.Delete(t.Context(), h), cairn.ErrConflict)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), h); err != nil {
		t.Error(err)
	}
}

// TestFSPages reads a directory longer than a page of the listing, a few
// entries at a time, while blobs come and go.
func TestFSPages(t *testing.T) {
	s := open(t, ":memory:", nil)
	for i := range 600 {
		add(t, s, content(uint64(i), 50))
	}
	view := s.FS(t.Context())
	whole, err := fs.ReadDir(view, ".")
	if err != nil || len(whole) != 600 {
		t.Fatalf("%d entries, %v", len(whole), err)
	}
	f, err := view.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := f.(fs.ReadDirFile)
	if err := s.Delete(t.Context(), mustParse(t, whole[0].Name())); err != nil {
		t.Fatal(err)
	}
	if _, err := whole[0].Info(); err != nil {
		t.Error(err)
	}
	var got []fs.DirEntry
	for n := 1; ; n = n%70 + 1 {
		page, err := dir.ReadDir(n)
		if len(page) > n {
			t.Fatalf("%d entries, asked for %d", len(page), n)
		}
		got = append(got, page...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if rest, err := dir.ReadDir(0); len(rest) != 0 || err != nil {
		t.Errorf("%d entries behind the end, %v", len(rest), err)
	}
	if !slices.EqualFunc(got, whole[1:], func(a, b fs.DirEntry) bool { return a.Name() == b.Name() }) {
		t.Errorf("%d entries, want the %d that were left", len(got), len(whole)-1)
	}
	if _, err := dir.Read(make([]byte, 1)); err == nil {
		t.Error("a directory has content")
	}
	if err := dir.Close(); err != nil {
		t.Error(err)
	}
	_, err = dir.ReadDir(1)
	mustBe(t, err, fs.ErrClosed)
}

func TestFSContext(t *testing.T) {
	s := open(t, ":memory:", nil)
	h := add(t, s, content(1, 100))
	ctx, cancel := context.WithCancel(t.Context())
	view := s.FS(ctx)
	cancel()
	_, err := view.Open(h.String())
	mustBe(t, err, context.Canceled)
	_, err = fs.ReadDir(view, ".")
	mustBe(t, err, context.Canceled)
}

// TestListAfter lists in steps.
func TestListAfter(t *testing.T) {
	s := open(t, ":memory:", nil)
	var all []cairn.Hash
	for i := range 40 {
		all = append(all, add(t, s, content(uint64(i), 30)))
	}
	slices.SortFunc(all, func(a, b cairn.Hash) int { return bytes.Compare(a[:], b[:]) })
	list := func(opts cairn.ListOptions) (hashes []cairn.Hash) {
		for info, err := range s.Blobs(t.Context(), &opts) {
			if err != nil {
				t.Fatal(err)
			}
			hashes = append(hashes, info.Hash)
		}
		return hashes
	}
	var steps []cairn.Hash
	for {
		opts := cairn.ListOptions{Limit: 7}
		if len(steps) > 0 {
			opts.After = steps[len(steps)-1]
		}
		page := list(opts)
		if len(page) == 0 {
			break
		}
		steps = append(steps, page...)
	}
	if !slices.Equal(steps, all) {
		t.Errorf("%d hashes in steps, want %d", len(steps), len(all))
	}
	var last cairn.Hash
	for i := range last {
		last[i] = 0xff
	}
	if got := list(cairn.ListOptions{After: last}); len(got) != 0 {
		t.Errorf("%d hashes behind the last", len(got))
	}
	prefix := all[20].String()[:2]
	for _, after := range []cairn.Hash{{}, all[0], all[20], last} {
		var want []cairn.Hash
		for _, h := range all {
			if strings.HasPrefix(h.String(), prefix) && bytes.Compare(h[:], after[:]) > 0 {
				want = append(want, h)
			}
		}
		if got := list(cairn.ListOptions{Prefix: prefix, After: after}); !slices.Equal(got, want) {
			t.Errorf("prefix %s after %v: %v, want %v", prefix, after, got, want)
		}
	}
}

func mustParse(t testing.TB, text string) cairn.Hash {
	t.Helper()
	h, err := cairn.ParseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
