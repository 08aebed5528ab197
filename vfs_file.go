package cairn

import (
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A vfsFile is a sqlite3_file of ours. It is in the memory that SQLite
// allocates for a file and sets free after xClose; the file behind it follows
// at realFile. It holds no pointer into Go's memory.
type vfsFile struct {
	methods uintptr // must be the first field: *sqlite3_io_methods
	// peer is of a WAL its database, and of a database its WAL while that is
	// open: the two files of one connection. Both are *vfsFile.
	peer  uintptr
	isWAL bool
	shm   uintptr // of a database: the beginning of its wal-index, if mapped
	gather
	ahead ahead // of a database
}

// realFile is where in the memory of a file the one behind ours begins.
const realFile = (unsafe.Sizeof(vfsFile{}) + 7) &^ 7

// link makes a WAL and its database known to each other. SQLite closes a WAL
// before its database.
func (f *vfsFile) link(database uintptr) {
	if database != 0 {
		f.isWAL, f.peer = true, database
		at[vfsFile](database).peer = uintptr(unsafe.Pointer(f))
	}
}

// real returns the file behind a file of ours, and its methods.
func real(pFile uintptr) (uintptr, *sqlite3.Tsqlite3_io_methods) {
	p := pFile + realFile
	return p, at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](p).FpMethods)
}

func fileClose(tls *libc.TLS, pFile uintptr) int32 {
	f := at[vfsFile](pFile)
	f.free(tls)
	f.ahead.free(tls)
	if f.peer != 0 {
		at[vfsFile](f.peer).peer = 0
	}
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr) int32](m.FxClose)(tls, p)
}

func fileRead(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	f := at[vfsFile](pFile)
	if f.n > 0 {
		if f.has(n, off) {
			copy(bytesAt(buf, n), bytesAt(f.buf+uintptr(off-f.start), n))
			return sqlite3.SQLITE_OK
		}
		if f.overlaps(n, off) {
			if rc := f.flush(tls, pFile); rc != sqlite3.SQLITE_OK {
				return rc
			}
		}
	}
	if f.isWAL && f.peer != 0 {
		a := &at[vfsFile](f.peer).ahead
		if frame := a.frameAt(n, off); frame != 0 {
			return a.readAhead(tls, pFile, buf, frame, off)
		}
	}
	return readReal(tls, pFile, buf, n, off)
}

func readReal(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](m.FxRead)(tls, p, buf, n, off)
}

func fileWrite(tls *libc.TLS, pFile, buf uintptr, n int32, off int64) int32 {
	f := at[vfsFile](pFile)
	if f.isWAL {
		return f.writeWAL(tls, pFile, buf, n, off)
	}
	return f.writeDatabase(tls, pFile, buf, n, off)
}

func fileTruncate(tls *libc.TLS, pFile uintptr, size int64) int32 {
	if rc := at[vfsFile](pFile).settle(tls, pFile); rc != sqlite3.SQLITE_OK {
		return rc
	}
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, int64) int32](m.FxTruncate)(tls, p, size)
}

func fileSync(tls *libc.TLS, pFile uintptr, flags int32) int32 {
	if rc := at[vfsFile](pFile).settle(tls, pFile); rc != sqlite3.SQLITE_OK {
		return rc
	}
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, int32) int32](m.FxSync)(tls, p, flags)
}

func fileSize(tls *libc.TLS, pFile, pSize uintptr) int32 {
	if rc := at[vfsFile](pFile).flush(tls, pFile); rc != sqlite3.SQLITE_OK {
		return rc
	}
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, uintptr) int32](m.FxFileSize)(tls, p, pSize)
}

// fileLocked is xLock. The exclusive lock of a database keeps all others from
// reading it, and it is what SQLite writes with to a database without a WAL.
func fileLocked(tls *libc.TLS, pFile uintptr, level int32) int32 {
	p, m := real(pFile)
	rc := method[func(*libc.TLS, uintptr, int32) int32](m.FxLock)(tls, p, level)
	if rc == sqlite3.SQLITE_OK && level == sqlite3.SQLITE_LOCK_EXCLUSIVE {
		at[vfsFile](pFile).begin()
	}
	return rc
}

func fileUnlock(tls *libc.TLS, pFile uintptr, level int32) int32 {
	at[vfsFile](pFile).end()
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, int32) int32](m.FxUnlock)(tls, p, level)
}

func fileCheckReservedLock(tls *libc.TLS, pFile, pOut uintptr) int32 {
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, uintptr) int32](m.FxCheckReservedLock)(tls, p, pOut)
}

// fileControl is xFileControl. SQLITE_FCNTL_SYNC is what SQLite calls before
// it commits or rolls back a transaction without a WAL, also where it does not
// sync; an error of it keeps the transaction from being committed.
//
// A checkpoint says when it begins to move pages, after it has noted in the
// wal-index which, and when it has ended.
func fileControl(tls *libc.TLS, pFile uintptr, op int32, arg uintptr) int32 {
	f := at[vfsFile](pFile)
	if rc := f.flush(tls, pFile); rc != sqlite3.SQLITE_OK {
		return rc
	}
	switch op {
	case sqlite3.SQLITE_FCNTL_CKPT_START:
		f.ahead.begin(f.shm)
	case sqlite3.SQLITE_FCNTL_CKPT_DONE:
		f.ahead.end()
	}
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, int32, uintptr) int32](m.FxFileControl)(tls, p, op, arg)
}

func fileSectorSize(tls *libc.TLS, pFile uintptr) int32 {
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr) int32](m.FxSectorSize)(tls, p)
}

func fileDeviceCharacteristics(tls *libc.TLS, pFile uintptr) int32 {
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr) int32](m.FxDeviceCharacteristics)(tls, p)
}

func fileShmMap(tls *libc.TLS, pFile uintptr, region, size, extend int32, pp uintptr) int32 {
	p, m := real(pFile)
	rc := method[func(*libc.TLS, uintptr, int32, int32, int32, uintptr) int32](m.FxShmMap)(tls, p, region, size, extend, pp)
	if region == 0 && rc == sqlite3.SQLITE_OK {
		at[vfsFile](pFile).shm = *at[uintptr](pp)
	}
	return rc
}

// checkpointLock is which of the locks of fileShmLock a checkpoint holds.
const checkpointLock = 1

// fileShmLock is xShmLock, of the database. The first of these locks is that
// to write to the WAL: SQLite takes it before the first frame of a transaction
// and leaves it after the commit is visible, or when it is rolled back.
func fileShmLock(tls *libc.TLS, pFile uintptr, first, n, flags int32) int32 {
	f := at[vfsFile](pFile)
	if first == checkpointLock && flags&sqlite3.SQLITE_SHM_UNLOCK != 0 {
		f.ahead.end() // also where a fault kept the checkpoint from saying so
	}
	wal := f.peer
	exclusive := wal != 0 && first == 0 && flags&sqlite3.SQLITE_SHM_EXCLUSIVE != 0
	if exclusive && flags&sqlite3.SQLITE_SHM_UNLOCK != 0 {
		at[vfsFile](wal).end()
	}
	p, m := real(pFile)
	rc := method[func(*libc.TLS, uintptr, int32, int32, int32) int32](m.FxShmLock)(tls, p, first, n, flags)
	if exclusive && flags&sqlite3.SQLITE_SHM_LOCK != 0 && rc == sqlite3.SQLITE_OK {
		at[vfsFile](wal).begin()
	}
	return rc
}

func fileShmBarrier(tls *libc.TLS, pFile uintptr) {
	p, m := real(pFile)
	method[func(*libc.TLS, uintptr)](m.FxShmBarrier)(tls, p)
}

func fileShmUnmap(tls *libc.TLS, pFile uintptr, remove int32) int32 {
	at[vfsFile](pFile).shm = 0
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, int32) int32](m.FxShmUnmap)(tls, p, remove)
}

func fileFetch(tls *libc.TLS, pFile uintptr, off int64, n int32, pp uintptr) int32 {
	if rc := at[vfsFile](pFile).flush(tls, pFile); rc != sqlite3.SQLITE_OK {
		return rc
	}
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, int64, int32, uintptr) int32](m.FxFetch)(tls, p, off, n, pp)
}

func fileUnfetch(tls *libc.TLS, pFile uintptr, off int64, page uintptr) int32 {
	p, m := real(pFile)
	return method[func(*libc.TLS, uintptr, int64, uintptr) int32](m.FxUnfetch)(tls, p, off, page)
}
