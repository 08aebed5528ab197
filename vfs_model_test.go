package cairn_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A gatherModel drives connections that gather through transactions with
// spills, savepoints, checkpoints and writes that fail, and knows what the
// database has to hold.
type gatherModel struct {
	t       *testing.T
	rng     *rand.Rand
	path    string
	conn    *sqlite.Conn // that gathers
	ckpt    *sqlite.Conn // that gathers, for checkpoints; nil without a WAL
	other   *sqlite.Conn // that does not
	sizes   map[int]int  // of the values, by key: what was committed
	pending map[int]int  // with the open transaction
	commits bool         // a commit is under way: pending may be visible

	failIn   int // calls before one fails; negative: none
	failures int // to come then
	failed   bool
	copyIn   int // calls before the files are copied; negative: none
	copied   []gatherCopy
}

// A gatherCopy is what a crash would have left, and what that has to hold.
type gatherCopy struct {
	dir  string
	want []map[int]int // one of these
}

// valueOf returns the value that a key has if it has that size.
func valueOf(key, size int) []byte { return content(uint64(key)<<20|uint64(size), size) }

func (m *gatherModel) spy(c cairn.Call) int {
	if c.Op == "publish" && c.Held > 0 {
		m.t.Errorf("%d bytes are in hand when a commit becomes visible", c.Held)
	}
	if c.Op == "publish" {
		return -1
	}
	if m.copyIn--; m.copyIn == 0 {
		m.copyFiles()
	}
	if c.Op != "write" {
		return -1 // a commit whose sync fails may have happened
	}
	if m.failIn--; m.failIn >= 0 || m.failures == 0 {
		return -1
	}
	m.failures--
	m.failed = true
	return m.rng.IntN(len(c.Data))
}

// copyFiles copies the files as they are.
func (m *gatherModel) copyFiles() {
	c := gatherCopy{dir: m.t.TempDir(), want: []map[int]int{maps.Clone(m.sizes)}}
	if m.commits {
		c.want = append(c.want, maps.Clone(m.pending))
	}
	for _, ending := range []string{"", "-wal", "-journal"} {
		b, err := os.ReadFile(m.path + ending)
		if err == nil {
			err = os.WriteFile(filepath.Join(c.dir, "cairn.db"+ending), b, 0o600)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			m.t.Error(err)
		}
	}
	m.copied = append(m.copied, c)
}

// transaction runs one, and ends it.
func (m *gatherModel) transaction() {
	m.pending = maps.Clone(m.sizes)
	if err := m.exec("begin immediate"); err != nil {
		m.mustHaveFailed(err)
		return
	}
	for range m.rng.IntN(12) {
		if m.conn.AutocommitEnabled() {
			break // SQLite has rolled back
		}
		m.change()
	}
	if m.conn.AutocommitEnabled() {
		return
	}
	if m.rng.IntN(5) > 0 {
		m.commits = true
		err := m.exec("commit")
		m.commits = false
		if err == nil {
			m.sizes = m.pending
			return
		}
		m.mustHaveFailed(err)
	}
	if !m.conn.AutocommitEnabled() {
		if err := m.exec("rollback"); err != nil {
			m.mustHaveFailed(err)
		}
	}
}

// change makes one change, or some that it may take back.
func (m *gatherModel) change() {
	if m.rng.IntN(3) > 0 {
		m.replace()
		return
	}
	before := maps.Clone(m.pending)
	if err := m.exec("savepoint inner"); err != nil {
		m.mustHaveFailed(err)
		return
	}
	for range m.rng.IntN(4) {
		m.replace()
	}
	if m.conn.AutocommitEnabled() {
		return
	}
	if m.rng.IntN(2) == 0 {
		if err := m.exec("rollback to inner"); err != nil {
			m.mustHaveFailed(err)
			if !m.conn.AutocommitEnabled() {
				m.exec("rollback")
			}
			return
		}
		m.pending = before
	}
	if err := m.exec("release inner"); err != nil {
		m.mustHaveFailed(err)
	}
}

func (m *gatherModel) replace() {
	if m.conn.AutocommitEnabled() {
		return
	}
	key, size := m.rng.IntN(30), 1+m.rng.IntN(60_000)
	if m.rng.IntN(4) == 0 {
		size = 0
	}
	var err error
	if size == 0 {
		err = m.exec("delete from kv where k = ?", key)
	} else {
		err = m.exec("replace into kv values (?, ?)", key, valueOf(key, size))
	}
	switch {
	case err != nil:
		m.mustHaveFailed(err)
	case size == 0:
		delete(m.pending, key)
	default:
		m.pending[key] = size
	}
}

func (m *gatherModel) exec(text string, args ...any) error {
	return sqlitex.Execute(m.conn, text, &sqlitex.ExecOptions{Args: args})
}

// mustHaveFailed makes sure that an error comes from a write that failed.
func (m *gatherModel) mustHaveFailed(err error) {
	m.t.Helper()
	if !m.failed {
		m.t.Fatalf("nothing failed, but: %v", err)
	}
}

// checkpoint moves the WAL, as far as a reader lets it.
func (m *gatherModel) checkpoint() {
	conn := m.ckpt
	if conn == nil {
		return
	}
	if m.rng.IntN(3) == 0 {
		conn = m.conn
	}
	mode := []string{"passive", "restart", "truncate"}[m.rng.IntN(3)]
	if err := cairn.ExecText(conn, "pragma wal_checkpoint("+mode+")"); err != nil {
		m.mustHaveFailed(err)
	}
}

// look makes sure that all connections see what was committed. A connection
// may need a second look, when it has to take a transaction back first and a
// write failed.
func (m *gatherModel) look() {
	m.t.Helper()
	m.failIn, m.failures = -1, 0
	for _, conn := range []*sqlite.Conn{m.other, m.conn, m.ckpt} {
		if conn == nil {
			continue
		}
		got, err := contents(conn)
		if err != nil && m.failed {
			got, err = contents(conn)
		}
		if err != nil {
			m.t.Fatal(err)
		}
		if !maps.Equal(got, m.sizes) {
			m.t.Fatalf("got %v, want %v", got, m.sizes)
		}
	}
	m.failed = false
}

// contents reads everything, and makes sure that the database is sound.
func contents(conn *sqlite.Conn) (sizes map[int]int, err error) {
	sizes = make(map[int]int)
	err = sqlitex.ExecuteTransient(conn, "select k, v from kv", &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			key, value := stmt.ColumnInt(0), make([]byte, stmt.ColumnLen(1))
			stmt.ColumnBytes(1, value)
			if string(value) != string(valueOf(key, len(value))) {
				return fmt.Errorf("the value of %d is wrong", key)
			}
			sizes[key] = len(value)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return sizes, sqlitex.ExecuteTransient(conn, "pragma integrity_check", &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			if text := stmt.ColumnText(0); text != "ok" {
				return errors.New(text)
			}
			return nil
		},
	})
}

// checkCopies opens what crashes would have left.
func (m *gatherModel) checkCopies() {
	for _, c := range m.copied {
		conn, err := sqlite.OpenConn(filepath.Join(c.dir, "cairn.db"), sqlite.OpenReadWrite)
		if err != nil {
			m.t.Fatal(err)
		}
		got, err := contents(conn)
		if err != nil {
			m.t.Error(err)
		}
		found := false
		for _, want := range c.want {
			found = found || maps.Equal(got, want)
		}
		if !found {
			m.t.Errorf("after a crash: got %v, want one of %v", got, c.want)
		}
		if err := conn.Close(); err != nil {
			m.t.Error(err)
		}
	}
	m.copied = nil
}

// TestGatherModel runs random transactions with a cache of few pages, in each
// journal mode: without failures, and with one or some in a row.
func TestGatherModel(t *testing.T) {
	rounds := max(2, *modelRuns/10)
	if testing.Short() {
		rounds = 2
	}
	for _, journal := range []string{"wal", "truncate", "delete", "memory"} {
		for _, synchronous := range []string{"off", "normal", "full"} {
			for _, failures := range []int{0, 1, 5} {
				if journal == "memory" && failures > 0 {
					continue // what cannot be rolled back is lost
				}
				t.Run(fmt.Sprintf("%s/%s/%d", journal, synchronous, failures), func(t *testing.T) {
					for seed := range uint64(rounds) {
						runGatherModel(t, journal, synchronous, failures, seed)
					}
				})
			}
		}
	}
}

func runGatherModel(t *testing.T, journal, synchronous string, failures int, seed uint64) {
	m := &gatherModel{t: t, rng: rand.New(rand.NewPCG(seed, 1)), path: tempPath(t), sizes: map[int]int{}, failIn: -1}
	cairn.SetSpy(t, m.spy)
	m.conn = gathering(t, m.path, journal, synchronous, 10)
	if journal == "wal" {
		m.ckpt = gathering(t, m.path, journal, synchronous, 10)
	}
	var err error
	if m.other, err = sqlite.OpenConn(m.path, sqlite.OpenReadWrite); err != nil {
		t.Fatal(err)
	}
	m.other.SetBusyTimeout(0)
	for range 25 {
		m.copyIn = m.rng.IntN(40)
		if journal == "memory" {
			m.copyIn = -1
		}
		m.failIn, m.failures = m.rng.IntN(30), failures
		reads := m.rng.IntN(4) == 0 && journal == "wal"
		if reads {
			mustExec(t, m.other, "begin")
			mustExec(t, m.other, "select count(*) from kv")
		}
		m.transaction()
		m.checkpoint()
		if m.rng.IntN(3) == 0 {
			m.transaction()
		}
		if reads {
			mustExec(t, m.other, "commit")
		}
		m.look()
	}
	m.checkCopies()
	if err := m.other.Close(); err != nil {
		t.Error(err)
	}
}
