package cairn_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// TestExportOverSaved: a referenced file that has been saved again, and so is another
// one with the same content, must not be replaced by another name either.
func TestExportOverSaved(t *testing.T) {
	data, other := content(1, 300_000), content(2, 300_000)
	for name, at := range map[string]struct{ named, target string }{
		"link to its directory": {"below/file", "dir/file"},
		"link to it":            {"link", "dir/file"},
		"by another link":       {"dir/file", "below/file"},
		"two links":             {"below/file", "again/file"},
		"moved out":             {"below/moved", "dir/moved"},
	} {
		s := open(t, tempPath(t), nil)
		dir := t.TempDir()
		in := func(name string) string { return filepath.Join(dir, name) }
		if err := errors.Join(os.Mkdir(in("dir"), 0o700), os.Symlink("dir", in("below")), os.Symlink("below", in("again")),
			os.Symlink("dir/file", in("link"))); err != nil {
			t.Fatal(err)
		}
		add(t, s, other)
		if name == "moved out" {
			add(t, s, data)
			mustExport(t, s, data, in(at.named), moveOut)
		} else {
			writeFile(t, in("dir/file"), data)
			refer(t, s, in(at.named))
		}
		saved := writeFile(t, in("saved"), data)
		if err := os.Rename(saved, in(at.target)); err != nil {
			t.Fatal(err)
		}
		for _, opts := range []*cairn.ExportOptions{nil, moveOut} {
			if err := s.Export(t.Context(), hashOf(other), in(at.target), opts); !errors.Is(err, cairn.ErrConflict) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for path, want := range map[string]bool{in(at.target): true, in(at.named): true, in("dir/other"): false, in("dir"): false} {
			if is, err := s.IsReferenced(t.Context(), path); err != nil || is != want {
				t.Errorf("%s: %s is referenced: %v, %v", name, path, is, err)
			}
		}
		mustExport(t, s, data, in(at.target), nil) // its own may be replaced
		mustHave(t, s, data)
		mustBeSound(t, s)
		if err := s.Delete(t.Context(), hashOf(data)); err != nil {
			t.Fatal(err)
		}
		if is, err := s.IsReferenced(t.Context(), in(at.target)); err != nil || is {
			t.Errorf("%s: referenced when nobody has it: %v, %v", name, is, err)
		}
		mustExport(t, s, other, in(at.target), moveOut)
	}
}

// TestMoveOutChanged has the file that a blob is being moved to be changed after the
// first commit that removes rows: no more of them go.
func TestMoveOutChanged(t *testing.T) {
	data := content(1, (2*cairn.DropGroups+5)*bao.GroupSize)
	for name, change := range map[string]func(path string) error{
		"shorter":  func(path string) error { return os.Truncate(path, 5) },
		"removed":  os.Remove,
		"replaced": func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, data, 0o600)) },
	} {
		s := open(t, tempPath(t), nil)
		add(t, s, data)
		target := filepath.Join(t.TempDir(), "target")
		err := s.OnWriter(t.Context(), func(conn *sqlite.Conn) error {
			return conn.CreateFunction("change", &sqlite.FunctionImpl{
				NArgs:  0,
				Scalar: func(sqlite.Context, []sqlite.Value) (sqlite.Value, error) { return sqlite.Value{}, change(target) },
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		script(t, s, `create temp trigger changing after insert on main."path" begin select change(); end`)
		if err := s.Export(t.Context(), hashOf(data), target, moveOut); !errors.Is(err, cairn.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
		moved := cairn.DropGroups * bao.GroupSize
		mustBeStored(t, s, data, cairn.Complete, len(data)-moved, moved)
		b, err := s.Blob(t.Context(), hashOf(data))
		if err != nil {
			t.Fatal(err)
		}
		rest := make([]byte, len(data)-moved)
		if _, err := b.ReadAt(rest, int64(moved)); err != nil && err != io.EOF || !bytes.Equal(rest, data[moved:]) {
			t.Errorf("%s: what is in the database: %v", name, err)
		}
		b.Close()
	}
}
