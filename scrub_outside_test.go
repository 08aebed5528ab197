package cairn_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// exportPiece has pieces name content that is in a file outside, which it returns.
func exportPiece(t *testing.T, s *cairn.Store, keys ...string) (d *damagedPiece, file string) {
	t.Helper()
	d = &damagedPiece{s: s, data: content(1, damagedPieceSize)}
	for _, key := range keys {
		putPiece(t, s, key, d.data, &cairn.PieceOptions{Owner: "owner of " + key})
	}
	d.hash = hashOf(d.data)
	file = filepath.Join(t.TempDir(), "file")
	if err := s.Export(t.Context(), d.hash, file, &cairn.ExportOptions{Mode: cairn.Reference}); err != nil {
		t.Fatal(err)
	}
	mustBeStored(t, s, d.data, cairn.Complete, 0, len(d.data))
	return d, file
}

// spoilFile damages three groups of the file.
func (d *damagedPiece) spoilFile(t *testing.T, file string) {
	t.Helper()
	for _, off := range []int64{3*bao.GroupSize + 7, 64 * bao.GroupSize, 70 * bao.GroupSize} {
		spoil(t, file, off)
	}
	d.lost = groupsOf(damagedPieceSize, 3, 64, 70)
	d.written = []cairn.ByteRange{{Start: 0, End: 3 * bao.GroupSize}, {Start: 4 * bao.GroupSize, End: 64 * bao.GroupSize}, {Start: 65 * bao.GroupSize, End: 70 * bao.GroupSize}}
}

// TestScrubOutsidePiece: a piece whose content is in a file that is damaged is one
// that is being written, with what is good in the database. A scrub finds that,
// and goes on.
func TestScrubOutsidePiece(t *testing.T) {
	s := open(t, tempPath(t), nil)
	for i := range uint64(8) { // behind it, and before
		add(t, s, content(100+i, 50_000))
	}
	script(t, s, `update "row" set data = zeroblob(length(data)) where id & 67108863 = 1`)
	d, file := exportPiece(t, s, "a")
	d.spoilFile(t, file)
	found := scrub(t, s, nil)
	if len(found) != 9 {
		t.Errorf("%d findings", len(found))
	}
	mustNotHave(t, s, d.data)
	mustBeSound(t, s)
	mustBeClean(t, s)
	if count(t, s, "path") != 0 {
		t.Error("a path is left")
	}
	d.mustComplete(t, "a", d.written)
}

// TestReadOutsidePiece: the read that finds it does the same, while its handle is
// open.
func TestReadOutsidePiece(t *testing.T) {
	s := open(t, tempPath(t), nil)
	d, file := exportPiece(t, s, "a")
	d.spoilFile(t, file)
	p := openPiece(t, s, "a", len(d.data), nil)
	_, err := p.ReadAt(make([]byte, 10), 3*bao.GroupSize)
	mustBe(t, err, cairn.ErrCorrupt)
	mustBeSound(t, s)
	d.mustComplete(t, "a", d.written)
}

// TestScrubOutsidePieces: each of several pieces has its own copy.
func TestScrubOutsidePieces(t *testing.T) {
	s := open(t, tempPath(t), nil)
	d, file := exportPiece(t, s, "a", "b")
	d.spoilFile(t, file)
	d.mustFind(t)
	mustNotHave(t, s, d.data)
	d.mustComplete(t, "a", d.written)
	d.mustComplete(t, "b", d.written)
}

// TestScrubOutsidePieceFull: without room, the piece gets what there is room for,
// or has rows, and nothing is evicted for it.
func TestScrubOutsidePieceFull(t *testing.T) {
	const other = 1_200_000
	for name, limit := range map[string]func(s *cairn.Store) error{
		"capacity": func(s *cairn.Store) error { return s.SetCapacity(t.Context(), other+5*bao.GroupSize) },
		"quota":    func(s *cairn.Store) error { return s.Owner("owner of a").SetQuota(t.Context(), other+5*bao.GroupSize) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, tempPath(t), nil)
			putPiece(t, s, "other", content(2, other), &cairn.PieceOptions{Owner: "owner of a"})
			d, file := exportPiece(t, s, "a")
			mustBe(t, limit(s), nil)
			d.spoilFile(t, file)
			d.mustFind(t)
			mustNotHave(t, s, d.data)
			mustHave(t, s, content(2, other))
			mustHaveWritten(t, s, "a", d.data, []cairn.ByteRange{{Start: 0, End: 3 * bao.GroupSize}, {Start: 4 * bao.GroupSize, End: 6 * bao.GroupSize}})
		})
	}
}

// TestScrubOutsideSharedPiece: who else has the content keeps what is good of it.
func TestScrubOutsideSharedPiece(t *testing.T) {
	s := open(t, tempPath(t), nil)
	d, file := exportPiece(t, s, "a")
	mustBe(t, s.Owner("another").AddBlob(t.Context(), d.hash), nil)
	d.spoilFile(t, file)
	d.mustFind(t)
	mustLack(t, s, d.data, d.lost)
	mustHaveWritten(t, s, "a", d.data, d.written)
	fetch(t, s, d.data, d.lost)
	d.mustComplete(t, "a", d.written)
	mustBeClean(t, s)
}

// TestScrubOutsidePieceGone: a piece whose file is gone is empty.
func TestScrubOutsidePieceGone(t *testing.T) {
	s := open(t, tempPath(t), nil)
	d, file := exportPiece(t, s, "a")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	d.lost = bao.Chunks(0, bao.ChunkCount(damagedPieceSize))
	d.mustFind(t)
	mustNotHave(t, s, d.data)
	d.mustComplete(t, "a", nil)
}
