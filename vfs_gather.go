package cairn

import (
	"encoding/binary"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// gatherBytes is what one write of a gathered row is at most: 31 pages.
	// SQLite's unix VFS writes no more than 128 KiB less one byte at a time.
	gatherBytes = 31 * pageSize
	// frameHeader is the size of what precedes a page in the WAL.
	frameHeader = 24
)

// A gather is what was written to a file in a row and not yet handed on.
//
// There is something in it only while the connection has the lock to write,
// that of the WAL or the exclusive one of the database, and only what others
// have no business to see: the frames of a transaction that is not committed,
// or pages of a database that nobody else may read.
//
// What SQLite was told to be written is not given up as long as the lock is
// held: if it cannot be handed on, the call that wanted it fails, and the next
// one tries again. SQLite then rolls the transaction back, and leaves the lock.
// What is still there at that time is part of no transaction that was
// committed, and is forgotten: nobody may write it later, over what the next
// owner of the lock has written.
type gather struct {
	active bool    // the lock is held
	part   wPart   // of a WAL: what the last write was
	n      int32   // bytes gathered
	start  int64   // of them in the file
	last   int64   // where the last write ended; -1 if that is not known
	buf    uintptr // gatherBytes, allocated with the first write
}

// A wPart is what a write to the WAL was, as far as frames can be told.
type wPart int32

const (
	otherPart  wPart = iota // no header of a frame
	headerPart              // the header of a frame
	commitPart              // the header of a frame that commits
)

// begin notes that the lock was taken.
func (g *gather) begin() { g.active = true }

// end forgets what is left; the lock is about to be left.
func (g *gather) end() { g.active, g.n = false, 0 }

func (g *gather) free(tls *libc.TLS) {
	sqlite3.Xsqlite3_free(tls, g.buf)
	g.buf, g.n = 0, 0
}

func (g *gather) has(n int32, off int64) bool {
	return g.start <= off && off+int64(n) <= g.start+int64(g.n)
}

func (g *gather) overlaps(n int32, off int64) bool {
	return off < g.start+int64(g.n) && g.start < off+int64(n)
}

// flush hands on what was gathered.
func (f *vfsFile) flush(tls *libc.TLS, pFile uintptr) int32 {
	if f.n == 0 {
		return sqlite3.SQLITE_OK
	}
	rc := writeReal(tls, pFile, f.buf, f.n, f.start)
	if rc == sqlite3.SQLITE_OK {
		f.n = 0
	}
	return rc
}

// settle hands on what was gathered, and has the next write begin anew.
func (f *vfsFile) settle(tls *libc.TLS, pFile uintptr) int32 {
	f.last, f.part = -1, otherPart
	return f.flush(tls, pFile)
}

func writeReal(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](m.FxWrite)(tls, p, buf, n, off)
}

// through writes at once, after what was written before.
func (f *vfsFile) through(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	if rc := f.flush(tls, pFile); rc != sqlite3.SQLITE_OK {
		return rc
	}
	return writeReal(tls, pFile, buf, n, off)
}

// hold gathers a write. What it cannot gather, it writes.
func (f *vfsFile) hold(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	if f.n > 0 && (off != f.start+int64(f.n) || f.n+n > gatherBytes) {
		if rc := f.flush(tls, pFile); rc != sqlite3.SQLITE_OK {
			return rc
		}
	}
	if f.buf == 0 {
		f.buf = sqlite3.Xsqlite3_malloc(tls, gatherBytes)
	}
	if f.buf == 0 || n > gatherBytes {
		return f.through(tls, pFile, buf, n, off)
	}
	if f.n == 0 {
		f.start = off
	}
	copy(bytesAt(f.buf+uintptr(f.n), n), bytesAt(buf, n))
	f.n += n
	return sqlite3.SQLITE_OK
}

// writeDatabase is xWrite of a database. Without a WAL, SQLite writes to it
// under the exclusive lock only, and before it commits, or has rolled back, it
// calls for a sync (see [fileControl]).
//
// With a WAL it is a checkpoint that writes. That makes visible what it has
// written without another call that could fail, if it did not come to the end
// of the WAL. So nothing is held; see [ahead].
func (f *vfsFile) writeDatabase(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	if f.ahead.active {
		return f.ahead.writeAhead(tls, pFile, buf, n, off)
	}
	if f.active && f.peer == 0 {
		return f.hold(tls, pFile, buf, n, off)
	}
	return f.through(tls, pFile, buf, n, off)
}

// writeWAL is xWrite of a WAL. A transaction is a row of frames, each a header
// and a page, of which the last one's header says so. When its page has been
// written SQLite makes the transaction visible to all other connections,
// without another call that could fail. So that write hands on everything.
//
// What else SQLite writes does not begin where the last write ended, or begins
// with the first one after a sync, and is written at once: the header of the
// WAL; pages that are written again where they are; afterwards the headers of
// all frames from there on, for their checksums, the last one's included; and
// the rest of what was written up to the end of a sector and synced. So there
// is nothing gathered whenever a transaction becomes visible.
func (f *vfsFile) writeWAL(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	before, follows := f.part, off == f.last
	f.part, f.last = otherPart, -1
	var rc int32
	switch {
	case !f.active || !follows:
		rc = f.through(tls, pFile, buf, n, off)
	case before == headerPart:
		rc = f.hold(tls, pFile, buf, n, off)
	case before == commitPart:
		rc = f.holdLast(tls, pFile, buf, n, off)
	case n == frameHeader:
		f.part = headerPart
		if binary.BigEndian.Uint32(bytesAt(buf, n)[4:]) != 0 {
			f.part = commitPart
		}
		rc = f.hold(tls, pFile, buf, n, off)
	default:
		rc = f.through(tls, pFile, buf, n, off)
	}
	if rc == sqlite3.SQLITE_OK {
		f.last = off + int64(n)
	}
	return rc
}

// holdLast writes the page that commits, with all before it. If that fails, no
// later write may commit what SQLite was told to have failed.
func (f *vfsFile) holdLast(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	rc := f.hold(tls, pFile, buf, n, off)
	if rc != sqlite3.SQLITE_OK {
		return rc
	}
	rc = f.flush(tls, pFile)
	if rc != sqlite3.SQLITE_OK {
		f.n -= n
	}
	return rc
}
