package cairn_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// mustLose reads a blob to where it fails, with an error that names exactly these
// groups, and sees that they are absent then and all others are not.
func mustLose(t *testing.T, s *cairn.Store, data []byte, groups ...int64) {
	t.Helper()
	var ranges []cairn.ByteRange
	var lost bao.Ranges
	for _, g := range groups {
		start := g * bao.GroupSize
		end := start + int64(bao.GroupLen(int64(len(data)), g))
		if n := len(ranges); n > 0 && ranges[n-1].End == start {
			ranges[n-1].End = end
		} else {
			ranges = append(ranges, cairn.ByteRange{Start: start, End: end})
		}
		lost = lost.Union(bao.Bytes(uint64(start), uint64(end)))
	}
	got, err := read(t.Context(), s, hashOf(data))
	var c *cairn.CorruptError
	if !errors.As(err, &c) || !slices.Equal(c.Ranges, ranges) {
		t.Fatalf("%v, want the ranges %v", err, ranges)
	}
	if int64(len(got)) != ranges[0].Start || !bytes.Equal(got, data[:len(got)]) {
		t.Errorf("%d bytes before the first that is lost, of %d", len(got), ranges[0].Start)
	}
	present, err := s.Ranges(t.Context(), hashOf(data))
	if all := bao.Chunks(0, bao.ChunkCount(int64(len(data)))); err != nil || all.Minus(present).String() != lost.String() {
		t.Errorf("%v present (%v), all but %v wanted", present, err, lost)
	}
	_, err = read(t.Context(), s, hashOf(data))
	mustBe(t, err, cairn.ErrMissing)
	mustReadRanges(t, s, data)
	mustBeSound(t, s)
}

// complete fetches what a blob lacks, as from a peer.
func complete(t *testing.T, s *cairn.Store, data []byte) {
	t.Helper()
	for want, err := range s.Missing(t.Context(), cairn.HashAndFormat{Hash: hashOf(data)}) {
		if err != nil {
			t.Fatal(err)
		}
		response, _ := newSeed(t, data).response(t, want.Ranges)
		if err := s.ImportBao(t.Context(), want.Hash, want.Ranges, bytes.NewReader(response)); err != nil {
			t.Fatal(err)
		}
	}
	mustHave(t, s, data)
	mustBeSound(t, s)
}

// every returns the groups from first to before end.
func every(first, end int64) (groups []int64) {
	for g := first; g < end; g++ {
		groups = append(groups, g)
	}
	return groups
}

// TestFileChanges changes a file in every way, between two reads of it. What is
// lost is exactly what the file has not any more; when that has been fetched, the
// blob is complete again, in part outside.
func TestFileChanges(t *testing.T) {
	const groups = 150
	const size = (groups-1)*bao.GroupSize + 77
	data := content(5, size)
	elsewhere := filepath.Join(t.TempDir(), "moved")
	for name, tt := range map[string]struct {
		change func(path string) error
		lost   []int64
	}{
		"first": {func(p string) error { spoil(t, p, 0); return nil }, []int64{0}},
		"last":  {func(p string) error { spoil(t, p, size-1); return nil }, []int64{groups - 1}},
		"two": {func(p string) error {
			spoil(t, p, 70*bao.GroupSize)
			spoil(t, p, 71*bao.GroupSize-1)
			spoil(t, p, 64*bao.GroupSize+5)
			return nil
		}, []int64{64, 70}},
		"neighbour": {func(p string) error { spoil(t, p, 63*bao.GroupSize); spoil(t, p, 64*bao.GroupSize); return nil }, []int64{63, 64}},
		"shorter":   {func(p string) error { return os.Truncate(p, 100*bao.GroupSize-1) }, every(99, groups)},
		"empty":     {func(p string) error { return os.Truncate(p, 0) }, every(0, groups)},
		"removed":   {os.Remove, every(0, groups)},
		"moved":     {func(p string) error { return os.Rename(p, elsewhere) }, every(0, groups)},
		"directory": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, every(0, groups)},
		"replaced":  {func(p string) error { return errors.Join(os.Remove(p), os.WriteFile(p, content(6, size), 0o600)) }, every(0, groups)},
		"dangling":  {func(p string) error { return errors.Join(os.Remove(p), os.Symlink(p+"-no", p)) }, every(0, groups)},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, tempPath(t), nil)
			path := newFile(t, data)
			refer(t, s, path)
			mustHave(t, s, data)
			if err := tt.change(path); err != nil {
				t.Fatal(err)
			}
			mustLose(t, s, data, tt.lost...)
			lost := 0
			for _, g := range tt.lost {
				lost += bao.GroupLen(size, g)
			}
			mustBeStored(t, s, data, cairn.Partial, 0, size-lost)
			if n := count(t, s, "path"); n == 1 != (lost < size) {
				t.Errorf("%d paths for %d bytes", n, size-lost)
			}
			complete(t, s, data)
			mustBeStored(t, s, data, cairn.Complete, lost, size-lost)
			mustReadAnyhow(t, s, data)
		})
	}
}

// TestFileUnchanged: nothing is lost where the file still has the bytes.
func TestFileUnchanged(t *testing.T) {
	data := content(5, 300_000)
	for name, change := range map[string]func(path string) error{
		"touched":  func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(5, 0)) },
		"replaced": func(p string) error { return errors.Join(os.Remove(p), os.WriteFile(p, data, 0o600)) },
		"longer":   func(p string) error { return os.WriteFile(p, append(bytes.Clone(data), "more"...), 0o600) },
		"a link":   func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Symlink(p+"2", p)) },
	} {
		s := open(t, tempPath(t), nil)
		path := newFile(t, data)
		refer(t, s, path)
		mustHave(t, s, data)
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t.Context(), s, hashOf(data)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		mustBeStored(t, s, data, cairn.Complete, 0, len(data))
		mustBeSound(t, s)
	}
}

// TestTwoFiles has each of two files be damaged in other places. Nothing is lost
// before one of them is gone.
func TestTwoFiles(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const size = 100*bao.GroupSize + 5
	data := content(5, size)
	one, two := newFile(t, data), newFile(t, data)
	refer(t, s, one)
	refer(t, s, two)
	for g := int64(0); g < 100; g++ {
		path := one
		if g/3%2 == 0 {
			path = two
		}
		spoil(t, path, g*bao.GroupSize+g)
	}
	mustHave(t, s, data)
	mustReadAnyhow(t, s, data)
	if err := os.Truncate(two, 50*bao.GroupSize); err != nil {
		t.Fatal(err)
	}
	var lost []int64
	for g := int64(50); g < 100; g++ {
		if g/3%2 == 1 {
			lost = append(lost, g)
		}
	}
	mustLose(t, s, data, lost...)
	complete(t, s, data)
	// A good file again: it is tried where the others are wrong.
	three := newFile(t, data)
	refer(t, s, three)
	mustHave(t, s, data)
	for _, path := range []string{one, two} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	mustHave(t, s, data)
	mustBeSound(t, s)
}

// TestFileLostReadOnly: who may not write notices too, and changes nothing.
func TestFileLostReadOnly(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	data := content(5, 300_000)
	file := newFile(t, data)
	refer(t, s, file)
	s.Close()
	if err := os.Truncate(file, 10*bao.GroupSize); err != nil {
		t.Fatal(err)
	}
	reader := open(t, path, &cairn.Options{ReadOnly: true})
	for range 2 {
		_, err := read(t.Context(), reader, hashOf(data))
		mustBeCorrupt(t, err, hashOf(data), 10*bao.GroupSize, 300_000)
	}
	mustBeStored(t, reader, data, cairn.Complete, 0, len(data))
	n := 0
	for p, err := range reader.Check(t.Context(), nil) {
		if n++; err != nil || p.Kind != "path" || p.Hash != hashOf(data) {
			t.Errorf("%v, %v", p, err)
		}
	}
	if n != 1 {
		t.Errorf("Check found %d problems", n)
	}
}

// TestFileLostOnce: who may not write looks at the blob as a whole again only if it,
// or a file, looks other than before. Many readers look together.
func TestFileLostOnce(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	data := content(5, 300_000)
	h, file := hashOf(data), newFile(t, data)
	refer(t, s, file)
	s.Close()
	spoil(t, file, 2*bao.GroupSize)
	spoil(t, file, 5*bao.GroupSize)
	reader := open(t, path, &cairn.Options{ReadOnly: true})
	b := must(reader.Blob(t.Context(), h))
	defer b.Close()
	mustFail := func(ranges ...cairn.ByteRange) {
		t.Helper()
		_, err := b.ReadAt(make([]byte, 10), 2*bao.GroupSize)
		var c *cairn.CorruptError
		if !errors.As(err, &c) || !slices.Equal(c.Ranges, ranges) {
			t.Errorf("%v, want %v", err, ranges)
		}
	}
	one := cairn.ByteRange{Start: 2 * bao.GroupSize, End: 3 * bao.GroupSize}
	two := cairn.ByteRange{Start: 5 * bao.GroupSize, End: 6 * bao.GroupSize}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { mustFail(one, two) })
	}
	wg.Wait()
	spoil(t, file, 5*bao.GroupSize) // is whole again, which nobody can see
	mustFail(one, two)
	if err := os.Chtimes(file, time.Time{}, time.Unix(5, 0)); err != nil {
		t.Fatal(err)
	}
	mustFail(one)
	mustFail(one)

	spoil(t, file, 2*bao.GroupSize)
	if _, err := b.ReadAt(make([]byte, 10), 2*bao.GroupSize); err != nil {
		t.Error(err)
	}
}

// TestFileLostElsewhere: each way of reading notices.
func TestFileLostElsewhere(t *testing.T) {
	data := content(5, 300_000)
	for name, use := range map[string]func(s *cairn.Store) error{
		"ExportBao": func(s *cairn.Store) error { return s.ExportBao(t.Context(), hashOf(data), bao.All(), io.Discard) },
		"Export": func(s *cairn.Store) error {
			return s.Export(t.Context(), hashOf(data), filepath.Join(t.TempDir(), "x"), nil)
		},
		"piece": func(s *cairn.Store) error {
			_, err := must(s.OpenPiece(t.Context(), "key")).ReadAt(make([]byte, 100), 250_000)
			return err
		},
	} {
		s := open(t, tempPath(t), nil)
		putPiece(t, s, "key", data, nil)
		add(t, s, data)
		file := filepath.Join(t.TempDir(), "file")
		if err := s.Export(t.Context(), hashOf(data), file, &cairn.ExportOptions{Mode: cairn.Reference}); err != nil {
			t.Fatal(err)
		}
		mustRead(t, must(s.OpenPiece(t.Context(), "key")), data)
		if err := os.Truncate(file, 10*bao.GroupSize); err != nil {
			t.Fatal(err)
		}
		if err := use(s); !errors.Is(err, cairn.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		// What the piece is written with is in rows.
		mustBeStored(t, s, data, cairn.Partial, 10*bao.GroupSize, 0)
	}
}

// TestOpenHandle has what it reads go outside, come back, and be lost.
func TestOpenHandle(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(5, 3*cairn.SegmentSize)
	h := add(t, s, data)
	b, err := s.Blob(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	mustReadAll := func() {
		t.Helper()
		p := make([]byte, len(data))
		if n, err := b.ReadAt(p, 0); n < len(p) || err != nil && err != io.EOF || !bytes.Equal(p, data) {
			t.Errorf("%d bytes read, %v", n, err)
		}
	}
	mustReadAll()
	target := filepath.Join(t.TempDir(), "target")
	if err := s.Export(t.Context(), h, target, &cairn.ExportOptions{Mode: cairn.Reference}); err != nil {
		t.Fatal(err)
	}
	mustReadAll()
	spoil(t, target, 20*bao.GroupSize)
	_, err = b.ReadAt(make([]byte, 10), 20*bao.GroupSize)
	mustBeCorrupt(t, err, h, 20*bao.GroupSize, 21*bao.GroupSize)
	_, err = b.ReadAt(make([]byte, 10), 20*bao.GroupSize)
	mustBe(t, err, cairn.ErrMissing)
	complete(t, s, data)
	mustReadAll()
	add(t, s, data)
	if err := os.Remove(target); err != nil {
		t.Fatal(err)
	}
	mustReadAll()
	mustBeSound(t, s)
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestOpenHandleMoved has what it reads go outside, or lose a group, and be added
// anew, between two reads: it goes on with what has taken its place.
func TestOpenHandleMoved(t *testing.T) {
	data := content(5, 3*cairn.SegmentSize)
	h := hashOf(data)
	for name, change := range map[string]func(s *cairn.Store, file string){
		"moved out": func(s *cairn.Store, file string) {
			mustExport(t, s, data, file, moveOut)
		},
		"moved out, added": func(s *cairn.Store, file string) {
			mustExport(t, s, data, file, moveOut)
			add(t, s, data)
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
		"damaged, added": func(s *cairn.Store, _ string) {
			script(t, s, `update "row" set data = zeroblob(16384) where id = (1 << 26) + 30`)
			if bad, err := s.Recheck(t.Context(), h); err != nil || bad.IsEmpty() {
				t.Fatalf("%v, %v", bad, err)
			}
			add(t, s, data)
		},
	} {
		for how, use := range map[string]func(s *cairn.Store, change func()) error{
			"ReadAt": func(s *cairn.Store, change func()) error {
				b, err := s.Blob(t.Context(), h)
				if err != nil {
					return err
				}
				defer b.Close()
				change()
				p := make([]byte, len(data))
				if n, err := b.ReadAt(p, 0); n < len(p) || !bytes.Equal(p, data) {
					return fmt.Errorf("%d bytes: %w", n, err)
				}
				return nil
			},
			"ExportBao": func(s *cairn.Store, change func()) error {
				var response bytes.Buffer
				w := writerFunc(func(b []byte) (int, error) {
					if change != nil {
						change()
						change = nil
					}
					return response.Write(b)
				})
				err := s.ExportBao(t.Context(), h, bao.All(), w)
				if want, _ := newSeed(t, data).response(t, bao.All()); err == nil && !bytes.Equal(response.Bytes(), want) {
					err = errors.New("the response differs")
				}
				return err
			},
		} {
			s := open(t, tempPath(t), nil)
			add(t, s, data)
			if err := use(s, func() { change(s, filepath.Join(t.TempDir(), "file")) }); err != nil {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			mustBeSound(t, s)
		}
	}
}

// TestMadeAbsent has a group of a blob in the database be found damaged, and made
// absent, while a handle is open that has seen it complete.
func TestMadeAbsent(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(5, 300_000)
	h := add(t, s, data)
	b, err := s.Blob(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	script(t, s, `update "row" set data = zeroblob(16384) where id = (1 << 26) + 3`)
	if bad, err := s.Recheck(t.Context(), h); err != nil || bad.String() != "48..64" {
		t.Fatalf("%v, %v", bad, err)
	}
	for range 2 {
		_, err = b.ReadAt(make([]byte, 10), 3*bao.GroupSize)
		mustBe(t, err, cairn.ErrMissing)
	}
	complete(t, s, data)
	if _, err = b.ReadAt(make([]byte, 10), 3*bao.GroupSize); err != nil {
		t.Error(err)
	}
}

// TestManyFiles reads more files at once than are kept open.
func TestManyFiles(t *testing.T) {
	s := open(t, tempPath(t), nil)
	var wg sync.WaitGroup
	for i := range 100 {
		refer(t, s, newFile(t, content(uint64(i), 100_000)))
	}
	for range 2 {
		for i := range 100 {
			wg.Go(func() {
				data := content(uint64(i), 100_000)
				if got, err := read(t.Context(), s, hashOf(data)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d: %v", i, err)
				}
			})
		}
	}
	wg.Wait()
	if files, users := s.OpenFiles(); files > 32 || users != 0 {
		t.Errorf("%d files open, %d users", files, users)
	}
	s.TidyFiles()
	s.TidyFiles()
	if files, _ := s.OpenFiles(); files != 0 {
		t.Errorf("%d files open that nobody uses", files)
	}
	mustHave(t, s, content(1, 100_000))
	s.Close()
	if files, _ := s.OpenFiles(); files != 0 {
		t.Errorf("%d files open after Close", files)
	}
}

// TestOwnFileOutside has a path of a damaged database name the database itself,
// which must never be opened and closed.
func TestOwnFileOutside(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	data := content(5, 300_000)
	file := newFile(t, data)
	refer(t, s, file)
	if err := errors.Join(os.Remove(file), os.Symlink(path, file)); err != nil {
		t.Fatal(err)
	}
	_, err := read(t.Context(), s, hashOf(data))
	mustBe(t, err, cairn.ErrCorrupt)
	mustBe(t, err, cairn.ErrConflict)
}

// TestCheckOutside makes damage to what is noted of files.
func TestCheckOutside(t *testing.T) {
	for _, text := range []string{
		`delete from "path"`,
		`insert into "path" ("blob", "path", "size", "mtime", "inode") values (77, x'2f', 1, 1, 1)`,
		`update "blob" set "external" = "external" - 1, "stored" = "stored" + 1`,
		`update "blob" set "external" = 0, "stored" = "size"`,
		`update "path" set "path" = x'2f6e6f'`,
		`insert into "row" values (1 << 26, zeroblob(16384))`,
		`update "usage" set "external" = 5`,
	} {
		s := open(t, tempPath(t), nil)
		refer(t, s, newFile(t, content(5, 300_000)))
		mustBeSound(t, s)
		script(t, s, text)
		if problems(t, s) == 0 {
			t.Errorf("Check found nothing after: %s", text)
		}
	}
}
