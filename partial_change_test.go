package cairn_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// What the tests in this file do to a partial blob happens while somebody reads
// or sends it.

// importStated imports ranges from a peer that states some size.
func importStated(t testing.TB, s *cairn.Store, data []byte, size int64, ranges string) {
	t.Helper()
	sd := newSeed(t, data)
	sd.size = size
	response, whole := sd.response(t, parse(t, ranges))
	if !whole {
		t.Fatalf("size %d does not lead to %s", size, ranges)
	}
	if err := s.ImportBao(t.Context(), hashOf(data), parse(t, ranges), bytes.NewReader(response)); err != nil {
		t.Fatal(err)
	}
}

// TestReadWhileSizeChanges reads small pieces, of which some are kept from the
// group before, when another size is proven than was stated.
func TestReadWhileSizeChanges(t *testing.T) {
	for _, tt := range []struct {
		size   int
		stated int64
	}{
		{2 * bao.GroupSize, 20_000}, // more than was stated
		{20_000, 2 * bao.GroupSize}, // less
		{100 * bao.GroupSize, 70 * bao.GroupSize},
		{70*bao.GroupSize + 1, 128 * bao.GroupSize},
	} {
		s := open(t, tempPath(t), nil)
		data := content(3, tt.size)
		importStated(t, s, data, tt.stated, "0..16")
		b, err := s.Blob(t.Context(), hashOf(data))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, bao.GroupSize)
		for i := 0; i < len(got); i += 4096 {
			if _, err := io.ReadFull(b, got[i:i+4096]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Read(make([]byte, 100)); !errors.Is(err, cairn.ErrMissing) {
			t.Errorf("behind what is there: %v", err)
		}
		importRanges(t, s, data, "all")
		rest, err := io.ReadAll(struct{ io.Reader }{b})
		if got = append(got, rest...); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes stated as %d: read %d, %v", tt.size, tt.stated, len(got), err)
		}
		b.Close()
	}
}

// A gate is a writer that waits, in its first call, until it is opened.
type gate struct {
	bytes.Buffer
	once    sync.Once
	reached chan struct{}
	opened  chan struct{}
}

func newGate() *gate { return &gate{reached: make(chan struct{}), opened: make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() {
		close(g.reached)
		<-g.opened
	})
	return g.Buffer.Write(p)
}

// TestExportWhileCompleted sends a partial blob under a false size while it is
// completed: what was there then goes out as it was asked for.
func TestExportWhileCompleted(t *testing.T) {
	data := content(3, 100*bao.GroupSize)
	for name, complete := range map[string]func(s *cairn.Store){
		"import": func(s *cairn.Store) { importRanges(t, s, data, "all") },
		"add":    func(s *cairn.Store) { add(t, s, data) },
	} {
		for _, stated := range []int64{97 * bao.GroupSize, 120 * bao.GroupSize} {
			s := open(t, tempPath(t), nil)
			importStated(t, s, data, stated, "0..1536")
			g, done := newGate(), make(chan error)
			go func() { done <- s.ExportBao(t.Context(), hashOf(data), parse(t, "0..1536"), g) }()
			<-g.reached
			complete(s)
			close(g.opened)
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			sd := newSeed(t, data)
			sd.size = stated
			if want, _ := sd.response(t, parse(t, "0..1536")); !bytes.Equal(g.Bytes(), want) {
				t.Errorf("%s: wrong response of %d bytes", name, g.Len())
			}
		}
	}
}

// TestReadWhileCompleted reads a blob over and over while it arrives under
// another size than was stated before. Nothing may look damaged.
func TestReadWhileCompleted(t *testing.T) {
	for i := range 5 {
		s := open(t, tempPath(t), nil)
		data := content(uint64(i), 1000*bao.GroupSize)
		importStated(t, s, data, 600*bao.GroupSize, "0..8192")
		b, err := s.Blob(t.Context(), hashOf(data))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			done <- s.ImportBao(t.Context(), hashOf(data), bao.All(), bytes.NewReader(respond(t, data, "all")))
		}()
		buf := make([]byte, len(data))
		for {
			n, err := b.ReadAt(buf, 0)
			if !bytes.Equal(buf[:n], data[:n]) {
				t.Fatal("wrong bytes")
			}
			if err == nil {
				break
			}
			if !errors.Is(err, cairn.ErrMissing) {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.Close()
	}
}

// TestDeletedByWriter deletes a blob while another store, that only reads,
// sends it.
func TestDeletedByWriter(t *testing.T) {
	data := content(3, 200*bao.GroupSize)
	for name, fill := range map[string]func(s *cairn.Store){
		"complete": func(s *cairn.Store) { add(t, s, data) },
		"partial":  func(s *cairn.Store) { importRanges(t, s, data, "0..3184") },
	} {
		path := tempPath(t)
		s := open(t, path, nil)
		fill(s)
		ro := open(t, path, &cairn.Options{ReadOnly: true})
		g, done := newGate(), make(chan error)
		go func() { done <- ro.ExportBao(t.Context(), hashOf(data), parse(t, "0..3184"), g) }()
		<-g.reached
		if err := s.Delete(t.Context(), hashOf(data)); err != nil {
			t.Fatal(err)
		}
		close(g.opened)
		if err := <-done; !errors.Is(err, cairn.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHeldOpen: a peer that has sent everything and does not hang up cannot
// keep the blob from being complete.
func TestHeldOpen(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(3, 50*bao.GroupSize)
	r, w := io.Pipe()
	done := make(chan error)
	go func() { done <- s.ImportBao(t.Context(), hashOf(data), bao.All(), r) }()
	if _, err := w.Write(respond(t, data, "all")); err != nil {
		t.Fatal(err)
	}
	for got, err := range s.Observe(t.Context(), hashOf(data)) {
		if err != nil {
			t.Fatal(err)
		}
		if got.State == cairn.Complete {
			break
		}
	}
	w.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestObserveReplaced: what is seen of a blob that was deleted and begun anew
// is not mixed with what was there before.
func TestObserveReplaced(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(3, 100*1024)
	importRanges(t, s, data, "0..16")
	var seen []string
	for got, err := range s.Observe(t.Context(), hashOf(data)) {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, got.Ranges.String()); len(seen) == 2 {
			break
		}
		if err := s.Delete(t.Context(), hashOf(data)); err != nil {
			t.Fatal(err)
		}
		importRanges(t, s, data, "32..48")
	}
	if strings.Join(seen, " ") != "0..16 32..48" {
		t.Errorf("seen %q", seen)
	}
}

// TestObserveMany lets more groups arrive than an observer collects.
func TestObserveMany(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(3, 10_000*bao.GroupSize)
	n := 0
	for got, err := range s.Observe(t.Context(), hashOf(data)) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			if want := bao.Chunks(0, 9000*16); !got.Ranges.Equal(want) {
				t.Errorf("observed %v", got.Ranges)
			}
			break
		}
		importRanges(t, s, data, "0..144000")
	}
}

// TestErrorsAreOneLine: a failure is told once, in one line.
func TestErrorsAreOneLine(t *testing.T) {
	data := content(3, 800*bao.GroupSize)
	response := respond(t, data, "all")
	check := func(name string, err error) {
		t.Helper()
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := open(t, tempPath(t), nil)
	add(t, s, data)
	check("export", s.ExportBao(t.Context(), hashOf(data), bao.All(), failingWriter{}))

	full := open(t, tempPath(t), nil)
	if err := full.Exec(t.Context(), "pragma max_page_count = 600"); err != nil {
		t.Fatal(err)
	}
	check("full", full.ImportBao(t.Context(), hashOf(data), bao.All(), bytes.NewReader(response)))

	closed, err := cairn.Open(t.Context(), tempPath(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	half := len(response) / 2
	r := io.MultiReader(bytes.NewReader(response[:half]), closingReader{closed}, bytes.NewReader(response[half:]))
	check("closed", closed.ImportBao(t.Context(), hashOf(data), bao.All(), r))
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errPeer }

type closingReader struct{ s *cairn.Store }

func (c closingReader) Read([]byte) (int, error) {
	c.s.Close()
	return 0, io.EOF
}

// TestExportDamagedOutboard damages the outboard of a blob that is sent: the error
// names what cannot be verified.
func TestExportDamagedOutboard(t *testing.T) {
	for _, damage := range []string{
		`delete from outboard where id & 67108863 = 0`,
		`delete from outboard where id & 67108863 = 1`,
		`update outboard set pairs = x'00' where id & 67108863 = 1`,
		`update outboard set pairs = zeroblob(length(pairs)) where id & 67108863 = 1`,
	} {
		path := tempPath(t)
		s := open(t, path, nil)
		data := content(3, 150*bao.GroupSize)
		add(t, s, data)
		s.Close()
		sql(t, path, damage)
		s = open(t, path, nil)
		var c *cairn.CorruptError
		if err := s.ExportBao(t.Context(), hashOf(data), bao.All(), io.Discard); !errors.As(err, &c) {
			t.Errorf("%s: %v", damage, err)
		}
	}
}

// TestCheckFindsPartial damages what a partial blob consists of.
func TestCheckFindsPartial(t *testing.T) {
	for _, damage := range []string{
		`delete from outboard`,
		`delete from outboard where id & 67108863 = 1`,
		`update outboard set pairs = zeroblob(length(pairs))`,
		`delete from presence`,
		`delete from presence where id & 67108863 = 64`,
		`update presence set groups = groups & ~2`,
		`update presence set groups = groups | (1 << 63)`,
		`update presence set id = id + 1`,
		`delete from row where id & 67108863 = 3`,
		`update row set data = zeroblob(5) where id & 67108863 = 3`,
		`insert into row select id + 64, data from row where id & 67108863 = 70`,
		`update blob set stored = stored + 1`,
		`update blob set proven = 1, size = stored`,
		`update blob set state = 2`,
		`insert into presence values (99 << 26, 1)`,
	} {
		path := tempPath(t)
		s := open(t, path, nil)
		importRanges(t, s, content(3, 150*bao.GroupSize), "0..32,48..1600")
		mustBeSound(t, s)
		s.Close()
		sql(t, path, damage)
		s = open(t, path, nil)
		if problems(t, s) == 0 {
			t.Errorf("Check found nothing after: %s", damage)
		}
		mustNotReadWrong(t, s, content(3, 150*bao.GroupSize))
		s.Close()
	}
}

// mustNotReadWrong reads a blob that may be damaged.
func mustNotReadWrong(t *testing.T, s *cairn.Store, data []byte) {
	t.Helper()
	b, err := s.Blob(t.Context(), hashOf(data))
	if err != nil {
		return
	}
	defer b.Close()
	got := make([]byte, bao.GroupSize)
	for off := 0; off < len(data); off += bao.GroupSize {
		if n, _ := b.ReadAt(got, int64(off)); !bytes.Equal(got[:n], data[off:off+n]) {
			t.Errorf("wrong bytes at %d", off)
		}
	}
	if err := s.ExportBao(t.Context(), hashOf(data), bao.All(), io.Discard); err == nil {
		t.Error("exported whole")
	}
}

// TestBlobMissing asks a handle what it lacks.
func TestBlobMissing(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(3, 200*bao.GroupSize)
	importRanges(t, s, data, "0..32,48..64,1600..1616")
	b, err := s.Blob(t.Context(), hashOf(data))
	if err != nil {
		t.Fatal(err)
	}
	for ranges, want := range map[string]string{
		"":                     "",
		"3..5":                 "",
		"0..32,50..60":         "",
		"30..50":               "32..48",
		"40..41,70..71,1610..": "32..48,64..80,1616..3200",
		"last":                 "3184..3200",
		"all":                  "32..48,64..1600,1616..3200",
	} {
		if got, err := b.Missing(parse(t, ranges)); err != nil || got.String() != want {
			t.Errorf("%q lacks %v, %v; want %s", ranges, got, err, want)
		}
	}
	importRanges(t, s, data, "all")
	if got, err := b.Missing(bao.All()); err != nil || !got.IsEmpty() {
		t.Errorf("complete, and lacks %v, %v", got, err)
	}
	b.Close()
	_, err = b.Missing(bao.All())
	mustBe(t, err, cairn.ErrClosed)
}

// TestMissingOfDamaged: a database that contradicts itself about the size of a
// hash sequence does no harm.
func TestMissingOfDamaged(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	data := content(3, bao.GroupSize+31)
	importRanges(t, s, data, "16..17")
	s.Close()
	sql(t, path, `update blob set proven = 0`)
	s = open(t, path, nil)
	wants := 0
	for w, err := range s.Missing(t.Context(), cairn.HashAndFormat{Hash: hashOf(data), Format: cairn.HashSeq}) {
		if wants++; err != nil || w.Hash != hashOf(data) {
			t.Errorf("%v, %v", w, err)
		}
	}
	if wants != 1 {
		t.Errorf("%d wants", wants)
	}
	if problems(t, s) == 0 {
		t.Error("Check found nothing")
	}
}
