package cairn_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
