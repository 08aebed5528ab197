package bao

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Ranges is a set of chunks, named by their index in the blob: sorted, disjoint,
// non-adjacent half-open ranges, of which the last may have no end. The zero
// Ranges is empty. A Ranges is never changed once it is made, and so may be
// copied and used concurrently.
//
// In a request, a range may reach behind the end of the blob, whose size the
// asker need not know; see [Ranges.Effective].
type Ranges struct {
	// bounds has starts and ends in turn, strictly ascending. If their number
	// is odd, the last range has no end.
	bounds []uint64
}

// lastChunk is the start of the range that selects the last chunk of any blob.
const lastChunk = math.MaxUint64

// All returns the set of all chunks.
func All() Ranges { return From(0) }

// Last returns the set that selects only the last chunk of a blob, whatever
// its size is: the proof of that size.
func Last() Ranges { return From(lastChunk) }

// From returns the set of the chunks from start on.
func From(start uint64) Ranges { return Ranges{[]uint64{start}} }

// Chunks returns the set of the chunks from start to before end, which is empty
// if end ≤ start.
func Chunks(start, end uint64) Ranges {
	if end <= start {
		return Ranges{}
	}
	return Ranges{[]uint64{start, end}}
}

// Bytes returns the set of the chunks that contain the bytes from start to
// before end.
func Bytes(start, end uint64) Ranges {
	if end <= start {
		return Ranges{}
	}
	return Chunks(start/ChunkSize, (end-1)/ChunkSize+1)
}

// FromBounds returns the set with the given bounds: starts and ends in turn,
// strictly ascending; if their number is odd, the last range has no end.
func FromBounds(bounds ...uint64) (Ranges, error) {
	for i := 1; i < len(bounds); i++ {
		if bounds[i] <= bounds[i-1] {
			return Ranges{}, fmt.Errorf("bao: bounds of ranges do not ascend: %d, %d", bounds[i-1], bounds[i])
		}
	}
	return Ranges{slices.Clone(bounds)}, nil
}

// Bounds returns what [FromBounds] takes.
func (r Ranges) Bounds() []uint64 { return slices.Clone(r.bounds) }

// ParseRanges reads the text form: "all", "last" (see [Last]), "A..B" (half
// open, A < B) and "A..", joined by commas, in any order. The empty text is the
// empty set.
func ParseRanges(text string) (Ranges, error) {
	if text == "" {
		return Ranges{}, nil
	}
	var parts []Ranges
	for part := range strings.SplitSeq(text, ",") {
		r, err := parseRange(part)
		if err != nil {
			return Ranges{}, fmt.Errorf("bao: ranges: %w", err)
		}
		parts = append(parts, r)
	}
	return Union(parts...), nil
}

func parseRange(text string) (Ranges, error) {
	switch text {
	case "all":
		return All(), nil
	case "last":
		return Last(), nil
	}
	from, to, ok := strings.Cut(text, "..")
	if !ok {
		return Ranges{}, fmt.Errorf("%q is none of all, last, A.. and A..B", text)
	}
	start, err := strconv.ParseUint(from, 10, 64)
	if err == nil && to == "" {
		return From(start), nil
	}
	end, endErr := strconv.ParseUint(to, 10, 64)
	switch {
	case err != nil || endErr != nil:
		return Ranges{}, fmt.Errorf("%q does not have the numbers of two chunks", text)
	case end <= start:
		return Ranges{}, fmt.Errorf("%q ends where it starts, or before", text)
	}
	return Chunks(start, end), nil
}

// Union returns the set of the chunks that are in any of the parts. It takes
// little more than linear time.
func Union(parts ...Ranges) Ranges {
	switch n := len(parts); n {
	case 0:
		return Ranges{}
	case 1:
		return parts[0]
	default:
		return Union(parts[:n/2]...).Union(Union(parts[n/2:]...))
	}
}

// String returns the text form that [ParseRanges] reads.
func (r Ranges) String() string { return string(r.appendText(nil)) }

func (r Ranges) appendText(b []byte) []byte {
	for i := 0; i < len(r.bounds); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		start := r.bounds[i]
		switch {
		case i+1 < len(r.bounds):
			b = strconv.AppendUint(b, start, 10)
			b = append(b, ".."...)
			b = strconv.AppendUint(b, r.bounds[i+1], 10)
		case start == 0:
			b = append(b, "all"...)
		case start == lastChunk:
			b = append(b, "last"...)
		default:
			b = strconv.AppendUint(b, start, 10)
			b = append(b, ".."...)
		}
	}
	return b
}

// MarshalText implements [encoding.TextMarshaler].
func (r Ranges) MarshalText() ([]byte, error) { return r.appendText(nil), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *Ranges) UnmarshalText(text []byte) error {
	parsed, err := ParseRanges(string(text))
	if err == nil {
		*r = parsed
	}
	return err
}

// IsEmpty reports whether the set has no chunk.
func (r Ranges) IsEmpty() bool { return len(r.bounds) == 0 }

// IsOpen reports whether the last range has no end.
func (r Ranges) IsOpen() bool { return len(r.bounds)%2 == 1 }

// Equal reports whether both sets have the same chunks.
func (r Ranges) Equal(other Ranges) bool { return slices.Equal(r.bounds, other.bounds) }

// Contains reports whether a chunk is in the set.
func (r Ranges) Contains(chunk uint64) bool { return r.boundsUpTo(chunk)%2 == 1 }

// Len returns the number of ranges.
func (r Ranges) Len() int { return (len(r.bounds) + 1) / 2 }

// First returns the set of the first n ranges (n ≥ 0), or of all if there are
// fewer.
func (r Ranges) First(n int) Ranges {
	if n >= r.Len() {
		return r
	}
	return Ranges{r.bounds[:2*n]}
}

// Union returns the set of the chunks that are in either.
func (r Ranges) Union(other Ranges) Ranges {
	return combine(r, other, func(a, b bool) bool { return a || b })
}

// Intersect returns the set of the chunks that are in both.
func (r Ranges) Intersect(other Ranges) Ranges {
	return combine(r, other, func(a, b bool) bool { return a && b })
}

// Minus returns the set of the chunks that are in r and not in other.
func (r Ranges) Minus(other Ranges) Ranges {
	return combine(r, other, func(a, b bool) bool { return a && !b })
}

// combine walks over both sets' bounds and keeps what keep, of which
// keep(false, false) must be false, says.
func combine(a, b Ranges, keep func(a, b bool) bool) Ranges {
	var out []uint64
	i, j := 0, 0
	for i < len(a.bounds) || j < len(b.bounds) {
		var at uint64
		if j == len(b.bounds) || i < len(a.bounds) && a.bounds[i] <= b.bounds[j] {
			at = a.bounds[i]
		} else {
			at = b.bounds[j]
		}
		if i < len(a.bounds) && a.bounds[i] == at {
			i++
		}
		if j < len(b.bounds) && b.bounds[j] == at {
			j++
		}
		if keep(i%2 == 1, j%2 == 1) != (len(out)%2 == 1) {
			out = append(out, at)
		}
	}
	return Ranges{out}
}

// Effective returns what the set selects of a blob of size bytes: its chunks
// before the end, and the last chunk if the set has one at or behind the end.
// The empty blob has one empty chunk.
func (r Ranges) Effective(size int64) Ranges {
	n := ChunkCount(size)
	within := r.Intersect(Chunks(0, n))
	if r.overlaps(n, lastChunk) || r.Contains(lastChunk) {
		within = within.Union(Chunks(n-1, n))
	}
	return within
}

// Groups returns the set rounded out to whole chunk groups: what to ask for in
// order to keep it, because a group is the smallest thing that can be verified
// alone later. A bound too large to be rounded up stays. Of a range that starts
// behind the end of the blob, as [Last] does, only the last chunk is selected
// all the same.
func (r Ranges) Groups() Ranges {
	out := make([]uint64, 0, len(r.bounds))
	for i, bound := range r.bounds {
		rounded := bound &^ (groupChunks - 1)
		if i%2 == 0 {
			if len(out) > 0 && rounded <= out[len(out)-1] { // runs into the range before
				out = out[:len(out)-1]
			} else {
				out = append(out, rounded)
			}
			continue
		}
		if rounded != bound {
			rounded += groupChunks // wraps around at the very end
		}
		out = append(out, max(bound, rounded))
	}
	return Ranges{out}
}

// boundsUpTo returns the number of bounds that are not above the chunk.
func (r Ranges) boundsUpTo(chunk uint64) int {
	i, found := slices.BinarySearch(r.bounds, chunk)
	if found {
		i++
	}
	return i
}

// covers reports whether all of the chunks [lo, hi) are in the set.
func (r Ranges) covers(lo, hi uint64) bool {
	i := r.boundsUpTo(lo)
	return i%2 == 1 && (i == len(r.bounds) || r.bounds[i] >= hi)
}

// overlaps reports whether any of the chunks [lo, hi) is in the set.
func (r Ranges) overlaps(lo, hi uint64) bool {
	i := r.boundsUpTo(lo)
	return i%2 == 1 || i < len(r.bounds) && r.bounds[i] < hi
}

// runEnd returns where the range that contains the chunk lo ends, at most hi.
func (r Ranges) runEnd(lo, hi uint64) uint64 {
	if i := r.boundsUpTo(lo); i < len(r.bounds) {
		return min(hi, r.bounds[i])
	}
	return hi
}
