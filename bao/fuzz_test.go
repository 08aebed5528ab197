package bao_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cairnstore/cairn/bao"
)

// FuzzDecoder answers any request to blobs of known content with anything.
// Whatever comes out must be true.
func FuzzDecoder(f *testing.F) {
	var blobs []*blob
	for i, size := range []int{0, 1, 1025, 3000, 16385, 49*1024 - 3} {
		b := newBlob(f, noise(size))
		blobs = append(blobs, b)
		for _, text := range []string{"all", "last", "0..1", "0..1,last", "3..5,7..", "16..32", "17..18,90..91"} {
			r := parse(f, text)
			response := b.mustEncode(f, r)
			if len(response) > 5000 {
				continue // to make shorter ones of it would take all of the time
			}
			f.Add(response, text, byte(i))
			if len(response) > 8 {
				f.Add(response[:len(response)-1], text, byte(i))
			}
			for _, size := range []uint64{0, 1 << 40, 1<<40 + 1, 1 << 63, uint64(b.size) + 1} {
				forged := binary.LittleEndian.AppendUint64(nil, size)
				f.Add(append(forged, response[8:]...), text, byte(i))
			}
		}
	}
	f.Fuzz(func(t *testing.T, response []byte, text string, which byte) {
		r, err := bao.ParseRanges(text)
		if err != nil {
			return
		}
		b := blobs[int(which)%len(blobs)]
		c := &counter{Reader: bytes.NewReader(response)}
		d := bao.NewDecoder(c, b.root, r)
		items, err := b.drain(t, d)
		used := int64(8)
		var got bao.Ranges
		for _, it := range items {
			if it.pair {
				used += bao.PairSize
				continue
			}
			used += int64(len(b.bytesOf(it)))
			got = got.Union(bao.Chunks(it.lo, it.hi))
		}
		if c.n > used+100<<10 || c.n > max(8, bao.ResponseSize(d.Size(), r)) {
			t.Errorf("%d bytes are read, %d of them used", c.n, used)
		}
		want := r.Effective(d.Size())
		if !got.Minus(want).IsEmpty() {
			t.Errorf("chunks %q come for %q", got, want)
		}
		switch {
		case err == io.EOF:
			if !got.Equal(want) && !r.IsEmpty() {
				t.Errorf("chunks %q are not all of %q", got, want)
			}
			if c.n != bao.ResponseSize(d.Size(), r) {
				t.Errorf("%d bytes are read, want %d", c.n, bao.ResponseSize(d.Size(), r))
			}
		case !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, bao.ErrMismatch) && !errors.Is(err, bao.ErrTooLarge):
			t.Error(err)
		}
	})
}

func FuzzParseRanges(f *testing.F) {
	for _, text := range append([]string{
		"", "5..5", "5..3", "..3", "1..2,", "18446744073709551616..", "0..1,0..1", "9..,1..3,2..8", "1_0..20",
		"18446744073709551614..18446744073709551615,last", "18446744073709551600..18446744073709551601",
	}, requests...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := bao.ParseRanges(text)
		if err != nil {
			return
		}
		if again, err := bao.ParseRanges(r.String()); err != nil || !again.Equal(r) || again.String() != r.String() {
			t.Errorf("%q is read as %q, and that as %q, %v", text, r, again, err)
		}
		if again, err := bao.FromBounds(r.Bounds()...); err != nil || !again.Equal(r) {
			t.Errorf("%q is read as %q, its bounds as %q, %v", text, r, again, err)
		}
		groups := r.Groups()
		if !r.Minus(groups).IsEmpty() || !groups.Groups().Equal(groups) {
			t.Errorf("groups of %q are %q", r, groups)
		}
		if rest := r.Minus(bao.From(1 << 32)).Union(r.Intersect(bao.From(1 << 32))); !rest.Equal(r) {
			t.Errorf("%q, cut and joined: %q", r, rest)
		}
		for _, size := range []int64{0, 1025, 16385, bao.MaxSize} {
			n := bao.ResponseSize(size, r)
			if r.IsEmpty() != (n == 0) || n < 0 || n > bao.ResponseSize(size, bao.All())+int64(r.Len())*64*64 {
				t.Errorf("%q of %d bytes: ResponseSize is %d", r, size, n)
			}
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	for i, size := range sizes {
		f.Add(uint32(size), uint64(i))
	}
	f.Fuzz(func(t *testing.T, size uint32, seed uint64) {
		b := newBlob(t, noise(int(size%(200*1024))))
		rnd := rand.New(rand.NewPCG(seed, 0))
		for range 8 {
			r := randomRanges(rnd, chunkCount(b.size))
			items, _, want := b.response(r)
			if got := b.mustEncode(t, r); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, %q: response differs", b.size, r)
			}
			if got := bao.ResponseSize(b.size, r); got != int64(len(want)) {
				t.Errorf("%d bytes, %q: ResponseSize is %d, want %d", b.size, r, got, len(want))
			}
			d := bao.NewDecoder(bytes.NewReader(want), b.root, r)
			got, err := b.drain(t, d)
			if err != io.EOF || !slices.Equal(got, items) {
				t.Errorf("%d bytes, %q: decoded to %v, %v", b.size, r, got, err)
			}
			if d.SizeProven() != r.Effective(b.size).Contains(chunkCount(b.size)-1) {
				t.Errorf("%d bytes, %q: proven is %v", b.size, r, d.SizeProven())
			}
		}
	})
}
