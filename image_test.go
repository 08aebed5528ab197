package cairn_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
)

// imageChildren and imageOutside are in the images of version 4 and later: two
// blobs that only a tagged sequence keeps, and one that a file had which is gone.
var (
	imageChildren = [][]byte{pattern(300), pattern(20_000)}
	imageOutside  = pattern(200_000)
	imageExpires  = time.Unix(4_000_000_000, 5)
)

// imagePath is where that file was.
const imagePath = "/cairn-image/outside"

func makeImageTags(t *testing.T, s *cairn.Store) {
	t.Helper()
	var hashes []cairn.Hash
	for _, b := range imageChildren {
		hashes = append(hashes, add(t, s, b))
	}
	seq, err := s.AddHashSeq(t.Context(), slices.Values(hashes), &cairn.AddOptions{Tag: "sequence"})
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Release()
	absent := cairn.HashAndFormat{Hash: hashOf([]byte("absent"))}
	if err := errors.Join(
		s.SetTag(t.Context(), "", absent, nil),
		s.SetTag(t.Context(), "expires\xff", absent, &cairn.TagOptions{Expires: imageExpires}),
	); err != nil {
		t.Fatal(err)
	}
}

func checkImageTags(t *testing.T, s *cairn.Store) {
	t.Helper()
	var names []string
	for tag, err := range s.Tags(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, tag.Name)
		if tag.Name == "expires\xff" && !tag.Expires.Equal(imageExpires) {
			t.Errorf("expires %v", tag.Expires)
		}
	}
	if !slices.Equal(names, []string{"", "expires\xff", "sequence"}) {
		t.Errorf("tags %q", names)
	}
	for _, b := range imageChildren {
		if err := s.Delete(t.Context(), hashOf(b)); !errors.Is(err, cairn.ErrConflict) {
			t.Errorf("a child was deleted: %v", err)
		}
		mustHave(t, s, b)
	}
	if _, err := s.GC(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for _, b := range imageChildren {
		mustHave(t, s, b)
	}
}

func makeImageOutside(t *testing.T, s *cairn.Store) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(path, imageOutside, 0o600); err != nil {
		t.Fatal(err)
	}
	tag, err := s.AddFile(t.Context(), path, &cairn.AddOptions{Mode: cairn.Reference, Tag: "sequence/outside"})
	if err != nil {
		t.Fatal(err)
	}
	tag.Release()
	if err := errors.Join(s.DeleteTag(t.Context(), "sequence/outside"),
		s.Exec(t.Context(), `update "path" set "path" = cast('`+imagePath+`' as blob)`)); err != nil {
		t.Fatal(err)
	}
}

func checkImageOutside(t *testing.T, s *cairn.Store) {
	t.Helper()
	hash := hashOf(imageOutside)
	st, err := s.Status(t.Context(), hash)
	if err != nil || st.State != cairn.Complete || st.External != int64(len(imageOutside)) || st.Stored != 0 {
		t.Errorf("outside: %+v, %v", st, err)
	}
	if _, err := read(t.Context(), s, hash); !errors.Is(err, cairn.ErrCorrupt) {
		t.Errorf("read of a file that is gone: %v", err)
	}
	if st, err := s.Status(t.Context(), hash); err != nil || st.State != cairn.Partial {
		t.Errorf("outside: %+v, %v", st, err)
	}
	add(t, s, imageOutside)
	mustHave(t, s, imageOutside)
}
