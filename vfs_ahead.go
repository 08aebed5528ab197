package cairn

import (
	"bytes"
	"encoding/binary"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A checkpoint reads a page from the WAL and writes it to the database, one
// after the other in the order of the database. What one transaction wrote is in
// that order in the WAL, too, so what comes next is mostly known: the next frame,
// and the next page. An ahead does both for many pages at once, before SQLite
// asks for them.
//
// Nothing waits to be written: what SQLite asks for is written, or it is told. And
// nothing is written that others could tell from the checkpoint's own work: the
// frames between those that earlier ones have moved and the last that this one may
// move, which SQLite has noted in the wal-index before, may be moved in any order
// and any part. A frame that a later one replaces is written over when SQLite comes
// to that; a page beyond the end of a database that has become shorter makes the
// file longer until SQLite truncates it.
type ahead struct {
	active bool
	from   int64 // frame after those that were moved before
	to     int64 // last frame that may be moved

	// Of the WAL: frames that have been read, without the header of the first.
	first int64 // frame; 0 if there is none
	count int64
	next  int64   // frame that SQLite reads next, if it reads in order
	run   int64   // how many are read at once, if it does
	in    uintptr // runPages frames, allocated with the first run

	// Of the database: pages that this checkpoint has written, and their bytes.
	start int64 // in the file
	n     int32 // bytes; never more than gatherBytes
	out   uintptr
}

const (
	walHeader = 32
	frameSize = frameHeader + pageSize
	runPages  = gatherBytes / pageSize
	// Where the wal-index has them, by "WAL-Index File Format" in SQLite's
	// documentation.
	shmBackfill  = 96
	shmAttempted = 128
)

// begin is called when a checkpoint has noted what it moves.
func (a *ahead) begin(shm uintptr) {
	a.end()
	if shm == 0 {
		return
	}
	a.active = true
	a.from = int64(*at[uint32](shm + shmBackfill)) + 1
	a.to = int64(*at[uint32](shm + shmAttempted))
	a.first, a.next, a.run, a.n = 0, 0, 1, 0
}

func (a *ahead) end() { a.active = false }

func (a *ahead) free(tls *libc.TLS) {
	sqlite3.Xsqlite3_free(tls, a.in)
	sqlite3.Xsqlite3_free(tls, a.out)
	a.in, a.out = 0, 0
	a.end()
}

// allocate reports whether there is memory.
func (a *ahead) allocate(tls *libc.TLS) bool {
	if a.in == 0 {
		a.in = sqlite3.Xsqlite3_malloc(tls, runPages*frameSize)
	}
	if a.out == 0 {
		a.out = sqlite3.Xsqlite3_malloc(tls, gatherBytes)
	}
	return a.in != 0 && a.out != 0
}

// header returns the header of a frame that was read, but for the first one, and
// page the page of one.
func (a *ahead) header(frame int64) []byte {
	return bytesAt(a.in+uintptr((frame-a.first)*frameSize-frameHeader), frameHeader)
}

func (a *ahead) page(frame int64) []byte {
	return bytesAt(a.in+uintptr((frame-a.first)*frameSize), pageSize)
}

// frameAt returns the frame whose page a read wants, 0 if it is none.
func (a *ahead) frameAt(n int32, off int64) int64 {
	off -= walHeader + frameHeader
	if !a.active || n != pageSize || off < 0 || off%frameSize != 0 {
		return 0
	}
	if frame := off/frameSize + 1; a.from <= frame && frame <= a.to {
		return frame
	}
	return 0
}

// readAhead is xRead of a WAL during a checkpoint. Where SQLite reads in order,
// more is read each time.
func (a *ahead) readAhead(tls *libc.TLS, wal, buf uintptr, frame, off int64) int32 {
	inOrder := frame == a.next
	a.next = frame + 1
	if a.first > 0 && a.first <= frame && frame < a.first+a.count {
		copy(bytesAt(buf, pageSize), a.page(frame))
		return sqlite3.SQLITE_OK
	}
	a.first, a.run = 0, min(a.run*4, runPages)
	if !inOrder || !a.allocate(tls) {
		a.run = 1
		return readReal(tls, wal, buf, pageSize, off)
	}
	count := min(a.run, a.to-frame+1)
	if rc := readReal(tls, wal, a.in, int32(count*frameSize-frameHeader), off); rc != sqlite3.SQLITE_OK {
		return readReal(tls, wal, buf, pageSize, off) // and see what of it SQLite wants
	}
	a.first, a.count = frame, count
	copy(bytesAt(buf, pageSize), a.page(frame))
	return sqlite3.SQLITE_OK
}

// writeAhead is xWrite of a database during a checkpoint.
func (a *ahead) writeAhead(tls *libc.TLS, database, buf uintptr, n int32, off int64) int32 {
	page := bytesAt(buf, n)
	if a.start <= off && off+int64(n) <= a.start+int64(a.n) {
		written := bytesAt(a.out+uintptr(off-a.start), n)
		if bytes.Equal(written, page) {
			return sqlite3.SQLITE_OK
		}
	}
	a.n = 0
	if count := a.following(page, off); count > 1 {
		for i := range count {
			copy(bytesAt(a.out+uintptr(i*pageSize), pageSize), a.page(a.next-1+i))
		}
		if writeReal(tls, database, a.out, int32(count*pageSize), off) == sqlite3.SQLITE_OK {
			a.start, a.n = off, int32(count*pageSize)
			return sqlite3.SQLITE_OK
		}
	}
	// That of a page which SQLite will not come to, because the database has
	// become shorter since, must not fail the checkpoint.
	return writeReal(tls, database, buf, n, off)
}

// following returns how many frames from the one that SQLite has read last on
// have the pages that follow each other in the database, beginning with this one.
func (a *ahead) following(page []byte, off int64) (count int64) {
	frame := a.next - 1
	if a.first == 0 || frame < a.first || len(page) != pageSize || !bytes.Equal(a.page(frame), page) {
		return 0
	}
	number := off/pageSize + 1
	for count = 1; frame+count < a.first+a.count; count++ {
		if int64(binary.BigEndian.Uint32(a.header(frame+count))) != number+count {
			break
		}
	}
	return count
}
