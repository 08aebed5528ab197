package cairn_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// TestScrubCutShort has the second transaction of a large downgrade fail. What the
// first one left is sound, though rows were missing all over the blob, and the next
// scrub finds the rest.
func TestScrubCutShort(t *testing.T) {
	s := open(t, tempPath(t), nil)
	size := 4000 * bao.GroupSize
	data := content(1, size)
	hash := add(t, s, data)
	id := idOf(t, s, hash)
	script(t, s, fmt.Sprintf(`update "row" set data = zeroblob(length(data)) where id between %d and %d`, id+100, id+1799))
	script(t, s, fmt.Sprintf(`delete from "row" where id between %d and %d`, id+1000, id+1099))
	script(t, s, fmt.Sprintf(`delete from "row" where id between %d and %d`, id+2500, id+3999))
	script(t, s, fmt.Sprintf(`update "row" set data = x'00' where id between %d and %d`, id+2400, id+2410))
	script(t, s, `create temp trigger cut after update of "stored" on main."blob" when old."state" = 1
		begin select raise(abort, 'cut short'); end`)
	lost := bao.Chunks(100*16, 1800*16).Union(bao.Chunks(2400*16, 2411*16)).Union(bao.Chunks(2500*16, 4000*16))
	report, err := s.Scrub(t.Context(), nil)
	if err == nil || report.Done || report.Last != (cairn.Hash{}) {
		t.Errorf("%+v, %v", report, err)
	}
	mustBeSound(t, s)
	now := must(s.Ranges(t.Context(), hash))
	first := bao.Chunks(0, uint64(size/1024)).Minus(now)
	if !first.Minus(lost).IsEmpty() || first.IsEmpty() || first.Equal(lost) {
		t.Errorf("%v is lost by one transaction", first)
	}
	script(t, s, `drop trigger cut`)
	mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: lost.Minus(first), Outcome: cairn.Lost})
	mustLack(t, s, data, lost)
	fetch(t, s, data, lost)
}

// TestScrubFails has the writer fail before anything is written, and when it is
// committed and not durable.
func TestScrubFails(t *testing.T) {
	data := content(1, 100_000)
	hash := hashOf(data)
	damage := func(s *cairn.Store, table string) {
		id := idOf(t, s, hash)
		column := map[string]string{"row": "data", "outboard": "pairs"}[table]
		script(t, s, fmt.Sprintf(`update %q set %[2]q = zeroblob(length(%[2]q)) where id = %d`, table, column, id))
	}
	for _, table := range []string{"row", "outboard"} {
		path := tempPath(t)
		s := must(cairn.Open(t.Context(), path, nil))
		add(t, s, data)
		damage(s, table)
		s.BreakBegin(true)
		report, err := s.Scrub(t.Context(), &cairn.ScrubOptions{Repair: true})
		if err == nil || report.Done || report.Damaged > 0 {
			t.Errorf("%s: %+v, %v", table, report, err)
		}
		s.BreakBegin(false)
		if st := must(s.Status(t.Context(), hash)); st.State != cairn.Complete {
			t.Errorf("%s: %+v", table, st)
		}
		mustBe(t, s.BreakSync(), nil)
		report, err = s.Scrub(t.Context(), &cairn.ScrubOptions{Repair: true})
		if err == nil || report.Done || report.Damaged > 0 {
			t.Errorf("%s: %+v, %v", table, report, err)
		}
		s.Close()
		s = open(t, path, nil)
		mustBeSound(t, s)
		mustBeClean(t, s) // what was committed is there, in this world
		if table == "row" {
			mustLack(t, s, data, groupsOf(len(data), 0))
		} else {
			mustHave(t, s, data)
		}
	}
}

// TestScrubExternal: what is lost of a blob of which some lies in a file outside is
// taken off what lies there, or off what is stored. The file's name goes with the
// last of it.
func TestScrubExternal(t *testing.T) {
	s := open(t, tempPath(t), nil)
	size := 10*bao.GroupSize + 5
	data := content(1, size)
	hash := add(t, s, data)
	id := idOf(t, s, hash)
	// Groups 5 and 6 are said to be in a file that is not there any more.
	script(t, s, fmt.Sprintf(`delete from "row" where id in (%d, %d)`, id+5, id+6))
	script(t, s, fmt.Sprintf(`update "blob" set "stored" = "stored" - %d, "external" = %[1]d`, 2*bao.GroupSize))
	script(t, s, fmt.Sprintf(`insert into "path" ("blob", "path", "size", "mtime", "inode") values (%d, cast('/nowhere/to be found' as blob), %d, 0, 0)`, id>>cairn.GroupBits, size))
	script(t, s, fmt.Sprintf(`update "row" set data = zeroblob(length(data)) where id = %d`, id+10))
	mustFind(t, s, nil, cairn.Finding{Hash: hash, Ranges: groupsOf(size, 5, 6, 10), Outcome: cairn.Lost})
	st := must(s.Status(t.Context(), hash))
	if st.External != 0 || st.Stored != 8*bao.GroupSize || count(t, s, "path") != 0 {
		t.Errorf("%+v, %d paths", st, count(t, s, "path"))
	}
	mustLack(t, s, data, groupsOf(size, 5, 6, 10))
	fetch(t, s, data, groupsOf(size, 5, 6, 10))
}

// TestScrubWhileDeleted has a blob be deleted, and come again, after a scrub has
// found damage and before it acts upon that: there is nothing to be found then.
func TestScrubWhileDeleted(t *testing.T) {
	data := content(1, 100_000)
	hash := hashOf(data)
	for _, damage := range []string{
		`update "row" set data = zeroblob(length(data))`,
		`update "outboard" set pairs = zeroblob(length(pairs))`,
		`update "outboard" set pairs = x''`,
	} {
		for _, again := range []bool{false, true} {
			s := open(t, tempPath(t), nil)
			add(t, s, data)
			script(t, s, damage)
			openGate := holdWriter(s)
			var work sync.WaitGroup
			work.Go(func() { mustBe(t, s.Delete(t.Context(), hash), nil) })
			waitQueued(s, 1)
			if again {
				work.Go(func() {
					// As a piece: an add would protect the content from the deletion.
					_, err := s.PutPiece(t.Context(), "again", bytes.NewReader(data), -1, nil)
					mustBe(t, err, nil)
				})
				waitQueued(s, 2)
			}
			queued := s.Queued()
			work.Go(func() {
				for f, err := range s.Findings(t.Context(), &cairn.ScrubOptions{Repair: true}) {
					t.Errorf("%s: found %v, %v", damage, f, err)
				}
			})
			waitQueued(s, queued+1)
			openGate()
			work.Wait()
			mustBeSound(t, s)
			if again {
				mustHave(t, s, data)
				mustBeClean(t, s)
			} else {
				mustNotHave(t, s, data)
			}
			if n := count(t, s, "outboard"); !again && n != 0 {
				t.Errorf("%s: %d tiles are left", damage, n)
			}
		}
	}
}
