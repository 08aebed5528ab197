package cairn_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

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

// mixBlob makes a blob that is in a file, but for two groups that the file has not
// and that are in rows.
func mixBlob(t *testing.T, s *cairn.Store) (data []byte, file string) {
	t.Helper()
	data = content(5, 100*bao.GroupSize-9)
	file = newFile(t, data)
	refer(t, s, file)
	mixSpoil(t, file)
	mustLose(t, s, data, 3, 99)
	complete(t, s, data)
	mustBeStored(t, s, data, cairn.Complete, 2*bao.GroupSize-9, 98*bao.GroupSize)
	return data, file
}

// mixSpoil damages the two groups in the file, or undoes that.
func mixSpoil(t *testing.T, file string) {
	t.Helper()
	spoil(t, file, 3*bao.GroupSize)
	spoil(t, file, 99*bao.GroupSize+1)
}

// TestScrubMixed damages rows of a blob that has a file. Where the file has the
// group, it takes the row's place, and reads do not fail; else it is lost.
func TestScrubMixed(t *testing.T) {
	for _, how := range []string{
		`update "row" set data = cast(substr(data, 1, length(data) - 1) as blob)`,
		`update "row" set data = cast(data || x'00' as blob)`,
		`update "row" set data = x''`,
		`update "row" set data = zeroblob(length(data))`,
	} {
		for _, pairs := range []bool{false, true} { // damaged, too
			s := open(t, tempPath(t), nil)
			data, file := mixBlob(t, s)
			mixSpoil(t, file) // it has all
			mustBeClean(t, s)
			script(t, s, how)
			rows := groupsOf(len(data), 3, 99)
			want := cairn.Finding{Hash: hashOf(data), Ranges: rows}
			if pairs {
				script(t, s, `update outboard set pairs = zeroblob(length(pairs))`)
				want.Ranges = bao.Chunks(0, bao.ChunkCount(int64(len(data))))
			} else {
				mustHave(t, s, data)
			}
			want.Outcome = cairn.Intact
			mustFind(t, s, nil, want)
			want.Outcome = cairn.Repaired
			mustFind(t, s, &cairn.ScrubOptions{Repair: true}, want)
			mustBeStored(t, s, data, cairn.Complete, 0, len(data))
			mustHave(t, s, data)
			mustBeSound(t, s)
			mustBeClean(t, s)

			s = open(t, tempPath(t), nil)
			data, _ = mixBlob(t, s)
			script(t, s, how)
			_, err := read(t.Context(), s, hashOf(data))
			mustBeCorrupt(t, err, hashOf(data), 3*bao.GroupSize, 4*bao.GroupSize)
			mustFind(t, s, nil, cairn.Finding{Hash: hashOf(data), Ranges: rows, Outcome: cairn.Lost})
			mustLack(t, s, data, rows)
			complete(t, s, data)
		}
	}
}

// TestScrubTwoFiles has a damaged outboard, and two files, each of which is damaged
// elsewhere, and does not look it.
func TestScrubTwoFiles(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(5, 130*bao.GroupSize)
	files := []string{newFile(t, data), newFile(t, data)}
	for i, file := range files {
		refer(t, s, file)
		spoil(t, file, int64(i)*20*bao.GroupSize)
	}
	script(t, s, fmt.Sprintf(`update outboard set pairs = cast(zeroblob(64) || substr(pairs, 65) as blob) where id = %d`, idOf(t, s, hashOf(data))))
	mustFind(t, s, &cairn.ScrubOptions{Repair: true}, cairn.Finding{Hash: hashOf(data), Ranges: bao.Chunks(0, 32), Outcome: cairn.Repaired})
	mustHave(t, s, data)
	mustBeSound(t, s)
}

// TestScrubPaths changes one of two files, the first or the second by name. A scrub
// forgets it if it has nothing of the blob, and notes what it is like if it has all.
func TestScrubPaths(t *testing.T) {
	const size = 100*bao.GroupSize - 9
	data := content(5, size)
	for name, tt := range map[string]struct {
		change func(path string) error
		stays  bool
		stale  int
	}{
		"removed": {change: os.Remove},
		"other":   {change: func(p string) error { return os.WriteFile(p, content(6, size), 0o600) }},
		"behind its stamp": {change: func(p string) error {
			info, err := os.Stat(p)
			return errors.Join(err, os.WriteFile(p, content(6, size), 0o600), os.Chtimes(p, time.Now(), info.ModTime()))
		}},
		"shorter":   {change: func(p string) error { return os.Truncate(p, 5) }},
		"directory": {change: func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }},
		"touched":   {change: func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(5, 0)) }, stays: true},
		"damaged": {
			change: func(p string) error { spoil(t, p, 0); return os.Chtimes(p, time.Time{}, time.Unix(5, 0)) },
			stays:  true,
			stale:  1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, sample := range []float64{0, 0.01} {
				for i := range 2 {
					s := open(t, tempPath(t), nil)
					dir := t.TempDir()
					files := []string{writeFile(t, filepath.Join(dir, "a"), data), writeFile(t, filepath.Join(dir, "b"), data)}
					refer(t, s, files[0])
					refer(t, s, files[1])
					if err := tt.change(files[i]); err != nil {
						t.Fatal(err)
					}
					if found := scrub(t, s, &cairn.ScrubOptions{Sample: sample}); len(found) != 0 {
						t.Errorf("found %v", found)
					}
					want := files
					if !tt.stays {
						want = []string{files[1-i]}
					}
					if got := must(s.Paths(t.Context(), hashOf(data))); !slices.Equal(got, want) {
						t.Errorf("paths %v, want %v", got, want)
					}
					if n := must(s.StalePaths(t.Context())); n != tt.stale {
						t.Errorf("%d stale paths", n)
					}
					mustHave(t, s, data)
					mustBeStored(t, s, data, cairn.Complete, 0, size)
				}
			}
		})
	}
}

// TestScrubFileAdded: a file that is noted between the finding and the transaction
// that acts upon it is looked at, too.
func TestScrubFileAdded(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(5, 100*bao.GroupSize-9)
	dir := t.TempDir()
	file, other := writeFile(t, filepath.Join(dir, "a"), data), writeFile(t, filepath.Join(dir, "b"), data)
	refer(t, s, file)
	spoil(t, file, 5*bao.GroupSize)
	busy, queued := make(chan struct{}), make(chan error)
	var once sync.Once // it may be run again
	go func() {
		queued <- s.OnWriter(t.Context(), func(conn *sqlite.Conn) error {
			once.Do(func() {
				close(busy)
				for s.Queued() == 0 {
					runtime.Gosched()
				}
			})
			return sqlitex.ExecuteTransient(conn, `insert into "path" ("blob", "path", "size", "mtime", "inode") select "blob", cast(? as blob), 1, 1, 1 from "path"`, &sqlitex.ExecOptions{Args: []any{other}})
		})
	}()
	<-busy
	if bad, err := s.Recheck(t.Context(), hashOf(data)); err != nil || !bad.IsEmpty() {
		t.Errorf("%v, %v", bad, err)
	}
	mustBe(t, <-queued, nil)
	mustHave(t, s, data)
	mustBeStored(t, s, data, cairn.Complete, 0, len(data))
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	mustLose(t, s, data, 5)
}
