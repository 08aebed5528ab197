package main_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cairnstore/cairn/bao"
	command "github.com/cairnstore/cairn/cmd/cairn"
	"lukechampine.com/blake3"
)

// A vector is a blob and responses about it, made by iroh's implementation.
type vector struct {
	Size   int
	Blake3 string
	Slices []slice
}

type slice struct {
	Name   string
	Ranges [][2]*uint64 // [start, end), the end null for none
	Blake3 string       `json:"response_blake3"`
	Hex    string       `json:"response_hex"` // left out of long ones
}

// text returns the slice's ranges as they are written on the command line.
func (s slice) text() string {
	var text []byte
	for i, r := range s.Ranges {
		if i > 0 {
			text = append(text, ',')
		}
		switch {
		case r[1] != nil:
			text = fmt.Appendf(text, "%d..%d", *r[0], *r[1])
		case *r[0] == math.MaxUint64:
			text = append(text, "last"...)
		default:
			text = fmt.Appendf(text, "%d..", *r[0])
		}
	}
	return string(text)
}

// held returns what a store keeps of the response: the groups that the ranges
// select whole.
func (s slice) held(t *testing.T, size int) (held bao.Ranges) {
	t.Helper()
	ranges, err := bao.ParseRanges(s.text())
	if err != nil {
		t.Fatal(err)
	}
	selected, end := ranges.Effective(int64(size)), bao.ChunkCount(int64(size))
	const groupChunks = bao.GroupSize / bao.ChunkSize
	for chunk := uint64(0); chunk < end; chunk += groupChunks {
		group := bao.Chunks(chunk, min(end, chunk+groupChunks))
		if group.Minus(selected).IsEmpty() {
			held = held.Union(group)
		}
	}
	return held
}

// vectors returns those of a few blobs, of which there are whole responses.
func vectors(t *testing.T) (few []vector) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "bao", "testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Entries []vector }
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, v := range all.Entries {
		if slices.Contains([]int{0, 1025, 16385, 49159, 262145}, v.Size) {
			few = append(few, v)
		}
	}
	return few
}

// mustRun runs a command line, which must not fail, and returns its output.
func mustRun(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	var out, stderr bytes.Buffer
	if status := command.Run(t.Context(), args, bytes.NewReader(in), &out, &stderr); status != 0 {
		t.Fatalf("%q: status %d, %q", args, status, stderr.String())
	}
	return out.Bytes()
}

// Responses are byte for byte those of another implementation, and are taken
// in from it.
func TestVectors(t *testing.T) {
	all := vectors(t)
	t.Chdir(t.TempDir())
	taken := 0
	for _, v := range all {
		content := make([]byte, v.Size)
		for i := range content {
			content[i] = byte(i % 251)
		}
		mustRun(t, content, "add", "-")
		for i, s := range v.Slices {
			response := mustRun(t, nil, "bao", "encode", v.Blake3, "--ranges", s.text())
			if got := fmt.Sprintf("%x", blake3.Sum256(response)); got != s.Blake3 {
				t.Errorf("%d bytes, %s: the response is another", v.Size, s.Name)
			}
			if s.Hex == "" {
				continue
			}
			taken++
			checkDecode(t, fmt.Sprintf("%d-%d.db", v.Size, i), v, s)
		}
	}
	if taken < 40 {
		t.Errorf("only %d responses were taken in", taken)
	}
}

// checkDecode takes a response in and compares what is printed of it.
func checkDecode(t *testing.T, db string, v vector, s slice) {
	t.Helper()
	response, err := hex.DecodeString(s.Hex)
	if err != nil {
		t.Fatal(err)
	}
	out := mustRun(t, response, "--db", db, "--json", "bao", "decode", v.Blake3, "--ranges", s.text())
	var got struct {
		Hash, State, Ranges string
		Size                int
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	want := s.held(t, v.Size).String()
	complete := want == bao.Chunks(0, bao.ChunkCount(int64(v.Size))).String()
	if got.Hash != v.Blake3 || got.Ranges != want || (got.State == "complete") != complete {
		t.Errorf("%d bytes, %s: printed %s, want the ranges %q", v.Size, s.Name, out, want)
	}
	if got.State != "absent" && got.Size != v.Size {
		t.Errorf("%d bytes, %s: printed %s", v.Size, s.Name, out)
	}
}
