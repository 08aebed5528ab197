package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

var byReference = &cairn.AddOptions{Mode: cairn.Reference}

func writeFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newFile makes a file of its own directory.
func newFile(t testing.TB, data []byte) string {
	t.Helper()
	return writeFile(t, filepath.Join(t.TempDir(), "file"), data)
}

// refer adds a file by reference, without keeping it protected.
func refer(t testing.TB, s *cairn.Store, path string) cairn.Hash {
	t.Helper()
	tag, err := s.AddFile(t.Context(), path, byReference)
	if err != nil {
		t.Fatal(err)
	}
	defer tag.Release()
	return tag.Hash()
}

// mustBeStored compares how many bytes of a blob are in the database and outside.
func mustBeStored(t testing.TB, s *cairn.Store, data []byte, state cairn.State, stored, external int) {
	t.Helper()
	st, err := s.Status(t.Context(), hashOf(data))
	if err != nil || st.State != state || st.Stored != int64(stored) || st.External != int64(external) {
		t.Fatalf("%v with %d bytes stored and %d outside (%v); want %v, %d, %d",
			st.State, st.Stored, st.External, err, state, stored, external)
	}
}

func makeFIFO(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "fifo")
	if out, err := exec.Command("mkfifo", path).CombinedOutput(); err != nil {
		t.Skipf("cannot make a FIFO: %v: %s", err, out)
	}
	return path
}

// spoil changes a byte of a file, and nothing else that could be seen of it.
func spoil(t testing.TB, path string, off int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Now(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func TestReference(t *testing.T) {
	const group = bao.GroupSize
	for _, size := range []int{1, group - 1, group, group + 1, 128 << 10, cairn.SegmentSize, 3*cairn.SegmentSize + 5, 66*cairn.SegmentSize + group + 1} {
		path := tempPath(t)
		s := open(t, path, &cairn.Options{Capacity: 1000}) // far below
		data := content(uint64(size), size)
		file := newFile(t, data)
		refer(t, s, file)
		mustBeStored(t, s, data, cairn.Complete, 0, size)
		mustHave(t, s, data)
		mustReadAnyhow(t, s, data)
		mustBeSound(t, s)
		st, err := s.Stats(t.Context())
		if err != nil || st.StoredBytes != 0 || st.ExternalBytes != int64(size) || st.Bytes != int64(size) || st.Blobs != 1 {
			t.Errorf("%d bytes: %+v, %v", size, st, err)
		}
		if count(t, s, "row") != 0 {
			t.Errorf("%d bytes: there are rows", size)
		}

		reader := open(t, path, &cairn.Options{ReadOnly: true})
		mustHave(t, reader, data)
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
		s = open(t, path, nil)
		mustHave(t, s, data)
		if err := s.Delete(t.Context(), hashOf(data)); err != nil {
			t.Fatal(err)
		}
		mustBeEmpty(t, s)
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) {
			t.Errorf("the file after its blob's deletion: %d bytes, %v", len(got), err)
		}
		if count(t, s, "path") != 0 {
			t.Error("a path is left")
		}
	}
}

// mustReadAnyhow reads a blob in the ways that there are beside reading it all.
func mustReadAnyhow(t *testing.T, s *cairn.Store, data []byte) {
	t.Helper()
	b, err := s.Blob(t.Context(), hashOf(data))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, r := range [][2]int{{0, 1}, {len(data) / 2, 100}, {len(data) - 1, 1}, {len(data) / 3, 5 * bao.GroupSize}, {bao.GroupSize, 2 * bao.GroupSize}} {
		from, to := min(r[0], len(data)), min(r[0]+r[1], len(data))
		p := make([]byte, to-from)
		if n, err := b.ReadAt(p, int64(from)); err != nil && err != io.EOF || !bytes.Equal(p[:n], data[from:to]) {
			t.Errorf("bytes %d..%d of %d: %d read, %v", from, to, len(data), n, err)
		}
	}
	var response bytes.Buffer
	if err := s.ExportBao(t.Context(), hashOf(data), bao.All(), &response); err != nil {
		t.Fatal(err)
	}
	if want, _ := newSeed(t, data).response(t, bao.All()); !bytes.Equal(response.Bytes(), want) {
		t.Errorf("the response of %d bytes differs", len(data))
	}
	if _, err := s.Outboard(t.Context(), hashOf(data)); err != nil {
		t.Error(err)
	}
}

func TestReferenceEmpty(t *testing.T) {
	s := open(t, tempPath(t), nil)
	refer(t, s, newFile(t, nil))
	mustHave(t, s, nil)
	mustBeStored(t, s, nil, cairn.Complete, 0, 0)
	if count(t, s, "path") != 0 {
		t.Error("the path of an empty file is recorded")
	}
	mustBeSound(t, s)
}

// TestReferencePaths: a relative path becomes absolute, a symbolic link stays one, and
// a name is any bytes.
func TestReferencePaths(t *testing.T) {
	s := open(t, tempPath(t), nil)
	dir := t.TempDir()
	data := content(1, 200_000)
	writeFile(t, filepath.Join(dir, "file"), data)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	odd := writeFile(t, filepath.Join(dir, "\xff\xfe '\n%"), content(2, 1000))
	t.Chdir(dir)
	refer(t, s, "link")
	refer(t, s, "\xff\xfe '\n%")
	var paths []string
	for _, data := range [][]byte{data, content(2, 1000)} {
		of, err := s.Paths(t.Context(), hashOf(data))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, of...)
	}
	if !slices.Equal(paths, []string{link, odd}) {
		t.Errorf("paths %q", paths)
	}
	t.Chdir("/")
	mustHave(t, s, data)
	mustHave(t, s, content(2, 1000))
	mustBeSound(t, s)
}

func TestReferenceRefused(t *testing.T) {
	s := open(t, tempPath(t), nil)
	dir := t.TempDir()
	fifo := makeFIFO(t, dir)
	for path, want := range map[string]error{
		filepath.Join(dir, "absent"): fs.ErrNotExist,
		dir:                          cairn.ErrMismatch,
		fifo:                         cairn.ErrMismatch,
		os.DevNull:                   cairn.ErrMismatch,
		"/proc/self/status":          cairn.ErrMismatch,
		"/proc/cpuinfo":              cairn.ErrMismatch,
	} {
		_, err := s.AddFile(t.Context(), path, byReference)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage/enabled"); err == nil { // says that it has 4096 bytes
		_, err := s.AddFile(t.Context(), "/sys/kernel/mm/transparent_hugepage/enabled", byReference)
		mustBe(t, err, cairn.ErrMismatch)
	}
	_, err := s.Add(t.Context(), bytes.NewReader(nil), byReference)
	mustBe(t, err, cairn.ErrMismatch)
	_, err = s.AddBytes(t.Context(), []byte("x"), byReference)
	mustBe(t, err, cairn.ErrMismatch)
	_, err = s.AddFile(t.Context(), newFile(t, []byte("x")), &cairn.AddOptions{Mode: 7})
	mustBe(t, err, cairn.ErrMismatch)
	mustBeEmpty(t, s)

	path := tempPath(t)
	own := open(t, path, nil)
	for _, ending := range []string{"", "-wal", "-shm", "-lock"} {
		_, err := own.AddFile(t.Context(), path+ending, byReference)
		mustBe(t, err, cairn.ErrConflict)
	}
	own.Close()
	reader := open(t, path, &cairn.Options{ReadOnly: true})
	_, err = reader.AddFile(t.Context(), newFile(t, []byte("x")), byReference)
	mustBe(t, err, cairn.ErrReadOnly)
}

// TestAddFileOptions: options that make no sense are refused before a byte is read.
func TestAddFileOptions(t *testing.T) {
	s := open(t, tempPath(t), nil)
	file := newFile(t, content(1, 200_001))
	for _, mode := range []cairn.Mode{cairn.Copy, cairn.Reference} {
		for name, opts := range map[string]cairn.AddOptions{
			"two tags":     {Tag: "x", AutoTag: true},
			"format":       {Format: 7},
			"long name":    {Tag: strings.Repeat("x", 5000)},
			"odd sequence": {Format: cairn.HashSeq},
		} {
			opts.Mode = mode
			opts.Progress = func(p cairn.Progress) { t.Errorf("%s: %+v", name, p) }
			if _, err := s.AddFile(t.Context(), file, &opts); !errors.Is(err, cairn.ErrMismatch) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	mustBeEmpty(t, s)
}

// TestReferenceChanging changes a file while it is hashed.
func TestReferenceChanging(t *testing.T) {
	data := content(3, 70*cairn.SegmentSize) // some of its tiles are staged by then
	for name, change := range map[string]func(path string) error{
		"grows": func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write([]byte("more"))
			return errors.Join(err, f.Close())
		},
		"shrinks":  func(path string) error { return os.Truncate(path, 69*cairn.SegmentSize) },
		"touched":  func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 5)) },
		"replaced": func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, data, 0o600)) },
		"removed":  os.Remove,
	} {
		s := open(t, tempPath(t), nil)
		path := newFile(t, data)
		changed := false
		_, err := s.AddFile(t.Context(), path, &cairn.AddOptions{Mode: cairn.Reference, Progress: func(p cairn.Progress) {
			if p.Phase == cairn.Hashing && p.Bytes >= 65*cairn.SegmentSize && !changed {
				changed = true
				if err := change(path); err != nil {
					t.Error(err)
				}
			}
		}})
		if want := cairn.ErrMismatch; name == "removed" {
			mustBe(t, err, fs.ErrNotExist)
		} else if !changed || !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		mustBeEmpty(t, s)
	}
}

// TestReferenceCancelled cancels in each phase.
func TestReferenceCancelled(t *testing.T) {
	data := content(3, 70*cairn.SegmentSize)
	path := newFile(t, data)
	for _, at := range []int{1, 30, 70} {
		s := open(t, tempPath(t), nil)
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		_, err := s.AddFile(ctx, path, &cairn.AddOptions{Mode: cairn.Reference, Progress: func(p cairn.Progress) {
			if seen++; seen == at {
				cancel()
			} else if seen > at {
				t.Errorf("cancelled at %d, and then %+v", at, p)
			}
		}})
		mustBe(t, err, context.Canceled)
		mustBeEmpty(t, s)
	}
}

// TestNamingCancelled ends who waits for another one to name a file.
func TestNamingCancelled(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data, other := content(1, 300_000), content(2, 300_000)
	add(t, s, data)
	file, target := newFile(t, other), filepath.Join(t.TempDir(), "target")
	release := s.HoldNaming()
	for name, f := range map[string]func(ctx context.Context) error{
		"export": func(ctx context.Context) error { return s.Export(ctx, hashOf(data), target, moveOut) },
		"reference": func(ctx context.Context) error {
			_, err := s.AddFile(ctx, file, byReference)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	release()
	mustHoldOnly(t, filepath.Dir(target))
	mustExport(t, s, data, target, moveOut)
	refer(t, s, file)
	mustBeSound(t, s)
}

// TestReadBlocks cancels while a read does not end.
func TestReadBlocks(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	read := io.MultiReader(bytes.NewReader(make([]byte, cairn.SegmentSize)), cancelReader(cancel), r)
	mustBe(t, cairn.EachSegment(ctx, read, func([]byte) error { return nil }), context.Canceled)
}

func TestReferenceProgress(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const size = 5*cairn.SegmentSize + 7
	file := newFile(t, content(3, size))
	for _, mode := range []cairn.Mode{cairn.Reference, cairn.Copy} {
		phase := cairn.Copying
		if mode == cairn.Reference {
			phase = cairn.Hashing
		}
		pairs := (bao.Groups(size) - 1) * bao.PairSize
		var got []cairn.Progress
		tag, err := s.AddFile(t.Context(), file, &cairn.AddOptions{Mode: mode, Progress: func(p cairn.Progress) { got = append(got, p) }})
		if err != nil {
			t.Fatal(err)
		}
		tag.Release()
		var want []cairn.Progress
		for n := int64(1); n <= 5; n++ {
			want = append(want, cairn.Progress{Phase: phase, Bytes: n * cairn.SegmentSize, Total: size})
		}
		want = append(want, cairn.Progress{Phase: phase, Bytes: size, Total: size},
			cairn.Progress{Phase: cairn.Outboarding, Total: pairs}, cairn.Progress{Phase: cairn.Outboarding, Bytes: pairs, Total: pairs})
		if !slices.Equal(got, want) {
			t.Errorf("mode %v:\n%+v\nwant\n%+v", mode, got, want)
		}
	}
}

// TestReferenceAgain: what is in the database stays there, and what is outside gets
// one more path, or a new record of the one it has.
func TestReferenceAgain(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(1, 300_000)
	add(t, s, data)
	one, two := newFile(t, data), newFile(t, data)
	refer(t, s, one)
	mustBeStored(t, s, data, cairn.Complete, len(data), 0)
	if count(t, s, "path") != 0 {
		t.Error("a path is recorded of what is in the database")
	}
	if err := s.Delete(t.Context(), hashOf(data)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{one, two, one} {
		refer(t, s, path)
	}
	mustBeStored(t, s, data, cairn.Complete, 0, len(data))
	if n := count(t, s, "path"); n != 2 {
		t.Errorf("%d paths", n)
	}
	mustBeSound(t, s)
}

// TestReferenceCompletes: a file takes the place of what is there of a partial blob.
func TestReferenceCompletes(t *testing.T) {
	for _, size := range []int{200_000, 66 * cairn.SegmentSize} { // staged or not
		s := open(t, tempPath(t), nil)
		data := content(1, size)
		importRanges(t, s, data, "0..64")
		refer(t, s, newFile(t, data))
		mustBeStored(t, s, data, cairn.Complete, 0, size)
		mustHave(t, s, data)
		if count(t, s, "row") != 0 || count(t, s, "presence") != 0 {
			t.Error("something of the partial blob is left")
		}
		mustBeSound(t, s)
	}
}

// TestReferenceUnreadable: a directory that cannot be read, and so not be synced, is
// no reason to refuse a file in it.
func TestReferenceUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads every directory")
	}
	s := open(t, tempPath(t), nil)
	data := content(1, 200_000)
	file := newFile(t, data)
	if err := os.Chmod(filepath.Dir(file), 0o300); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Dir(file), 0o700) })
	refer(t, s, file)
	mustHave(t, s, data)
}

// TestAddBringsIn: content that is only in a file comes into the database when it
// is added, with an open handle beside it, and with owners and keys that have it.
func TestAddBringsIn(t *testing.T) {
	for _, size := range []int{100, 300_000, 3 * cairn.SegmentSize} {
		s := open(t, tempPath(t), nil)
		data := content(1, size)
		file := newFile(t, data)
		refer(t, s, file)
		if err := s.Owner("x").AddBlob(t.Context(), hashOf(data)); err != nil {
			t.Fatal(err)
		}
		b, err := s.Blob(t.Context(), hashOf(data))
		if err != nil {
			t.Fatal(err)
		}
		add(t, s, data)
		mustBeStored(t, s, data, cairn.Complete, size, 0)
		if count(t, s, "path") != 0 || count(t, s, "blob") != 1 {
			t.Error("something of the file is left")
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes read, %v", len(got), size, err)
		}
		b.Close()
		mustHave(t, s, data)
		if u, err := s.Owner("x").Usage(t.Context()); err != nil || u.Bytes != int64(size) {
			t.Errorf("%+v, %v", u, err)
		}
		mustBeSound(t, s)
	}
}

// TestReferenceFails has the sync of the last commit fail: it may be durable or not.
func TestReferenceFails(t *testing.T) {
	path := tempPath(t)
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, []byte("before"))
	if err := s.BreakSync(); err != nil {
		t.Fatal(err)
	}
	data := content(1, 300_000)
	if _, err := s.AddFile(t.Context(), newFile(t, data), byReference); err == nil {
		t.Error("acknowledged without a sync")
	}
	s.Close()
	s = open(t, path, nil)
	if st, err := s.Status(t.Context(), hashOf(data)); err != nil {
		t.Error(err)
	} else if st.State != cairn.Absent {
		mustHave(t, s, data)
	}
	mustBeSound(t, s)
}

// TestReferenceNotCommitted has the commit fail: nothing is left.
func TestReferenceNotCommitted(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(1, 70*cairn.SegmentSize)
	file := newFile(t, data)
	s.BreakBegin(true)
	if tag, err := s.AddFile(t.Context(), file, byReference); err == nil {
		t.Errorf("added %v", tag.Hash())
	}
	s.BreakBegin(false)
	mustBeEmpty(t, s)
	refer(t, s, file)
	mustHave(t, s, data)
	if n := count(t, s, "blob"); n != 1 {
		t.Error(fmt.Sprint(n, " blobs"))
	}
}
