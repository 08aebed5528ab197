package cairn

import (
	"context"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitemigration"
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

// prepareAll prepares every query, so that one which the schema does not allow
// is an error here and cannot be one later.
func prepareAll(conn *sqlite.Conn) error {
	for name, text := range queries {
		if _, err := conn.Prepare(text); err != nil {
			return fmt.Errorf("%w: query %s: %w", ErrCorrupt, name, err)
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

// A location tells where a database is and how its connections are opened.
type location struct {
	path     string // "" for one in memory
	uri      string
	flags    sqlite.OpenFlags
	memory   bool
	readOnly bool
}

var memoryCount atomic.Int64

// newMemory returns a location that only this process sees and that is gone
// with its last connection.
func newMemory() location {
	return location{
		uri:    fmt.Sprintf("file:/cairn-%d-%d?vfs=memdb", os.Getpid(), memoryCount.Add(1)),
		flags:  sqlite.OpenReadWrite | sqlite.OpenCreate | sqlite.OpenURI,
		memory: true,
	}
}

func newFile(path string, readOnly bool) location {
	loc := location{path: path, uri: path, flags: sqlite.OpenReadWrite, readOnly: readOnly}
	if readOnly {
		loc.flags = sqlite.OpenReadOnly
	}
	return loc
}

// immutable returns the location as a file that nobody can be writing, which
// needs no -wal and no -shm file beside it.
func (loc location) immutable() location {
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(filepath.ToSlash(loc.path))
	loc.uri = "file:" + escaped + "?immutable=1"
	loc.flags |= sqlite.OpenURI
	return loc
}

func (loc location) wal() string { return loc.path + "-wal" }

// open opens one more connection to an existing database. The caller owns it.
func (loc location) open(cacheKiB int) (*sqlite.Conn, error) {
	conn, err := sqlite.OpenConn(loc.uri, loc.flags)
	if err != nil {
		return nil, err
	}
	for _, pragma := range []string{
		fmt.Sprintf("pragma cache_size = -%d", cacheKiB),
		// The writer syncs the WAL itself, right after each commit; see
		// [writer.syncLoop]. SQLite still syncs around checkpoints.
		"pragma synchronous = normal",
		"pragma wal_autocheckpoint = 0",
		"pragma trusted_schema = off",
		"pragma cell_size_check = on",
		"pragma recursive_triggers = on",
		"pragma temp_store = memory",
	} {
		if err := execText(conn, pragma); err != nil {
			conn.Close()
			return nil, fmt.Errorf("%s: %w", pragma, err)
		}
	}
	return conn, nil
}

// openWriter opens the writing connection, makes the database if there is
// none yet, and brings its schema to this version. The page size and the
// vacuum mode have to be set before the first page is written and before WAL.
func (loc location) openWriter(ctx context.Context) (_ *sqlite.Conn, err error) {
	conn, err := loc.open(writerCacheKiB)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	pages, err := queryInt(conn, "pragma page_count")
	if err != nil {
		return nil, err
	}
	if pages == 0 && !loc.memory {
		// SQLite takes a file too short to be a database for an empty one.
		if info, err := os.Stat(loc.path); err != nil || info.Size() > 0 {
			return nil, errors.Join(fmt.Errorf("%w: too short", ErrNotCairn), err)
		}
	}
	current, err := loc.checkVersion(conn, pages == 0)
	if err != nil {
		return nil, err
	}
	var pragmas []string
	if pages == 0 {
		pragmas = append(pragmas, fmt.Sprintf("pragma page_size = %d", pageSize), "pragma auto_vacuum = incremental")
	}
	mode := "pragma journal_mode = wal"
	if loc.memory {
		mode = "pragma journal_mode = memory"
	}
	for _, pragma := range append(pragmas, mode) {
		if err := execText(conn, pragma); err != nil {
			return nil, fmt.Errorf("%s: %w", pragma, err)
		}
	}
	if !current { // Migrate writes even where there is nothing to do
		schema := sqlitemigration.Schema{AppID: applicationID, Migrations: migrations}
		if err := sqlitemigration.Migrate(ctx, conn, schema); err != nil {
			return nil, err
		}
	}
	return conn, prepareAll(conn)
}

// checkVersion refuses other applications' databases and those of later
// versions before anything is written to them, and reports whether the schema
// is this version's. Only a writer may meet an empty database.
func (loc location) checkVersion(conn *sqlite.Conn, empty bool) (current bool, err error) {
	if empty && !loc.readOnly {
		return false, nil
	}
	app, err := queryInt(conn, "pragma application_id")
	if err != nil {
		return false, err
	}
	version, err := queryInt(conn, "pragma user_version")
	if err != nil {
		return false, err
	}
	if app == 0 && version == 0 && !loc.readOnly {
		// A crash between the creation and the first migration leaves a
		// database without tables. One with tables is a stranger's.
		tables, err := queryInt(conn, "select count(*) from sqlite_schema")
		if tables == 0 || err != nil {
			return false, err
		}
	}
	if app != applicationID {
		return false, fmt.Errorf("%w: application id %#x", ErrNotCairn, app)
	}
	known := int64(len(migrations))
	if version > known {
		return false, fmt.Errorf("%w: schema version %d, this one knows %d", ErrNewerSchema, version, known)
	}
	if loc.readOnly && version < known {
		return false, fmt.Errorf("%w: schema version %d must be brought to %d by opening it for writing", ErrReadOnly, version, known)
	}
	return version == known, nil
}

// tidy removes the empty -wal and -shm files that a reading connection makes
// and cannot remove. SQLite removes them when its last connection to a
// database ends that has the right to write; if that is another one, or there
// is something in the WAL, they stay.
func (loc location) tidy() error {
	info, err := os.Stat(loc.wal())
	if err != nil || info.Size() > 0 {
		return nil // nothing to remove
	}
	conn, err := sqlite.OpenConn(loc.path, sqlite.OpenReadWrite)
	if err != nil {
		return nil // no right to write
	}
	_, err = queryInt(conn, "pragma schema_version")
	return errors.Join(err, conn.Close())
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

	mu   sync.Mutex
	idle []*reader // last used on top, so that few caches stay warm
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
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
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
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.idle {
		r.endTx()
		r.Close()
	}
	p.idle = nil
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
	if err := prepareAll(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &reader{Conn: conn}, nil
}

func (p *pool) put(r *reader) {
	if !p.keepTx {
		r.endTx()
	}
	p.mu.Lock()
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
// checkpoint can reach the end of the WAL.
func (p *pool) releaseSnapshots() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.idle {
		r.endTx()
	}
}

// close makes every further take fail, waits until all connections are back,
// and closes them.
func (p *pool) close() error {
	close(p.closing)
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
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

// createFile makes an empty file only its owner can read, and reports whether
// it did; SQLite would leave that to the umask. What exists must be a regular
// file that its mode bits allow to write, for root as well.
func createFile(path string) (created bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		return true, f.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	info, err := statFile(path)
	if err != nil {
		return false, err
	}
	if info.Mode().Perm()&0o222 == 0 {
		return false, fmt.Errorf("%w: mode %v", ErrReadOnly, info.Mode())
	}
	return false, nil
}

// statFile returns the info of a regular file; another kind is ErrNotCairn.
func statFile(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%w: %w", ErrNotCairn, syscall.EISDIR)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %v", ErrNotCairn, info.Mode().Type())
	}
	return info, nil
}

// diagnose tells a damaged database of ours from a file that never was one:
// SQLite says the same of both. It is called only after an open has failed,
// when closing the file can drop no lock that this process holds on it.
func diagnose(path string, err error) error {
	if sqlite.ErrCode(err).ToPrimary() != sqlite.ResultNotADB {
		return err
	}
	f, openErr := os.Open(path)
	if openErr != nil {
		return err
	}
	defer f.Close()
	header := make([]byte, 100)
	if n, _ := f.ReadAt(header, 0); n < len(header) {
		return err
	}
	ours := binary.BigEndian.Uint32(header[68:]) == applicationID
	if ours || string(header[:16]) == "SQLite format 3\x00" {
		return fmt.Errorf("%w: database header: %v", ErrCorrupt, err)
	}
	return err
}
