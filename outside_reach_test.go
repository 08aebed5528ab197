package cairn_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn"
)

// TestFileOutOfReach has a file that cannot be opened for a while, for a reason that
// says nothing of what it has: nothing is given up for that.
func TestFileOutOfReach(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(1, 100_000)
	dir := t.TempDir()
	path := writeFile(t, filepath.Join(dir, "file"), data)
	refer(t, s, path)
	away := filepath.Join(dir, "away")
	if err := errors.Join(os.Rename(path, away), os.Symlink(path, path)); err != nil { // a loop
		t.Fatal(err)
	}
	if _, err := read(t.Context(), s, hashOf(data)); err == nil || errors.Is(err, cairn.ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Scrub(t.Context(), nil); err == nil || errors.Is(err, cairn.ErrCorrupt) {
		t.Errorf("scrub: %v", err)
	}
	mustBeStored(t, s, data, cairn.Complete, 0, len(data))
	if err := os.Rename(away, path); err != nil {
		t.Fatal(err)
	}
	mustHave(t, s, data)
	// Another file that has the content is read instead.
	refer(t, s, writeFile(t, filepath.Join(dir, "other"), data))
	if err := errors.Join(os.Remove(path), os.Symlink(path, path)); err != nil {
		t.Fatal(err)
	}
	mustHave(t, s, data)
}
