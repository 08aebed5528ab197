module github.com/cairnstore/cairn

go 1.26.0

require (
	github.com/gofrs/flock v0.13.1 // the lock that keeps a second writer out
	golang.org/x/sync v0.24.0 // the semaphore that bounds the writer's queue
	golang.org/x/sys v0.49.0 // clones of files: one call, which the SQLite modules bring along anyway
	lukechampine.com/blake3 v1.4.1 // hashing a chunk group in one vector pass
	modernc.org/libc v1.79.0 // what SQLite's VFS is called with
	modernc.org/sqlite v1.61.1 // its VFS; newer than zombiezen asks for: fixes to the WAL
	zombiezen.com/go/sqlite v1.4.2 // SQLite in pure Go
)

require (
	github.com/dustin/go-humanize v1.1.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/klauspost/cpuid/v2 v2.0.9 // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/ncruces/go-strftime v1.1.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
)
