package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
)

// TestProviderAfterClose uses everything when the store is closed, with readers
// that nobody has closed: those of chunks do not matter, the other one Close
// names.
func TestProviderAfterClose(t *testing.T) {
	for _, leak := range []bool{false, true} {
		s, err := cairn.Open(t.Context(), tempPath(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		p := cairn.NewProvider(s, nil)
		putChunks(t, p, "key/", content(1, 100_000), 50_000, 50_000)
		i := instanceOf(t, p, "key/0")
		chunks, err := p.ReadConsecutiveChunks("key/")
		if err != nil {
			t.Fatal(err)
		}
		r, err := i.Get()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []io.Reader{r, chunks} {
			if _, err := r.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		if !leak {
			r.Close()
		}
		if err := s.Close(); (err != nil) != leak || leak && !strings.Contains(err.Error(), "key/0") {
			t.Errorf("leak %v: close: %v", leak, err)
		}
		for name, use := range map[string]func() error{
			"Get":                   func() error { _, err := i.Get(); return err },
			"Put":                   func() error { return i.Put(strings.NewReader("x")) },
			"PutSized":              func() error { return i.PutSized(strings.NewReader("x"), 1) },
			"Stat":                  func() error { _, err := i.Stat(); return err },
			"ReadAt":                func() error { _, err := i.ReadAt(make([]byte, 1), 0); return err },
			"WriteAt":               func() error { _, err := i.WriteAt([]byte("x"), 0); return err },
			"Delete":                i.Delete,
			"Readdirnames":          func() error { _, err := i.Readdirnames(); return err },
			"MovePrefix":            func() error { return p.MovePrefix("a", "b") },
			"DeletePrefix":          func() error { return p.DeletePrefix("a") },
			"ReadConsecutiveChunks": func() error { _, err := p.ReadConsecutiveChunks("key/"); return err },
			"a reader":              func() error { _, err := r.Read(make([]byte, 1)); return err },
			"a reader of chunks":    func() error { _, err := chunks.Read(make([]byte, 1)); return err },
			"copying chunks":        func() error { _, err := io.Copy(io.Discard, chunks); return err },
		} {
			if err := use(); !errors.Is(err, cairn.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestProviderContext has a context bound everything.
func TestProviderContext(t *testing.T) {
	s := open(t, ":memory:", nil)
	reason := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	p := cairn.NewProvider(s, &cairn.ProviderOptions{Context: ctx})
	putChunks(t, p, "key/", content(1, 100), 100)
	i := instanceOf(t, p, "key/0")
	r, err := i.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel(reason)
	for name, use := range map[string]func() error{
		"Get":                   func() error { _, err := i.Get(); return err },
		"Put":                   func() error { return i.Put(strings.NewReader("x")) },
		"Stat":                  func() error { _, err := i.Stat(); return err },
		"ReadAt":                func() error { _, err := i.ReadAt(make([]byte, 1), 0); return err },
		"WriteAt":               func() error { _, err := i.WriteAt([]byte("x"), 0); return err },
		"Delete":                i.Delete,
		"Readdirnames":          func() error { _, err := i.Readdirnames(); return err },
		"MovePrefix":            func() error { return p.MovePrefix("a", "b") },
		"DeletePrefix":          func() error { return p.DeletePrefix("a") },
		"ReadConsecutiveChunks": func() error { _, err := p.ReadConsecutiveChunks("key/"); return err },
		"a reader":              func() error { _, err := r.Read(make([]byte, 1)); return err },
	} {
		if err := use(); !errors.Is(err, reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustHaveKeys(t, s, "key/0")
}

// TestProviderReadOnly looks at pieces without the right to change them.
func TestProviderReadOnly(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	putChunks(t, cairn.NewProvider(s, nil), "key/", content(1, 100), 60, 40)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, &cairn.Options{ReadOnly: true})
	p := cairn.NewProvider(s, nil)
	i := instanceOf(t, p, "key/0")
	if got, err := getInstance(i); err != nil || len(got) != 60 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if info, err := i.Stat(); err != nil || info.Size() != 60 {
		t.Errorf("%v, %v", info, err)
	}
	if names, err := instanceOf(t, p, "key").Readdirnames(); err != nil || !slices.Equal(names, []string{"0", "60"}) {
		t.Errorf("%q, %v", names, err)
	}
	r, err := p.ReadConsecutiveChunks("key/")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || len(got) != 100 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	mustBe(t, i.Put(strings.NewReader("x")), cairn.ErrReadOnly)
	_, err = i.WriteAt([]byte("x"), 0)
	mustBe(t, err, cairn.ErrReadOnly)
	mustBe(t, i.Delete(), cairn.ErrReadOnly)
	mustBe(t, p.MovePrefix("key", "x"), cairn.ErrReadOnly)
	mustBe(t, p.DeletePrefix("key"), cairn.ErrReadOnly)
}

// TestProviderHeld deletes and replaces what somebody reads.
func TestProviderHeld(t *testing.T) {
	s := open(t, tempPath(t), nil)
	p := cairn.NewProvider(s, nil)
	want := content(1, 100_000)
	putInstance(t, p, "a/0", want)
	putInstance(t, p, "a/1", nil)
	i := instanceOf(t, p, "a/0")
	r, err := i.Get()
	if err != nil {
		t.Fatal(err)
	}
	mustBe(t, i.Delete(), cairn.ErrConflict)
	mustBe(t, p.DeletePrefix("a/"), cairn.ErrConflict)
	mustHaveKeys(t, s, "a/0", "a/1")
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r.Close()
	if err := p.DeletePrefix("a/"); err != nil {
		t.Error(err)
	}
	mustHaveKeys(t, s)
}
