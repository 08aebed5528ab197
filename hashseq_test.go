package cairn_test

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/cairnstore/cairn"
)

func TestAddHashSeq(t *testing.T) {
	s := open(t, ":memory:", nil)
	for _, n := range []int{0, 1, 2, 511, 512, 513, cairn.SegmentSize / 32, cairn.SegmentSize/32 + 1, 100_000} {
		data := content(uint64(n), 32*n)
		var hashes []cairn.Hash
		for h := range slices.Chunk(data, 32) {
			hashes = append(hashes, cairn.Hash(h))
		}
		tag, err := s.AddHashSeq(t.Context(), slices.Values(hashes), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := (cairn.HashAndFormat{Hash: hashOf(data), Format: cairn.HashSeq}); tag.HashAndFormat() != want {
			t.Fatalf("%v of %d hashes, want %v", tag.HashAndFormat(), n, want)
		}
		mustHave(t, s, data)
		i := 0
		for h, err := range s.HashSeq(t.Context(), tag.Hash()) {
			if err != nil || h != hashes[i] {
				t.Fatalf("hash %d of %d is %v, %v", i, n, h, err)
			}
			if i++; i == 90_000 {
				break
			}
		}
		if i != min(n, 90_000) {
			t.Errorf("%d hashes of %d", i, n)
		}
		tag.Release()
		if err := s.Delete(t.Context(), tag.Hash()); err != nil { // the loop holds nothing
			t.Error(err)
		}
	}
}

// TestHashReader reads in pieces of every length.
func TestHashReader(t *testing.T) {
	for _, n := range []int{0, 1, 2, 40} {
		data := content(uint64(n), 32*n)
		rest := data
		r := cairn.NewHashReader(func() (h cairn.Hash, ok bool) {
			if len(rest) == 0 {
				return h, false
			}
			h, rest = cairn.Hash(rest), rest[32:]
			return h, true
		})
		if err := iotest.TestReader(r, data); err != nil {
			t.Error(err)
		}
		for _, by := range []int{1, 7, 31, 32, 33, 95} {
			rest = data
			var got []byte
			for p := make([]byte, by); ; {
				n, err := r.Read(p)
				got = append(got, p[:n]...)
				if err != nil {
					mustBe(t, err, io.EOF)
					break
				}
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%d hashes, read %d bytes at a time, differ", n, by)
			}
		}
	}
}

// sequenceOf is what hashes are stored as.
func sequenceOf(children ...cairn.Hash) (b []byte) {
	for _, h := range children {
		b = append(b, h[:]...)
	}
	return b
}

// TestHashSeqOfUnprovenSize is told a wrong size, whose length would do.
func TestHashSeqOfUnprovenSize(t *testing.T) {
	s := open(t, ":memory:", nil)
	data := content(1, 40*1024+5)
	sd := newSeed(t, data)
	sd.size = 40*1024 + 32
	response, _ := sd.response(t, parse(t, "0..32"))
	if err := s.ImportBao(t.Context(), hashOf(data), parse(t, "0..32"), bytes.NewReader(response)); err != nil {
		t.Fatal(err)
	}
	i := 0
	var last error
	for h, err := range s.HashSeq(t.Context(), hashOf(data)) {
		if last = err; err != nil {
			break
		}
		if h != cairn.Hash(data[32*i:]) {
			t.Fatalf("hash %d is wrong", i)
		}
		if i++; i == 3 { // the truth arrives in the middle
			importRanges(t, s, data, "32..")
		}
	}
	mustBe(t, last, cairn.ErrMismatch)
	if want := len(data) / 32; i != want {
		t.Errorf("%d hashes, want %d", i, want)
	}
}
