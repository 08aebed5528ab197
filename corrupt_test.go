package cairn_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// TestDamagedRow changes, shortens, lengthens and removes single rows. The
// error names the group's bytes, and the rest still reads.
func TestDamagedRow(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const size = 200*bao.GroupSize + 100
	data := content(5, size)
	small := add(t, s, content(6, 100)) // its neighbour must not be hurt
	h := add(t, s, data)
	for _, group := range []int64{0, 1, 63, 64, 199, 200} {
		for _, how := range []string{
			`update "row" set data = cast(x'00' || substr(data, 2) as blob) where id = %d`,
			`update "row" set data = cast(substr(data, 1, length(data) - 1) || x'55' as blob) where id = %d`,
			`update "row" set data = cast(substr(data, 2) as blob) where id = %d`,
			`update "row" set data = cast(data || x'00' as blob) where id = %d`,
			`delete from "row" where id = %d`,
		} {
			id := 2<<cairn.GroupBits | group
			start := group * bao.GroupSize
			end := min(start+bao.GroupSize, int64(size))
			script(t, s, fmt.Sprintf(`create temp table saved as select * from "row" where id = %d`, id))
			script(t, s, fmt.Sprintf(how, id))

			b, err := s.Blob(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			for g := range bao.Groups(size) {
				p := make([]byte, bao.GroupLen(size, g))
				_, err := b.ReadAt(p, g*bao.GroupSize)
				if g == group {
					mustBeCorrupt(t, err, h, start, end)
				} else if err != nil || !bytes.Equal(p, data[g*bao.GroupSize:][:len(p)]) {
					t.Errorf("group %d reads %v", g, err)
				}
			}
			p := make([]byte, size)
			n, err := b.ReadAt(p, 0)
			mustBeCorrupt(t, err, h, start, end)
			if int64(n) != start || !bytes.Equal(p[:n], data[:n]) {
				t.Errorf("%d bytes before the damage at %d", n, start)
			}
			b.Close()
			script(t, s, `insert or replace into "row" select * from saved; drop table saved`)
		}
	}
	mustHave(t, s, data)
	if _, err := read(t.Context(), s, small); err != nil {
		t.Error(err)
	}
	mustBeSound(t, s)
}

func script(t *testing.T, s *cairn.Store, text string) {
	t.Helper()
	if err := s.ExecScript(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

func mustBeCorrupt(t *testing.T, err error, h cairn.Hash, start, end int64) {
	t.Helper()
	mustBe(t, err, cairn.ErrCorrupt)
	var c *cairn.CorruptError
	if !errors.As(err, &c) {
		t.Errorf("%v is no CorruptError", err)
	} else if c.Hash != h || len(c.Ranges) != 1 || c.Ranges[0] != (cairn.ByteRange{Start: start, End: end}) {
		t.Errorf("%v, want bytes %d..%d", err, start, end)
	}
}

// TestDamagedOutboard changes and removes tiles of a blob that nothing has
// cached yet.
func TestDamagedOutboard(t *testing.T) {
	path := tempPath(t)
	const groups = 130
	data := content(5, groups*bao.GroupSize)
	func() {
		s, err := cairn.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		add(t, s, data)
	}()
	for _, tt := range []struct {
		tile       bao.Tile
		byteNumber int // 0: the whole tile
		first      int64
		end        int64 // of the groups that cannot be verified
	}{
		{bao.Tile{Level: 1}, 65, 0, groups},               // the root's pair
		{bao.Tile{Level: 1}, 1, 0, 128},                   // the pair of the first two tiles
		{bao.Tile{Level: 1}, 0, 0, groups},                // all above 1 MiB
		{bao.Tile{Level: 0, Index: 1}, 1, 64, 66},         // the pair of groups 64 and 65
		{bao.Tile{Level: 0, Index: 1}, 0, 64, 128},        //
		{bao.Tile{Level: 0, Index: 2}, 40, 128, 130},      // the pair at the right edge
		{bao.Tile{Level: 0, Index: 0}, 31 * 64, 0, 64},    // the top of a tile: left hash of its pair (in order 31)
		{bao.Tile{Level: 0, Index: 0}, 62*64 + 1, 62, 64}, // the last pair of a tile
	} {
		id := 1<<cairn.GroupBits | tt.tile.FirstGroup() | int64(tt.tile.Level)
		text := fmt.Sprintf(`delete from outboard where id = %d`, id)
		if tt.byteNumber > 0 {
			text = fmt.Sprintf(`update outboard set pairs = cast(substr(pairs, 1, %d) || x'0102' || substr(pairs, %d) as blob) where id = %d`,
				tt.byteNumber-1, tt.byteNumber+2, id)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sql(t, path, text)
		s, err := cairn.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Blob(t.Context(), hashOf(data))
		if err != nil {
			t.Fatal(err)
		}
		for g := int64(groups) - 1; g >= 0; g-- {
			p := make([]byte, bao.GroupSize)
			_, err := b.ReadAt(p, g*bao.GroupSize)
			if damaged := tt.first <= g && g < tt.end; damaged {
				mustBeCorrupt(t, err, hashOf(data), g*bao.GroupSize, (g+1)*bao.GroupSize)
			} else if err != nil || !bytes.Equal(p, data[g*bao.GroupSize:][:len(p)]) {
				t.Errorf("%v: group %d: %v", tt.tile, g, err)
			}
		}
		b.Close()
		_, err = s.Outboard(t.Context(), hashOf(data))
		mustBe(t, err, cairn.ErrCorrupt)
		if problems(t, s) == 0 && tt.byteNumber == 0 {
			t.Errorf("%v removed: Check found nothing", tt.tile)
		}
		s.Close()
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, path, nil)
	mustHave(t, s, data)
}

func problems(t *testing.T, s *cairn.Store) (n int) {
	t.Helper()
	for p, err := range s.Check(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Kind == "" || p.Detail == "" || p.String() == "" {
			t.Errorf("%+v", p)
		}
		n++
	}
	return n
}

// TestCheckFinds makes every kind of structural damage that SQL can make.
func TestCheckFinds(t *testing.T) {
	for _, text := range []string{
		`insert into "row" values (99 << 26, x'00')`,
		`insert into "row" values ((99 << 26) + 5, x'00')`,
		`insert into "outboard" values (99 << 26, x'00')`,
		`delete from "row" where id = 1 << 26`,
		`delete from "row" where id = (1 << 26) + 70`,
		`delete from "row" where id = (1 << 26) + 99`,
		`insert into "row" values ((1 << 26) + 100, x'00')`,
		`update "row" set data = x'00' where id = (1 << 26) + 3`,
		`update "outboard" set pairs = x'00' where id = (1 << 26)`,
		`delete from "outboard" where id = (1 << 26) + 64`,
		`insert into "outboard" values ((1 << 26) + 192, x'00')`,
		`insert into "outboard" values ((1 << 26) + 11, x'00')`,
		`insert into "outboard" values ((1 << 26) + 63, x'00')`,
		`update "outboard" set id = (1 << 26) + 65 where id = (1 << 26) + 1`,
		`insert into "row" values (-5, x'00')`,
		`update "blob" set size = 0, stored = 0 where id = 1`,
		`update "blob" set size = 1 << 60, stored = 1 << 60 where id = 1`,
		`update "usage" set blobs = 7`,
		`update "usage" set bytes = bytes + 1`,
		`update "blob" set stored = 5 where id = 1`,
		`drop trigger blob_delete`,
		`update "usage" set used = used + 1`,
		`create table stranger (x)`,
		`drop index blob_hidden; create index blob_hidden on blob (id) where state = 0 and id > 5`,
	} {
		path := tempPath(t)
		s := open(t, path, nil)
		add(t, s, content(1, 100*bao.GroupSize))
		add(t, s, content(2, 70))
		mustBeSound(t, s)
		s.Close()
		sql(t, path, text)
		s = open(t, path, nil)
		if problems(t, s) == 0 {
			t.Errorf("Check found nothing after: %s", text)
		}
		n := 0
		for range s.Check(t.Context(), &cairn.CheckOptions{Limit: 1}) {
			n++
		}
		if n != 1 {
			t.Errorf("%d problems with a limit of 1 after: %s", n, text)
		}
		s.Close()
	}
}

// TestDamagedPages overwrites each page of a small database in turn. Whatever
// opens and reads must be right; nothing may panic or loop.
func TestDamagedPages(t *testing.T) {
	path := tempPath(t)
	blobs := [][]byte{nil, content(1, 10), content(2, 5000), content(3, 100_000)}
	s := open(t, path, nil)
	for _, b := range blobs {
		add(t, s, b)
	}
	s.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(good); off += cairn.PageSize {
		for _, fill := range []byte{0, 0xff, 0x5a} {
			bad := bytes.Clone(good)
			for i := range cairn.PageSize {
				bad[off+i] = fill ^ byte(i*int(fill)>>3)
			}
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := cairn.Open(t.Context(), path, nil)
			if err != nil {
				continue
			}
			for _, want := range blobs {
				got, err := read(t.Context(), s, hashOf(want))
				if err == nil && !bytes.Equal(got, want) {
					t.Errorf("page %d filled with %#x: wrong bytes", off/cairn.PageSize, fill)
				}
			}
			for range s.Check(t.Context(), &cairn.CheckOptions{Limit: 10}) {
			}
			if tag, err := s.AddBytes(t.Context(), content(9, 20_000), nil); err == nil {
				tag.Release()
			}
			s.Close()
		}
	}
}

// TestTruncatedFile cuts the file at each page.
func TestTruncatedFile(t *testing.T) {
	path := tempPath(t)
	data := content(3, 300_000)
	s := open(t, path, nil)
	add(t, s, data)
	s.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1; size < len(good); size += cairn.PageSize*3 - 1000 {
		if err := os.WriteFile(path, good[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := cairn.Open(t.Context(), path, &cairn.Options{ReadOnly: true})
		if err != nil {
			continue
		}
		got, err := read(t.Context(), s, hashOf(data))
		if err == nil {
			t.Errorf("cut to %d bytes, the blob reads", size)
		} else if !bytes.Equal(got, data[:len(got)]) {
			t.Errorf("cut to %d bytes: wrong bytes before %v", size, err)
		}
		s.Close()
	}
}

// TestDamagedSize has the size in the database be wrong. No wrong byte and no
// wrong end may come of it.
func TestDamagedSize(t *testing.T) {
	for _, size := range []int64{0, 1, 16384, 99_999, 100_001, 1 << 30, 1 << 45, 1 << 62} {
		s := open(t, tempPath(t), nil)
		h := add(t, s, content(1, 100_000))
		script(t, s, fmt.Sprintf("update blob set size = %d, stored = %d", size, size))
		if got, err := read(t.Context(), s, h); err == nil {
			t.Errorf("size %d: read %d bytes without an error", size, len(got))
		} else {
			mustBe(t, err, cairn.ErrCorrupt)
		}
		_, err := s.Outboard(t.Context(), h)
		mustBe(t, err, cairn.ErrCorrupt)
		s.Close()
	}
	s := open(t, ":memory:", nil)
	h := add(t, s, nil)
	script(t, s, "update blob set size = 5, stored = 5")
	_, err := read(t.Context(), s, h)
	mustBe(t, err, cairn.ErrCorrupt)
}

// TestDamageBesideReads reads good parts of a blob while another goroutine
// keeps meeting a damaged tile of it.
func TestDamageBesideReads(t *testing.T) {
	s := open(t, tempPath(t), nil)
	data := content(5, 130*bao.GroupSize)
	h := add(t, s, data)
	script(t, s, fmt.Sprintf("update outboard set pairs = zeroblob(length(pairs)) where id = %d", 1<<cairn.GroupBits|64))
	b, err := s.Blob(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			p := make([]byte, bao.GroupSize)
			for range 300 {
				_, err := b.ReadAt(p, 70*bao.GroupSize)
				mustBe(t, err, cairn.ErrCorrupt)
			}
		})
		wg.Go(func() {
			p := make([]byte, bao.GroupSize)
			for range 300 {
				if _, err := b.ReadAt(p, 5*bao.GroupSize); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestDeletedElsewhere has the writer delete what a reader of the file has
// open: that is no damage.
func TestDeletedElsewhere(t *testing.T) {
	path := tempPath(t)
	s := open(t, path, nil)
	h := add(t, s, content(1, 100_000))
	reader := open(t, path, &cairn.Options{ReadOnly: true})
	b, err := reader.Blob(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.ReadAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	_, err = b.ReadAt(make([]byte, 10), 50_000)
	mustBe(t, err, cairn.ErrNotFound)
}
