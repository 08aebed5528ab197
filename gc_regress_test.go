package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// collectAll runs a collection that must come to its end.
func collectAll(t testing.TB, s *cairn.Store) cairn.GCReport {
	t.Helper()
	report, err := s.GC(t.Context(), nil)
	if err != nil || !report.Done {
		t.Fatalf("GC: %+v, %v", report, err)
	}
	return report
}

// importGroups imports groups of a content.
func importGroups(t testing.TB, s *cairn.Store, data []byte, from, to int) {
	t.Helper()
	ranges := bao.Chunks(uint64(from)*16, uint64(to)*16).Intersect(bao.Chunks(0, bao.ChunkCount(int64(len(data)))))
	response, _ := newSeed(t, data).response(t, ranges)
	if err := s.ImportBao(t.Context(), hashOf(data), ranges, bytes.NewReader(response)); err != nil {
		t.Fatal(err)
	}
}

// TestGCSweeps is what a collection leaves of each kind, and what it says.
func TestGCSweeps(t *testing.T) {
	s := open(t, tempPath(t), nil)
	tagged, pinned, read := []byte("tagged"), []byte("pinned"), []byte("read")
	setTag(t, s, "tag", raw(add(t, s, tagged)))
	pin := must(s.Pin(t.Context(), cairn.Window{Hashes: []cairn.Hash{add(t, s, pinned)}}))
	b := must(s.Blob(t.Context(), add(t, s, read)))
	piece, owned := []byte("piece"), []byte("owned")
	putPiece(t, s, "key", piece, nil)
	if err := s.Owner("o").AddBlob(t.Context(), add(t, s, owned)); err != nil {
		t.Fatal(err)
	}
	openPiece(t, s, "unfinished", 100, nil).WriteAt([]byte("x"), 0)
	junk, part := content(1, 100_000), content(2, 100_000)
	add(t, s, junk)
	importGroups(t, s, part, 1, 3)

	want := cairn.GCReport{Swept: 2, SweptBytes: 100_000 + 2*bao.GroupSize, Done: true,
		Unprotected: cairn.GCTotal{Blobs: 1, Bytes: 100_000}, Partial: cairn.GCTotal{Blobs: 1, Bytes: 2 * bao.GroupSize}}
	for _, dry := range []bool{true, false} {
		want.DryRun = dry
		got, err := s.GC(t.Context(), &cairn.GCOptions{DryRun: dry})
		if want.Marked = got.Marked; err != nil || got != want || got.Marked < 5 || got.Marked > 6 {
			t.Errorf("GC: %+v, %v, want %+v", got, err, want)
		}
		if st, err := s.Status(t.Context(), hashOf(junk)); err != nil || (st.State == cairn.Complete) != dry {
			t.Errorf("dry run %v: %+v, %v", dry, st, err)
		}
		if st, err := s.Status(t.Context(), hashOf(part)); err != nil || (st.State == cairn.Partial) != dry {
			t.Errorf("dry run %v: %+v, %v", dry, st, err)
		}
	}
	for _, data := range [][]byte{tagged, pinned, read, piece, owned} {
		mustHave(t, s, data)
	}
	pin.Release()
	b.Close()
	if report := collectAll(t, s); report.Swept != 2 {
		t.Errorf("%+v", report)
	}
	mustHaveKeys(t, s, "key", "unfinished")
	mustBeSound(t, s)
}

// TestGCWhileTempTagBecomesTag has a tag be set in the moment in which the last
// temp tag goes. There, the collection looked at the tags first and at the temp tags
// then: a content that went from one to the other in between was in neither set.
func TestGCWhileTempTagBecomesTag(t *testing.T) {
	s := open(t, tempPath(t), nil)
	collecting := collectMeanwhile(t, s)
	for i := range 80 {
		data := fmt.Append(nil, "content", i)
		tag, err := s.AddBytes(t.Context(), data, nil)
		if err != nil {
			t.Fatal(err)
		}
		setTag(t, s, "tag", raw(tag.Hash()))
		tag.Release()
		mustHave(t, s, data)
		// And back again.
		temp := s.TempTag(raw(hashOf(data)))
		if err := s.DeleteTag(t.Context(), "tag"); err != nil {
			t.Fatal(err)
		}
		mustHave(t, s, data)
		if err := s.SetTag(t.Context(), "moved", raw(hashOf(data)), nil); err != nil {
			t.Fatal(err)
		}
		temp.Release()
		if err := s.RenameTag(t.Context(), "moved", "tag"); err != nil {
			t.Fatal(err)
		}
		mustHave(t, s, data)
	}
	collecting()
	mustBeSound(t, s)
}

// collectMeanwhile has two goroutines collect, until the function is called.
func collectMeanwhile(t *testing.T, s *cairn.Store) (end func()) {
	var over atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !over.Load() {
				if _, err := s.GC(context.Background(), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() { over.Store(true); wg.Wait() })
}

// TestGCWhileAddingWithATag releases the temp tag of an add with a tag at once.
// There, the tag was set after the add by another call, and a collection in between
// saw a temp tag that was gone and a tag that was not there yet.
func TestGCWhileAddingWithATag(t *testing.T) {
	s := open(t, tempPath(t), nil)
	collecting := collectMeanwhile(t, s)
	for i := range 200 {
		data := fmt.Append(nil, "content", i)
		if i%50 == 0 {
			data = content(uint64(i), 2*cairn.SegmentSize+i)
		}
		opts := &cairn.AddOptions{Tag: "tag"}
		if i%2 == 0 {
			opts = &cairn.AddOptions{AutoTag: true}
		}
		tag, err := s.AddBytes(t.Context(), data, opts)
		if err != nil {
			t.Fatal(err)
		}
		tag.Release()
		mustHave(t, s, data)
	}
	collecting()
	mustBeSound(t, s)
}

// TestGCSequenceThatIsLiveAsRaw protects a sequence as raw too, by a tag, a temp
// tag, or as the child of another one. There, the hash was in the set of what is live
// already when its turn as a sequence came, and so its children were not looked at.
func TestGCSequenceThatIsLiveAsRaw(t *testing.T) {
	child := []byte("child")
	data := sequence(hashOf(child))
	outer := sequence(hashOf(data))
	type protect func(t *testing.T, s *cairn.Store) (release func())
	tag := func(name string, content cairn.HashAndFormat) protect {
		return func(t *testing.T, s *cairn.Store) func() {
			setTag(t, s, name, content)
			return func() { s.DeleteTag(t.Context(), name) }
		}
	}
	temp := func(content cairn.HashAndFormat) protect {
		return func(t *testing.T, s *cairn.Store) func() { return s.TempTag(content).Release }
	}
	others := []protect{tag("a", raw(hashOf(data))), tag("z", raw(hashOf(data))), temp(raw(hashOf(data))), tag("a", seqOf(hashOf(outer))), temp(seqOf(hashOf(outer)))}
	ours := []protect{tag("m", seqOf(hashOf(data))), temp(seqOf(hashOf(data)))}
	for i, other := range others {
		for j, our := range ours {
			for _, first := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d/%d/%v", i, j, first), func(t *testing.T) {
					s := open(t, ":memory:", nil)
					add(t, s, child)
					add(t, s, data)
					add(t, s, outer)
					release := func() {}
					if first {
						release = other(t, s)
					}
					end := our(t, s)
					if !first {
						release = other(t, s)
					}
					collectAll(t, s)
					mustHave(t, s, child)
					end()
					collectAll(t, s)
					mustHave(t, s, data)
					mustNotHave(t, s, child)
					release()
					collectAll(t, s)
					mustNotHave(t, s, data)
				})
			}
		}
	}
}

// TestGCAddAfterTheCallback adds content while the callback runs, and after it has
// said all it knows. There, the application told what it needs first, and what was
// live was looked at later: what it recorded in between was in neither.
func TestGCAddAfterTheCallback(t *testing.T) {
	s := open(t, tempPath(t), nil)
	fresh, again, completed, used, piece := []byte("fresh"), []byte("again"), content(3, 40_000), []byte("used"), []byte("taken as a piece")
	old := []byte("old")
	for _, data := range [][]byte{again, used, piece, old} {
		add(t, s, data)
	}
	importGroups(t, s, completed, 0, 2)
	report, err := s.GC(t.Context(), &cairn.GCOptions{Protect: func(ctx context.Context, protect func(cairn.HashAndFormat)) error {
		add(t, s, fresh)
		add(t, s, again)
		importGroups(t, s, completed, 2, 3)
		mustHave(t, s, used)
		if err := put(s, "key", piece); err != nil {
			return err
		}
		return ctx.Err()
	}})
	if err != nil || report.Swept != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	for _, data := range [][]byte{fresh, again, completed, used, piece} {
		mustHave(t, s, data)
	}
	mustNotHave(t, s, old)
	// What the application does not tell of goes with the next one.
	collectAll(t, s)
	for _, data := range [][]byte{fresh, again, completed, used} {
		mustNotHave(t, s, data)
	}
	mustHave(t, s, piece)
	mustBeSound(t, s)
}

// TestGCWhileApplicationRecords has an application record what it adds
// in a set of its own, with the callback under the lock of that set.
func TestGCWhileApplicationRecords(t *testing.T) {
	s := open(t, tempPath(t), nil)
	var mu sync.Mutex
	recorded := make(map[cairn.Hash][]byte)
	var over atomic.Bool
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			for i := range 150 {
				data := fmt.Append(nil, g, "content", i)
				tag, err := s.AddBytes(t.Context(), data, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				recorded[tag.Hash()] = data
				mu.Unlock()
				tag.Release()
			}
		})
	}
	var collecting sync.WaitGroup
	collecting.Go(func() {
		for !over.Load() {
			_, err := s.GC(t.Context(), &cairn.GCOptions{Protect: func(ctx context.Context, add func(cairn.HashAndFormat)) error {
				mu.Lock()
				defer mu.Unlock()
				for h := range recorded {
					add(raw(h))
				}
				return nil
			}})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Wait()
	over.Store(true)
	collecting.Wait()
	for _, data := range recorded {
		mustHave(t, s, data)
	}
}

// TestGCProtect hands content of either format to add, also such that is not there.
// It is protected until the collection ends, and no longer.
func TestGCProtect(t *testing.T) {
	s := open(t, tempPath(t), nil)
	child, other, junk := []byte("child"), []byte("other"), []byte("junk")
	data := sequence(hashOf(child), hashOf([]byte("nowhere")))
	for _, data := range [][]byte{child, other, junk, data} {
		add(t, s, data)
	}
	report, err := s.GC(t.Context(), &cairn.GCOptions{Protect: func(ctx context.Context, add func(cairn.HashAndFormat)) error {
		for range 3 {
			add(seqOf(hashOf(data)))
			add(raw(hashOf(other)))
			add(raw(hashOf([]byte("nowhere"))))
			add(seqOf(hashOf([]byte("nowhere"))))
		}
		mustHave(t, s, junk)
		mustBe(t, s.Delete(ctx, hashOf(other)), cairn.ErrConflict)
		mustBe(t, s.Delete(ctx, hashOf(child)), cairn.ErrConflict)
		return nil
	}})
	if err != nil || report.Swept != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	for _, data := range [][]byte{child, other, data, junk} {
		mustHave(t, s, data)
	}
	if n := s.Guarded(); n != 0 {
		t.Errorf("%d things are still protected", n)
	}
	if report := collectAll(t, s); report.Swept != 4 {
		t.Errorf("%+v", report)
	}
	mustBeSound(t, s)
}

// TestGCCallbackFails sweeps nothing after an error of the callback, after a panic
// neither; and the next collection does all.
func TestGCCallbackFails(t *testing.T) {
	s := open(t, tempPath(t), nil)
	junk := []byte("junk")
	add(t, s, junk)
	_, err := s.GC(t.Context(), &cairn.GCOptions{Protect: func(context.Context, func(cairn.HashAndFormat)) error { return errCallback }})
	mustBe(t, err, errCallback)
	mustHave(t, s, junk)
	func() {
		defer func() { recover() }()
		s.GC(t.Context(), &cairn.GCOptions{Protect: func(context.Context, func(cairn.HashAndFormat)) error { panic("callback") }})
	}()
	mustHave(t, s, junk)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.GC(ctx, &cairn.GCOptions{Protect: func(context.Context, func(cairn.HashAndFormat)) error { cancel(); return nil }})
	if err != nil {
		mustBe(t, err, context.Canceled)
	}
	collectAll(t, s)
	mustNotHave(t, s, junk)
	add(t, s, junk)
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = s.GC(ctx, nil)
	mustBe(t, err, context.Canceled)
	mustHave(t, s, junk)
}

// TestGCDuringADownload collects after each byte or so of a download. There, a
// collection every 30 seconds, or one by hand, took away what was being downloaded.
func TestGCDuringADownload(t *testing.T) {
	s := open(t, tempPath(t), nil)
	children := [][]byte{content(1, 100), content(2, 50_000), content(3, 2*cairn.SegmentSize)}
	hashes := fillers(7, 3*groupChildren)
	hashes[0], hashes[groupChildren], hashes[2*groupChildren+1] = hashOf(children[0]), hashOf(children[1]), hashOf(children[2])
	data := sequence(hashes...)
	temp := s.TempTag(seqOf(hashOf(data)))
	// The children of the groups that are there.
	for g := range 3 {
		importGroups(t, s, data, g, g+1)
		collectAll(t, s)
		groups := int(bao.Groups(int64(len(children[g]))))
		for at := 0; at < groups; at += 40 {
			importGroups(t, s, children[g], at, min(at+40, groups))
			collectAll(t, s)
		}
		for _, data := range children[:g+1] {
			mustHave(t, s, data)
		}
	}
	mustHave(t, s, data)
	temp.Release()
	if report := collectAll(t, s); report.Swept != 4 {
		t.Errorf("%+v", report)
	}

	// One blob, in the middle of an import, that nothing else protects.
	r, w := io.Pipe()
	large := children[2]
	response := respond(t, large, "0..1000000000")
	result := make(chan error)
	go func() {
		result <- s.ImportBao(context.Background(), hashOf(large), parse(t, "0..1000000000"), r)
	}()
	for from := 0; from < len(response); from += 300_000 {
		if _, err := w.Write(response[from:min(from+300_000, len(response))]); err != nil {
			t.Fatal(err)
		}
		if from+300_000 < len(response) { // what has come wholly is protected no more
			collectAll(t, s)
		}
	}
	w.Close()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	mustHave(t, s, large)

	// And an add.
	r, w = io.Pipe()
	added := content(9, 5*cairn.SegmentSize)
	tags := make(chan *cairn.TempTag, 1)
	go func() {
		tag, err := s.Add(context.Background(), r, nil)
		tags <- tag
		result <- err
	}()
	for from := 0; from < len(added); from += 300_000 {
		if _, err := w.Write(added[from:min(from+300_000, len(added))]); err != nil {
			t.Fatal(err)
		}
		collectAll(t, s)
	}
	w.Close()
	tag := <-tags
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	collectAll(t, s)
	mustHave(t, s, added)
	tag.Release()
	mustBeSound(t, s)
}

// TestGCGoesOnAfterAnError collects when what was wrong is over. There, the
// goroutine that collected ended with its first error, and nothing was ever swept
// again.
func TestGCGoesOnAfterAnError(t *testing.T) {
	s := open(t, tempPath(t), nil)
	junk, odd := []byte("junk"), []byte("no sequence")
	add(t, s, junk)
	setTag(t, s, "odd", seqOf(hashOf(odd)))
	collectAll(t, s) // it is not there
	add(t, s, junk)
	add(t, s, odd)
	for range 3 {
		_, err := s.GC(t.Context(), nil)
		mustBe(t, err, cairn.ErrMismatch)
		mustHave(t, s, junk)
	}
	setTag(t, s, "odd", raw(hashOf(odd)))
	collectAll(t, s)
	mustNotHave(t, s, junk)
	mustHave(t, s, odd)
	mustBeSound(t, s)
}

// TestGCExpiredTags deletes tags that have expired, with what only they protected.
func TestGCExpiredTags(t *testing.T) {
	s := open(t, tempPath(t), nil)
	past, future := time.Unix(1_000_000_000, 0), time.Unix(4_000_000_000, 0)
	a, b, child := []byte("a"), []byte("b"), []byte("child")
	for _, data := range [][]byte{a, b, child, sequence(hashOf(child))} {
		add(t, s, data)
	}
	for name, tag := range map[string]struct {
		content cairn.HashAndFormat
		opts    cairn.TagOptions
	}{
		"a": {raw(hashOf(a)), cairn.TagOptions{Expires: past}}, "b": {raw(hashOf(b)), cairn.TagOptions{Expires: future}},
		"c": {seqOf(hashOf(sequence(hashOf(child)))), cairn.TagOptions{Expires: past}}, "d": {raw(hashOf([]byte("nowhere"))), cairn.TagOptions{Expires: past}},
	} {
		if err := s.SetTag(t.Context(), name, tag.content, &tag.opts); err != nil {
			t.Fatal(err)
		}
	}
	mustBe(t, s.Delete(t.Context(), hashOf(a)), cairn.ErrConflict) // until a collection
	for _, dry := range []bool{true, false} {
		report, err := s.GC(t.Context(), &cairn.GCOptions{DryRun: dry})
		if err != nil || report.ExpiredTags != 3 || report.Swept != 3 || report.Marked != 1 {
			t.Errorf("dry run %v: %+v, %v", dry, report, err)
		}
		if dry {
			mustHaveTags(t, s, "a", "b", "c", "d")
			mustHave(t, s, child)
		}
	}
	mustHaveTags(t, s, "b")
	mustNotHave(t, s, child)
	mustNotHave(t, s, a)
	mustHave(t, s, b)
	mustBeSound(t, s)
}

// TestGCEndsWithClose collects while the store is closed.
func TestGCEndsWithClose(t *testing.T) {
	path := tempPath(t)
	s := must(cairn.Open(t.Context(), path, nil))
	for i := range 200 {
		add(t, s, fmt.Append(nil, i))
	}
	keep := []byte("keep")
	setTag(t, s, "tag", raw(add(t, s, keep)))
	result := make(chan error)
	go func() {
		_, err := s.GC(context.Background(), &cairn.GCOptions{Protect: func(context.Context, func(cairn.HashAndFormat)) error {
			result <- nil
			return nil
		}})
		result <- err
	}()
	<-result
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; err != nil && !errors.Is(err, cairn.ErrClosed) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s = open(t, path, nil)
	mustHave(t, s, keep)
	collectAll(t, s)
	mustBeSound(t, s)
	if st := must(s.Stats(t.Context())); st.Blobs != 1 {
		t.Errorf("%+v", st)
	}
}

// TestGCOtherProgramTags has another program tag a sequence, and nothing of ours
// commits before the collection, or before an eviction.
func TestGCOtherProgramTags(t *testing.T) {
	for _, evict := range []bool{false, true} {
		path := tempPath(t)
		s := open(t, path, nil)
		child, data := content(1, 10_000), sequence(hashOf(content(1, 10_000)))
		add(t, s, child)
		add(t, s, data)
		add(t, s, content(2, 10_000))
		mustHave(t, s, child) // with a snapshot from before
		sql(t, path, fmt.Sprintf(`insert into tag (name, hash, format, created) values (x'61', x'%v', 1, 1)`, hashOf(data)))
		if evict {
			if err := s.SetCapacity(t.Context(), 15_000); err != nil {
				t.Error(err)
			}
		} else {
			collectAll(t, s)
		}
		mustHave(t, s, child)
		mustHave(t, s, data)
		mustNotHave(t, s, content(2, 10_000))
		sql(t, path, `delete from tag`)
		collectAll(t, s)
		collectAll(t, s) // the readers may not have seen it before
		mustNotHave(t, s, child)
		mustNotHave(t, s, data)
		mustBeSound(t, s)
	}
}

// TestGCTinyBudget collects with a budget that is used up at once: each call gets
// on by something, and so all of them to the end.
func TestGCTinyBudget(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const n = 1000
	for i := range n {
		add(t, s, fmt.Append(nil, i))
	}
	setTag(t, s, "tag", raw(hashOf([]byte("7"))))
	swept := int64(0)
	for calls := 0; ; calls++ {
		report, err := s.GC(t.Context(), &cairn.GCOptions{Budget: 1})
		if err != nil {
			t.Fatal(err)
		}
		if swept += report.Swept; report.Done {
			break
		}
		if calls > 2*n {
			t.Fatalf("%d swept in %d calls", swept, calls)
		}
	}
	if swept != n-1 {
		t.Errorf("%d swept", swept)
	}
	mustHave(t, s, []byte("7"))
	mustBeSound(t, s)
}
