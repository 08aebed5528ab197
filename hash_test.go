package cairn_test

import (
	"encoding/base32"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
)

func TestEmptyHash(t *testing.T) {
	const want = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
	if got := cairn.EmptyHash.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestParseHash(t *testing.T) {
	const digits = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
	letters := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(cairn.EmptyHash[:]))
	for _, s := range []string{digits, strings.ToUpper(digits), letters, strings.ToUpper(letters)} {
		h, err := cairn.ParseHash(s)
		if err != nil || h != cairn.EmptyHash {
			t.Errorf("%q: %v, %v", s, h, err)
		}
	}
	for _, s := range []string{
		"", "0", digits[1:], digits + "0", "g" + digits[1:], " " + digits[1:],
		letters[1:], letters + "a", "1" + letters[1:], letters[:51] + "b", letters[:51] + "=", "é" + digits[2:],
	} {
		if h, err := cairn.ParseHash(s); err == nil {
			t.Errorf("%q: %v", s, h)
		} else {
			mustBe(t, err, cairn.ErrMismatch)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add(cairn.EmptyHash.String())
	f.Add(strings.Repeat("a", 52))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := cairn.ParseHash(s)
		if err != nil {
			if h != (cairn.Hash{}) {
				t.Errorf("%q: %v with an error", s, h)
			}
			return
		}
		text, err := h.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var again cairn.Hash
		if err := again.UnmarshalText(text); err != nil || again != h {
			t.Errorf("%q: %v, %v", s, again, err)
		}
		if len(s) == 64 && !strings.EqualFold(s, string(text)) {
			t.Errorf("%q became %s", s, text)
		}
	})
}

func FuzzPrefixRange(f *testing.F) {
	f.Add("", []byte{1})
	f.Add("5c", []byte{0x5c})
	f.Add("5cA", []byte{0x5c, 0xa0})
	f.Fuzz(func(t *testing.T, prefix string, b []byte) {
		from, to, err := cairn.PrefixRange(prefix)
		if err != nil {
			mustBe(t, err, cairn.ErrMismatch)
			return
		}
		var h cairn.Hash
		copy(h[:], b)
		inside := from.String() <= h.String() && h.String() <= to.String()
		if inside != strings.HasPrefix(h.String(), strings.ToLower(prefix)) {
			t.Errorf("%q from %v to %v, %v", prefix, from, to, h)
		}
	})
}
