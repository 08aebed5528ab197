package cairn_test

import (
	"bytes"
	"context"
	"io"
	"math/rand"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn"
	"lukechampine.com/blake3"
)

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	for _, path := range []string{filepath.Join(t.TempDir(), "a.db"), ":memory:", ""} {
		s, err := cairn.Open(ctx, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewSource(1))
		for _, n := range []int{0, 1, 1023, 1024, 1025, 16383, 16384, 16385, 32768, 65536, 65537, 1 << 20, 1<<20 + 1, 5<<20 + 77, 65 << 20, 65<<20 + 5} {
			b := make([]byte, n)
			rnd.Read(b)
			tag, err := s.AddBytes(ctx, b, nil)
			if err != nil {
				t.Fatal(n, err)
			}
			if want := cairn.Hash(blake3.Sum256(b)); tag.Hash() != want {
				t.Fatalf("%d: %v want %v", n, tag.Hash(), want)
			}
			bl, err := s.Blob(ctx, tag.Hash())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(bl)
			if err != nil || !bytes.Equal(got, b) {
				t.Fatal(n, err, len(got))
			}
			bl.Close()
		}
		for p, err := range s.Check(ctx, nil) {
			t.Error(p, err)
		}
		st, err := s.Stats(ctx)
		t.Logf("%+v %v", st, err)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
