package bao_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/cairnstore/cairn/bao"
)

// requests are of all shapes: whole groups and not, with and without the last
// chunk, before and behind the end.
var requests = []string{
	"all", "last", "0..1", "0..16", "16..32", "3..5", "7..18", "1..", "0..1,last", "0..3,20..33,47..", "40..41,400..",
}

var sizes = []int{0, 1, 1024, 1025, 16384, 16385, 49*1024 - 3, 300 * 1024}

// TestDecodeCorrupt damages every part of a response in turn.
func TestDecodeCorrupt(t *testing.T) {
	for _, size := range sizes {
		b := newBlob(t, noise(size))
		for _, text := range requests {
			r := parse(t, text)
			items, starts, response := b.response(r)
			b.mustDecode(t, response, r, items)
			for i, it := range items {
				for _, at := range []int{starts[i], (starts[i] + starts[i+1]) / 2, starts[i+1] - 1} {
					if at < starts[i] || at >= starts[i+1] {
						continue // the empty blob's data
					}
					response[at] ^= 1 << (at % 8)
					got, err := b.decode(t, response, r)
					response[at] ^= 1 << (at % 8)
					mismatch, ok := errors.AsType[*bao.MismatchError](err)
					if !ok || !errors.Is(err, bao.ErrMismatch) || !slices.Equal(got, items[:i]) {
						t.Fatalf("%d bytes, %q, part %d: %v after %d parts", size, r, i, err, len(got))
					}
					if want := (bao.MismatchError{Start: it.lo, End: it.hi, Pair: it.pair}); *mismatch != want {
						t.Errorf("%d bytes, %q, part %d: %v, want %v", size, r, i, mismatch, &want)
					}
				}
			}
		}
	}
}

// TestDecodeCorruptHeader changes every bit of the size. That cannot always be
// noticed, but then nothing may be wrong but the size, and that is not proven;
// drain checks both.
func TestDecodeCorruptHeader(t *testing.T) {
	for _, size := range sizes {
		b := newBlob(t, noise(size))
		for _, text := range requests {
			r := parse(t, text)
			_, _, response := b.response(r)
			for bit := range 64 {
				response[bit/8] ^= 1 << (bit % 8)
				d := bao.NewDecoder(bytes.NewReader(response), b.root, r)
				got, err := b.drain(t, d)
				response[bit/8] ^= 1 << (bit % 8)
				proof := r.IsOpen() || size <= 1024
				if d.SizeProven() || err == io.EOF && proof {
					t.Fatalf("%d bytes, %q, bit %d: %v, %v", size, r, bit, got, err)
				}
				if bit > 40 && !errors.Is(err, bao.ErrTooLarge) {
					t.Errorf("%d bytes, %q, bit %d: %v", size, r, bit, err)
				}
			}
		}
	}
}

// cutOff decodes what begins with every prefix of a response and ends with the
// given reader. What was whole must come out.
func cutOff(t *testing.T, end io.Reader, want error) {
	t.Helper()
	for _, c := range []struct {
		size   int
		ranges string
	}{{0, "all"}, {1, "all"}, {1025, "all"}, {1025, "last"}, {49*1024 - 3, "0..1,last"}, {3000, "0..1,2..3"}} {
		b, r := newBlob(t, noise(c.size)), parse(t, c.ranges)
		items, starts, response := b.response(r)
		for n := range len(response) {
			whole := 0
			for whole < len(items) && starts[whole+1] <= n {
				whole++
			}
			d := bao.NewDecoder(io.MultiReader(bytes.NewReader(response[:n]), end), b.root, r)
			got, err := b.drain(t, d)
			if !errors.Is(err, want) || !slices.Equal(got, items[:whole]) || d.SizeProven() {
				t.Fatalf("%d bytes, %q, after %d: %v after parts %v, want %v", c.size, r, n, err, got, items[:whole])
			}
		}
	}
}

func TestDecodeTruncated(t *testing.T) {
	cutOff(t, bytes.NewReader(nil), io.ErrUnexpectedEOF)
	cutOff(t, iotest.ErrReader(fmt.Errorf("connection: %w", io.EOF)), io.ErrUnexpectedEOF)
}

func TestDecodeReaderError(t *testing.T) {
	cutOff(t, iotest.ErrReader(errStop), errStop)
}

// TestDecodeSwapped exchanges every two neighbours, and the first with each.
func TestDecodeSwapped(t *testing.T) {
	for _, size := range sizes {
		b := newBlob(t, noise(size))
		for _, text := range requests {
			r := parse(t, text)
			items, starts, response := b.response(r)
			swapped := func(i, j int) {
				t.Helper()
				order := slices.Clone(items)
				order[i], order[j] = order[j], order[i]
				forged := slices.Clone(response[:starts[0]])
				for _, it := range order {
					forged = append(forged, b.bytesOf(it)...)
				}
				if got, err := b.decode(t, forged, r); !errors.Is(err, bao.ErrMismatch) || !slices.Equal(got, items[:i]) {
					t.Fatalf("%d bytes, %q, parts %d and %d exchanged: %v after %d parts", size, r, i, j, err, len(got))
				}
			}
			for i := 1; i < len(items); i++ {
				swapped(i-1, i)
				swapped(0, i)
			}
		}
	}
}

// TestDecodeOther decodes the response to another request.
func TestDecodeOther(t *testing.T) {
	for _, size := range sizes {
		b := newBlob(t, noise(size))
		for _, asked := range requests {
			r := parse(t, asked)
			items, _, want := b.response(r)
			for _, answered := range requests {
				_, _, response := b.response(parse(t, answered))
				got, err := b.decode(t, response, r)
				if !slices.Equal(got, items[:min(len(got), len(items))]) {
					t.Errorf("%d bytes, %q instead of %q: %v", size, answered, asked, got)
				}
				switch {
				case bytes.HasPrefix(response, want):
					if err != io.EOF || len(got) != len(items) {
						t.Errorf("%d bytes, %q instead of %q: %v", size, answered, asked, err)
					}
				case !errors.Is(err, bao.ErrMismatch) && !errors.Is(err, io.ErrUnexpectedEOF):
					t.Errorf("%d bytes, %q instead of %q: %v", size, answered, asked, err)
				}
			}
		}
	}
}

// TestDecodeReadsExactly checks that what follows a response stays in the
// reader, however the reader hands it out.
func TestDecodeReadsExactly(t *testing.T) {
	readers := []struct {
		name  string
		wrap  func(io.Reader) io.Reader
		ahead bool // reads on by itself, to find the end
	}{
		{"plain", func(r io.Reader) io.Reader { return r }, false},
		{"one byte", iotest.OneByteReader, false},
		{"half", iotest.HalfReader, false},
		{"data and error", iotest.DataErrReader, true},
		{"half, data and error", func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.HalfReader(r)) }, true},
	}
	for _, size := range sizes {
		b := newBlob(t, noise(size))
		for _, text := range append([]string{""}, requests...) {
			r := parse(t, text)
			items, _, response := b.response(r)
			for _, reader := range readers {
				for _, source := range []io.Reader{
					bytes.NewReader(response),
					bytes.NewReader(slices.Concat(response, response)),
					io.MultiReader(bytes.NewReader(response), zeros{}),
					io.MultiReader(bytes.NewReader(response), iotest.ErrReader(errStop)),
				} {
					c := &counter{Reader: source}
					d := bao.NewDecoder(reader.wrap(c), b.root, r)
					got, err := b.drain(t, d)
					if err != io.EOF || !slices.Equal(got, items) {
						t.Fatalf("%d bytes, %q, %s: %v, %v", size, r, reader.name, got, err)
					}
					if c.n != int64(len(response)) && !reader.ahead {
						t.Errorf("%d bytes, %q, %s: %d bytes are read, want %d", size, r, reader.name, c.n, len(response))
					}
				}
			}
		}
	}
}

// A stepper hands out the response up to a limit, and nothing behind it.
type stepper struct {
	t        *testing.T
	response []byte
	at, stop int
}

func (s *stepper) Read(p []byte) (int, error) {
	if s.at == s.stop {
		s.t.Fatalf("waits for more after %d bytes of %d", s.at, len(s.response))
	}
	n := copy(p, s.response[s.at:s.stop])
	s.at += n
	return n, nil
}

// TestDecodePrompt checks that a decoder does not wait for the next part before
// it returns one.
func TestDecodePrompt(t *testing.T) {
	b := newBlob(t, noise(300*1024))
	for _, text := range requests {
		r := parse(t, text)
		items, starts, response := b.response(r)
		s := &stepper{t: t, response: response}
		d := bao.NewDecoder(s, b.root, r)
		for i := range items {
			s.stop = starts[i+1]
			if part, err := d.Next(); err != nil || part.Start != items[i].lo {
				t.Fatalf("%q, part %d: %v, %v", r, i, part, err)
			}
		}
		if _, err := d.Next(); err != io.EOF {
			t.Errorf("%q: %v at the end", r, err)
		}
	}
}

// TestDecodeSizes gives wrong sizes before an honest body.
func TestDecodeSizes(t *testing.T) {
	empty, small, large := newBlob(t, nil), newBlob(t, noise(3000)), newBlob(t, noise(100000))
	for _, c := range []struct {
		b      *blob
		ranges string
		size   uint64
		want   error
	}{
		{large, "all", 1 << 63, bao.ErrTooLarge},
		{large, "all", math.MaxUint64, bao.ErrTooLarge},
		{large, "all", math.MaxInt64, bao.ErrTooLarge},
		{large, "last", bao.MaxSize + 1, bao.ErrTooLarge},
		{large, "0..16", bao.MaxSize + 1, bao.ErrTooLarge},
		{large, "0..16", bao.MaxSize, bao.ErrMismatch},
		{large, "all", bao.MaxSize, bao.ErrMismatch},
		{large, "all", 0, bao.ErrMismatch},
		{large, "last", 0, bao.ErrMismatch},
		{large, "5..6", 0, bao.ErrMismatch},
		{small, "all", 0, bao.ErrMismatch},
		{empty, "all", 1, io.ErrUnexpectedEOF},
		{empty, "all", 1025, io.ErrUnexpectedEOF},
		{empty, "last", 1 << 63, bao.ErrTooLarge},
		// What a size does not change, it does not spoil.
		{large, "0..16", 100000, io.EOF},
		{large, "0..16", 66560, io.EOF},
		{large, "0..16", 70000, io.EOF},
		{large, "0..16", 131072, io.EOF},
		{large, "0..16", 65536, bao.ErrMismatch},
		{large, "0..16", 131073, bao.ErrMismatch},
		{large, "last", 100000, io.EOF},
	} {
		r := parse(t, c.ranges)
		_, _, response := c.b.response(r)
		binary.LittleEndian.PutUint64(response, c.size)
		d := bao.NewDecoder(bytes.NewReader(response), c.b.root, r)
		items, err := c.b.drain(t, d)
		if !errors.Is(err, c.want) || d.SizeProven() != (c.ranges == "last" && c.want == io.EOF) {
			t.Errorf("%d bytes, %q, size %d: %v, proven %v; want %v", c.b.size, r, c.size, err, d.SizeProven(), c.want)
		}
		want := int64(c.size)
		if c.want == bao.ErrTooLarge {
			want = 0 // many of them are no int64
		}
		data := slices.IndexFunc(items, func(it item) bool { return !it.pair })
		if d.Size() != want || (data >= 0) != (c.want == io.EOF) {
			t.Errorf("%d bytes, %q, size %d: Size is %d, parts %v", c.b.size, r, c.size, d.Size(), items)
		}
	}
	for _, r := range []bao.Ranges{bao.All(), bao.Last(), bao.Chunks(9, 10)} {
		response := append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 100)...)
		if items, err := empty.decode(t, response, r); !errors.Is(err, bao.ErrMismatch) || len(items) > 0 {
			t.Errorf("%q of the empty blob with a byte: %v, %v", r, items, err)
		}
	}
}

// forge makes the response that does most for a wrong size: wherever the
// decoder waits for something that hashes to what it knows, that is sent.
func (b *blob) forge(r bao.Ranges, size int64) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(size))
	selected := effective(r, size)
	var send func(lo, hi uint64, is span)
	send = func(lo, hi uint64, is span) {
		here := selected[lo:hi]
		switch {
		case !slices.Contains(here, true):
		case hi-lo == 1, hi-lo <= 16 && !slices.Contains(here, false):
			out = append(out, b.bytesOf(item{is, false})...)
		case is.hi-is.lo == 1: // data where a pair must be
			out = append(out, b.bytesOf(item{is, false})...)
		default:
			out = append(out, b.bytesOf(item{is, true})...)
			mid := middle(is.lo, is.hi)
			send(lo, middle(lo, hi), span{is.lo, mid})
			send(middle(lo, hi), hi, span{mid, is.hi})
		}
	}
	send(0, uint64(len(selected)), span{0, chunkCount(b.size)})
	return append(out, make([]byte, 20*1024)...)
}

// TestDecodeForged checks that no wrong size survives a request that reaches
// the last chunk. That everything else is true and in its place, drain checks.
func TestDecodeForged(t *testing.T) {
	accepted := 0
	for _, size := range []int64{0, 1, 1024, 1025, 3000, 5 * 1024, 16384, 16385, 49*1024 - 3, 70*1024 + 9} {
		if testing.Short() && size > 1<<14 {
			break
		}
		b := newBlob(t, noise(int(size)))
		for chunks := range int64(2*chunkCount(size) + 10) {
			for _, claim := range []int64{chunks*1024 - 1, chunks * 1024, chunks*1024 + 1, chunks*1024 + size%1024} {
				if claim < 0 {
					continue
				}
				for _, text := range requests {
					r := parse(t, text)
					d := bao.NewDecoder(bytes.NewReader(b.forge(r, claim)), b.root, r)
					_, err := b.drain(t, d)
					proof := effective(r, claim)[chunkCount(claim)-1]
					if d.SizeProven() != (proof && claim == size) {
						t.Fatalf("%d bytes, %q, size %d: %v, proven %v", size, r, claim, err, d.SizeProven())
					}
					if err == io.EOF && claim != size {
						accepted++
						if proof {
							t.Fatalf("%d bytes, %q: size %d is accepted", size, r, claim)
						}
					}
				}
			}
		}
	}
	if accepted == 0 {
		t.Error("no wrong size fits: the forger has lost its skill")
	}
}

// TestDecodeBounded answers with a size that is as large as possible and
// without end. Nothing may be made room for before it is proven.
func TestDecodeBounded(t *testing.T) {
	header := binary.LittleEndian.AppendUint64(nil, bao.MaxSize)
	c := &counter{Reader: io.MultiReader(bytes.NewReader(header), zeros{})}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := bao.NewDecoder(c, bao.CV{}, bao.All()).Next()
	runtime.ReadMemStats(&after)
	if !errors.Is(err, bao.ErrMismatch) {
		t.Error(err)
	}
	if c.n > 100<<10 {
		t.Errorf("%d bytes are read", c.n)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 200<<10 {
		t.Errorf("%d bytes are allocated", n)
	}
}
