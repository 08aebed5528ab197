package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
)

func TestFiles(t *testing.T) {
	s := open(t, tempPath(t), nil)
	dir := t.TempDir()
	data := content(4, 3<<20+5)
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tag, err := s.AddFile(t.Context(), source, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tag.Release()
	target := filepath.Join(dir, "a", "b", "target")
	var last int64
	opts := &cairn.ExportOptions{Progress: func(p cairn.Progress) { last = p.Bytes }}
	for range 2 { // made, then replaced
		if err := s.Export(t.Context(), tag.Hash(), target, opts); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, data) {
			t.Errorf("exported %d bytes, %v", len(got), err)
		}
		if last != int64(len(data)) {
			t.Errorf("last progress %d", last)
		}
		if err := os.Chmod(target, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode of a replaced file: %v, %v", info.Mode(), err)
	}
	if names, _ := os.ReadDir(filepath.Dir(target)); len(names) != 1 {
		t.Errorf("Export left %v", names)
	}
}

func TestFilesRefused(t *testing.T) {
	s := open(t, ":memory:", nil)
	dir := t.TempDir()
	_, err := s.AddFile(t.Context(), filepath.Join(dir, "absent"), nil)
	mustBe(t, err, fs.ErrNotExist)
	_, err = s.AddFile(t.Context(), dir, nil)
	mustBe(t, err, cairn.ErrMismatch)
	_, err = s.AddFile(t.Context(), os.DevNull, nil)
	mustBe(t, err, cairn.ErrMismatch)
	h := add(t, s, []byte("x"))
	mustBe(t, s.Export(t.Context(), h, dir, nil), cairn.ErrConflict)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(os.DevNull, link); err != nil {
		t.Fatal(err)
	}
	mustBe(t, s.Export(t.Context(), h, link, nil), cairn.ErrConflict)
	mustBe(t, s.Export(t.Context(), h, os.DevNull, nil), cairn.ErrConflict)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mustBe(t, s.Export(ctx, h, filepath.Join(dir, "cancelled"), nil), context.Canceled)
	file := filepath.Join(dir, "file")
	if err := s.Export(t.Context(), h, file, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Export(t.Context(), h, filepath.Join(file, "below"), nil); err == nil {
		t.Error("exported below a file")
	}
}

// TestExportDamaged leaves what was there when the blob turns out damaged.
func TestExportDamaged(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	h := add(t, s, content(4, 3<<20))
	if err := s.Exec(t.Context(), `update "row" set data = zeroblob(16384) where id & 0xffff = 150`); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustBe(t, s.Export(t.Context(), h, target, nil), cairn.ErrCorrupt)
	if got, err := os.ReadFile(target); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
	if names, _ := os.ReadDir(filepath.Dir(target)); len(names) != 1 {
		t.Errorf("Export left %v", names)
	}
	b, err := s.Blob(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	n, err := b.WriteTo(io.Discard)
	mustBe(t, err, cairn.ErrCorrupt)
	if n != 150*16384 {
		t.Errorf("%d bytes before the damage", n)
	}
}

// TestOwnFiles: a store must neither replace its own files nor read them.
func TestOwnFiles(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	h := add(t, s, []byte("x"))
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm", path + "-journal", path + "-lock", link} {
		mustBe(t, s.Export(t.Context(), h, name, nil), cairn.ErrConflict)
		_, err := s.AddFile(t.Context(), name, nil)
		mustBe(t, err, cairn.ErrConflict)
	}
	below := filepath.Join(t.TempDir(), "dir")
	if err := os.Symlink(filepath.Dir(path), below); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		filepath.Join(below, filepath.Base(path)+"-journal"): true, // not there
		path + "-other":                        false,
		filepath.Join(below, "no", "such"):     false,
		filepath.Join(t.TempDir(), "cairn.db"): false,
	} {
		if got := s.Owns(name); got != want {
			t.Errorf("Owns(%q) is %v", name, got)
		}
	}
	mustBeSound(t, s)
}

// locksOn returns how many locks there are on a file, of whomever.
func locksOn(t *testing.T, path string) (n int) {
	t.Helper()
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Skip("the system does not tell of locks")
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(locks), fmt.Sprintf(":%d ", cairn.InodeOf(info)))
}

// TestOwnFilesByOtherNames: no name leads to a database that this process has open,
// and so none of its locks is lost.
func TestOwnFilesByOtherNames(t *testing.T) {
	path, other := tempPath(t), tempPath(t)
	s, second := open(t, path, nil), open(t, other, nil)
	add(t, s, []byte("x"))
	add(t, second, []byte("y"))
	elsewhere := t.TempDir()
	below := filepath.Join(filepath.Dir(path), "below")
	if err := errors.Join(os.Mkdir(below, 0o700), os.Symlink(below, filepath.Join(elsewhere, "link")),
		os.Link(path, filepath.Join(elsewhere, "hard"))); err != nil {
		t.Fatal(err)
	}
	want := []int{locksOn(t, path), locksOn(t, path+"-shm"), locksOn(t, other)}
	t.Chdir(elsewhere)
	for _, name := range []string{
		elsewhere + "/link/../cairn.db", "link/../cairn.db", "link/../cairn.db-wal", elsewhere + "/link/../cairn.db-shm",
		"hard", other, other + "-wal", other + "-shm", other + "-lock",
	} {
		if !s.Owns(name) {
			t.Errorf("%s is not owned", name)
		}
		for _, mode := range []cairn.Mode{cairn.Copy, cairn.Reference} {
			_, err := s.AddFile(t.Context(), name, &cairn.AddOptions{Mode: mode})
			mustBe(t, err, cairn.ErrConflict)
		}
		mustBe(t, cairn.OpenRegular(name), cairn.ErrConflict) // it came to be there after the check
	}
	if !s.Owns(elsewhere + "/link/../cairn.db-journal") {
		t.Error("what is not there is not owned")
	}
	if got := []int{locksOn(t, path), locksOn(t, path+"-shm"), locksOn(t, other)}; !slices.Equal(got, want) {
		t.Errorf("locks %v, before %v", got, want)
	}
	second.Close()
	if s.Owns(other) {
		t.Error("owned after Close")
	}
}
