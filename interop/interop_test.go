package interop_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cairnstore/cairn/bao"
)

var randomSeed = flag.Uint64("seed", 0, "seed of the random tests; 0 takes a random one")

// newRand logs its seed, which a failing test thereby prints.
func newRand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -run '^%s$' -seed %d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// cases returns how many random cases there are: more in the long run.
func cases(n int) int {
	if *long {
		return 30 * n
	}
	return n
}

// A blob is a [bao.Source] in memory.
type blob struct {
	*bytes.Reader
	content []byte
	root    bao.CV
	size    int64
	tiles   map[bao.Tile][]byte
}

func (b *blob) ReadTile(tile bao.Tile) ([]byte, error) {
	pairs, ok := b.tiles[tile]
	if !ok {
		return nil, fmt.Errorf("no tile %v", tile)
	}
	return pairs, nil
}

func newBlob(t testing.TB, content []byte) *blob {
	t.Helper()
	b := &blob{
		Reader:  bytes.NewReader(content),
		content: content,
		size:    int64(len(content)),
		tiles:   make(map[bao.Tile][]byte),
	}
	builder := bao.Builder{Emit: func(tile bao.Tile, pairs []byte) error {
		b.tiles[tile] = pairs
		return nil
	}}
	groups := bao.Groups(b.size)
	buf := new([bao.GroupSize]byte)
	for g := range groups {
		n := copy(buf[:], content[g*bao.GroupSize:])
		if err := builder.Add(bao.GroupCV(buf, n, g, groups == 1)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if b.root, err = builder.Finish(); err != nil {
		t.Fatal(err)
	}
	return b
}

// put makes a blob's content the one that questions are about, and checks that
// both sides find the same hash.
func (r *rust) put(b *blob) {
	r.t.Helper()
	answer, _ := r.mustAsk(b.content, "put")
	if answer[0] != b.root.String() {
		r.t.Fatalf("%d bytes: hash is %v, in Rust %s", b.size, b.root, answer[0])
	}
}

// boundsOf is how the program takes ranges.
func boundsOf(ranges bao.Ranges) string {
	var words []string
	for _, bound := range ranges.Bounds() {
		words = append(words, strconv.FormatUint(bound, 10))
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ",")
}

// A decoded is what has been verified of a response, and how that ended.
type decoded struct {
	end    string // ok, truncated or mismatch
	pairs  int
	leaves string // offset+length of each
	rest   int    // bytes that are left over, if the end is ok
	data   string
}

func (d decoded) String() string {
	return fmt.Sprintf("%s after %d pairs, leaves %s, %d bytes left over", d.end, d.pairs, d.leaves, d.rest)
}

func (r *rust) decode(root bao.CV, ranges bao.Ranges, response []byte) decoded {
	r.t.Helper()
	answer, data := r.ask(response, "decode", root.String(), boundsOf(ranges))
	if len(answer) != 4 {
		r.t.Fatalf("answer %q", answer)
	}
	pairs, err := strconv.Atoi(answer[1])
	if err != nil {
		r.t.Fatal(err)
	}
	rest, err := strconv.Atoi(answer[3])
	if err != nil {
		r.t.Fatal(err)
	}
	d := decoded{answer[0], pairs, answer[2], rest, string(data)}
	if d.end != "ok" {
		d.rest = 0 // how far one has read beyond what verified says nothing
	}
	return d
}

// decode is the same in Go.
func decode(t testing.TB, root bao.CV, ranges bao.Ranges, response []byte) decoded {
	t.Helper()
	src := bytes.NewReader(response)
	d := bao.NewDecoder(src, root, ranges)
	out := decoded{end: "ok"}
	var leaves []string
	var data bytes.Buffer
	for {
		part, err := d.Next()
		if err != nil {
			out.end = ending(t, err)
			break
		}
		if part.Pair != nil {
			out.pairs++
			continue
		}
		leaves = append(leaves, fmt.Sprintf("%d+%d", part.Start*bao.ChunkSize, len(part.Data)))
		data.Write(part.Data)
	}
	if out.end == "ok" {
		out.rest = src.Len()
	}
	out.leaves = strings.Join(leaves, ",")
	if out.leaves == "" {
		out.leaves = "-"
	}
	out.data = data.String()
	return out
}

// ending gives an error of the decoder the name that Rust gives it.
func ending(t testing.TB, err error) string {
	t.Helper()
	switch {
	case err == io.EOF:
		return "ok"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "truncated"
	case errors.Is(err, bao.ErrMismatch):
		return "mismatch"
	}
	t.Fatal(err)
	return ""
}

// mustAgree decodes on both sides, and checks that both find the same.
func (r *rust) mustAgree(root bao.CV, ranges bao.Ranges, response []byte) decoded {
	r.t.Helper()
	ours, theirs := decode(r.t, root, ranges, response), r.decode(root, ranges, response)
	if ours != theirs {
		r.t.Fatalf("%q: Go decodes: %v\nRust decodes: %v\nsame data: %v", ranges, ours, theirs, ours.data == theirs.data)
	}
	return ours
}

func (b *blob) encode(t testing.TB, ranges bao.Ranges) []byte {
	t.Helper()
	var response bytes.Buffer
	if err := bao.Encode(&response, b.root, b.size, ranges, b); err != nil {
		t.Fatalf("%d bytes, %q: %v", b.size, ranges, err)
	}
	return response.Bytes()
}

// selected returns the content of the chunks that ranges select.
func (b *blob) selected(ranges bao.Ranges) string {
	var out bytes.Buffer
	bounds := ranges.Effective(b.size).Bounds()
	for i := 0; i < len(bounds); i += 2 {
		start, end := bounds[i]*bao.ChunkSize, bounds[i+1]*bao.ChunkSize
		out.Write(b.content[start:min(end, uint64(b.size))])
	}
	return out.String()
}

// checkResponse checks that both sides make the same response, and decode it to
// the content that was asked for.
func (r *rust) checkResponse(b *blob, ranges bao.Ranges) {
	r.t.Helper()
	ours := b.encode(r.t, ranges)
	_, theirs := r.mustAsk(nil, "encode", boundsOf(ranges))
	if !bytes.Equal(ours, theirs) {
		r.t.Fatalf("%d bytes, %q: Go makes %d bytes, Rust other %d", b.size, ranges, len(ours), len(theirs))
	}
	if n := bao.ResponseSize(b.size, ranges); n != int64(len(theirs)) {
		r.t.Fatalf("%d bytes, %q: ResponseSize is %d, not %d", b.size, ranges, n, len(theirs))
	}
	got := r.mustAgree(b.root, ranges, theirs)
	if got.end != "ok" || got.rest != 0 || got.data != b.selected(ranges) {
		r.t.Fatalf("%d bytes, %q: %v", b.size, ranges, got)
	}
}

// pattern is the input of the vectors.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

// noise is content of which no two chunks are alike, unlike pattern's.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

// A vector is a size, and requests to a blob of it.
type vector struct {
	Size   int
	Slices []struct {
		Ranges [][2]*uint64 // nil is no end
	}
}

func vectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile("../bao/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Entries []vector }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Entries) == 0 {
		t.Fatal("no vectors")
	}
	return file.Entries
}

func fromBounds(t testing.TB, ranges [][2]*uint64) bao.Ranges {
	t.Helper()
	var bounds []uint64
	for _, r := range ranges {
		bounds = append(bounds, *r[0])
		if r[1] != nil {
			bounds = append(bounds, *r[1])
		}
	}
	r, err := bao.FromBounds(bounds...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// randomSize returns a size of which the number of chunks or groups is often
// one at which the tree's shape changes.
func randomSize(rnd *rand.Rand, limit int) int {
	switch rnd.IntN(4) {
	case 0:
		return rnd.IntN(limit)
	case 1:
		return rnd.IntN(20 * bao.ChunkSize)
	case 2:
		unit := []int{bao.ChunkSize, bao.GroupSize}[rnd.IntN(2)]
		return min(limit, max(0, rnd.IntN(limit/unit+1)*unit+rnd.IntN(3)-1))
	}
	width := bao.ChunkSize << rnd.IntN(12)
	return min(limit, max(0, width+rnd.IntN(2*bao.GroupSize)-bao.GroupSize))
}

func randomBlob(t testing.TB, rnd *rand.Rand, limit int) *blob {
	t.Helper()
	return newBlob(t, noise(randomSize(rnd, limit)))
}

// randomRanges returns a request to a blob of the given size, or to a larger
// one.
func randomRanges(rnd *rand.Rand, size int64) bao.Ranges {
	n := bao.ChunkCount(size)
	var r bao.Ranges
	for range 1 + rnd.IntN(6) {
		start := rnd.Uint64N(n + 3)
		switch rnd.IntN(8) {
		case 0, 1, 2:
			r = r.Union(bao.Chunks(start, start+1+rnd.Uint64N(4)))
		case 3, 4:
			r = r.Union(bao.Chunks(start&^15, start&^15+16*(1+rnd.Uint64N(4))))
		case 5:
			r = r.Union(bao.Chunks(start, start+rnd.Uint64N(n+20)))
		case 6:
			r = r.Minus(bao.Chunks(start, start+rnd.Uint64N(20)))
		case 7:
			r = r.Union(bao.From([]uint64{start, math.MaxUint64 - rnd.Uint64N(3), 1 << 63}[rnd.IntN(3)]))
		}
	}
	return r
}

// TestResponsesOfVectors compares the responses to the vectors' requests.
func TestResponsesOfVectors(t *testing.T) {
	r := start(t, treeProgram)
	for _, v := range vectors(t) {
		b := newBlob(t, pattern(v.Size))
		r.put(b)
		for _, s := range v.Slices {
			r.checkResponse(b, fromBounds(t, s.Ranges))
		}
	}
}

// TestResponsesToRandomRequests compares the responses to random requests.
func TestResponsesToRandomRequests(t *testing.T) {
	r := start(t, treeProgram)
	rnd := newRand(t)
	for range cases(40) {
		b := randomBlob(t, rnd, 2<<20)
		r.put(b)
		for range 20 {
			r.checkResponse(b, randomRanges(rnd, b.size))
		}
	}
}

// TestOutboardsAreTheSame compares obao4 outboards, with their size in front
// and without, and has Rust verify the content with Cairn's.
func TestOutboardsAreTheSame(t *testing.T) {
	r := start(t, treeProgram)
	for _, v := range vectors(t) {
		r.checkOutboard(newBlob(t, pattern(v.Size)))
	}
	rnd := newRand(t)
	for range cases(60) {
		r.checkOutboard(randomBlob(t, rnd, 4<<20))
	}
}

func (r *rust) checkOutboard(b *blob) {
	r.t.Helper()
	r.put(b)
	ours := b.outboard(r.t)
	if _, theirs := r.mustAsk(nil, "outboard"); !bytes.Equal(ours, theirs) {
		r.t.Fatalf("%d bytes: outboards differ", b.size)
	}
	if _, theirs := r.mustAsk(nil, "bare-outboard"); !bytes.Equal(ours[8:], theirs) {
		r.t.Fatalf("%d bytes: outboards without size differ", b.size)
	}
	r.mustAsk(ours, "check-outboard")
}

func (b *blob) outboard(t testing.TB) []byte {
	t.Helper()
	var outboard bytes.Buffer
	if err := bao.WriteOutboard(&outboard, b.root, b.size, b); err != nil {
		t.Fatal(err)
	}
	return outboard.Bytes()
}

// TestDamagedOutboardsAreRejected makes sure that Rust's verdict about an
// outboard means something.
func TestDamagedOutboardsAreRejected(t *testing.T) {
	r := start(t, treeProgram)
	rnd := newRand(t)
	b := newBlob(t, noise(40*bao.GroupSize-7))
	r.put(b)
	outboard := b.outboard(t)
	for range cases(50) {
		bit := 64 + rnd.IntN(8*(len(outboard)-8))
		r.mustAnswer("mismatch", flipped(outboard, bit), "check-outboard")
		r.mustAnswer("size", flipped(outboard, rnd.IntN(40)), "check-outboard")
	}
	r.mustAnswer("size", outboard[:len(outboard)-1], "check-outboard")
	r.mustAnswer("truncated", outboard[:7], "check-outboard")
}

// mustAnswer checks the first word of an answer.
func (r *rust) mustAnswer(want string, payload []byte, words ...string) {
	r.t.Helper()
	if answer, data := r.ask(payload, words...); answer[0] != want {
		r.t.Errorf("%s: %s %q, want %s", words, answer, data, want)
	}
}

// flipped returns a copy with one bit changed.
func flipped(b []byte, bit int) []byte {
	b = bytes.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

// TestTruncatedResponsesAreRejected checks that both sides verify the same of a
// response that was cut off, and that no cut is taken for the end.
func TestTruncatedResponsesAreRejected(t *testing.T) {
	r := start(t, treeProgram)
	rnd := newRand(t)
	for range cases(60) {
		b, ranges := randomRequest(t, rnd)
		response := b.encode(t, ranges)
		cuts := []int{0, 7, 8, len(response) - 1}
		for range 12 {
			cuts = append(cuts, rnd.IntN(len(response)))
		}
		for _, cut := range cuts {
			cut = min(cut, len(response)-1)
			got := r.mustAgree(b.root, ranges, response[:cut])
			complete := cut == 8 && b.size == 0
			if got.end != "truncated" && !complete || !strings.HasPrefix(b.selected(ranges), got.data) {
				t.Fatalf("%d bytes, %q, cut at %d: %v", b.size, ranges, cut, got)
			}
		}
	}
}

// randomRequest returns a small blob, and a request to it that is not empty.
func randomRequest(t testing.TB, rnd *rand.Rand) (*blob, bao.Ranges) {
	t.Helper()
	b := randomBlob(t, rnd, 600<<10)
	for {
		if ranges := randomRanges(rnd, b.size); !ranges.IsEmpty() {
			return b, ranges
		}
	}
}

// TestWhatFollowsAResponseIsLeftOver checks that both sides find the end of a
// response by themselves.
func TestWhatFollowsAResponseIsLeftOver(t *testing.T) {
	r := start(t, treeProgram)
	rnd := newRand(t)
	for range cases(30) {
		b, ranges := randomRequest(t, rnd)
		extra := noise(1 + rnd.IntN(100<<10))
		got := r.mustAgree(b.root, ranges, append(b.encode(t, ranges), extra...))
		if got.end != "ok" || got.rest != len(extra) {
			t.Fatalf("%d bytes, %q, then %d: %v", b.size, ranges, len(extra), got)
		}
	}
}

// TestFlippedBitsAreRejected checks that both sides reject a response in which
// any bit behind the size is wrong, at the same place.
func TestFlippedBitsAreRejected(t *testing.T) {
	r := start(t, treeProgram)
	rnd := newRand(t)
	for range cases(60) {
		b, ranges := randomRequest(t, rnd)
		response := b.encode(t, ranges)
		if len(response) == 8 {
			continue
		}
		for range 16 {
			bit := 64 + rnd.IntN(8*(len(response)-8))
			got := r.mustAgree(b.root, ranges, flipped(response, bit))
			if got.end != "mismatch" || !strings.HasPrefix(b.selected(ranges), got.data) {
				t.Fatalf("%d bytes, %q, bit %d: %v", b.size, ranges, bit, got)
			}
		}
	}
}

// TestLiesAboutTheSize checks that both sides think the same of a wrong size,
// which not every response disproves; but the last chunk does.
func TestLiesAboutTheSize(t *testing.T) {
	r := start(t, treeProgram)
	rnd := newRand(t)
	for range cases(60) {
		b, ranges := randomRequest(t, rnd)
		for range 16 {
			size := uint64(b.size) ^ 1<<rnd.IntN(40)
			if rnd.IntN(2) == 0 {
				size = rnd.Uint64N(uint64(2*b.size + 3))
			}
			r.mustAgree(b.root, ranges, restated(b.encode(t, ranges), size))
			proof := r.mustAgree(b.root, bao.Last(), restated(b.encode(t, bao.Last()), size))
			if (proof.end == "ok") != (size == uint64(b.size)) {
				t.Fatalf("%d bytes: %d was proven: %v", b.size, size, proof)
			}
		}
	}
}

// TestLiesAboutTheSizeThatVerify has an example of which lies the first group
// does not disprove: those with as many levels.
func TestLiesAboutTheSizeThatVerify(t *testing.T) {
	r := start(t, treeProgram)
	b := newBlob(t, noise(100_000))
	group := bao.Chunks(0, 16)
	response := b.encode(t, group)
	for _, size := range []uint64{65537, 66560, 70_000, 100_000, 131_072} {
		if got := r.mustAgree(b.root, group, restated(response, size)); got.end != "ok" {
			t.Errorf("%d: %v", size, got)
		}
	}
	for _, size := range []uint64{0, 1, 65_536, 131_073, 1 << 40} {
		if got := r.mustAgree(b.root, group, restated(response, size)); got.end == "ok" {
			t.Errorf("%d: %v", size, got)
		}
	}
}

// restated returns a copy of a response with another size in front.
func restated(response []byte, size uint64) []byte {
	response = bytes.Clone(response)
	binary.LittleEndian.PutUint64(response, size)
	return response
}
