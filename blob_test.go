package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	lukebao "lukechampine.com/blake3/bao"
)

// sizes are those at which something changes: chunk, group, segment, tile.
var sizes = []int{
	0, 1, 1023, 1024, 1025, 16383, 16384, 16385, 32767, 32768, 65535, 65536, 65537,
	cairn.SegmentSize - 1, cairn.SegmentSize, cairn.SegmentSize + 1, 2 * cairn.SegmentSize, 5<<20 + 77,
	65*cairn.SegmentSize + 5,
}

func TestBlobSizes(t *testing.T) {
	for _, path := range []string{tempPath(t), ":memory:"} {
		s := open(t, path, nil)
		for _, size := range sizes {
			data := content(1, size)
			h := add(t, s, data)
			b, err := s.Blob(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			if b.Size() != int64(size) || b.Hash() != h {
				t.Errorf("%d bytes: Size %d, Hash %v", size, b.Size(), b.Hash())
			}
			var out bytes.Buffer
			if n, err := b.WriteTo(&out); err != nil || n != int64(size) || !bytes.Equal(out.Bytes(), data) {
				t.Errorf("%d bytes: WriteTo gave %d, %v", size, n, err)
			}
			if _, err := b.Seek(0, io.SeekStart); err != nil {
				t.Error(err)
			}
			if size <= 100_000 {
				if err := iotest.TestReader(b, data); err != nil {
					t.Errorf("%d bytes: %v", size, err)
				}
			}
			checkReadAt(t, b, data)
			b.Close()
			checkOutboard(t, s, data)
		}
		mustBeSound(t, s)
		if s.Guarded() != 0 {
			t.Errorf("%d hashes are still protected", s.Guarded())
		}
	}
}

// checkReadAt reads across every kind of border.
func checkReadAt(t *testing.T, b *cairn.Blob, data []byte) {
	t.Helper()
	size := len(data)
	offsets := []int{0, 1, 1000, 16383, 16384, 16385, 65536, 1<<20 - 3, size - 16385, size - 1, size, size + 1}
	for _, off := range offsets {
		if off < 0 {
			continue
		}
		for _, n := range []int{0, 1, 2, 16383, 16384, 16385, 100_000, 2<<20 + 5} {
			p := make([]byte, n)
			got, err := b.ReadAt(p, int64(off))
			want := data[min(off, size):min(off+n, size)]
			if got != len(want) || !bytes.Equal(p[:got], want) {
				t.Errorf("%d bytes: ReadAt(%d, %d) gave %d bytes, want %d", size, n, off, got, len(want))
			}
			if short := got < n || off >= size; short != (err == io.EOF) || !short && err != nil {
				t.Errorf("%d bytes: ReadAt(%d, %d) gave %d bytes and error %v", size, n, off, got, err)
			}
		}
	}
	if _, err := b.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Errorf("negative offset: %v", err)
	}
}

func checkOutboard(t *testing.T, s *cairn.Store, data []byte) {
	t.Helper()
	want, _ := lukebao.EncodeBuf(data, 4, true)
	got, err := s.Outboard(t.Context(), hashOf(data))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes: outboard of %d bytes, want %d (%v)", len(data), len(got), len(want), err)
	}
}

func TestSeek(t *testing.T) {
	s := open(t, ":memory:", nil)
	h := add(t, s, []byte("0123456789"))
	b, err := s.Blob(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, tt := range []struct {
		offset int64
		whence int
		want   int64 // -1: an error
		next   string
	}{
		{3, io.SeekStart, 3, "3456789"},
		{-2, io.SeekEnd, 8, "89"},
		{-10, io.SeekCurrent, 0, "0123456789"},
		{5, io.SeekEnd, 15, ""},
		{-1, io.SeekStart, -1, ""},
		{0, 7, -1, ""},
	} {
		got, err := b.Seek(tt.offset, tt.whence)
		if tt.want < 0 {
			if err == nil {
				t.Errorf("Seek(%d, %d) gave %d", tt.offset, tt.whence, got)
			}
			continue
		}
		if rest, readErr := io.ReadAll(b); got != tt.want || err != nil || string(rest) != tt.next || readErr != nil {
			t.Errorf("Seek(%d, %d) = %d, %v, then %q, %v", tt.offset, tt.whence, got, err, rest, readErr)
		}
	}
}

func TestNotFound(t *testing.T) {
	s := open(t, ":memory:", nil)
	h := hashOf([]byte("absent"))
	_, err := s.Blob(t.Context(), h)
	mustBe(t, err, cairn.ErrNotFound)
	mustBe(t, err, os.ErrNotExist)
	mustBe(t, s.Delete(t.Context(), h), cairn.ErrNotFound)
	_, err = s.Outboard(t.Context(), h)
	mustBe(t, err, cairn.ErrNotFound)
	mustBe(t, s.Export(t.Context(), h, filepath.Join(t.TempDir(), "x"), nil), cairn.ErrNotFound)
	if st, err := s.Status(t.Context(), h); err != nil || st.State != cairn.Absent {
		t.Errorf("Status: %v, %v", st, err)
	}
	if s.Guarded() != 0 {
		t.Errorf("%d hashes are still protected", s.Guarded())
	}
}

func TestDeduplicate(t *testing.T) {
	s := open(t, tempPath(t), nil)
	for _, size := range []int{10, 3*cairn.SegmentSize + 1} {
		data := content(7, size)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				tag, err := s.AddBytes(context.Background(), data, nil)
				if err != nil {
					t.Error(err)
					return
				}
				tag.Release()
			})
		}
		wg.Wait()
		mustHave(t, s, data)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Blobs != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	mustBeSound(t, s)
}

func TestDelete(t *testing.T) {
	s := open(t, tempPath(t), nil)
	for _, size := range []int{0, 5, 100_000, (cairn.DropGroups + 70) * bao.GroupSize} {
		data := content(3, size)
		tag, err := s.AddBytes(t.Context(), data, nil)
		if err != nil {
			t.Fatal(err)
		}
		mustBe(t, s.Delete(t.Context(), tag.Hash()), cairn.ErrConflict)
		tag.Release()
		tag.Release()
		b, err := s.Blob(t.Context(), tag.Hash())
		if err != nil {
			t.Fatal(err)
		}
		mustBe(t, s.Delete(t.Context(), tag.Hash()), cairn.ErrConflict)
		b.Close()
		b.Close()
		if err := s.Delete(t.Context(), tag.Hash()); err != nil {
			t.Error(err)
		}
		mustBe(t, s.Delete(t.Context(), tag.Hash()), cairn.ErrNotFound)
		mustBeSound(t, s)
		add(t, s, data)
		mustHave(t, s, data)
	}
	mustBeSound(t, s)
}

// TestDeleteRace has one hash added, opened and deleted at once; whoever opens
// it must be able to read it to the end.
func TestDeleteRace(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(3, 200_000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				tag, err := s.AddBytes(context.Background(), data, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := read(context.Background(), s, tag.Hash()); err != nil || !bytes.Equal(got, data) {
					t.Errorf("a protected blob: %v", err)
				}
				tag.Release()
			}
		})
		wg.Go(func() {
			for range 50 {
				err := s.Delete(context.Background(), hashOf(data))
				if err != nil && !errors.Is(err, cairn.ErrNotFound) && !errors.Is(err, cairn.ErrConflict) {
					t.Error(err)
				}
				if _, err := read(context.Background(), s, hashOf(data)); err != nil && !errors.Is(err, cairn.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	mustBeSound(t, s)
}

func TestList(t *testing.T) {
	s := open(t, ":memory:", nil)
	var want []cairn.Hash
	for i := range 600 { // more than two pages
		want = append(want, add(t, s, fmt.Append(nil, i)))
	}
	slices.SortFunc(want, func(a, b cairn.Hash) int { return bytes.Compare(a[:], b[:]) })
	list := func(opts *cairn.ListOptions) (got []cairn.Hash) {
		for info, err := range s.Blobs(t.Context(), opts) {
			if err != nil {
				t.Fatal(err)
			}
			if info.State != cairn.Complete || info.Size == 0 || info.Stored != info.Size || info.Created.IsZero() || info.LastUsed.Before(info.Created) {
				t.Errorf("%+v", info)
			}
			// The store must be free to use meanwhile.
			if _, err := s.Status(t.Context(), info.Hash); err != nil {
				t.Fatal(err)
			}
			got = append(got, info.Hash)
		}
		return got
	}
	if got := list(nil); !slices.Equal(got, want) {
		t.Errorf("%d of %d blobs", len(got), len(want))
	}
	for _, limit := range []int{1, 255, 256, 257, 599, 600, 601} {
		if got := list(&cairn.ListOptions{Limit: limit}); !slices.Equal(got, want[:min(limit, 600)]) {
			t.Errorf("limit %d: %d blobs", limit, len(got))
		}
	}
	for _, prefix := range []string{"0", "f", "A", "5c", "5C", want[17].String()[:7], want[3].String(), strings.ToUpper(want[3].String())} {
		var some []cairn.Hash
		for _, h := range want {
			if strings.HasPrefix(h.String(), strings.ToLower(prefix)) {
				some = append(some, h)
			}
		}
		if got := list(&cairn.ListOptions{Prefix: prefix}); !slices.Equal(got, some) {
			t.Errorf("prefix %s: %d of %d blobs", prefix, len(got), len(some))
		}
	}
	if got := list(&cairn.ListOptions{State: cairn.Complete}); len(got) != 600 {
		t.Errorf("%d complete blobs", len(got))
	}
	if got := list(&cairn.ListOptions{State: cairn.Partial}); len(got) != 0 {
		t.Errorf("%d partial blobs", len(got))
	}
	for _, prefix := range []string{"x", "0x", "é", strings.Repeat("0", 65)} {
		mustBe(t, firstError(s.Blobs(t.Context(), &cairn.ListOptions{Prefix: prefix})), cairn.ErrMismatch)
	}
}

// TestAddFails has the reader fail, or the context end, at every kind of
// place. Nothing may remain.
func TestAddFails(t *testing.T) {
	s := open(t, tempPath(t), nil)
	broken := errors.New("broken")
	data := content(9, 9*cairn.SegmentSize)
	for _, n := range []int{0, 1, 16384, 100_000, cairn.SegmentSize - 1, cairn.SegmentSize, cairn.SegmentSize + 1, 8*cairn.SegmentSize + 7} {
		_, err := s.Add(t.Context(), io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken)), nil)
		mustBe(t, err, broken)
		ctx, cancel := context.WithCancelCause(t.Context())
		r := io.MultiReader(bytes.NewReader(data[:n]), cancelReader(func() { cancel(broken) }), bytes.NewReader(data[n:]))
		_, err = s.Add(ctx, r, nil)
		mustBe(t, err, broken)
		if st, err := s.Stats(t.Context()); err != nil || st.Blobs != 0 || st.Bytes != 0 {
			t.Errorf("after %d bytes: %+v, %v", n, st, err)
		}
		mustBeEmpty(t, s)
	}
	for _, r := range []io.Reader{
		iotest.TimeoutReader(bytes.NewReader(data)),
		stuckReader{},
		lyingReader{},
	} {
		if _, err := s.Add(t.Context(), r, nil); err == nil {
			t.Errorf("%T was accepted", r)
		}
	}
	mustBeEmpty(t, s)
	for _, r := range []io.Reader{
		iotest.OneByteReader(bytes.NewReader(data[:1000])),
		iotest.DataErrReader(bytes.NewReader(data[:cairn.SegmentSize])),
		iotest.HalfReader(bytes.NewReader(data)),
	} {
		tag, err := s.Add(t.Context(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		tag.Release()
	}
	mustHave(t, s, data)
	mustHave(t, s, data[:1000])
	mustHave(t, s, data[:cairn.SegmentSize])
	mustBeSound(t, s)
	if s.Guarded() != 0 {
		t.Errorf("%d hashes are still protected", s.Guarded())
	}
}

// TestAddCancelled: what has been written of an add that is cancelled counts no more
// when it returns, and its rows go by themselves.
func TestAddCancelled(t *testing.T) {
	const size = 64 * cairn.SegmentSize
	s := open(t, tempPath(t), &cairn.Options{Capacity: size + cairn.SegmentSize})
	ctx, cancel := context.WithCancel(t.Context())
	data := content(9, size)
	seen := count(t, s, "row")
	r := io.MultiReader(bytes.NewReader(data), cancelReader(func() {
		seen = count(t, s, "row")
		cancel()
	}), strings.NewReader("x"))
	_, err := s.Add(ctx, r, nil)
	mustBe(t, err, context.Canceled)
	if seen == 0 {
		t.Error("nothing had been written")
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Used != 0 {
		t.Errorf("%+v, %v", u, err)
	}
	mustBeEmpty(t, s)
	add(t, s, data)
	mustBeSound(t, s)
}

// mustTidyUp waits until the rows are gone that nobody sees.
func mustTidyUp(t *testing.T, s *cairn.Store) {
	t.Helper()
	for {
		n, err := s.Hidden(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		runtime.Gosched()
	}
}

// mustBeEmpty checks that no row of any kind is there, when those are gone that
// nobody sees.
func mustBeEmpty(t *testing.T, s *cairn.Store) {
	t.Helper()
	mustBeSound(t, s)
	mustTidyUp(t, s)
	for _, table := range []string{"blob", "row", "outboard"} {
		if n := count(t, s, table); n != 0 {
			t.Errorf("%d entries in %s", n, table)
		}
	}
}

type cancelReader func()

func (f cancelReader) Read([]byte) (int, error) { f(); return 0, io.EOF }

type stuckReader struct{}

func (stuckReader) Read([]byte) (int, error) { return 0, nil }

type lyingReader struct{}

func (lyingReader) Read(p []byte) (int, error) { return len(p) + 1, nil }

func TestAddProgress(t *testing.T) {
	s := open(t, ":memory:", nil)
	for _, size := range []int64{0, 10, 2*cairn.SegmentSize + 1} {
		last, calls, outboards := int64(-1), 0, 0
		tag, err := s.AddBytes(t.Context(), content(1, int(size)), &cairn.AddOptions{Progress: func(p cairn.Progress) {
			if p.Phase == cairn.Outboarding {
				outboards++
				return
			}
			n := p.Bytes
			if n < last || outboards > 0 || p.Total != -1 {
				t.Errorf("progress went from %d to %d", last, n)
			}
			last = n
			calls++
		}})
		if err != nil {
			t.Fatal(err)
		}
		if last != size || calls == 0 || outboards == 0 {
			t.Errorf("%d bytes: last progress %d in %d calls", size, last, calls)
		}
		if got := tag.HashAndFormat(); got != (cairn.HashAndFormat{Hash: tag.Hash(), Format: cairn.Raw}) {
			t.Errorf("%v", got)
		}
	}
}

func TestTempTag(t *testing.T) {
	s := open(t, ":memory:", nil)
	h := add(t, s, []byte("x"))
	a, b := s.TempTag(cairn.HashAndFormat{Hash: h}), s.TempTag(cairn.HashAndFormat{Hash: h})
	a.Release()
	a.Release()
	mustBe(t, s.Delete(t.Context(), h), cairn.ErrConflict)
	b.Release()
	if err := s.Delete(t.Context(), h); err != nil {
		t.Error(err)
	}
}
