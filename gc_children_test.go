package cairn_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cairnstore/cairn"
)

// hashes returns n hashes of nothing, which begin with those that are given.
func hashesFrom(n int, given ...cairn.Hash) []cairn.Hash {
	list := slices.Clone(given)
	for i := len(list); i < n; i++ {
		list = append(list, hashOf(fmt.Appendf(nil, "nothing %d", i)))
	}
	return list
}

// TestIncompleteChild marks a piece incomplete whose content a sequence names that
// is held, or that was tagged before it came: the content stays, under its hash.
func TestIncompleteChild(t *testing.T) {
	for _, tagged := range []bool{false, true} {
		s := open(t, tempPath(t), nil)
		child := content(1, 40_000)
		putPiece(t, s, "piece", child, nil)
		hashes := hashesFrom(2, hashOf(child))
		if tagged {
			seq := cairn.HashAndFormat{Hash: hashOf(sequence(hashes...)), Format: cairn.HashSeq}
			if err := s.SetTag(t.Context(), "early", seq, nil); err != nil {
				t.Fatal(err)
			}
			add(t, s, sequence(hashes...))
		} else {
			seq, err := s.AddHashSeq(t.Context(), slices.Values(hashes), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer seq.Release()
		}
		if err := must(s.OpenPiece(t.Context(), "piece")).Incomplete(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustHave(t, s, child)
		mustBeSound(t, s)
	}
}

// TestTagBeforeSequenceAndPin lets go of a blob that a pin alone has kept, after a
// sequence has come that was tagged before, at once or by another Open.
func TestTagBeforeSequenceAndPin(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		path := tempPath(t)
		s := open(t, path, nil)
		child := content(1, 40_000)
		putPiece(t, s, "piece", child, nil)
		held := s.TempTag(cairn.HashAndFormat{Hash: hashOf(child)})
		if err := must(s.OpenPiece(t.Context(), "piece")).Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		hashes := hashesFrom(2, hashOf(child))
		seq := cairn.HashAndFormat{Hash: hashOf(sequence(hashes...)), Format: cairn.HashSeq}
		if err := s.SetTag(t.Context(), "early", seq, nil); err != nil {
			t.Fatal(err)
		}
		add(t, s, sequence(hashes...))
		if reopened {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, nil)
		} else {
			held.Release()
			add(t, s, []byte("something else"))
		}
		mustHave(t, s, child)
		mustBeSound(t, s)
	}
}

// TestRetaggedSequence tags a long sequence, deletes the tag and sets it again, many
// times: whenever it is tagged, its children cannot be deleted.
func TestRetaggedSequence(t *testing.T) {
	s := open(t, tempPath(t), nil)
	child := add(t, s, []byte("child"))
	other := add(t, s, []byte("the last child"))
	hashes := append(hashesFrom(20_000, child), other)
	seq, err := s.AddHashSeq(t.Context(), slices.Values(hashes), nil)
	if err != nil {
		t.Fatal(err)
	}
	content := seq.HashAndFormat()
	seq.Release()
	for i := range 5 {
		if err := s.SetTag(t.Context(), "tag", content, nil); err != nil {
			t.Fatal(err)
		}
		for _, hash := range []cairn.Hash{child, other} {
			if err := s.Delete(t.Context(), hash); !errors.Is(err, cairn.ErrConflict) {
				t.Fatalf("round %d: a child of a tagged sequence was deleted: %v", i, err)
			}
		}
		if i%2 == 0 {
			add(t, s, []byte(fmt.Sprint("another commit ", i)))
		}
		if err := s.DeleteTag(t.Context(), "tag"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), child); err != nil {
		t.Errorf("nothing protects it any more: %v", err)
	}
	if _, err := s.GC(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Count(t.Context(), "child"); err != nil || n != 0 {
		t.Errorf("%d children are left, %v", n, err)
	}
	mustBeSound(t, s)
}

// TestAddRetagsLongSequence moves a tag off a long sequence by an add: its children
// are not protected any more, however many they are.
func TestAddRetagsLongSequence(t *testing.T) {
	s := open(t, tempPath(t), nil)
	hashes := hashesFrom(20_000)
	seq, err := s.AddHashSeq(t.Context(), slices.Values(hashes), &cairn.AddOptions{Tag: "tag"})
	if err != nil {
		t.Fatal(err)
	}
	seq.Release()
	tag, err := s.AddBytes(t.Context(), []byte("in its place"), &cairn.AddOptions{Tag: "tag"})
	if err != nil {
		t.Fatal(err)
	}
	tag.Release()
	for range 6 {
		add(t, s, []byte("commits"))
	}
	if n, err := s.Count(t.Context(), "child"); err != nil || n != 0 {
		t.Errorf("%d children are left, %v", n, err)
	}
	mustBeSound(t, s)
}
