package cairn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitemigration"
)

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
	return loc.with("immutable=1")
}

// gathering returns the location as one whose connections gather what they
// write; see [vfs].
func (loc location) gathering() (location, error) {
	if loc.memory {
		return loc, nil
	}
	name, err := gatheringVFS()
	if err != nil {
		return location{}, err
	}
	return loc.with("vfs=" + name), nil
}

// with returns the location of a file as a URI with a parameter. The empty
// authority keeps a path that begins with two slashes from being taken for one.
func (loc location) with(parameter string) location {
	path := filepath.ToSlash(loc.path)
	if strings.HasPrefix(path, "/") {
		path = "//" + path
	}
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	loc.uri = "file:" + escaped + "?" + parameter
	loc.flags |= sqlite.OpenURI
	return loc
}

// alone reports whether no file beside the database shows that somebody has it
// open for writing, or had when it crashed.
func (loc location) alone() bool {
	for _, ending := range []string{"-wal", "-journal", "-lock"} {
		if _, err := os.Lstat(loc.path + ending); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
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
	gathering, err := loc.gathering()
	if err != nil {
		return nil, err
	}
	conn, err := gathering.open(writerCacheKiB)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	conn.SetInterrupt(ctx.Done())
	defer func() {
		if err == nil {
			conn.SetInterrupt(nil)
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
	// Damage must not spread by writing. Reading needs no such check of each
	// page: what is read of a blob is verified by its hash.
	pragmas := []string{"pragma cell_size_check = on"}
	if pages == 0 {
		pragmas = append(pragmas, fmt.Sprintf("pragma page_size = %d", pageSize), "pragma auto_vacuum = incremental")
	}
	for _, pragma := range pragmas {
		if err := execText(conn, pragma); err != nil {
			return nil, fmt.Errorf("%s: %w", pragma, err)
		}
	}
	mode := "wal"
	if loc.memory {
		mode = "memory"
	}
	if err := setJournal(conn, mode); err != nil {
		return nil, err
	}
	if !current { // Migrate writes even where there is nothing to do
		schema := sqlitemigration.Schema{AppID: applicationID, Migrations: migrations}
		if err := sqlitemigration.Migrate(ctx, conn, schema); err != nil {
			return nil, err
		}
	}
	return conn, prepareAll(conn, true)
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

// recover takes back a transaction that a crash cut short and whose journal
// only a connection with the right to write may roll back.
func (loc location) recover() error {
	conn, err := sqlite.OpenConn(loc.path, sqlite.OpenReadWrite)
	if err != nil {
		return mapSQLite(err)
	}
	_, err = queryInt(conn, "pragma schema_version")
	return mapSQLite(errors.Join(err, conn.Close()))
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
	return loc.recover()
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
// SQLite says the same of both.
func diagnose(file *dbFile, err error) error {
	if sqlite.ErrCode(err).ToPrimary() != sqlite.ResultNotADB {
		return err
	}
	header := make([]byte, 100)
	if n, _ := file.f.ReadAt(header, 0); n < len(header) {
		return err
	}
	ours := binary.BigEndian.Uint32(header[68:]) == applicationID
	if ours || string(header[:16]) == "SQLite format 3\x00" {
		return fmt.Errorf("%w: database header: %v", ErrCorrupt, err)
	}
	return err
}
