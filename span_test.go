package cairn_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// FuzzParseSpans reads the text of fragments. What is accepted has one form only,
// ascends, does not touch, and lies in a group.
func FuzzParseSpans(f *testing.F) {
	for _, text := range []string{"", "0..1", "0..16384", "5..7,9..12", "0..16385", "7..5", "1..1", "0..1,1..2", "+1..2", "01..2",
		"1..2,", ",1..2", "1...2", " 1..2", "-1..2", "1..2..3", "99999999999999999999..1", "1_0..12"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		spans, err := cairn.ParseSpans(text)
		if err != nil {
			if !errors.Is(err, cairn.ErrCorrupt) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if got := cairn.FormatSpans(spans); got != text {
			t.Errorf("%q is read, and written as %q", text, got)
		}
		last := -1
		for _, s := range spans {
			if s.From <= last || s.From >= s.To || s.To > bao.GroupSize {
				t.Errorf("%q is read as %v", text, spans)
			}
			last = s.To
		}
		if len(spans) == 0 {
			t.Errorf("%q is read as nothing", text)
		}
	})
}

// FuzzAddSpan compares spans with a bitmap of bytes, each span being four bytes of
// the input.
func FuzzAddSpan(f *testing.F) {
	f.Add([]byte{0, 0, 0, 5, 0, 5, 0, 5, 0, 3, 0, 200})
	f.Add([]byte{0, 9, 0, 1, 0, 7, 0, 1, 0, 8, 0, 1})
	f.Add([]byte{63, 255, 0, 1, 0, 0, 63, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		var present [bao.GroupSize]bool
		var list []cairn.Span
		for ; len(b) >= 4; b = b[4:] {
			from := (int(b[0])<<8 | int(b[1])) % bao.GroupSize
			to := min(bao.GroupSize, from+1+(int(b[2])<<8|int(b[3])))
			list = append(list, cairn.Span{From: from, To: to})
			for i := from; i < to; i++ {
				present[i] = true
			}
		}
		var want []cairn.Span
		for i, there := range present {
			if there && (i == 0 || !present[i-1]) {
				want = append(want, cairn.Span{From: i})
			}
			if there {
				want[len(want)-1].To = i + 1
			}
		}
		got := cairn.AddSpans(list)
		if !slices.Equal(got, want) {
			t.Fatalf("%v gives %v, want %v", list, got, want)
		}
		if len(got) == 0 {
			return
		}
		if read, err := cairn.ParseSpans(cairn.FormatSpans(got)); err != nil || !slices.Equal(read, got) {
			t.Errorf("%v is read as %v, %v", got, read, err)
		}
	})
}
