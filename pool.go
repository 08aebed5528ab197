package cairn

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const (
	// applicationID marks our files: "Cair".
	applicationID = 0x43616972
	// pageSize is the measured best for 16 KiB rows; see DESIGN.md.
	pageSize = 4096
	// writerCacheKiB bounds the pages that the writing connection keeps; a
	// batch that dirties more spills them to the WAL.
	writerCacheKiB = 16 << 10
	readerCacheKiB = 1 << 10
)

var (
	//go:embed migrations/*.sql
	migrationFiles embed.FS
	//go:embed queries/*.sql
	queryFiles embed.FS

	migrations = readMigrations()
	queries    = readQueries()
)

func readMigrations() (scripts []string) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is constant
	}
	for _, name := range names {
		scripts = append(scripts, readEmbedded(migrationFiles, name))
	}
	return scripts
}

func readQueries() map[string]string {
	byName := make(map[string]string)
	names, err := fs.Glob(queryFiles, "queries/*.sql")
	if err != nil {
		panic(err) // the pattern is constant
	}
	for _, name := range names {
		text := readEmbedded(queryFiles, name)
		byName[strings.TrimSuffix(filepath.Base(name), ".sql")] = strings.TrimSuffix(text, ";\n")
	}
	return byName
}

func readEmbedded(files embed.FS, name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the file was listed by the same embedded file system
	}
	return string(b)
}

// control are the statements about transactions.
var control = []string{
	"begin", "begin immediate", "commit", "rollback",
	"savepoint request", "release request", "rollback to request",
}

// prepareAll prepares every statement, so that one which the schema does not
// allow is an error here and cannot be one later. A connection that only reads
// is spared those that write, whose triggers make them long programs.
func prepareAll(conn *sqlite.Conn, writes bool) error {
	for _, text := range control {
		if _, err := conn.Prepare(text); err != nil {
			return err
		}
	}
	for name, text := range queries {
		if !writes && !strings.HasPrefix(text, "select") {
			continue
		}
		_, err := conn.Prepare(text)
		if sqlite.ErrCode(err) == sqlite.ResultError { // no such table or column
			return fmt.Errorf("%w: query %s: %w", ErrCorrupt, name, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prep returns the connection's prepared statement for queries/NAME.sql,
// reset and without bindings. A name that does not exist is a bug.
func prep(conn *sqlite.Conn, name string) *sqlite.Stmt {
	return conn.Prep(queries[name])
}

// exec runs a statement that returns no rows, and resets it.
func exec(stmt *sqlite.Stmt) error {
	_, err := stmt.Step()
	if resetErr := stmt.Reset(); err == nil {
		err = resetErr
	}
	return err
}

// execText runs one statement given as text.
func execText(conn *sqlite.Conn, text string) error {
	return sqlitex.ExecuteTransient(conn, text, nil)
}

// queryInt returns the first column of a statement's first row.
func queryInt(conn *sqlite.Conn, text string) (n int64, err error) {
	err = sqlitex.ExecuteTransient(conn, text, &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			n = stmt.ColumnInt64(0)
			return nil
		},
	})
	return n, err
}

// A reader is a reading connection, owned by whoever took it from the pool.
type reader struct {
	*sqlite.Conn
	inTx bool
	seq  uint64 // value of pool.commits before the transaction began
}

// A pool hands out the reading connections. All its methods may be called
// concurrently.
//
// A connection goes back with its read transaction still open, because to
// begin one costs as much as to read a row. Whoever takes it next ends it if a
// commit has happened since; before a checkpoint wants the WAL to itself,
// [pool.releaseSnapshots] ends those of the idle ones. That works because this
// process is the only writer; where it is not, and in memory, where a reader
// would lock the writer out, transactions end with their use.
type pool struct {
	loc     location
	keepTx  bool
	commits atomic.Uint64 // counted by the writer after each commit
	slots   chan struct{} // one token for each connection that is taken
	closing chan struct{} // closed by close
	wanted  chan struct{} // holds a token when a taker had to wait
	waiting atomic.Int64  // takers that wait

	mu       sync.Mutex
	idle     []*reader // last used on top, so that few caches stay warm
	emptying bool      // a checkpoint wants the WAL to itself: keep no transaction
}

func newPool(loc location, size int) *pool {
	return &pool{
		loc:     loc,
		keepTx:  !loc.readOnly && !loc.memory,
		slots:   make(chan struct{}, size),
		closing: make(chan struct{}),
		wanted:  make(chan struct{}, 1),
	}
}

// defaultReaders is enough to keep both the disk and the hashing busy.
func defaultReaders() int { return max(4, 2*runtime.GOMAXPROCS(0)) }

// take returns a connection in a read transaction that sees every commit that
// was acknowledged before the call. It must be put back. It waits while all
// are taken, until ctx is done.
func (p *pool) take(ctx context.Context) (*reader, error) {
	if err := p.open(); err != nil {
		return nil, err
	}
	if err := p.takeSlot(ctx); err != nil {
		return nil, err
	}
	r, err := p.pop()
	if err == nil {
		err = r.refresh(p)
	}
	if err != nil {
		if r != nil {
			r.Close()
		}
		<-p.slots
		return nil, mapSQLite(err)
	}
	return r, nil
}

func (p *pool) takeSlot(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	select {
	case p.wanted <- struct{}{}:
	default:
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.closing:
		return ErrClosed
	}
}

// suspend closes the connections if none is in use, and reports whether it
// did. Then takers wait, having left a token in wanted, until resume.
func (p *pool) suspend() bool {
	select {
	case <-p.wanted: // an old one
	default:
	}
	for n := range cap(p.slots) {
		select {
		case p.slots <- struct{}{}:
		default:
			p.release(n)
			return false
		}
	}
	// Who waited before the last slot was taken may have lost its token above;
	// who comes later leaves one.
	if p.waiting.Load() > 0 {
		p.resume()
		return false
	}
	p.closeIdle()
	return true
}

// resume lets takers go on.
func (p *pool) resume() { p.release(cap(p.slots)) }

func (p *pool) release(n int) {
	for range n {
		<-p.slots
	}
}

// open returns ErrClosed once close has been called.
func (p *pool) open() error {
	select {
	case <-p.closing:
		return ErrClosed
	default:
		return nil
	}
}

func (p *pool) pop() (*reader, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return r, nil
	}
	p.mu.Unlock()
	conn, err := p.loc.open(readerCacheKiB)
	if err != nil {
		return nil, err
	}
	if err := prepareAll(conn, false); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &reader{Conn: conn}, nil
}

func (p *pool) put(r *reader) {
	p.mu.Lock()
	if !p.keepTx || p.emptying {
		r.endTx()
	}
	p.idle = append(p.idle, r)
	p.mu.Unlock()
	<-p.slots
}

func (r *reader) refresh(p *pool) error {
	seq := p.commits.Load() // before begin: at worst the snapshot is newer
	if r.inTx && r.seq == seq {
		return nil
	}
	r.endTx()
	if err := exec(r.Prep("begin")); err != nil {
		return err
	}
	r.inTx, r.seq = true, seq
	return nil
}

// endTx ends the read transaction. A rollback of one cannot fail in a way
// that matters: nothing was written, and the next begin reports what is wrong.
func (r *reader) endTx() {
	if r.inTx {
		exec(r.Prep("rollback"))
		r.inTx = false
	}
}

// releaseSnapshots ends the transactions of the idle connections, so that a
// checkpoint can reach the end of the WAL. If that is to be emptied, none is
// kept until keepSnapshots: one that began before the end was reached would
// stand in the way.
func (p *pool) releaseSnapshots(emptying bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.emptying = emptying
	for _, r := range p.idle {
		r.endTx()
	}
}

func (p *pool) keepSnapshots() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.emptying = false
}

// close makes every further take fail, waits until all connections are back,
// and closes them.
func (p *pool) close() error {
	close(p.closing)
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	return p.closeIdle()
}

func (p *pool) closeIdle() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, r := range p.idle {
		r.endTx()
		errs = append(errs, r.Close())
	}
	p.idle = nil
	return errors.Join(errs...)
}

// read runs f on a reading connection, inside one snapshot.
func (p *pool) read(ctx context.Context, f func(conn *sqlite.Conn) error) error {
	r, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer p.put(r)
	return mapSQLite(f(r.Conn))
}
