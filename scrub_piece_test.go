package cairn_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// A damagedPiece is content that pieces have, of which some groups are damaged.
type damagedPiece struct {
	s       *cairn.Store
	data    []byte
	hash    cairn.Hash
	lost    bao.Ranges
	written []cairn.ByteRange // what is left
}

const damagedPieceSize = 70*bao.GroupSize + 5

// damagePiece has keys name content, with an owner each, and damages it after
// more has been done.
func damagePiece(t *testing.T, s *cairn.Store, keys []string, more func(d *damagedPiece)) *damagedPiece {
	t.Helper()
	d := &damagedPiece{s: s, data: content(1, damagedPieceSize)}
	for _, key := range keys {
		d.hash = must(s.PutPiece(t.Context(), key, bytes.NewReader(d.data), -1, &cairn.PieceOptions{Owner: "owner of " + key}))
	}
	if more != nil {
		more(d)
	}
	id := idOf(t, s, d.hash)
	script(t, s, fmt.Sprintf(`update "row" set data = zeroblob(length(data)) where id in (%d, %d)`, id+3, id+70))
	script(t, s, fmt.Sprintf(`delete from "row" where id = %d`, id+64))
	d.lost = groupsOf(damagedPieceSize, 3, 64, 70)
	d.written = []cairn.ByteRange{{Start: 0, End: 3 * bao.GroupSize}, {Start: 4 * bao.GroupSize, End: 64 * bao.GroupSize}, {Start: 65 * bao.GroupSize, End: 70 * bao.GroupSize}}
	return d
}

// mustFind has a scrub find the damage.
func (d *damagedPiece) mustFind(t *testing.T) {
	t.Helper()
	mustFind(t, d.s, nil, cairn.Finding{Hash: d.hash, Ranges: d.lost, Outcome: cairn.Lost})
	mustBeSound(t, d.s)
}

// mustComplete makes sure that a piece is being written, with some bytes, and
// writes the others.
func (d *damagedPiece) mustComplete(t *testing.T, key string, written []cairn.ByteRange) {
	t.Helper()
	p := openPiece(t, d.s, key, len(d.data), nil)
	if c := must(p.Completion(t.Context())); c.State != cairn.Partial || c.Hash != (cairn.Hash{}) {
		t.Errorf("piece %s: %+v", key, c)
	}
	mustHaveWritten(t, d.s, key, d.data, written)
	end := 0
	for _, r := range append(written, cairn.ByteRange{Start: int64(len(d.data))}) {
		writePiece(t, p, d.data[end:r.Start], end)
		end = int(r.End)
	}
	completePiece(t, p, d.data)
	mustRead(t, p, d.data)
	mustBeSound(t, d.s)
}

// TestScrubPiece: a piece whose content is damaged is one that is being written,
// with what is good, and nothing stays under the hash.
func TestScrubPiece(t *testing.T) {
	s := open(t, tempPath(t), nil)
	d := damagePiece(t, s, []string{"a"}, nil)
	d.mustFind(t)
	mustNotHave(t, s, d.data)
	mustBeClean(t, s)
	d.mustComplete(t, "a", d.written)
	mustHave(t, s, d.data)
}

// TestScrubPieces: each of several pieces has its own copy of what is good.
func TestScrubPieces(t *testing.T) {
	s := open(t, tempPath(t), nil)
	keys := []string{"a", "b", "c"}
	d := damagePiece(t, s, keys, nil)
	d.mustFind(t)
	mustNotHave(t, s, d.data)
	for _, key := range keys {
		if u := must(s.Owner("owner of " + key).Usage(t.Context())); u.Pieces != 1 || u.Bytes != damagedPieceSize-2*bao.GroupSize-5 {
			t.Errorf("owner of %s: %+v", key, u)
		}
		d.mustComplete(t, key, d.written)
	}
}

// TestScrubSharedPiece: who else has the content keeps what is good under its
// hash, beside the piece.
func TestScrubSharedPiece(t *testing.T) {
	for _, tt := range []struct {
		name string
		more func(t *testing.T, d *damagedPiece)
	}{
		{"added", func(t *testing.T, d *damagedPiece) { add(t, d.s, d.data) }},
		{"tagged", func(t *testing.T, d *damagedPiece) {
			script(t, d.s, fmt.Sprintf(`insert into "tag" values (x'61', x'%v', 0, 0, null)`, d.hash))
		}},
		{"child", func(t *testing.T, d *damagedPiece) {
			script(t, d.s, fmt.Sprintf(`insert into "sequence" ("hash", "tags") values (zeroblob(32), 0);
				insert into "child" select "id", substr(x'%v', 1, 8) from "sequence"`, d.hash))
		}},
		{"owned", func(t *testing.T, d *damagedPiece) {
			mustBe(t, d.s.Owner("another").AddBlob(t.Context(), d.hash), nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, tempPath(t), nil)
			d := damagePiece(t, s, []string{"a"}, func(d *damagedPiece) { tt.more(t, d) })
			d.mustFind(t)
			mustLack(t, s, d.data, d.lost)
			mustHaveWritten(t, s, "a", d.data, d.written)
			fetch(t, s, d.data, d.lost)
			d.mustComplete(t, "a", d.written)
			mustBeClean(t, s)
		})
	}
}

// TestScrubHeldPiece: what an open handle reads stays until that is closed.
func TestScrubHeldPiece(t *testing.T) {
	s := open(t, tempPath(t), nil)
	var b *cairn.Blob
	d := damagePiece(t, s, []string{"a"}, func(d *damagedPiece) { b = must(s.Blob(t.Context(), d.hash)) })
	d.mustFind(t)
	mustLack(t, s, d.data, d.lost)
	buf := make([]byte, bao.GroupSize)
	if _, err := b.ReadAt(buf, 5*bao.GroupSize); err != nil || !bytes.Equal(buf, d.data[5*bao.GroupSize:6*bao.GroupSize]) {
		t.Errorf("what is good reads %v", err)
	}
	if _, err := b.ReadAt(buf, 3*bao.GroupSize); err == nil {
		t.Error("what is lost reads")
	}
	b.Close()
	add(t, s, []byte("the next transaction"))
	mustNotHave(t, s, d.data)
	mustBeSound(t, s)
	d.mustComplete(t, "a", d.written)
}

// TestScrubPiecesFull: where there is no room for copies, the last piece has what
// is good, and nothing else is evicted.
func TestScrubPiecesFull(t *testing.T) {
	s := open(t, tempPath(t), nil)
	keys := []string{"a", "b", "c"}
	other := content(2, 30_000)
	d := damagePiece(t, s, keys, func(*damagedPiece) {
		add(t, s, other)
		mustBe(t, s.SetCapacity(t.Context(), damagedPieceSize+40_000), nil)
	})
	d.mustFind(t)
	mustHave(t, s, other)
	mustHaveWritten(t, s, "a", d.data, nil)
	mustHaveWritten(t, s, "b", d.data, nil)
	d.mustComplete(t, "c", d.written)
	d.mustComplete(t, "a", nil)
}

// TestScrubPiecesQuota: the same where an owner's quota is full.
func TestScrubPiecesQuota(t *testing.T) {
	s := open(t, tempPath(t), nil)
	d := &damagedPiece{s: s, data: content(1, damagedPieceSize)}
	for _, key := range []string{"a", "b"} {
		must(s.PutPiece(t.Context(), key, bytes.NewReader(d.data), -1, &cairn.PieceOptions{Owner: "o"}))
	}
	mustBe(t, s.Owner("o").SetQuota(t.Context(), damagedPieceSize), nil)
	d = damagePiece(t, s, nil, func(other *damagedPiece) { other.hash = hashOf(other.data) })
	d.mustFind(t)
	if u := must(s.Owner("o").Usage(t.Context())); u.Pieces != 2 {
		t.Errorf("%+v", u)
	}
	mustHaveWritten(t, s, "a", d.data, nil)
	mustHaveWritten(t, s, "b", d.data, d.written)
}

// TestScrubLostPieces: pieces of which nothing is good are there, and empty.
func TestScrubLostPieces(t *testing.T) {
	s := open(t, tempPath(t), nil)
	for _, size := range []int{10, 5 * bao.GroupSize} {
		data := content(1, size)
		for _, key := range []string{"a", "b"} {
			must(s.PutPiece(t.Context(), fmt.Sprint(key, size), bytes.NewReader(data), -1, nil))
		}
		script(t, s, `delete from "row"`)
		mustFind(t, s, nil, cairn.Finding{Hash: hashOf(data), Ranges: bao.Chunks(0, bao.ChunkCount(int64(size))), Outcome: cairn.Lost})
		mustBeSound(t, s)
		for _, key := range []string{"a", "b"} {
			p := openPiece(t, s, fmt.Sprint(key, size), size, nil)
			mustHaveWritten(t, s, p.Key(), data, nil)
			writePiece(t, p, data, 0)
			completePiece(t, p, data)
			mustBe(t, p.Delete(t.Context()), nil)
		}
	}
}

// TestScrubPiecesDiskFull: the same where the database cannot grow.
func TestScrubPiecesDiskFull(t *testing.T) {
	s := open(t, tempPath(t), nil)
	d := damagePiece(t, s, []string{"a", "b"}, func(*damagedPiece) {
		add(t, s, content(2, 2*damagedPieceSize)) // nothing is free then
	})
	mustBe(t, s.OutsideTransaction(t.Context(), "pragma max_page_count = 1"), nil)
	d.mustFind(t)
	mustBe(t, s.OutsideTransaction(t.Context(), "pragma max_page_count = 1073741823"), nil)
	mustHaveWritten(t, s, "a", d.data, nil)
	d.mustComplete(t, "b", d.written)
	d.mustComplete(t, "a", nil)
}
