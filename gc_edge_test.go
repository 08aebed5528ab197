package cairn_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// longRun reports whether the flags ask for the long run.
func longRun() bool { return *modelRuns >= 500 }

// TestGCOddSequences protects as a sequence what is none.
func TestGCOddSequences(t *testing.T) {
	child, last := []byte("child"), []byte("child of the last group")
	hashes := fillers(1, 2*groupChildren)
	hashes[3] = hashOf(child)
	data := append(sequence(append(hashes, hashOf(last))...), "odd"...)
	for name, protect := range map[string]func(t *testing.T, s *cairn.Store) (release func()){
		"tag": func(t *testing.T, s *cairn.Store) func() {
			setTag(t, s, "tag", seqOf(hashOf(data)))
			return func() { s.DeleteTag(t.Context(), "tag") }
		},
		"temp tag": func(t *testing.T, s *cairn.Store) func() { return s.TempTag(seqOf(hashOf(data))).Release },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, tempPath(t), nil)
			add(t, s, child)
			add(t, s, last)
			release := protect(t, s)
			importGroups(t, s, data, 0, 1)
			collectAll(t, s) // what is there of it is protected, and is no error
			mustHave(t, s, child)
			mustNotHave(t, s, last)
			add(t, s, last)
			importGroups(t, s, data, 1, 3)
			for range 2 {
				_, err := s.GC(t.Context(), nil)
				mustBe(t, err, cairn.ErrMismatch)
				mustHave(t, s, child)
				mustHave(t, s, last)
				mustHave(t, s, data)
			}
			// Other changes go on all the same.
			add(t, s, []byte("more"))
			mustBeSound(t, s)
			release()
			collectAll(t, s)
			mustNotHave(t, s, child)
			mustBeSound(t, s)
			if st := must(s.Stats(t.Context())); st.Blobs != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestGCProtectOdd hands an odd sequence to add.
func TestGCProtectOdd(t *testing.T) {
	s := open(t, ":memory:", nil)
	odd, junk := []byte("odd"), []byte("junk")
	add(t, s, odd)
	add(t, s, junk)
	_, err := s.GC(t.Context(), &cairn.GCOptions{Protect: func(ctx context.Context, add func(cairn.HashAndFormat)) error {
		add(seqOf(hashOf(odd)))
		return nil
	}})
	mustBe(t, err, cairn.ErrMismatch)
	mustHave(t, s, odd)
	mustHave(t, s, junk)
	if n := s.Guarded(); n != 0 {
		t.Errorf("%d things are still protected", n)
	}
}

// TestGCMissing tags what is not there; what comes later is protected.
func TestGCMissing(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	child, data := []byte("child"), sequence(hashOf([]byte("child")))
	setTag(t, s, "tag", seqOf(hashOf(data)))
	setTag(t, s, "raw", raw(hashOf([]byte("nowhere"))))
	if report := collectAll(t, s); report != (cairn.GCReport{Done: true}) {
		t.Errorf("%+v", report)
	}
	add(t, s, child)
	collectAll(t, s)
	mustNotHave(t, s, child) // nobody knew
	add(t, s, data)
	collectAll(t, s)
	mustHave(t, s, data)
	add(t, s, child)
	collectAll(t, s)
	mustHave(t, s, child)
	mustBe(t, s.Delete(t.Context(), hashOf(child)), cairn.ErrConflict)
	mustBe(t, s.Delete(t.Context(), hashOf(data)), cairn.ErrConflict)
	mustBeSound(t, s)
}

// TestGCSameChildOften has a sequence name a child very often, and itself by
// accident never: what protects it goes with the one tag.
func TestGCSameChildOften(t *testing.T) {
	s := open(t, tempPath(t), nil)
	child := []byte("child")
	hashes := make([]cairn.Hash, 50_000)
	for i := range hashes {
		hashes[i] = hashOf(child)
	}
	add(t, s, child)
	tag := must(s.AddBytes(t.Context(), sequence(hashes...), &cairn.AddOptions{Format: cairn.HashSeq, Tag: "tag"}))
	tag.Release()
	other := must(s.AddBytes(t.Context(), sequence(hashes[:1000]...), &cairn.AddOptions{Format: cairn.HashSeq, Tag: "other"}))
	other.Release()
	collectAll(t, s)
	mustHave(t, s, child)
	for _, name := range []string{"tag", "other"} {
		mustHave(t, s, child)
		if err := s.DeleteTag(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		collectAll(t, s)
	}
	mustNotHave(t, s, child)
	mustBeSound(t, s)
}

// TestGCCycle has a sequence be its own child, and two be each other's, which no
// real hashes can.
func TestGCCycle(t *testing.T) {
	s := open(t, ":memory:", nil)
	var hashes []cairn.Hash
	for i := range uint64(3) {
		hashes = append(hashes, add(t, s, sequence(fillers(i, 2)...)))
		setTag(t, s, fmt.Sprint(i), seqOf(hashes[i]))
	}
	collectAll(t, s)
	for from, to := range []int{0, 2, 1} {
		script(t, s, fmt.Sprintf(`insert into child select id, x'%x' from sequence where hash = x'%v'`, hashes[to][:8], hashes[from]))
	}
	for i, h := range hashes {
		collectAll(t, s)
		if err := s.DeleteTag(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		collectAll(t, s)
		want := cairn.Absent
		if i == 1 {
			want = cairn.Complete // the other one names it
		}
		if st := must(s.Status(t.Context(), h)); st.State != want {
			t.Errorf("sequence %d: %+v", i, st)
		}
	}
	if st := must(s.Stats(t.Context())); st.Blobs != 0 {
		t.Errorf("%+v", st)
	}
	mustBeSound(t, s)
}

// TestGCChain nests sequences deeply: a tag protects one level only.
func TestGCChain(t *testing.T) {
	n := 1_000
	if testing.Short() {
		n = 100
	} else if longRun() {
		n = 100_000
	}
	s := open(t, tempPath(t), &cairn.Options{Durability: cairn.Relaxed})
	chain := [][]byte{[]byte("the innermost")}
	for i := range n {
		chain = append(chain, sequence(hashOf(chain[i])))
	}
	addAll := func() {
		var wg sync.WaitGroup
		for g := range 32 {
			wg.Go(func() {
				for i := g; i < len(chain); i += 32 {
					tag, err := s.AddBytes(context.Background(), chain[i], nil)
					if err != nil {
						t.Error(err)
						return
					}
					tag.Release()
				}
			})
		}
		wg.Wait()
	}
	addAll()
	setTag(t, s, "outermost", seqOf(hashOf(chain[n])))
	if report := collectAll(t, s); report.Swept != int64(n-1) || report.Marked != 2 {
		t.Errorf("%+v", report)
	}
	// Each of them tagged.
	addAll()
	for i := 1; i <= n; i++ {
		setTag(t, s, fmt.Sprint("chain/", i), seqOf(hashOf(chain[i])))
	}
	if report := collectAll(t, s); report.Swept != 0 || report.Marked != int64(n+1) {
		t.Errorf("%+v", report)
	}
	if deleted, err := s.DeleteTags(t.Context(), "chain/"); err != nil || deleted != int64(n) {
		t.Errorf("%d, %v", deleted, err)
	}
	if report := collectAll(t, s); report.Swept != int64(n-1) {
		t.Errorf("%+v", report)
	}
	mustBeSound(t, s)
}

// A sequenceReader reads the sequence of n children that are nowhere, and at the
// end one that is.
type sequenceReader struct {
	n, at int64 // in bytes
	last  cairn.Hash
}

func (r *sequenceReader) Read(p []byte) (n int, err error) {
	for len(p) >= 32 && r.at < r.n {
		clear(p[:32])
		binary.BigEndian.PutUint64(p, uint64(r.at)*0x9e3779b97f4a7c15)
		if r.at += 32; r.at == r.n {
			copy(p, r.last[:])
		}
		p, n = p[32:], n+32
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestGCManyChildren tags a sequence of very many children. The memory that it
// takes does not grow with them.
func TestGCManyChildren(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of megabytes")
	}
	n, bound := int64(100_000), uint64(128<<20)
	if longRun() {
		n = 10_000_000
	}
	s := open(t, tempPath(t), &cairn.Options{Durability: cairn.Relaxed})
	child := []byte("child")
	add(t, s, child)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tag := must(s.Add(t.Context(), &sequenceReader{n: n * 32, last: hashOf(child)}, &cairn.AddOptions{Format: cairn.HashSeq, Tag: "tag"}))
	if report := collectAll(t, s); report.Swept != 0 {
		t.Errorf("%+v", report)
	}
	tag.Release()
	mustHave(t, s, child)
	for range 2 {
		if report := collectAll(t, s); report.Swept != 0 || report.Marked != 2 {
			t.Errorf("%+v", report)
		}
	}
	if err := s.DeleteTag(t.Context(), "tag"); err != nil {
		t.Fatal(err)
	}
	if report := collectAll(t, s); report.Swept != 2 {
		t.Errorf("%+v", report)
	}
	runtime.ReadMemStats(&after)
	t.Logf("%d children: HeapSys %d MiB before, %d MiB after", n, before.HeapSys>>20, after.HeapSys>>20)
	if after.HeapSys > before.HeapSys+bound {
		t.Errorf("HeapSys grows by %d MiB", (after.HeapSys-before.HeapSys)>>20)
	}
	mustNotHave(t, s, child)
	if rows := count(t, s, "child"); rows != 0 {
		t.Errorf("%d children are left", rows)
	}
	mustBeSound(t, s)
}

// TestGCLargeSequenceInParts tags a sequence that is read in many steps, and
// changes it meanwhile: children that are named by what arrives are protected, those
// of a tag that is taken away in the middle are not.
func TestGCLargeSequenceInParts(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const groups = 80 // 40,960 children
	hashes := fillers(3, groups*groupChildren)
	var children [][]byte
	for g := range groups {
		child := fmt.Append(nil, "child", g)
		children = append(children, child)
		hashes[g*groupChildren+g] = hashOf(child)
	}
	data := sequence(hashes...)
	for _, child := range children {
		add(t, s, child)
	}
	setTag(t, s, "tag", seqOf(hashOf(data)))
	importGroups(t, s, data, 0, groups/2)
	for g := groups / 2; g < groups; g++ {
		pin := must(s.Pin(t.Context(), cairn.Window{Hashes: []cairn.Hash{hashOf(children[g])}}))
		defer pin.Release()
	}
	collectAll(t, s)
	for _, child := range children {
		mustHave(t, s, child)
	}
	importGroups(t, s, data, groups/2, groups)
	for range 3 {
		if err := s.DeleteTag(t.Context(), "tag"); err != nil {
			t.Fatal(err)
		}
		setTag(t, s, "tag", seqOf(hashOf(data)))
		mustBe(t, s.Delete(t.Context(), hashOf(children[7])), cairn.ErrConflict)
		collectAll(t, s)
	}
	for _, child := range children {
		mustHave(t, s, child)
	}
	if want := int64(bao.Groups(int64(len(data)))); want != groups {
		t.Errorf("%d groups", want)
	}
	mustBeSound(t, s)
}
