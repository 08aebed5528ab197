package cairn

import (
	"fmt"
	"sync/atomic"
	"testing"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// GatherBytes is what one write is at most.
const GatherBytes = gatherBytes

// A Call is one that a file behind a gathering one gets.
type Call struct {
	WAL  bool
	Op   string // write, sync, truncate or publish: the barrier before a commit becomes visible
	Off  int64
	Data []byte // of a write
	Held int32  // bytes that the WAL's gathering file still has, at publish
}

// A Spy decides what becomes of a call: a negative number lets it pass, any
// other is the number of bytes written before it fails with SQLITE_FULL.
type Spy func(Call) int

var (
	spy     atomic.Pointer[Spy]
	spyReal uintptr                                     // the platform's VFS
	spied   = map[uintptr]sqlite3.Tsqlite3_io_methods{} // by our copies of them
	spyFor  = map[uintptr]uintptr{}                     // our copies, by the platform's
	spyKeep []*sqlite3.Tsqlite3_io_methods
)

// gatheringSpied registers a gathering VFS before one that asks the spy.
var gatheringSpied = func() func() (string, error) {
	name, registered := "cairn-spied", false
	return func() (string, error) {
		if registered {
			return name, nil
		}
		registered = true
		tls := libc.NewTLS()
		defer tls.Close()
		spyReal = sqlite3.Xsqlite3_vfs_find(tls, 0)
		p := sqlite3.Xsqlite3_malloc(tls, 256)
		v := at[sqlite3.Tsqlite3_vfs](p)
		*v = *at[sqlite3.Tsqlite3_vfs](spyReal)
		v.FpNext, v.FxOpen = 0, pointer(spyOpen)
		return name, registerVFS(tls, name, p)
	}
}()

// SetSpy has the stores and connections that the test opens from now on gather
// before files whose calls are shown to f.
func SetSpy(t testing.TB, f Spy) {
	before := gatheringVFS
	gatheringVFS = gatheringSpied
	spy.Store(&f)
	t.Cleanup(func() {
		gatheringVFS = before
		spy.Store(nil)
	})
	if _, err := gatheringSpied(); err != nil {
		t.Fatal(err)
	}
}

// GatheringURI returns how a connection is opened that gathers.
func GatheringURI(path string) (string, error) {
	loc, err := newFile(path, false).gathering()
	return loc.uri, err
}

func spyOpen(tls *libc.TLS, _, zName, pFile uintptr, flags int32, pOutFlags uintptr) int32 {
	open := method[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](at[sqlite3.Tsqlite3_vfs](spyReal).FxOpen)
	rc := open(tls, spyReal, zName, pFile, flags, pOutFlags)
	f := at[sqlite3.Tsqlite3_file](pFile)
	if rc != sqlite3.SQLITE_OK || flags&(sqlite3.SQLITE_OPEN_WAL|sqlite3.SQLITE_OPEN_MAIN_DB) == 0 {
		return rc
	}
	tables.mu.Lock()
	defer tables.mu.Unlock()
	if spyFor[f.FpMethods] == 0 {
		m := *at[sqlite3.Tsqlite3_io_methods](f.FpMethods)
		keep := new(sqlite3.Tsqlite3_io_methods)
		*keep = m
		keep.FxWrite, keep.FxSync, keep.FxTruncate = pointer(spyWrite), pointer(spySync), pointer(spyTruncate)
		if m.FxShmBarrier != 0 {
			keep.FxShmBarrier = pointer(spyBarrier)
		}
		spyKeep = append(spyKeep, keep)
		p := pointer(keep)
		spyFor[f.FpMethods], spied[p] = p, m
	}
	f.FpMethods = spyFor[f.FpMethods]
	return rc
}

func spyMethods(pFile uintptr) sqlite3.Tsqlite3_io_methods {
	tables.mu.Lock()
	defer tables.mu.Unlock()
	return spied[at[sqlite3.Tsqlite3_file](pFile).FpMethods]
}

func askSpy(pFile uintptr, c Call) int {
	c.WAL = at[vfsFile](pFile - realFile).isWAL
	if f := spy.Load(); f != nil {
		return (*f)(c)
	}
	return -1
}

func spyWrite(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	write := method[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](spyMethods(pFile).FxWrite)
	part := askSpy(pFile, Call{Op: "write", Off: off, Data: bytesAt(buf, n)})
	if part < 0 {
		return write(tls, pFile, buf, n, off)
	}
	if part > 0 {
		write(tls, pFile, buf, min(int32(part), n), off)
	}
	return sqlite3.SQLITE_FULL
}

func spySync(tls *libc.TLS, pFile uintptr, flags int32) int32 {
	if askSpy(pFile, Call{Op: "sync"}) >= 0 {
		return sqlite3.SQLITE_FULL
	}
	return method[func(*libc.TLS, uintptr, int32) int32](spyMethods(pFile).FxSync)(tls, pFile, flags)
}

func spyTruncate(tls *libc.TLS, pFile uintptr, size int64) int32 {
	if askSpy(pFile, Call{Op: "truncate", Off: size}) >= 0 {
		return sqlite3.SQLITE_FULL
	}
	return method[func(*libc.TLS, uintptr, int64) int32](spyMethods(pFile).FxTruncate)(tls, pFile, size)
}

func spyBarrier(tls *libc.TLS, pFile uintptr) {
	if wal := at[vfsFile](pFile - realFile).peer; wal != 0 {
		askSpy(pFile, Call{Op: "publish", Held: at[vfsFile](wal).n})
	}
	method[func(*libc.TLS, uintptr)](spyMethods(pFile).FxShmBarrier)(tls, pFile)
}

// A Gathered is a gathering file before one that only notes what it is called.
type Gathered struct {
	tls *libc.TLS
	p   uintptr
	f   *vfsFile
	Log []string
	// Fail has the calls fail.
	Fail bool
}

var gathered *Gathered

// NewGathered returns a file that its connection may write to, at once.
func NewGathered(t testing.TB, wal bool) *Gathered {
	tls := libc.NewTLS()
	g := &Gathered{tls: tls, p: sqlite3.Xsqlite3_malloc(tls, int32(realFile)+16)}
	methods := &sqlite3.Tsqlite3_io_methods{FiVersion: 1, FxWrite: pointer(notedWrite), FxRead: pointer(notedRead), FxSync: pointer(notedSync)}
	g.f = at[vfsFile](g.p)
	*g.f = vfsFile{isWAL: wal, gather: gather{last: -1}}
	at[sqlite3.Tsqlite3_file](g.p + realFile).FpMethods = pointer(methods)
	g.f.begin()
	gathered = g
	t.Cleanup(func() {
		gathered = nil
		g.f.free(tls)
		sqlite3.Xsqlite3_free(tls, g.p)
		tls.Close()
	})
	spyKeep = append(spyKeep, methods)
	return g
}

func (g *Gathered) note(format string, args ...any) int32 {
	if g.Fail {
		format += " fails"
	}
	g.Log = append(g.Log, fmt.Sprintf(format, args...))
	if g.Fail {
		return sqlite3.SQLITE_FULL
	}
	return sqlite3.SQLITE_OK
}

// Took returns what the file behind was called since the last time.
func (g *Gathered) Took() []string {
	log := g.Log
	g.Log = nil
	return log
}

// Lock and Unlock take and leave the lock to write.
func (g *Gathered) Lock()   { g.f.begin() }
func (g *Gathered) Unlock() { g.f.end() }

func (g *Gathered) Sync() int32 { return fileSync(g.tls, g.p, 0) }

func (g *Gathered) Write(off int64, data []byte) int32 {
	p := sqlite3.Xsqlite3_malloc(g.tls, int32(len(data)))
	defer sqlite3.Xsqlite3_free(g.tls, p)
	copy(bytesAt(p, int32(len(data))), data)
	return fileWrite(g.tls, g.p, p, int32(len(data)), off)
}

func (g *Gathered) Read(off int64, n int32) ([]byte, int32) {
	p := sqlite3.Xsqlite3_malloc(g.tls, n)
	defer sqlite3.Xsqlite3_free(g.tls, p)
	clear(bytesAt(p, n))
	rc := fileRead(g.tls, g.p, p, n, off)
	return append([]byte(nil), bytesAt(p, n)...), rc
}

func notedWrite(_ *libc.TLS, _, _ uintptr, n int32, off int64) int32 {
	return gathered.note("write %d at %d", n, off)
}

func notedRead(_ *libc.TLS, _, _ uintptr, n int32, off int64) int32 {
	return gathered.note("read %d at %d", n, off)
}

func notedSync(*libc.TLS, uintptr, int32) int32 { return gathered.note("sync") }
