package cairn_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// errPeer is what a broken connection returns in these tests.
var errPeer = errors.New("connection reset")

// TestBadResponses feeds every kind of bad response to a store that already
// has something of the blob.
func TestBadResponses(t *testing.T) {
	data := content(7, 40*bao.GroupSize+100)
	good := respond(t, data, "all")
	header := func(size uint64) []byte {
		return append(binary.LittleEndian.AppendUint64(nil, size), good[8:]...)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 4
		return b
	}
	swapped := bytes.Clone(good)
	first := bytes.Index(good, data[:bao.GroupSize])
	copy(swapped[first:], data[bao.GroupSize:2*bao.GroupSize])
	for _, tt := range []struct {
		name string
		r    io.Reader
		want error
		kept string // beside what was there: groups in front of the error
	}{
		{"empty", bytes.NewReader(nil), io.ErrUnexpectedEOF, ""},
		{"truncated size", bytes.NewReader(good[:7]), io.ErrUnexpectedEOF, ""},
		{"truncated pair", bytes.NewReader(good[:8+63]), io.ErrUnexpectedEOF, ""},
		{"truncated data", bytes.NewReader(good[:len(good)-1]), io.ErrUnexpectedEOF, "0..640"},
		{"disconnect", io.MultiReader(bytes.NewReader(good[:len(good)-1]), iotest.ErrReader(errPeer)), errPeer, "0..640"},
		{"extended", io.MultiReader(bytes.NewReader(good), bytes.NewReader([]byte{0})), cairn.ErrMismatch, "0..641"},
		{"endless", io.MultiReader(bytes.NewReader(good), endless{}), cairn.ErrMismatch, "0..641"},
		{"only zeros", endless{}, cairn.ErrMismatch, ""},
		{"reordered", bytes.NewReader(swapped), cairn.ErrMismatch, ""},
		{"first pair", bytes.NewReader(flip(20)), cairn.ErrMismatch, ""},
		{"last byte", bytes.NewReader(flip(len(good) - 1)), cairn.ErrMismatch, "0..640"},
		{"another request", bytes.NewReader(respond(t, data, "16..32")), cairn.ErrMismatch, ""},
		{"another blob", bytes.NewReader(respond(t, content(8, len(data)), "all")), cairn.ErrMismatch, ""},
		{"size 0", bytes.NewReader(header(0)), cairn.ErrMismatch, ""},
		{"size 1", bytes.NewReader(header(1)), cairn.ErrMismatch, ""},
		{"size + 1", bytes.NewReader(header(uint64(len(data) + 1))), nil, "0..640"}, // cut off or not verified
		{"size - 1", bytes.NewReader(header(uint64(len(data) - 1))), cairn.ErrMismatch, "0..640"},
		{"size 2^40", bytes.NewReader(header(1 << 40)), cairn.ErrMismatch, ""},
		{"size 2^40+1", bytes.NewReader(header(1<<40 + 1)), cairn.ErrTooLarge, ""},
		{"size 2^63", bytes.NewReader(header(1 << 63)), cairn.ErrTooLarge, ""},
		{"size 2^64-1", bytes.NewReader(header(1<<64 - 1)), cairn.ErrTooLarge, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, ":memory:", nil)
			importRanges(t, s, data, "320..336")
			err := s.ImportBao(t.Context(), hashOf(data), bao.All(), tt.r)
			if err == nil {
				t.Fatal("accepted")
			}
			if tt.want != nil {
				mustBe(t, err, tt.want)
			}
			want := parse(t, "320..336").Union(parse(t, tt.kept))
			mustHaveRanges(t, s, data, want.String())
			mustReadRanges(t, s, data)
			mustBeSound(t, s)

			importRanges(t, s, data, "all") // an honest peer is not held up
			mustHave(t, s, data)
			mustBeSound(t, s)
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestProvenSize refuses another size at once, however the data goes on.
func TestProvenSize(t *testing.T) {
	s := open(t, ":memory:", nil)
	data := content(1, 100_000)
	importRanges(t, s, data, "last")
	sd := newSeed(t, data)
	sd.size = 66_560
	response, whole := sd.response(t, bao.Chunks(0, 16))
	if !whole {
		t.Fatal("the false statement cannot be told")
	}
	err := s.ImportBao(t.Context(), hashOf(data), bao.Chunks(0, 16), bytes.NewReader(response))
	mustBe(t, err, cairn.ErrMismatch)
	importRanges(t, s, data, "all")
	mustHave(t, s, data)
}

// TestDisconnects ends a response after each of its bytes; the following
// import asks for what is still missing.
func TestDisconnects(t *testing.T) {
	step := 61
	if testing.Short() {
		step = 997
	}
	testDisconnects(t, 3*bao.GroupSize+10, "all", step)
	testDisconnects(t, bao.GroupSize+10, "last", 1)
}

func testDisconnects(t *testing.T, size int, ranges string, step int) {
	data := content(2, size)
	good := respond(t, data, ranges)
	for cut := 0; cut < len(good); cut += step {
		s := open(t, ":memory:", nil)
		r := iotest.TimeoutReader(bytes.NewReader(good[:cut]))
		if err := s.ImportBao(t.Context(), hashOf(data), parse(t, ranges), iotest.DataErrReader(r)); err == nil {
			t.Fatalf("cut at %d: no error", cut)
		}
		mustReadRanges(t, s, data)
		for want, err := range s.Missing(t.Context(), cairn.HashAndFormat{Hash: hashOf(data)}) {
			if err != nil {
				t.Fatal(err)
			}
			response, _ := newSeed(t, data).response(t, want.Ranges)
			if err := s.ImportBao(t.Context(), want.Hash, want.Ranges, bytes.NewReader(response)); err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
		mustHave(t, s, data)
		s.Close()
	}
}

// TestImportCancelled keeps what came before the cancellation.
func TestImportCancelled(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(2, 200*bao.GroupSize)
	good := respond(t, data, "all")
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(bytes.NewReader(good[:len(good)/2]), cancelReader(cancel), bytes.NewReader(good[len(good)/2:]))
	mustBe(t, s.ImportBao(ctx, hashOf(data), bao.All(), r), context.Canceled)
	st, err := s.Status(t.Context(), hashOf(data))
	if err != nil || st.Stored < 98*bao.GroupSize || st.State != cairn.Partial {
		t.Errorf("%+v, %v", st, err)
	}
	mustReadRanges(t, s, data)
	importRanges(t, s, data, "all")
	mustHave(t, s, data)
}

func TestImportRefused(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	data := content(2, 50_000)
	importRanges(t, s, data, "0..16")
	response := respond(t, data, "all")
	ro := open(t, path, &cairn.Options{ReadOnly: true})
	mustBe(t, ro.ImportBao(t.Context(), hashOf(data), bao.All(), bytes.NewReader(response)), cairn.ErrReadOnly)
	mustHaveRanges(t, ro, data, "0..16")
	s.Close()
	mustBe(t, s.ImportBao(t.Context(), hashOf(data), bao.All(), bytes.NewReader(response)), cairn.ErrClosed)
	_, err := s.Ranges(t.Context(), hashOf(data))
	mustBe(t, err, cairn.ErrClosed)
}

// TestImportFull fills the database in the middle of an import. What was
// stored before stays, and the import goes on once there is room.
func TestImportFull(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(9, 300*bao.GroupSize)
	if err := s.Exec(t.Context(), "pragma max_page_count = 600"); err != nil {
		t.Fatal(err)
	}
	err := s.ImportBao(t.Context(), hashOf(data), bao.All(), bytes.NewReader(respond(t, data, "all")))
	mustBe(t, err, cairn.ErrFull)
	mustReadRanges(t, s, data)
	mustBeSound(t, s)
	if st, err := s.Status(t.Context(), hashOf(data)); err != nil || st.State != cairn.Partial || st.Stored == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := s.Exec(t.Context(), "pragma max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	importRanges(t, s, data, "all")
	mustHave(t, s, data)
	mustBeSound(t, s)
}

// TestImportSyncFails: what was committed and not synced is not acknowledged,
// but it is there ("failed but persisted").
func TestImportSyncFails(t *testing.T) {
	path := tempPath(t)
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	data := content(4, 50_000)
	if err := s.BreakSync(); err != nil {
		t.Fatal(err)
	}
	if err := s.ImportBao(t.Context(), hashOf(data), bao.All(), bytes.NewReader(respond(t, data, "all"))); err == nil {
		t.Fatal("acknowledged without a sync")
	}
	s.Close()
	s = open(t, path, nil)
	mustReadRanges(t, s, data)
	importRanges(t, s, data, "all")
	mustHave(t, s, data)
	mustBeSound(t, s)
}

// TestImportBulk goes through bulk mode, and completes there.
func TestImportBulk(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 200 MiB")
	}
	from, to := open(t, tempPath(t), nil), open(t, tempPath(t), nil)
	data := content(4, 200<<20)
	hash := add(t, from, data)
	r, w := io.Pipe()
	go func() { w.CloseWithError(from.ExportBao(t.Context(), hash, bao.All(), w)) }()
	if err := to.ImportBao(t.Context(), hash, bao.All(), r); err != nil {
		t.Fatal(err)
	}
	mustHave(t, to, data)
	checkOutboard(t, to, data)
	mustBeSound(t, to)
}

// TestExportBao exports from complete and partial blobs what the reference
// encoding says, and nothing at all if something is missing.
func TestExportBao(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(3, 100*bao.GroupSize+5)
	missing := func(ranges, want string) {
		t.Helper()
		var buf bytes.Buffer
		err := s.ExportBao(t.Context(), hashOf(data), parse(t, ranges), &buf)
		var m *cairn.MissingError
		if !errors.As(err, &m) || m.Ranges.String() != want || buf.Len() > 0 {
			t.Errorf("%s: %v after %d bytes, want %s missing", ranges, err, buf.Len(), want)
		}
	}
	exports := func(ranges string) {
		t.Helper()
		var buf bytes.Buffer
		if err := s.ExportBao(t.Context(), hashOf(data), parse(t, ranges), &buf); err != nil {
			t.Errorf("%s: %v", ranges, err)
		}
		if !bytes.Equal(buf.Bytes(), respond(t, data, ranges)) {
			t.Errorf("%s: wrong response of %d bytes", ranges, buf.Len())
		}
	}
	mustBe(t, s.ExportBao(t.Context(), hashOf(data), bao.All(), io.Discard), cairn.ErrNotFound)
	importRanges(t, s, data, "0..160,320..336,1024..1088")
	exports("0..1")
	exports("3..40,50..51,1030..1070")
	exports("320..336")
	exports("")
	missing("all", "160..320,336..1024,1088..1601")
	missing("161..162", "160..176")
	missing("0..1,last", "1600..1601")
	importRanges(t, s, data, "last")
	exports("last")
	exports("5000..")
	importRanges(t, s, data, "all")
	exports("all")
	exports("1,"[:0])
	exports("7..9,1599..")
}

// TestExportBaoDamaged sends nothing of a damaged group, and says which it is.
func TestExportBaoDamaged(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	data := content(3, 50*bao.GroupSize)
	add(t, s, data)
	s.Close()
	sql(t, path, `update row set data = zeroblob(16384) where id & 67108863 = 20`)
	s = open(t, path, nil)
	var buf bytes.Buffer
	err := s.ExportBao(t.Context(), hashOf(data), bao.All(), &buf)
	var c *cairn.CorruptError
	if !errors.As(err, &c) || len(c.Ranges) != 1 || c.Ranges[0] != (cairn.ByteRange{Start: 20 * bao.GroupSize, End: 21 * bao.GroupSize}) {
		t.Errorf("%v", err)
	}
	if good := respond(t, data, "all"); !bytes.HasPrefix(good, buf.Bytes()) {
		t.Error("something wrong was sent")
	}
	to := open(t, ":memory:", nil)
	mustBe(t, to.ImportBao(t.Context(), hashOf(data), bao.All(), &buf), io.ErrUnexpectedEOF)
	mustHaveRanges(t, to, data, "0..320")
}

// TestAddCompletes adds the whole content of a partial blob while a handle on
// it is open, through each of the ways of an add.
func TestAddCompletes(t *testing.T) {
	for _, size := range []int{20_000, cairn.SegmentSize, 3 * cairn.SegmentSize, 20 * cairn.SegmentSize} {
		s := open(t, tempPath(t), nil)
		data := content(6, size)
		importRanges(t, s, data, "0..16")
		b, err := s.Blob(t.Context(), hashOf(data))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, size)
		if _, err := b.ReadAt(buf, 0); !errors.Is(err, cairn.ErrMissing) {
			t.Errorf("before: %v", err)
		}
		add(t, s, data)
		if _, err := b.ReadAt(buf, 0); err != nil && err != io.EOF || !bytes.Equal(buf, data) {
			t.Errorf("%d bytes: the open handle does not see them: %v", size, err)
		}
		b.Close()
		mustHave(t, s, data)
		mustBeSound(t, s)
		if st, err := s.Stats(t.Context()); err != nil || st.Partial != 0 || st.Blobs != 1 || st.StoredBytes != int64(size) {
			t.Errorf("%+v, %v", st, err)
		}
		if rows := count(t, s, "row"); rows != bao.Groups(int64(size)) {
			t.Errorf("%d rows", rows)
		}
	}
}

// TestDeletePartial is refused while an import is under way.
func TestDeletePartial(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(6, 2000*bao.GroupSize)
	importRanges(t, s, data, "0..24000")
	r, w := io.Pipe()
	done := make(chan error)
	go func() { done <- s.ImportBao(t.Context(), hashOf(data), bao.All(), r) }()
	if _, err := w.Write([]byte{1}); err != nil { // now the import has begun
		t.Fatal(err)
	}
	mustBe(t, s.Delete(t.Context(), hashOf(data)), cairn.ErrConflict)
	w.CloseWithError(errPeer)
	mustBe(t, <-done, errPeer)
	if err := s.Delete(t.Context(), hashOf(data)); err != nil {
		t.Fatal(err)
	}
	mustHaveRanges(t, s, data, "")
	if n := count(t, s, "row") + count(t, s, "outboard") + count(t, s, "presence") + count(t, s, "blob"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	importRanges(t, s, data, "all")
	mustHave(t, s, data)
}

// TestObserve follows a blob from nothing to complete, to nothing again.
func TestObserve(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(6, 100*bao.GroupSize)
	hash := hashOf(data)
	steps := []struct {
		do     func()
		state  cairn.State
		ranges string
		proven bool
	}{
		{func() {}, cairn.Absent, "", false},
		{func() { importRanges(t, s, data, "32..48") }, cairn.Partial, "32..48", false},
		{func() { importRanges(t, s, data, "last") }, cairn.Partial, "32..48", true},
		{func() { importRanges(t, s, data, "0..48") }, cairn.Partial, "0..48", true},
		{func() { importRanges(t, s, data, "all") }, cairn.Complete, "0..1600", true},
		{func() {
			if err := s.Delete(t.Context(), hash); err != nil {
				t.Error(err)
			}
		}, cairn.Absent, "", false},
		{func() { add(t, s, data) }, cairn.Complete, "0..1600", true},
	}
	before := runtime.NumGoroutine()
	i := 0
	steps[0].do()
	for got, err := range s.Observe(t.Context(), hash) {
		if err != nil {
			t.Fatal(err)
		}
		if want := steps[i]; got.State != want.state || got.Ranges.String() != want.ranges || got.SizeProven != want.proven {
			t.Errorf("step %d: %+v", i, got)
		}
		if i++; i == len(steps) {
			break
		}
		steps[i].do()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if n := s.Observers(); n != 0 {
		t.Errorf("%d observers are left", n)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs []error
	for _, err := range s.Observe(ctx, hash) {
		errs = append(errs, err)
		cancel()
	}
	if len(errs) != 2 || errs[0] != nil || !errors.Is(errs[1], context.Canceled) {
		t.Errorf("after a cancellation: %v", errs)
	}
	errs = nil
	for _, err := range s.Observe(t.Context(), hash) {
		if errs = append(errs, err); len(errs) == 1 {
			s.Close()
		}
	}
	if len(errs) != 2 || errs[0] != nil || !errors.Is(errs[1], cairn.ErrClosed) {
		t.Errorf("after Close: %v", errs)
	}
}

// TestObserveConcurrent loses no news: every observer sees the completion.
func TestObserveConcurrent(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(6, 80*bao.GroupSize)
	sd := newSeed(t, data)
	seen := make(chan error)
	for range 4 {
		go func() {
			last := bao.Ranges{}
			for got, err := range s.Observe(t.Context(), hashOf(data)) {
				if err != nil {
					seen <- err
					return
				}
				if !last.Minus(got.Ranges).IsEmpty() {
					seen <- errors.New("something vanished")
					return
				}
				if last = got.Ranges; got.State == cairn.Complete {
					break
				}
			}
			seen <- nil
		}()
	}
	for worker := range 4 {
		go func() {
			for g := worker; g < 80; g += 4 {
				ranges := bao.Chunks(uint64(g)*16, uint64(g)*16+16)
				response, _ := sd.response(t, ranges)
				if err := s.ImportBao(t.Context(), hashOf(data), ranges, bytes.NewReader(response)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for range 4 {
		if err := <-seen; err != nil {
			t.Error(err)
		}
	}
}

// TestMissing asks what a hash sequence and its children lack.
func TestMissing(t *testing.T) {
	s := open(t, tempPath(t), nil)
	whole, partial, absent := content(1, 5000), content(2, 100*1024), content(3, 70_000)
	var seq []byte
	var other []cairn.Hash
	for i, child := range [][]byte{whole, partial, whole, absent, partial} {
		h := hashOf(child)
		seq = append(seq, h[:]...)
		for range 300 { // so that the sequence has several groups
			o := hashOf([]byte{byte(i), byte(len(seq)), byte(len(seq) >> 8)})
			seq = append(seq, o[:]...)
			other = append(other, o)
		}
	}
	wants := func(format cairn.Format, data []byte) map[cairn.Hash]string {
		t.Helper()
		got := make(map[cairn.Hash]string)
		for w, err := range s.Missing(t.Context(), cairn.HashAndFormat{Hash: hashOf(data), Format: format}) {
			if err != nil {
				t.Fatal(err)
			}
			if _, again := got[w.Hash]; again {
				t.Errorf("%v twice", w.Hash)
			}
			got[w.Hash] = w.Ranges.String()
		}
		return got
	}
	add(t, s, whole)
	importRanges(t, s, partial, "16..32,48..64")

	if got := wants(cairn.Raw, whole); len(got) != 0 {
		t.Errorf("%v of a complete blob", got)
	}
	if got := wants(cairn.Raw, partial); len(got) != 1 || got[hashOf(partial)] != "0..16,32..48,64.." {
		t.Errorf("%v", got)
	}
	importRanges(t, s, partial, "last")
	if got := wants(cairn.Raw, partial); len(got) != 1 || got[hashOf(partial)] != "0..16,32..48,64..100" {
		t.Errorf("%v", got)
	}
	if got := wants(cairn.HashSeq, seq); len(got) != 1 || got[hashOf(seq)] != "all" {
		t.Errorf("%v", got)
	}
	// The second group of the sequence has the entries 512 to 1023: among them
	// partial at 602 and absent at 903.
	importRanges(t, s, seq, "16..32")
	got := wants(cairn.HashSeq, seq)
	if got[hashOf(seq)] != "0..16,32.." || got[hashOf(absent)] != "all" || got[hashOf(partial)] != "" || len(got) != 2+510 {
		t.Errorf("%d wants", len(got))
	}
	importRanges(t, s, seq, "all")
	got = wants(cairn.HashSeq, seq)
	if got[hashOf(seq)] != "" || got[hashOf(absent)] != "all" || got[hashOf(partial)] != "0..16,32..48,64..100" || len(got) != 2+len(other) {
		t.Errorf("%d wants, %v %v", len(got), got[hashOf(absent)], got[hashOf(partial)])
	}
	for _, err := range s.Missing(t.Context(), cairn.HashAndFormat{Hash: hashOf(whole), Format: cairn.HashSeq}) {
		mustBe(t, err, cairn.ErrMismatch)
	}
}

// TestImportStream reads two responses from one connection that stays open.
func TestImportStream(t *testing.T) {
	from, to := open(t, tempPath(t), nil), open(t, tempPath(t), nil)
	blobs := [][]byte{content(1, 100_000), content(2, 300_000)}
	r, w := io.Pipe()
	defer w.Close()
	go func() {
		for _, b := range blobs {
			if err := from.ExportBao(t.Context(), add(t, from, b), bao.All(), w); err != nil {
				t.Error(err)
			}
		}
	}()
	for _, b := range blobs {
		if err := to.ImportBaoStream(t.Context(), hashOf(b), bao.All(), r); err != nil {
			t.Fatal(err)
		}
		mustHave(t, to, b)
	}
}

// TestMissingOfTheRest: who reads to the end is told all that is missing.
func TestMissingOfTheRest(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(1, 5000*1024)
	importRanges(t, s, data, "0..2448,3200..3216,last")
	b, err := s.Blob(t.Context(), hashOf(data))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	n, err := b.WriteTo(io.Discard)
	exportErr := s.Export(t.Context(), hashOf(data), tempPath(t), nil)
	for _, err := range []error{err, exportErr} {
		var missing *cairn.MissingError
		if !errors.As(err, &missing) || missing.Ranges.String() != "2448..3200,3216..5000" || n != 2448*1024 {
			t.Errorf("%d bytes, then %v", n, err)
		}
	}
}
