package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

var moveOut = &cairn.ExportOptions{Mode: cairn.Reference}

func mustExport(t testing.TB, s *cairn.Store, data []byte, target string, opts *cairn.ExportOptions) {
	t.Helper()
	if err := s.Export(t.Context(), hashOf(data), target, opts); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("exported %d bytes of %d, %v", len(got), len(data), err)
	}
}

func mustHavePaths(t testing.TB, s *cairn.Store, data []byte, want ...string) {
	t.Helper()
	got, err := s.Paths(t.Context(), hashOf(data))
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("paths %q (%v), want %q", got, err, want)
	}
}

// mustHoldOnly makes sure that there is nothing else in a directory, such as a
// temporary file.
func mustHoldOnly(t testing.TB, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%s has %q (%v), want %q", dir, names, err, want)
	}
}

// TestMoveOut: of 128 KiB and more, the file is all that there is afterwards.
func TestMoveOut(t *testing.T) {
	const limit = 128 << 10
	for _, size := range []int{0, 1, limit - 1, limit, 300_000, (3*cairn.DropGroups + 5) * bao.GroupSize} {
		s := open(t, tempPath(t), nil)
		data := content(1, size)
		add(t, s, data)
		dir := t.TempDir()
		target := filepath.Join(dir, "new", "dirs", "target")
		mustExport(t, s, data, target, moveOut)
		mustHoldOnly(t, filepath.Dir(target), "target")
		if size < limit {
			mustBeStored(t, s, data, cairn.Complete, size, 0)
			mustHavePaths(t, s, data)
		} else {
			mustBeStored(t, s, data, cairn.Complete, 0, size)
			mustHavePaths(t, s, data, target)
			if count(t, s, "row") != 0 {
				t.Errorf("%d bytes: rows are left", size)
			}
		}
		mustHave(t, s, data)
		mustBeSound(t, s)
		// Once more, to another place: that is one more path.
		second := filepath.Join(dir, "second")
		mustExport(t, s, data, second, moveOut)
		third := filepath.Join(dir, "third") // a copy is none
		mustExport(t, s, data, third, nil)
		if size >= limit {
			mustHavePaths(t, s, data, second, target)
			if err := os.Remove(target); err != nil {
				t.Fatal(err)
			}
		}
		mustHave(t, s, data)
		mustBeSound(t, s)
	}
}

// TestExportOverOwnPath replaces a file by its like, and records what it is then.
func TestExportOverOwnPath(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(1, 300_000)
	target := newFile(t, data)
	refer(t, s, target)
	for _, opts := range []*cairn.ExportOptions{nil, moveOut} {
		if err := os.Chtimes(target, time.Now(), time.Now()); err != nil { // not as it is recorded
			t.Fatal(err)
		}
		mustExport(t, s, data, target, opts)
		mustBeStored(t, s, data, cairn.Complete, 0, len(data))
		mustHavePaths(t, s, data, target)
		if n, err := s.StalePaths(t.Context()); err != nil || n != 0 {
			t.Errorf("%d files are not as they are recorded, %v", n, err)
		}
		mustHave(t, s, data)
		mustBeSound(t, s)
	}
	// A good group of one file and one of the other make a good file.
	other := newFile(t, data)
	refer(t, s, other)
	spoil(t, other, 5)
	spoil(t, target, 250_000)
	mustExport(t, s, data, target, nil)
	mustHave(t, s, data)
}

// TestExportOverOther: the data of another blob must not be destroyed, by whatever
// name.
func TestExportOverOther(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data, other := content(1, 300_000), content(2, 300_000)
	dir := t.TempDir()
	file := writeFile(t, filepath.Join(dir, "file"), data)
	link, hard, below := filepath.Join(dir, "link"), filepath.Join(dir, "hard"), filepath.Join(dir, "below")
	if err := errors.Join(os.Link(file, hard), os.Symlink("file", link), os.Symlink(dir, below)); err != nil {
		t.Fatal(err)
	}
	add(t, s, other)
	for _, named := range []string{file, link, filepath.Join(below, "file")} {
		refer(t, s, named)
		for _, target := range []string{file, hard, filepath.Join(below, "file"), filepath.Join(dir, "x", "..", "file")} {
			for _, opts := range []*cairn.ExportOptions{nil, moveOut} {
				if err := s.Export(t.Context(), hashOf(other), target, opts); !errors.Is(err, cairn.ErrConflict) {
					t.Errorf("%s is referenced, and the export to %s: %v", named, target, err)
				}
			}
		}
		mustHave(t, s, data)
		mustBeStored(t, s, other, cairn.Complete, len(other), 0)
		if err := s.Delete(t.Context(), hashOf(data)); err != nil {
			t.Fatal(err)
		}
	}
	mustHoldOnly(t, dir, "below", "file", "hard", "link")
	mustExport(t, s, other, file, moveOut) // nobody has it now
	mustBeSound(t, s)
}

func TestExportRefused(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	data := content(1, 300_000)
	h := add(t, s, data)
	dir := t.TempDir()
	fifo := makeFIFO(t, dir)
	for _, mode := range []cairn.Mode{cairn.Copy, cairn.Reference} {
		for _, target := range []string{dir, fifo, os.DevNull, path, path + "-wal", path + "-shm", path + "-lock", path + "-journal"} {
			mustBe(t, s.Export(t.Context(), h, target, &cairn.ExportOptions{Mode: mode}), cairn.ErrConflict)
		}
		if err := s.Export(t.Context(), h, "/proc/no-such-file", &cairn.ExportOptions{Mode: mode}); err == nil {
			t.Error("exported to /proc, where nothing can be written")
		}
		err := s.Export(t.Context(), h, filepath.Join(dir, string(bytes.Repeat([]byte("x"), 300))), &cairn.ExportOptions{Mode: mode})
		mustBe(t, err, syscall.ENAMETOOLONG)
	}
	mustBe(t, s.Export(t.Context(), h, filepath.Join(dir, "x"), &cairn.ExportOptions{Mode: 9}), cairn.ErrMismatch)
	partial := content(2, 300_000)
	importRanges(t, s, partial, "0..16")
	mustBe(t, s.Export(t.Context(), hashOf(partial), filepath.Join(dir, "x"), moveOut), cairn.ErrMissing)
	mustHoldOnly(t, dir, "fifo")
	mustBeStored(t, s, data, cairn.Complete, len(data), 0)
	mustBeSound(t, s)
	s.Close()

	reader := open(t, path, &cairn.Options{ReadOnly: true})
	mustBe(t, reader.Export(t.Context(), h, filepath.Join(dir, "x"), moveOut), cairn.ErrReadOnly)
	mustExport(t, reader, data, filepath.Join(dir, "x"), nil)
}

// onTmpfs returns a directory of its own file system.
func onTmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// TestExportElsewhere exports to another file system: one that is full, and one
// that may not be written. What was at the target stays, and so does the blob.
func TestExportElsewhere(t *testing.T) {
	s := open(t, tempPath(t), nil)
	small, large := content(1, 300_000), content(2, 4<<20)
	add(t, s, small)
	add(t, s, large)
	dir := onTmpfs(t, "size=2m")
	target := writeFile(t, filepath.Join(dir, "target"), []byte("old"))
	for _, opts := range []*cairn.ExportOptions{nil, moveOut} {
		err := s.Export(t.Context(), hashOf(large), target, opts)
		mustBe(t, err, cairn.ErrFull)
		mustBe(t, err, syscall.ENOSPC)
	}
	mustExport(t, s, small, filepath.Join(dir, "small"), moveOut)
	if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount read-only: %v: %s", err, out)
	}
	for _, opts := range []*cairn.ExportOptions{nil, moveOut} {
		mustBe(t, s.Export(t.Context(), hashOf(large), target, opts), syscall.EROFS)
	}
	mustHoldOnly(t, dir, "small", "target")
	if got, err := os.ReadFile(target); err != nil || string(got) != "old" {
		t.Errorf("%q at the target, %v", got, err)
	}
	mustBeStored(t, s, large, cairn.Complete, len(large), 0)
	mustHave(t, s, large)
	mustHave(t, s, small)
	refer(t, s, target) // what can only be read can be referenced
	mustHave(t, s, []byte("old"))
	mustBeSound(t, s)
	s.Close() // it has files open there
}

// TestExportCancelled leaves what was there.
func TestExportCancelled(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(1, 20<<20)
	add(t, s, data)
	dir := t.TempDir()
	target := writeFile(t, filepath.Join(dir, "target"), []byte("old"))
	for _, mode := range []cairn.Mode{cairn.Copy, cairn.Reference} {
		for _, at := range []int64{1 << 20, 7 << 20, 20 << 20} {
			ctx, cancel := context.WithCancel(t.Context())
			err := s.Export(ctx, hashOf(data), target, &cairn.ExportOptions{Mode: mode, Progress: func(p cairn.Progress) {
				if p.Bytes > at {
					t.Errorf("cancelled at %d, and then %+v", at, p)
				}
				if p.Total != int64(len(data)) || p.Phase != cairn.Copying {
					t.Errorf("%+v", p)
				}
				if p.Bytes == at {
					cancel()
				}
			}})
			mustBe(t, err, context.Canceled)
			mustHoldOnly(t, dir, "target")
			if got, err := os.ReadFile(target); err != nil || string(got) != "old" {
				t.Errorf("%d bytes at the target, %v", len(got), err)
			}
			mustBeStored(t, s, data, cairn.Complete, len(data), 0)
		}
	}
	mustBeSound(t, s)
}

// TestMoveOutFails fails in the commit that names the file, without it and with it,
// and in one of those that remove rows. The file is whole, and the blob reads.
func TestMoveOutFails(t *testing.T) {
	data := content(1, (cairn.DropGroups+5)*bao.GroupSize)
	fail := map[string]func(s *cairn.Store) error{
		"not committed": func(s *cairn.Store) error {
			return s.ExecScript(t.Context(), `create temp trigger broken before insert on main."path" begin select raise(abort, 'broken'); end`)
		},
		"committed, not synced": func(s *cairn.Store) error { return s.BreakSync() },
		"in the middle": func(s *cairn.Store) error {
			return s.ExecScript(t.Context(), `create temp trigger broken before update on main."path" begin select raise(abort, 'broken'); end`)
		},
	}
	for name, fail := range fail {
		path := tempPath(t)
		s, err := cairn.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		add(t, s, data)
		if err := fail(s); err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(t.TempDir(), "target")
		if err := s.Export(t.Context(), hashOf(data), target, moveOut); err == nil {
			t.Errorf("%s: no error", name)
		}
		if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes at the target, %v", name, len(got), err)
		}
		mustHave(t, s, data)
		s.Close()
		s = open(t, path, nil)
		mustHave(t, s, data)
		mustBeSound(t, s)
		mustExport(t, s, data, target, moveOut)
		mustBeStored(t, s, data, cairn.Complete, 0, len(data))
		mustBeSound(t, s)
	}
}

// TestMovedPiece: a piece whose bytes are outside reads, and has them again when it
// is written to.
func TestMovedPiece(t *testing.T) {
	data := content(1, 300_000)
	for name, change := range map[string]func(p *cairn.Piece) error{
		"Incomplete": func(p *cairn.Piece) error { return p.Incomplete(t.Context()) },
		"WriteAt": func(p *cairn.Piece) error {
			_, err := p.WriteAt(data[1000:2000], 1000)
			return err
		},
		"WriteBlocks": func(p *cairn.Piece) error {
			return p.WriteBlocks(cairn.Block{Off: 0, Data: data[:1000]}, cairn.Block{Off: 250_000, Data: data[250_000:]})
		},
	} {
		for _, shared := range []bool{false, true} {
			s := open(t, tempPath(t), nil)
			putPiece(t, s, "key", data, &cairn.PieceOptions{Owner: "x"})
			if shared {
				putPiece(t, s, "other", data, nil)
			}
			target := filepath.Join(t.TempDir(), "target")
			mustExport(t, s, data, target, moveOut)
			if u, err := s.Owner("x").Usage(t.Context()); err != nil || u.Bytes != 0 {
				t.Errorf("%s: %+v, %v", name, u, err)
			}
			p := must(s.OpenPiece(t.Context(), "key"))
			mustRead(t, p, data)
			if err := change(p); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := os.Remove(target); err != nil {
				t.Fatal(err)
			}
			mustRead(t, p, data)
			if c, err := p.Completion(t.Context()); err != nil || c.State != cairn.Partial || c.Stored != int64(len(data)) {
				t.Errorf("%s: %+v, %v", name, c, err)
			}
			mustBeSound(t, s)
			completePiece(t, p, data)
			if shared {
				mustRead(t, must(s.OpenPiece(t.Context(), "other")), data)
			}
			mustBeStored(t, s, data, cairn.Complete, len(data), 0)
			mustHave(t, s, data)
			mustBeSound(t, s)
		}
	}
}

// TestMovedPieceManyWriters has many write to a piece that is outside, where there is
// room for one copy beside it.
func TestMovedPieceManyWriters(t *testing.T) {
	const size = 8 << 20
	s := open(t, tempPath(t), &cairn.Options{Capacity: 20 << 20})
	data := content(1, size)
	putPiece(t, s, "key", data, nil)
	mustExport(t, s, data, filepath.Join(t.TempDir(), "file"), moveOut)
	mustBeStored(t, s, data, cairn.Complete, 0, size)
	p := must(s.OpenPiece(t.Context(), "key"))
	var wg sync.WaitGroup
	for i := range 8 {
		off := i << 20
		wg.Go(func() {
			data[off] ^= 1
			if _, err := p.WriteAt(data[off:off+100], int64(off)); err != nil {
				t.Errorf("at %d: %v", off, err)
			}
		})
	}
	wg.Wait()
	mustRead(t, p, data)
	mustBeSound(t, s)
}

// TestPieceOverFile: what was written to a piece is not given up for a file.
func TestPieceOverFile(t *testing.T) {
	data := content(1, 300_000)
	for _, put := range []bool{false, true} {
		s := open(t, tempPath(t), nil)
		file := newFile(t, data)
		putPiece(t, s, "first", data, nil)
		mustExport(t, s, data, file, moveOut)
		if put {
			if _, err := s.PutPiece(t.Context(), "key", bytes.NewReader(data), -1, nil); err != nil {
				t.Fatal(err)
			}
		} else {
			putPiece(t, s, "key", data, nil)
		}
		mustBeStored(t, s, data, cairn.Complete, len(data), 0)
		mustHavePaths(t, s, data)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"first", "key"} {
			mustRead(t, must(s.OpenPiece(t.Context(), key)), data)
		}
		mustBeSound(t, s)
	}
}

// TestMoveOutCapacity: what is outside makes room.
func TestMoveOutCapacity(t *testing.T) {
	s := open(t, tempPath(t), &cairn.Options{Capacity: 1 << 20})
	dir := t.TempDir()
	for i := range 5 {
		data := content(uint64(i), 900_000)
		add(t, s, data)
		mustExport(t, s, data, filepath.Join(dir, fmt.Sprint(i)), moveOut)
	}
	for i := range 5 {
		mustHave(t, s, content(uint64(i), 900_000))
	}
	u, err := s.Usage(t.Context())
	if err != nil || u.Used != 0 {
		t.Errorf("%+v, %v", u, err)
	}
	mustBeSound(t, s)
}

// TestClone exports what is outside by clones, such as btrfs and XFS can make them.
// What a clone has is verified, and where it is not right there is a copy.
func TestClone(t *testing.T) {
	data := content(1, 70*cairn.SegmentSize+7)
	for name, tt := range map[string]struct {
		clone func(dst, src *os.File) error
		kinds []cairn.Phase
	}{
		"right": {func(dst, src *os.File) error {
			_, err := io.Copy(dst, io.NewSectionReader(src, 0, 1<<40))
			return err
		}, []cairn.Phase{cairn.Hashing}},
		"wrong": {func(dst, src *os.File) error {
			_, err := dst.WriteAt(bytes.Repeat([]byte("x"), 80<<20), 0)
			return err
		}, []cairn.Phase{cairn.Hashing, cairn.Copying}},
		"half": {func(dst, src *os.File) error {
			dst.WriteAt([]byte("half"), 1000)
			return syscall.EOPNOTSUPP
		}, []cairn.Phase{cairn.Copying}},
	} {
		t.Cleanup(cairn.CloneBy(tt.clone))
		s := open(t, tempPath(t), nil)
		file := newFile(t, data)
		refer(t, s, file)
		if err := os.WriteFile(file, append(bytes.Clone(data), "more"...), 0o600); err != nil {
			t.Fatal(err)
		}
		var kinds []cairn.Phase
		for _, mode := range []cairn.Mode{cairn.Copy, cairn.Reference} {
			kinds = nil
			mustExport(t, s, data, filepath.Join(t.TempDir(), "clone"), &cairn.ExportOptions{Mode: mode, Progress: func(p cairn.Progress) {
				if p.Total != int64(len(data)) {
					t.Errorf("%+v", p)
				}
				kinds = slices.Compact(append(kinds, p.Phase))
			}})
			if !slices.Equal(kinds, tt.kinds) {
				t.Errorf("%s: phases %v, want %v", name, kinds, tt.kinds)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		target := filepath.Join(t.TempDir(), "cancelled")
		mustBe(t, s.Export(ctx, hashOf(data), target, &cairn.ExportOptions{Progress: func(cairn.Progress) { cancel() }}), context.Canceled)
		mustHoldOnly(t, filepath.Dir(target))
		mustBeSound(t, s)
	}
}

// TestExportBesideReads moves a blob out while it is being read.
func TestExportBesideReads(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(1, (cairn.DropGroups+5)*bao.GroupSize)
	h := add(t, s, data)
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		for {
			b, err := s.Blob(t.Context(), h)
			if err == nil {
				_, err = b.WriteTo(io.Discard)
				b.Close()
			}
			select {
			case <-stop:
				done <- err
				return
			default:
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 2 {
		mustExport(t, s, data, filepath.Join(t.TempDir(), "target"), moveOut)
		add(t, s, data)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	mustBeSound(t, s)
}

// TestExportRace has two blobs moved to the same target at the same time, while a
// third one is referenced there: whoever has the file keeps it.
func TestExportRace(t *testing.T) {
	s := open(t, tempPath(t), nil)
	dir := t.TempDir()
	blobs := [][]byte{content(1, 200_000), content(2, 200_000), content(3, 200_000)}
	for round := range 20 {
		target := writeFile(t, filepath.Join(dir, fmt.Sprint(round)), blobs[2])
		var wg sync.WaitGroup
		for _, data := range blobs[:2] {
			add(t, s, data)
			wg.Go(func() {
				if err := s.Export(t.Context(), hashOf(data), target, moveOut); err != nil {
					mustBe(t, err, cairn.ErrConflict)
				}
			})
		}
		wg.Go(func() {
			tag, err := s.AddFile(t.Context(), target, byReference)
			if err != nil {
				mustBe(t, err, cairn.ErrMismatch)
				return
			}
			tag.Release()
			if tag.Hash() == hashOf(blobs[2]) {
				mustHave(t, s, blobs[2])
			}
		})
		wg.Wait()
		for _, data := range blobs[:2] {
			mustHave(t, s, data)
		}
		mustBeSound(t, s)
		for info, err := range s.Blobs(t.Context(), nil) {
			if _, readErr := read(t.Context(), s, info.Hash); err != nil || readErr != nil {
				t.Fatalf("round %d: %v, %v", round, err, readErr)
			}
			if err := s.Delete(t.Context(), info.Hash); err != nil {
				t.Fatal(err)
			}
		}
	}
}
