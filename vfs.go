package cairn

import (
	"fmt"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite writes a page at a time: into the WAL in two calls, a frame's header
// and its page, and into the database in one. At 16 KiB a row that was half of
// all CPU time, in system calls. So the connections that write do it through a
// VFS of ours, which stands before the platform's own, gathers what is written
// in a row, and hands it on as one.
//
// When it hands on, and why nobody can tell the difference otherwise, is told
// in vfs_gather.go, and what of the calls of SQLite it depends on in
// vfs_file.go. Only databases and their WALs are gathered. Every other file,
// and all of the file system, is the platform's VFS alone.
//
// Everything that SQLite holds a pointer to is in memory that SQLite's allocator
// gave: the VFS itself and the tables of methods, which are never freed, and the
// files, each in what SQLite allocates for it, ours first and the real one
// behind it. SQLite uses a file from one thread at a time, that of the
// connection it belongs to, so files need no locks.

// vfsName is what a connection asks for to have its writes gathered.
const vfsName = "cairn-gather"

// A vfs is a sqlite3_vfs that opens files with another one.
type vfs struct {
	sqlite3.Tsqlite3_vfs         // must be the first field
	real                 uintptr // *sqlite3_vfs
}

// at returns what is at an address outside of Go's memory.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// bytesAt returns n bytes at such an address.
func bytesAt(p uintptr, n int32) []byte { return unsafe.Slice(at[byte](p), n) }

// method returns the Go function behind a C function pointer.
func method[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

// pointer returns the C function pointer of a function that is not a closure.
// Such functions stay where they are.
func pointer(f any) uintptr { return (*[2]uintptr)(unsafe.Pointer(&f))[1] }

// gatheringVFS registers the VFS, when it is needed first, and returns its name.
var gatheringVFS = sync.OnceValues(func() (string, error) {
	tls := libc.NewTLS()
	defer tls.Close()
	return vfsName, registerVFS(tls, vfsName, sqlite3.Xsqlite3_vfs_find(tls, 0))
})

// registerVFS registers a VFS before another one. It stays until the process
// ends. Nobody gets it who does not ask for it by its name.
func registerVFS(tls *libc.TLS, name string, real uintptr) error {
	if real == 0 {
		return fmt.Errorf("vfs %s: SQLite has no default to stand before", name)
	}
	p := sqlite3.Xsqlite3_malloc(tls, int32(unsafe.Sizeof(vfs{})))
	cname, err := libc.CString(name)
	if p == 0 || err != nil {
		return fmt.Errorf("vfs %s: no memory", name)
	}
	// The other methods are about paths, time and chance, and mean the same
	// whichever VFS they are called for.
	v := at[vfs](p)
	v.Tsqlite3_vfs = *at[sqlite3.Tsqlite3_vfs](real)
	v.FpNext, v.FzName = 0, cname
	v.FszOsFile += int32(realFile)
	v.FxOpen = pointer(vfsOpen)
	v.real = real
	if rc := sqlite3.Xsqlite3_vfs_register(tls, p, 0); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("vfs %s: not registered: %d", name, rc)
	}
	return nil
}

// vfsOpen is xOpen. A file that is not gathered is opened in place, and has no
// part of ours.
func vfsOpen(tls *libc.TLS, pVfs, zName, pFile uintptr, flags int32, pOutFlags uintptr) int32 {
	real := at[vfs](pVfs).real
	open := method[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](at[sqlite3.Tsqlite3_vfs](real).FxOpen)
	database := uintptr(0)
	if flags&sqlite3.SQLITE_OPEN_WAL != 0 {
		database = sqlite3.Xsqlite3_database_file_object(tls, zName)
	}
	if !gathers(flags, database) {
		return open(tls, real, zName, pFile, flags, pOutFlags)
	}
	f := at[vfsFile](pFile)
	*f = vfsFile{}
	rc := open(tls, real, zName, pFile+realFile, flags, pOutFlags)
	methods := at[sqlite3.Tsqlite3_file](pFile + realFile).FpMethods
	if methods == 0 {
		return rc
	}
	// SQLite closes what has methods, also where its opening failed.
	if f.methods = methodsBefore(tls, methods); f.methods == 0 {
		fileClose(tls, pFile)
		return sqlite3.SQLITE_NOMEM
	}
	f.link(database)
	return rc
}

// gathers reports whether a file is one to be gathered: a database opened for
// writing, or the WAL of such a one that was opened by us.
func gathers(flags int32, database uintptr) bool {
	if database != 0 {
		return ours(at[sqlite3.Tsqlite3_file](database).FpMethods)
	}
	const writing = sqlite3.SQLITE_OPEN_MAIN_DB | sqlite3.SQLITE_OPEN_READWRITE
	return flags&writing == writing
}

// tables are the method tables of ours, by those of the files behind them.
var tables struct {
	mu     sync.Mutex
	before map[uintptr]uintptr
}

// ours reports whether a method table is one of ours.
func ours(methods uintptr) bool {
	tables.mu.Lock()
	defer tables.mu.Unlock()
	for _, t := range tables.before {
		if t == methods {
			return true
		}
	}
	return false
}

// methodsBefore returns the method table for files before those with the table
// given, or 0 if there is no memory.
func methodsBefore(tls *libc.TLS, real uintptr) uintptr {
	tables.mu.Lock()
	defer tables.mu.Unlock()
	if t := tables.before[real]; t != 0 {
		return t
	}
	t := sqlite3.Xsqlite3_malloc(tls, int32(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	if t == 0 {
		return 0
	}
	*at[sqlite3.Tsqlite3_io_methods](t) = newMethods(at[sqlite3.Tsqlite3_io_methods](real))
	if tables.before == nil {
		tables.before = make(map[uintptr]uintptr)
	}
	tables.before[real] = t
	return t
}

// newMethods returns a table that has what the real one has: SQLite looks at
// the version, and for methods that are not there.
func newMethods(real *sqlite3.Tsqlite3_io_methods) sqlite3.Tsqlite3_io_methods {
	t := sqlite3.Tsqlite3_io_methods{
		FiVersion:               min(real.FiVersion, 3),
		FxClose:                 pointer(fileClose),
		FxRead:                  pointer(fileRead),
		FxWrite:                 pointer(fileWrite),
		FxTruncate:              pointer(fileTruncate),
		FxSync:                  pointer(fileSync),
		FxFileSize:              pointer(fileSize),
		FxLock:                  pointer(fileLocked),
		FxUnlock:                pointer(fileUnlock),
		FxCheckReservedLock:     pointer(fileCheckReservedLock),
		FxFileControl:           pointer(fileControl),
		FxSectorSize:            pointer(fileSectorSize),
		FxDeviceCharacteristics: pointer(fileDeviceCharacteristics),
		FxShmMap:                pointer(fileShmMap),
		FxShmLock:               pointer(fileShmLock),
		FxShmBarrier:            pointer(fileShmBarrier),
		FxShmUnmap:              pointer(fileShmUnmap),
		FxFetch:                 pointer(fileFetch),
		FxUnfetch:               pointer(fileUnfetch),
	}
	if real.FiVersion < 2 || real.FxShmMap == 0 {
		t.FxShmMap, t.FxShmLock, t.FxShmBarrier, t.FxShmUnmap = 0, 0, 0, 0
	}
	if real.FiVersion < 3 || real.FxFetch == 0 {
		t.FxFetch, t.FxUnfetch = 0, 0
	}
	if real.FxSectorSize == 0 {
		t.FxSectorSize = 0
	}
	return t
}
