package cairn_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// frame writes a frame at a WAL's offset as SQLite does, and returns where the
// next one begins.
func frame(t *testing.T, g *cairn.Gathered, off int64, dbSize uint32) int64 {
	t.Helper()
	header := make([]byte, 24)
	binary.BigEndian.PutUint32(header[4:], dbSize)
	if rc := g.Write(off, header); rc != 0 {
		t.Fatalf("header at %d: %d", off, rc)
	}
	if rc := g.Write(off+24, make([]byte, 4096)); rc != 0 {
		t.Fatalf("page at %d: %d", off, rc)
	}
	return off + 24 + 4096
}

func mustTake(t *testing.T, g *cairn.Gathered, want ...string) {
	t.Helper()
	if got := g.Took(); !slices.Equal(got, want) {
		t.Errorf("the file was called %q, want %q", got, want)
	}
}

// TestGatherWALScript goes through what SQLite writes to a WAL.
func TestGatherWALScript(t *testing.T) {
	g := cairn.NewGathered(t, true)
	g.Write(0, make([]byte, 32)) // the log begins again
	g.Sync()
	mustTake(t, g, "write 32 at 0", "sync")
	off := frame(t, g, 32, 0) // the first write after a sync is not held
	mustTake(t, g, "write 24 at 32", "write 4096 at 56")
	off = frame(t, g, off, 0)
	off = frame(t, g, off, 0)
	mustTake(t, g)
	if _, rc := g.Read(off-4096, 4096); rc != 0 {
		t.Error(rc)
	}
	mustTake(t, g) // was still here
	g.Read(32, 4120)
	mustTake(t, g, "read 4120 at 32")
	off = frame(t, g, off, 7)
	mustTake(t, g, "write 12360 at 4152")

	// A page that the transaction has written before, and then the checksums.
	second := frame(t, g, off, 0)
	third := frame(t, g, second, 0)
	g.Write(off+24, make([]byte, 4096))
	mustTake(t, g, "write 8240 at 16512", "write 4096 at 16536")
	end := frame(t, g, third, 8)
	mustTake(t, g, "write 24 at 24752", "write 4096 at 24776")
	for at, size := range map[int64]uint32{off: 0, second: 0, third: 8} {
		g.Read(at, 4120)
		header := make([]byte, 24)
		binary.BigEndian.PutUint32(header[4:], size)
		g.Write(at, header)
		mustTake(t, g, fmt.Sprintf("read 4120 at %d", at), fmt.Sprintf("write 24 at %d", at))
	}

	// A transaction that is rolled back with frames in hand.
	frame(t, g, end, 0)
	frame(t, g, end+4120, 0)
	g.Unlock()
	mustTake(t, g, "write 24 at 28872", "write 4096 at 28896")
	frame(t, g, end, 9) // without the lock nothing is held
	mustTake(t, g, "write 24 at 28872", "write 4096 at 28896")

	// The rest of a sector, written after the sync of what is before it.
	g.Lock()
	off = frame(t, g, end, 9)
	mustTake(t, g, "write 24 at 28872", "write 4096 at 28896")
	header := make([]byte, 24)
	header[7] = 9
	g.Write(off, header)
	g.Write(off+24, make([]byte, 100))
	mustTake(t, g, "write 124 at 32992")
	g.Sync()
	g.Write(off+124, make([]byte, 24)) // no header, though it looks like one
	mustTake(t, g, "sync", "write 24 at 33116")

	// A large transaction is handed on in large parts.
	off = frame(t, g, 40032, 0)
	g.Took()
	for range 100 {
		off = frame(t, g, off, 0)
	}
	if took := g.Took(); len(took) != 3 {
		t.Errorf("100 frames were handed on in %q", took)
	}
}

// TestGatherFails looks at what a failed write leaves.
func TestGatherFails(t *testing.T) {
	g := cairn.NewGathered(t, true)
	off := frame(t, g, 32, 0)
	end := frame(t, g, off, 0)
	g.Took()
	header := make([]byte, 24)
	header[7] = 1
	g.Write(end, header)
	g.Fail = true
	if rc := g.Write(end+24, make([]byte, 4096)); rc == 0 {
		t.Error("a commit that cannot be written succeeds")
	}
	mustTake(t, g, "write 8240 at 4152 fails")
	g.Fail = false
	if g.Sync() != 0 {
		t.Error("sync")
	}
	mustTake(t, g, "write 4144 at 4152", "sync") // without the page that commits
	g.Unlock()

	g = cairn.NewGathered(t, false)
	page := make([]byte, 4096)
	for i := range int64(3) {
		g.Write(i*4096, page)
	}
	g.Fail = true
	if rc := g.Write(1<<20, page); rc == 0 {
		t.Error("a write succeeds after one that fails")
	}
	if rc := g.Sync(); rc == 0 {
		t.Error("a sync succeeds after a write that fails")
	}
	if _, rc := g.Read(4096, 4096); rc != 0 {
		t.Error("what is in hand cannot be read")
	}
	if _, rc := g.Read(2*4096+4, 4096); rc == 0 {
		t.Error("what is in hand in part is read past it")
	}
	g.Took()
	g.Fail = false
	if g.Sync() != 0 {
		t.Error("sync")
	}
	mustTake(t, g, "write 12288 at 0", "sync")
	g.Write(0, page)
	g.Unlock()
	g.Sync()
	mustTake(t, g, "sync") // not over what others may have written since
}

// TestGatherCalls counts the calls of a transaction, and of its checkpoint.
func TestGatherCalls(t *testing.T) {
	writes := map[bool]int{}
	cairn.SetSpy(t, func(c cairn.Call) int {
		if c.Op == "write" {
			writes[c.WAL]++
		}
		return -1
	})
	conn := gathering(t, tempPath(t), "wal", "normal", 4096)
	for i := range 4 {
		clear(writes)
		mustExec(t, conn, fmt.Sprintf("replace into kv values (%d, randomblob(1 << 20))", i))
		// 257 pages, in rows of 124 KiB.
		if n := writes[true]; n > 16 || writes[false] > 0 {
			t.Errorf("transaction %d: %d writes to the WAL, %d to the database", i, n, writes[false])
		}
	}
	clear(writes)
	mustExec(t, conn, "pragma wal_checkpoint(passive)")
	if n := writes[false]; n < 8 || n > 64 {
		t.Errorf("the checkpoint of four transactions: %d writes", n)
	}
	mustExec(t, conn, "pragma journal_mode = truncate")
	clear(writes)
	mustExec(t, conn, "replace into kv values (10, randomblob(1 << 20))")
	if n := writes[false]; n > 16 {
		t.Errorf("%d writes to the database without a WAL", n)
	}
}

// TestAheadOfReaders has a checkpoint move pages up to what a reader sees, where
// the next page of the database is the next one in the WAL, too.
func TestAheadOfReaders(t *testing.T) {
	path := tempPath(t)
	conn := gathering(t, path, "wal", "normal", 100)
	ckpt := gathering(t, path, "wal", "normal", 100)
	for k := range 20 {
		mustExec(t, conn, fmt.Sprintf("insert into kv values (%d, zeroblob(3000))", k)) // one a page
	}
	reader, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for k := 2; k < 18; k++ {
		mustExec(t, ckpt, "pragma wal_checkpoint(truncate)")
		mustExec(t, conn, fmt.Sprintf("update kv set v = randomblob(3000) where k between %d and %d", k-2, k))
		mustExec(t, reader, "begin")
		before := rowsOf(t, reader)
		mustExec(t, conn, fmt.Sprintf("update kv set v = randomblob(3000) where k > %d", k))
		mustExec(t, ckpt, "pragma wal_checkpoint(passive)")
		if after := rowsOf(t, reader); !slices.Equal(before, after) {
			t.Errorf("from row %d on a reader sees what it must not", k+1)
		}
		mustExec(t, reader, "commit")
	}
}

// TestAheadOnFullDisk has a checkpoint move a database that was longer, and did not
// fit the disk.
func TestAheadOnFullDisk(t *testing.T) {
	limit := int64(1 << 40)
	cairn.SetSpy(t, func(c cairn.Call) int {
		if !c.WAL && c.Op == "write" && c.Off+int64(len(c.Data)) > limit {
			return 0
		}
		return -1
	})
	conn := gathering(t, tempPath(t), "delete", "normal", 1000)
	for _, text := range []string{
		"pragma auto_vacuum = incremental", "vacuum", "pragma journal_mode = wal",
		"with recursive n (k) as (select 0 union all select k + 1 from n where k < 19) insert into kv select k, zeroblob(3000) from n",
		"pragma wal_checkpoint(truncate)",
	} {
		mustExec(t, conn, text)
	}
	err := sqlitex.ExecuteTransient(conn, "pragma page_count", &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error { limit = stmt.ColumnInt64(0) * 4096; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"begin", "update kv set v = randomblob(3000)", "insert into kv select k + 20, randomblob(3000) from kv", "commit",
	} {
		mustExec(t, conn, text)
	}
	if err := cairn.ExecText(conn, "pragma wal_checkpoint(truncate)"); sqlite.ErrCode(err).ToPrimary() != sqlite.ResultFull {
		t.Fatalf("a checkpoint of a database that does not fit: %v", err)
	}
	mustExec(t, conn, "delete from kv where k >= 20")
	mustExec(t, conn, "pragma incremental_vacuum(1000)")
	mustExec(t, conn, "pragma wal_checkpoint(truncate)")
}

// rowsOf returns all values, read anew.
func rowsOf(t *testing.T, conn *sqlite.Conn) (list []string) {
	t.Helper()
	mustExec(t, conn, "pragma shrink_memory")
	err := sqlitex.ExecuteTransient(conn, "select hex(v) from kv order by k", &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			list = append(list, stmt.ColumnText(0))
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// gathering opens a connection that gathers, to a database that it makes.
func gathering(t *testing.T, path, journal, synchronous string, cachePages int) *sqlite.Conn {
	t.Helper()
	uri, err := cairn.GatheringURI(path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := sqlite.OpenConn(uri, sqlite.OpenReadWrite|sqlite.OpenCreate|sqlite.OpenURI)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	conn.SetBusyTimeout(0)
	for _, text := range []string{
		"pragma journal_mode = " + journal, "pragma synchronous = " + synchronous,
		fmt.Sprintf("pragma cache_size = %d", cachePages), "pragma wal_autocheckpoint = 0",
		"create table if not exists kv (k integer primary key, v blob)",
	} {
		mustExec(t, conn, text)
	}
	return conn
}

func mustExec(t *testing.T, conn *sqlite.Conn, text string) {
	t.Helper()
	if err := cairn.ExecText(conn, text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// TestGatherPaths opens stores whose paths mean something in a URI.
func TestGatherPaths(t *testing.T) {
	for _, name := range []string{"a?b", "a#b", "a%20b", "a b&c=d", "ä", "a;b"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Skipf("%s: %v", name, err)
		}
		path := filepath.Join(dir, name+".db")
		s := open(t, path, nil)
		b := content(1, 100_000)
		add(t, s, b)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		mustHave(t, open(t, path, nil), b)
	}
}

// TestGatherOtherProcess has the sqlite3 shell look at each commit.
func TestGatherOtherProcess(t *testing.T) {
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("the sqlite3 shell is not installed")
	}
	path := tempPath(t)
	s := open(t, path, &cairn.Options{Durability: cairn.Relaxed})
	for i := range 30 {
		add(t, s, content(uint64(i), 300_000))
		out, err := exec.Command(shell, path, "select count(*) from blob; pragma quick_check").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		lines := strings.Fields(string(out))
		if n, err := strconv.Atoi(lines[0]); err != nil || n != i+1 || lines[1] != "ok" {
			t.Fatalf("after %d blobs another process sees %q", i+1, lines)
		}
	}
}
