package cairn_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn"
	"lukechampine.com/blake3"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// open opens a store that must close without an error and be sound then.
func open(t testing.TB, path string, opts *cairn.Options) *cairn.Store {
	t.Helper()
	s, err := cairn.Open(t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func tempPath(t testing.TB) string {
	return filepath.Join(t.TempDir(), "cairn.db")
}

// content returns n pseudo-random bytes, the same for the same seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	src.Read(b)
	return b
}

func hashOf(b []byte) cairn.Hash { return cairn.Hash(blake3.Sum256(b)) }

// add stores content without keeping it protected.
func add(t testing.TB, s *cairn.Store, b []byte) cairn.Hash {
	t.Helper()
	tag, err := s.AddBytes(t.Context(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tag.Release()
	if tag.Hash() != hashOf(b) {
		t.Fatalf("hash of %d bytes is %v, want %v", len(b), tag.Hash(), hashOf(b))
	}
	return tag.Hash()
}

// read returns a blob's content.
func read(ctx context.Context, s *cairn.Store, h cairn.Hash) ([]byte, error) {
	b, err := s.Blob(ctx, h)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}

func mustHave(t testing.TB, s *cairn.Store, want []byte) {
	t.Helper()
	got, err := read(t.Context(), s, hashOf(want))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes differ from the %d that were added", len(got), len(want))
	}
}

// mustBeSound fails the test for every problem that Check finds.
// mustNotHave makes sure that there is no blob of a content.
func mustNotHave(t testing.TB, s *cairn.Store, content []byte) {
	t.Helper()
	if st, err := s.Status(t.Context(), hashOf(content)); err != nil || st.State != cairn.Absent {
		t.Fatalf("blob %v: %+v, %v", hashOf(content), st, err)
	}
}

func mustBeSound(t testing.TB, s *cairn.Store) {
	t.Helper()
	for p, err := range s.Check(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		t.Error(p)
	}
}

func mustBe(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// sql runs statements on a database that no store has open.
func sql(t testing.TB, path, text string) {
	t.Helper()
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := sqlitex.ExecuteScript(conn, text, nil); err != nil {
		t.Fatal(err)
	}
}

// count returns the number of a table's rows.
func count(t testing.TB, s *cairn.Store, table string) int64 {
	t.Helper()
	n, err := s.Count(t.Context(), `"`+table+`"`)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// makeImage writes the compressed image of a small database, once: an image
// of a version that has landed is never written again.
func makeImage(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(name); err == nil {
		return
	}
	path := tempPath(t)
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range imageBlobs {
		add(t, s, b)
	}
	importRanges(t, s, imagePartial, imagePartialRanges)
	makeImagePieces(t, s)
	makeImageTags(t, s)
	makeImageOutside(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(image)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func gunzip(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
