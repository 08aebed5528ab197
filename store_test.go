package cairn_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
)

func TestOpenCreates(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	for _, name := range []string{path, path + "-wal", path + "-shm", path + "-lock"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %v", name, mode)
		}
	}
	add(t, s, []byte("x"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 {
		t.Errorf("Close left %v", names)
	}
	header, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := int(header[16])<<8 | int(header[17]); got != cairn.PageSize {
		t.Errorf("page size %d", got)
	}
	if header[67] != 1 {
		t.Error("not in incremental vacuum mode")
	}
	if got := string(header[68:72]); got != "Cair" {
		t.Errorf("application id %q", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	foreign := func(path string) { sql(t, makeFile(t, path, ""), "create table t(x); pragma application_id = 7;") }
	tests := []struct {
		name     string
		make     func(path string)
		want     error
		readOnly bool // refused for reading as well
	}{
		{"text", func(p string) { makeFile(t, p, strings.Repeat("no database\n", 500)) }, cairn.ErrNotCairn, true},
		{"short", func(p string) { makeFile(t, p, "x") }, cairn.ErrNotCairn, true},
		{"foreign application", foreign, cairn.ErrNotCairn, true},
		{"stranger without an id", func(p string) { sql(t, makeFile(t, p, ""), "create table t(x)") }, cairn.ErrNotCairn, true},
		{"newer schema", func(p string) {
			empty(t, p)
			sql(t, p, "pragma user_version = 999")
		}, cairn.ErrNewerSchema, true},
		{"damaged magic", func(p string) { damage(t, p, 0, "XX") }, cairn.ErrCorrupt, true},
		{"damaged page size", func(p string) { damage(t, p, 16, "\x00\x03") }, cairn.ErrCorrupt, true},
		{"damaged schema page", func(p string) { damage(t, p, 100, strings.Repeat("\xff", 3000)) }, cairn.ErrCorrupt, true},
		{"missing table", func(p string) {
			empty(t, p)
			sql(t, p, "drop view blobs; drop table outboard")
		}, cairn.ErrCorrupt, false},
		{"directory", func(p string) { os.Mkdir(p, 0o700) }, cairn.ErrNotCairn, true},
		{"device", func(p string) { os.Symlink(os.DevNull, p) }, cairn.ErrNotCairn, true},
		{"no write permission", func(p string) {
			empty(t, p)
			os.Chmod(p, 0o400)
		}, cairn.ErrReadOnly, false},
		{"missing directory", func(p string) { os.Remove(filepath.Dir(p)) }, fs.ErrNotExist, true},
		{"below a file", func(p string) {
			os.Remove(filepath.Dir(p))
			makeFile(t, filepath.Dir(p), "")
		}, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "d", "cairn.db")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			tt.make(path)
			before, _ := os.ReadFile(path)
			for _, readOnly := range []bool{false, true} {
				s, err := cairn.Open(t.Context(), path, &cairn.Options{ReadOnly: readOnly})
				if err == nil {
					s.Close()
					if !readOnly || tt.readOnly {
						t.Errorf("read-only %v: opened", readOnly)
					}
					continue
				}
				if tt.want != nil {
					mustBe(t, err, tt.want)
				}
				if !strings.Contains(err.Error(), path) {
					t.Errorf("error does not name the file: %v", err)
				}
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
			if _, err := os.Stat(path + "-lock"); err == nil {
				t.Error("a lock file was left")
			}
		})
	}
}

func makeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// empty makes an empty store.
func empty(t *testing.T, path string) {
	t.Helper()
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func damage(t *testing.T, path string, off int64, text string) {
	t.Helper()
	empty(t, path)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), off); err != nil {
		t.Fatal(err)
	}
}

func TestOpenEmptyFile(t *testing.T) {
	path := makeFile(t, tempPath(t), "")
	s := open(t, path, nil)
	add(t, s, []byte("x"))
	mustBeSound(t, s)
}

func TestOpenMissing(t *testing.T) {
	path := tempPath(t)
	_, err := cairn.Open(t.Context(), path, &cairn.Options{ReadOnly: true})
	mustBe(t, err, cairn.ErrNotFound)
	mustBe(t, err, fs.ErrNotExist)
	if _, err := os.Stat(path); err == nil {
		t.Error("reading made a database")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = cairn.Open(ctx, path, nil)
	mustBe(t, err, context.Canceled)
}

func TestLocked(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	h := add(t, s, []byte("x"))
	link := filepath.Join(filepath.Dir(path), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		_, err := cairn.Open(t.Context(), name, nil)
		mustBe(t, err, cairn.ErrLocked)
		var locked *cairn.LockedError
		if !errors.As(err, &locked) || locked.PID != os.Getpid() {
			t.Errorf("%v does not name process %d", err, os.Getpid())
		}
	}
	reader := open(t, link, &cairn.Options{ReadOnly: true})
	if got, err := read(t.Context(), reader, h); err != nil || string(got) != "x" {
		t.Errorf("read %q, %v", got, err)
	}
	later := add(t, s, []byte("y"))
	if _, err := read(t.Context(), reader, later); err != nil {
		t.Errorf("a reader does not see a later write: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t.Context(), reader, later); err != nil {
		t.Errorf("a reader lost the store with its writer: %v", err)
	}
	again := open(t, path, nil)
	mustBeSound(t, again)
}

// TestLockedByProcess has the store held by another process, which dies.
func TestLockedByProcess(t *testing.T) {
	path := tempPath(t)
	child := startChild(t, "hold", path)
	_, err := cairn.Open(t.Context(), path, nil)
	mustBe(t, err, cairn.ErrLocked)
	if want := fmt.Sprint("pid ", child.cmd.Process.Pid); !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %q", err, want)
	}
	reader := open(t, path, &cairn.Options{ReadOnly: true})
	mustHave(t, reader, []byte("held"))
	reader.Close()
	child.kill(t)
	s := open(t, path, nil)
	mustHave(t, s, []byte("held"))
	mustBeSound(t, s)
}

// TestOpenRace opens one database that does not exist yet from several
// processes at once. One gets it, the others are told who has it.
func TestOpenRace(t *testing.T) {
	path := tempPath(t)
	var wg sync.WaitGroup
	winners := make(chan *child, 4)
	for range cap(winners) {
		wg.Go(func() { winners <- startChild(t, "tryhold", path) })
	}
	wg.Wait()
	close(winners)
	held := 0
	for c := range winners {
		switch text := c.stdout.Text(); {
		case text == "ready":
			held++
		case !strings.Contains(text, "locked"):
			t.Errorf("the loser got: %s", text)
		}
	}
	if held != 1 {
		t.Errorf("%d processes have the store", held)
	}
}

func TestReadOnly(t *testing.T) {
	path := tempPath(t)
	w := open(t, path, nil)
	h := add(t, w, []byte("x"))
	w.Close()
	s := open(t, path, &cairn.Options{ReadOnly: true})
	mustHave(t, s, []byte("x"))
	mustBeSound(t, s)
	_, err := s.AddBytes(t.Context(), []byte("y"), nil)
	mustBe(t, err, cairn.ErrReadOnly)
	mustBe(t, s.Delete(t.Context(), h), cairn.ErrReadOnly)
	for _, path := range []string{"", ":memory:"} {
		_, err := cairn.Open(t.Context(), path, &cairn.Options{ReadOnly: true})
		mustBe(t, err, cairn.ErrReadOnly)
	}
}

func TestReadOnlyLeavesNothing(t *testing.T) {
	path := tempPath(t)
	empty(t, path)
	s := open(t, path, &cairn.Options{ReadOnly: true})
	mustBeSound(t, s)
	s.Close()
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("a reader left %v", names)
	}
}

func TestPrivateStores(t *testing.T) {
	for _, path := range []string{"", ":memory:"} {
		t.Run(path, func(t *testing.T) {
			s, other := open(t, path, nil), open(t, path, nil)
			big := content(1, 3<<20+5)
			add(t, s, big)
			mustHave(t, s, big)
			mustBeSound(t, s)
			if st, err := other.Status(t.Context(), hashOf(big)); err != nil || st.State != cairn.Absent {
				t.Errorf("another store sees the blob: %v, %v", st, err)
			}
			if err := s.Delete(t.Context(), hashOf(big)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTemporaryStoreIsRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s := open(t, "", nil)
	add(t, s, []byte("x"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("Close left %v", names)
	}
}

func TestClosed(t *testing.T) {
	for _, path := range []string{tempPath(t), ":memory:"} {
		ctx := t.Context()
		s, err := cairn.Open(ctx, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		h := add(t, s, content(1, 100_000))
		b, err := s.Blob(ctx, h)
		if err != nil {
			t.Fatal(err)
		}
		tag := s.TempTag(cairn.HashAndFormat{Hash: h})
		for range 2 {
			if err := s.Close(); !errors.Is(err, cairn.ErrConflict) || !strings.Contains(err.Error(), h.String()) {
				t.Errorf("Close with an open reader: %v", err)
			}
		}
		buf := make([]byte, 10)
		for name, call := range map[string]func() error{
			"Add":      func() error { _, err := s.Add(ctx, strings.NewReader("y"), nil); return err },
			"AddBytes": func() error { _, err := s.AddBytes(ctx, []byte("y"), nil); return err },
			"AddLarge": func() error { _, err := s.AddBytes(ctx, content(1, 9<<20), nil); return err },
			"Blob":     func() error { _, err := s.Blob(ctx, h); return err },
			"Status":   func() error { _, err := s.Status(ctx, h); return err },
			"Delete":   func() error { return s.Delete(ctx, h) },
			"Outboard": func() error { _, err := s.Outboard(ctx, h); return err },
			"Export":   func() error { return s.Export(ctx, h, filepath.Join(t.TempDir(), "f"), nil) },
			"Stats":    func() error { _, err := s.Stats(ctx); return err },
			"Blobs":    func() error { return firstError(s.Blobs(ctx, nil)) },
			"Check":    func() error { return firstError(s.Check(ctx, nil)) },
			"ReadAt":   func() error { _, err := b.ReadAt(buf, 0); return err },
			"Read":     func() error { _, err := b.Read(buf); return err },
			"AddFile":  func() error { _, err := s.AddFile(ctx, "absent", nil); return err },
			"Seek":     func() error { _, err := b.Seek(0, io.SeekStart); return err },
			"WriteTo":  func() error { _, err := b.WriteTo(io.Discard); return err },
		} {
			if err := call(); !errors.Is(err, cairn.ErrClosed) || !errors.Is(err, fs.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
		b.Close()
		tag.Release()
	}
}

func firstError[T any](seq func(yield func(T, error) bool)) (first error) {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestSqliteShell shows that a person can see what is in a database.
func TestSqliteShell(t *testing.T) {
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("sqlite3 is not installed")
	}
	path := tempPath(t)
	s := open(t, path, nil)
	h := add(t, s, content(1, 100_000))
	query := func(text string) string {
		out, err := exec.Command(shell, path, text).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", text, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, when := range []string{"open", "closed"} {
		got := query("select hash, size, readable_size, state, stored from blobs")
		if want := h.String() + "|100000|97.7 KiB|complete|100000"; got != want {
			t.Errorf("while %s: %q, want %q", when, got, want)
		}
		if got := query("select created like '20__-__-__ __:__:__' and last_used like '20__-__-__ __:__:__' from blobs"); got != "1" {
			t.Errorf("while %s: times are not readable", when)
		}
		if got := query("pragma integrity_check"); got != "ok" {
			t.Errorf("while %s: %s", when, got)
		}
		s.Close()
	}
}

func TestStats(t *testing.T) {
	s := open(t, tempPath(t), nil)
	add(t, s, nil)
	add(t, s, content(1, 5000))
	h := add(t, s, content(2, 3<<20))
	if err := s.Delete(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Blobs != 2 || st.Partial != 0 || st.Bytes != 5000 || st.StoredBytes != 5000 || st.SchemaVersion != len(cairn.Migrations) {
		t.Errorf("%+v", st)
	}
	if st.FileBytes < 3<<20 || st.FreeBytes < 3<<20 || st.WALBytes == 0 {
		t.Errorf("%+v", st)
	}
}
