package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
)

func raw(h cairn.Hash) cairn.HashAndFormat { return cairn.HashAndFormat{Hash: h} }
func seqOf(h cairn.Hash) cairn.HashAndFormat {
	return cairn.HashAndFormat{Hash: h, Format: cairn.HashSeq}
}

// setTag sets a tag.
func setTag(t testing.TB, s *cairn.Store, name string, content cairn.HashAndFormat) {
	t.Helper()
	if err := s.SetTag(t.Context(), name, content, nil); err != nil {
		t.Fatal(err)
	}
}

// tagNames lists names of tags.
func tagNames(t testing.TB, s *cairn.Store, opts *cairn.TagListOptions) (names []string) {
	t.Helper()
	for tag, err := range s.Tags(t.Context(), opts) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, tag.Name)
	}
	return names
}

func mustHaveTags(t testing.TB, s *cairn.Store, want ...string) {
	t.Helper()
	if got := tagNames(t, s, nil); !slices.Equal(got, want) {
		t.Errorf("tags %q, want %q", got, want)
	}
}

// TestTag sets tags of all sorts of names, reads them back, and after a reopen.
func TestTag(t *testing.T) {
	path := tempPath(t)
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"", "\x00", "\x00\x00", "a", "a\x00", "a/b", "a'b\"c", "ä", "\xc3", "\xff", "\xff\xff", strings.Repeat("\xfe", cairn.MaxTagSize)}
	expires := time.Unix(4_000_000_000, 123_456_789)
	before := time.Now()
	for i, name := range names {
		content := cairn.HashAndFormat{Hash: hashOf([]byte(name)), Format: cairn.Format(i % 2)}
		if err := s.SetTag(t.Context(), name, content, &cairn.TagOptions{Expires: expires}); err != nil {
			t.Errorf("set %q: %v", name, err)
		}
	}
	after := time.Now()
	for range 2 {
		for i, name := range names {
			tag, err := s.Tag(t.Context(), name)
			if err != nil || tag.Name != name || tag.Hash != hashOf([]byte(name)) || tag.Format != cairn.Format(i%2) || !tag.Expires.Equal(expires) {
				t.Errorf("tag %q: %+v, %v", name, tag, err)
			}
			if tag.Created.Before(before) || tag.Created.After(after) {
				t.Errorf("tag %q was created at %v, not between %v and %v", name, tag.Created, before, after)
			}
		}
		want := slices.Sorted(slices.Values(names))
		mustHaveTags(t, s, want...)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, path, nil)
	}
	mustBeSound(t, s)
}

// TestTagChanges is what each function returns, and what is there then.
func TestTagChanges(t *testing.T) {
	a, b := raw(hashOf([]byte("a"))), seqOf(hashOf([]byte("b")))
	none := &cairn.TagOptions{Expect: &cairn.HashAndFormat{}}
	long := strings.Repeat("x", cairn.MaxTagSize+1)
	for _, test := range []struct {
		name string
		do   func(ctx context.Context, s *cairn.Store) error
		want error
		tags string // "x" is a, "y" is b, at the beginning
	}{
		{"set anew", func(ctx context.Context, s *cairn.Store) error { return s.SetTag(ctx, "z", a, nil) }, nil, "x=a y=b z=a"},
		{"set again", func(ctx context.Context, s *cairn.Store) error { return s.SetTag(ctx, "x", b, nil) }, nil, "x=b y=b"},
		{"set to the same", func(ctx context.Context, s *cairn.Store) error { return s.SetTag(ctx, "x", a, nil) }, nil, "x=a y=b"},
		{"set a name too long", func(ctx context.Context, s *cairn.Store) error { return s.SetTag(ctx, long, a, nil) }, cairn.ErrMismatch, "x=a y=b"},
		{"set if there is none", func(ctx context.Context, s *cairn.Store) error { return s.SetTag(ctx, "z", a, none) }, nil, "x=a y=b z=a"},
		{"set if there is none, but there is", func(ctx context.Context, s *cairn.Store) error { return s.SetTag(ctx, "x", b, none) }, cairn.ErrConflict, "x=a y=b"},
		{"set if there is none, but one of no hash", func(ctx context.Context, s *cairn.Store) error {
			if err := s.SetTag(ctx, "y", cairn.HashAndFormat{}, nil); err != nil {
				return err
			}
			return s.SetTag(ctx, "y", a, none)
		}, cairn.ErrConflict, "x=a y="},
		{"set if it is", func(ctx context.Context, s *cairn.Store) error {
			return s.SetTag(ctx, "x", b, &cairn.TagOptions{Expect: &a})
		}, nil, "x=b y=b"},
		{"set if it is, but it is not", func(ctx context.Context, s *cairn.Store) error {
			return s.SetTag(ctx, "y", a, &cairn.TagOptions{Expect: &a})
		}, cairn.ErrConflict, "x=a y=b"},
		{"set if it is, but of the other format", func(ctx context.Context, s *cairn.Store) error {
			return s.SetTag(ctx, "x", b, &cairn.TagOptions{Expect: &cairn.HashAndFormat{Hash: a.Hash, Format: cairn.HashSeq}})
		}, cairn.ErrConflict, "x=a y=b"},
		{"set if it is, but there is none", func(ctx context.Context, s *cairn.Store) error {
			return s.SetTag(ctx, "z", a, &cairn.TagOptions{Expect: &a})
		}, cairn.ErrConflict, "x=a y=b"},
		{"delete", func(ctx context.Context, s *cairn.Store) error { return s.DeleteTag(ctx, "x") }, nil, "y=b"},
		{"delete none", func(ctx context.Context, s *cairn.Store) error { return s.DeleteTag(ctx, "z") }, cairn.ErrNotFound, "x=a y=b"},
		{"delete the empty name", func(ctx context.Context, s *cairn.Store) error { return s.DeleteTag(ctx, "") }, cairn.ErrNotFound, "x=a y=b"},
		{"rename", func(ctx context.Context, s *cairn.Store) error { return s.RenameTag(ctx, "x", "z") }, nil, "y=b z=a"},
		{"rename over", func(ctx context.Context, s *cairn.Store) error { return s.RenameTag(ctx, "x", "y") }, nil, "y=a"},
		{"rename to itself", func(ctx context.Context, s *cairn.Store) error { return s.RenameTag(ctx, "x", "x") }, nil, "x=a y=b"},
		{"rename none to itself", func(ctx context.Context, s *cairn.Store) error { return s.RenameTag(ctx, "z", "z") }, cairn.ErrNotFound, "x=a y=b"},
		{"rename none", func(ctx context.Context, s *cairn.Store) error { return s.RenameTag(ctx, "z", "x") }, cairn.ErrNotFound, "x=a y=b"},
		{"rename to a name too long", func(ctx context.Context, s *cairn.Store) error { return s.RenameTag(ctx, "x", long) }, cairn.ErrMismatch, "x=a y=b"},
		{"get none", func(ctx context.Context, s *cairn.Store) error { _, err := s.Tag(ctx, "z"); return err }, cairn.ErrNotFound, "x=a y=b"},
		{"add with a tag", func(ctx context.Context, s *cairn.Store) error {
			tag, err := s.AddBytes(ctx, []byte("a"), &cairn.AddOptions{Tag: "y"})
			if err == nil && (tag.Tag() != "y" || tag.HashAndFormat() != a) {
				err = fmt.Errorf("temp tag %v, %q", tag.HashAndFormat(), tag.Tag())
			}
			return err
		}, nil, "x=a y=a"},
		{"add with a name too long", func(ctx context.Context, s *cairn.Store) error {
			_, err := s.AddBytes(ctx, []byte("a"), &cairn.AddOptions{Tag: long})
			return err
		}, cairn.ErrMismatch, "x=a y=b"},
		{"add a sequence of a wrong length", func(ctx context.Context, s *cairn.Store) error {
			_, err := s.AddBytes(ctx, []byte("a"), &cairn.AddOptions{Tag: "z", Format: cairn.HashSeq})
			return err
		}, cairn.ErrMismatch, "x=a y=b"},
		{"add a large sequence of a wrong length", func(ctx context.Context, s *cairn.Store) error {
			_, err := s.AddBytes(ctx, make([]byte, 2*cairn.SegmentSize+1), &cairn.AddOptions{Tag: "z", Format: cairn.HashSeq})
			return err
		}, cairn.ErrMismatch, "x=a y=b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t, ":memory:", nil)
			setTag(t, s, "x", a)
			setTag(t, s, "y", b)
			err := test.do(t.Context(), s)
			if !errors.Is(err, test.want) {
				t.Errorf("got error %v, want %v", err, test.want)
			}
			var got []string
			for tag, err := range s.Tags(t.Context(), nil) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, tag.Name+"="+map[cairn.HashAndFormat]string{a: "a", b: "b"}[tag.HashAndFormat])
			}
			if strings.Join(got, " ") != test.tags {
				t.Errorf("tags %q, want %q", got, test.tags)
			}
			mustBeSound(t, s)
		})
	}
}

// TestTagLists lists and deletes by prefix and range.
func TestTagLists(t *testing.T) {
	names := []string{"", "a", "a/", "a/1", "a/2", "a0", "b", "b\xff", "b\xff\x00", "b\xff\xff", "c", "\xfe", "\xff", "\xff\xff", "\xff\xff\xff"}
	make := func(t *testing.T) *cairn.Store {
		s := open(t, ":memory:", nil)
		for _, name := range names {
			setTag(t, s, name, raw(hashOf([]byte("x"))))
		}
		return s
	}
	s := make(t)
	for _, opts := range []cairn.TagListOptions{
		{}, {Prefix: "a"}, {Prefix: "a/"}, {Prefix: "b\xff"}, {Prefix: "b\xff\xff"}, {Prefix: "\xff"}, {Prefix: "\xff\xff"}, {Prefix: "none"},
		{From: "a/1"}, {From: "a/1x"}, {To: "b"}, {To: "\x00"}, {From: "a/", To: "b\xff"}, {From: "b", To: "a"}, {From: "b", To: "b"},
		{Prefix: "a/", From: "a/2"}, {Prefix: "a/", To: "a/2"}, {Prefix: "b\xff", From: "a"}, {Prefix: "b\xff", To: "c"}, {Prefix: "a/", From: "b"},
		{Limit: 1}, {Limit: 3}, {Limit: -1}, {Limit: 100}, {Prefix: "\xff", Limit: 2}, {From: "\xff", To: "\xff\xff\xff", Limit: 9},
	} {
		var want []string
		for _, name := range names {
			if strings.HasPrefix(name, opts.Prefix) && name >= opts.From && (opts.To == "" || name < opts.To) && (opts.Limit <= 0 || len(want) < opts.Limit) {
				want = append(want, name)
			}
		}
		if got := tagNames(t, s, &opts); !slices.Equal(got, want) {
			t.Errorf("%+v: %q, want %q", opts, got, want)
		}
	}
	for _, prefix := range []string{"", "a", "a/", "b\xff", "b\xff\xff", "\xff", "\xff\xff\xff\xff", "none"} {
		s := make(t)
		want := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return strings.HasPrefix(name, prefix) })
		if n, err := s.DeleteTags(t.Context(), prefix); err != nil || int(n) != len(names)-len(want) {
			t.Errorf("deleted %d of %q, %v", n, prefix, err)
		}
		mustHaveTags(t, s, want...)
		mustBeSound(t, s)
	}
}

// TestTagsWhileChanging changes tags in the body of a listing's loop: what stays
// is listed once. It is more than a listing reads at a time.
func TestTagsWhileChanging(t *testing.T) {
	s := open(t, ":memory:", nil)
	const n = 1000
	content := raw(hashOf([]byte("x")))
	for i := range n {
		setTag(t, s, fmt.Sprintf("%04d", i), content)
	}
	listed := 0
	for tag, err := range s.Tags(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(tag.Name, "x") {
			continue
		}
		if want := fmt.Sprintf("%04d", listed); tag.Name != want {
			t.Fatalf("listed %q, want %q", tag.Name, want)
		}
		if err := s.DeleteTag(t.Context(), tag.Name); err != nil {
			t.Fatal(err)
		}
		setTag(t, s, tag.Name+"x", content)
		listed++
	}
	if listed != n {
		t.Errorf("listed %d", listed)
	}
	for tag, err := range s.Tags(t.Context(), nil) { // it ends early
		if err != nil || tag.Name != "0000x" {
			t.Errorf("%+v, %v", tag, err)
		}
		break
	}
}

// TestConditionalTagRace has 16 goroutines set a tag that only one may.
func TestConditionalTagRace(t *testing.T) {
	s := open(t, tempPath(t), nil)
	now := cairn.HashAndFormat{}
	for round := range 30 {
		var wg sync.WaitGroup
		var won, lost atomic.Int64
		winner := make([]cairn.HashAndFormat, 16)
		for g := range winner {
			wg.Go(func() {
				content := raw(hashOf(fmt.Append(nil, round, g)))
				err := s.SetTag(t.Context(), "tag", content, &cairn.TagOptions{Expect: &now})
				switch {
				case err == nil:
					won.Add(1)
					winner[0] = content
				case errors.Is(err, cairn.ErrConflict):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || lost.Load() != 15 {
			t.Fatalf("%d have won, %d have lost", won.Load(), lost.Load())
		}
		if tag, err := s.Tag(t.Context(), "tag"); err != nil || tag.HashAndFormat != winner[0] {
			t.Fatalf("%+v, %v", tag, err)
		}
		now = winner[0]
	}
}

var autoTag = regexp.MustCompile(`^auto-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z(-[1-9]\d*)?$`)

// TestAutoTags makes many automatic tags at once: their names are the time, and a
// number where it is taken, without holes.
func TestAutoTags(t *testing.T) {
	s := open(t, ":memory:", nil)
	before := time.Now().UTC().Truncate(time.Millisecond)
	names := make([]string, 400)
	var wg sync.WaitGroup
	for i := range names {
		wg.Go(func() {
			content := raw(hashOf(fmt.Append(nil, i)))
			if i%2 == 0 {
				tag, err := s.AddBytes(t.Context(), fmt.Append(nil, i), &cairn.AddOptions{AutoTag: true})
				if err != nil {
					t.Error(err)
					return
				}
				tag.Release()
				names[i] = tag.Tag()
				return
			}
			var err error
			if names[i], err = s.CreateTag(t.Context(), content, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	after := time.Now().UTC()
	taken := make(map[string]int)
	for i, name := range names {
		if tag, err := s.Tag(t.Context(), name); err != nil || tag.Hash != hashOf(fmt.Append(nil, i)) {
			t.Errorf("tag %q: %+v, %v", name, tag, err)
		}
		if !autoTag.MatchString(name) {
			t.Errorf("automatic tag %q", name)
			continue
		}
		text := name[:len("auto-2006-01-02T15:04:05.000Z")]
		at, err := time.Parse("auto-2006-01-02T15:04:05.000Z", text)
		if err != nil || at.Before(before) || at.After(after) {
			t.Errorf("automatic tag %q, between %v and %v: %v", name, before, after, err)
		}
		taken[text]++
	}
	for text, n := range taken {
		for i := range n {
			name := text
			if i > 0 {
				name = fmt.Sprintf("%s-%d", text, i)
			}
			if !slices.Contains(names, name) {
				t.Errorf("%d automatic tags of %s, but no %q", n, text, name)
			}
		}
	}
}

// TestSequenceTagOfRaw tags what is there and is no sequence as one.
func TestSequenceTagOfRaw(t *testing.T) {
	for _, size := range []int{1, 31, 33, 16_385, 2*cairn.SegmentSize + 1} {
		s := open(t, ":memory:", nil)
		data := content(uint64(size), size)
		err := s.SetTag(t.Context(), "before", seqOf(hashOf(data)), nil)
		if err != nil {
			t.Errorf("nobody knows its length: %v", err)
		}
		h := add(t, s, data)
		mustBe(t, s.SetTag(t.Context(), "tag", seqOf(h), nil), cairn.ErrMismatch)
		_, err = s.CreateTag(t.Context(), seqOf(h), nil)
		mustBe(t, err, cairn.ErrMismatch)
		setTag(t, s, "raw", raw(h))
		mustHaveTags(t, s, "before", "raw")
		for _, size := range []int{0, 32, 64} {
			setTag(t, s, fmt.Sprint(size), seqOf(add(t, s, content(1, size))))
		}
	}
}

// TestTagDelete deletes what is tagged, and what a tagged sequence names.
func TestTagDelete(t *testing.T) {
	s := open(t, tempPath(t), nil)
	child, grandchild := add(t, s, []byte("child")), add(t, s, []byte("grandchild"))
	inner := add(t, s, sequence(grandchild))
	outer := add(t, s, sequence(child, inner, child))
	setTag(t, s, "raw", raw(outer))
	mustBe(t, s.Delete(t.Context(), outer), cairn.ErrConflict)
	if err := s.Delete(t.Context(), child); err != nil {
		t.Errorf("a raw tag protects a child: %v", err)
	}
	setTag(t, s, "seq", seqOf(outer))
	add(t, s, []byte("child"))
	mustBe(t, s.Delete(t.Context(), child), cairn.ErrConflict)
	mustBe(t, s.Delete(t.Context(), inner), cairn.ErrConflict)
	if err := s.Delete(t.Context(), grandchild); err != nil {
		t.Errorf("a child of a child is protected: %v", err)
	}
	for _, name := range []string{"raw", "seq"} {
		if err := s.DeleteTag(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range []cairn.Hash{child, inner, outer} {
		if err := s.Delete(t.Context(), h); err != nil {
			t.Error(err)
		}
	}
	mustBeSound(t, s)
}

// TestTagReadOnly lists the tags of a store that is only read, and cannot change
// them.
func TestTagReadOnly(t *testing.T) {
	path := tempPath(t)
	w := open(t, path, nil)
	content := raw(add(t, w, []byte("x")))
	setTag(t, w, "tag", content)
	s := open(t, path, &cairn.Options{ReadOnly: true})
	mustHaveTags(t, s, "tag")
	if tag, err := s.Tag(t.Context(), "tag"); err != nil || tag.HashAndFormat != content {
		t.Errorf("%+v, %v", tag, err)
	}
	for what, err := range tagWrites(t.Context(), s, content) {
		if !errors.Is(err, cairn.ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
	mustHaveTags(t, s, "tag")
}

// tagWrites makes all changes of tags.
func tagWrites(ctx context.Context, s *cairn.Store, content cairn.HashAndFormat) map[string]error {
	_, create := s.CreateTag(ctx, content, nil)
	_, deleteAll := s.DeleteTags(ctx, "")
	_, gc := s.GC(ctx, nil)
	_, add := s.AddBytes(ctx, []byte("x"), &cairn.AddOptions{Tag: "x"})
	return map[string]error{
		"set":        s.SetTag(ctx, "tag", content, nil),
		"create":     create,
		"delete":     s.DeleteTag(ctx, "tag"),
		"delete all": deleteAll,
		"rename":     s.RenameTag(ctx, "tag", "other"),
		"GC":         gc,
		"add":        add,
	}
}

// TestTagAfterClose uses everything when the store is closed.
func TestTagAfterClose(t *testing.T) {
	s, err := cairn.Open(t.Context(), tempPath(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	content := seqOf(add(t, s, sequence(hashOf([]byte("x")))))
	setTag(t, s, "tag", content)
	temp := s.TempTag(content)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range tagWrites(t.Context(), s, content) {
		if !errors.Is(err, cairn.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = s.Tag(t.Context(), "tag")
	mustBe(t, err, cairn.ErrClosed)
	n := 0
	for _, err := range s.Tags(t.Context(), nil) {
		n++
		mustBe(t, err, cairn.ErrClosed)
	}
	if n != 1 {
		t.Errorf("%d results of a listing", n)
	}
	temp.Release()
	s.TempTag(content).Release()
}

// TestBatch adds and protects in a scope, some of which is released before its
// end, and uses it again.
func TestBatch(t *testing.T) {
	s := open(t, tempPath(t), nil)
	b := s.Batch()
	child, file := []byte("child"), tempPath(t)
	if err := os.WriteFile(file, []byte("file"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b.TempTag(seqOf(hashOf(sequence(hashOf(child)))))
		add(t, s, child)
		for i, content := range [][]byte{sequence(hashOf(child)), []byte("reader"), []byte("file"), []byte("released")} {
			var tag *cairn.TempTag
			var err error
			switch i {
			case 1:
				tag, err = b.Add(t.Context(), bytes.NewReader(content), &cairn.AddOptions{AutoTag: true})
			case 2:
				tag, err = b.AddFile(t.Context(), file, nil)
			default:
				tag, err = b.AddBytes(t.Context(), content, nil)
			}
			if err != nil || tag.Hash() != hashOf(content) {
				t.Fatal(tag, err)
			}
			if i == 3 {
				tag.Release()
			}
		}
		if _, err := b.AddFile(t.Context(), file+"x", nil); err == nil {
			t.Error("there is no such file")
		}
		if report := collectAll(t, s); report.Swept != 1 || report.Marked != 4 {
			t.Errorf("%+v", report)
		}
		mustHave(t, s, child)
		b.Close()
		b.Close()
		if n := s.Guarded(); n > 0 {
			t.Errorf("%d things are still protected", n)
		}
		if report := collectAll(t, s); report.Swept != 3 || report.Marked != 1 {
			t.Errorf("%+v", report)
		}
		if n, err := s.DeleteTags(t.Context(), "auto-"); err != nil || n != 1 {
			t.Error(n, err)
		}
		collectAll(t, s)
	}
	mustBeSound(t, s)
}
