// Package cairn keeps content-addressed blobs in one SQLite file, verified on
// every read. It is made for torrent and p2p clients; it is pure Go.
//
// # The model
//
// A blob is a sequence of bytes named by its BLAKE3 [Hash]. [Store.Add] takes
// bytes from a reader, and [Store.Blob] opens them for reading. A blob is cut
// into chunk groups of 16 KiB, one database row each; beside them stand the
// hash pairs of the BLAKE3 tree above group level, the outboard, so that any
// group can be verified against the blob's hash by a few small reads.
//
// # Verified reads
//
// Every byte that a [Blob] returns has been hashed and compared with the tree,
// up to the blob's hash. A group that does not verify is a [*CorruptError] with
// its byte range; the rest of the blob still reads.
//
// # Partial blobs
//
// A blob can be known by its hash alone and arrive in any order, from anybody.
// [Store.ImportBao] reads the response to a request for some ranges of it, in
// the form that iroh's peers send, proves each byte before it stores it, and
// keeps what it has proven when the connection breaks. The blob is [Partial]
// until its last group is there; then it is complete, in the same commit. Of a
// partial blob, what is there can be read and, by [Store.ExportBao], sent on;
// the rest is a [*MissingError] that names it. [Store.Missing] tells what to
// ask a peer for, [Store.Observe] follows what arrives.
//
// The size of a partial blob is what a peer has said until its last chunk has
// been verified ([Status.SizeProven]). No peer's false statement spoils what is
// there, or keeps out the truth.
//
// Whole chunk groups are kept; a part of one is verified and forgotten, because
// it could not be verified again. Ask for whole ones: [bao.Ranges.Groups].
//
// # One commit, durable
//
// A change is one transaction, or a row of transactions whose work nobody sees
// until the last. When a call returns nil, its change is durable: neither
// kill -9 nor a power loss undoes it. [Relaxed] is the only weaker level. What
// an interrupted call has written is removed by the next [Open]. Writes of
// many goroutines are committed together, so writing from several at once is
// much faster than from one.
//
// # Lifetimes
//
// [Store.Close] ends everything. A [Blob] and a [TempTag] protect content from
// deletion until they are closed or released; both end with the process.
//
// # Concurrency
//
// All methods of a [Store] may be called from any number of goroutines. One
// process at a time can have a database open for writing ([ErrLocked] tells
// which one), any number can read it meanwhile. Callers never see SQLITE_BUSY:
// a write waits for another process's lock, and until its turn has come its
// context can withdraw it.
//
// # Limits
//
// A blob has at most [MaxBlobSize] bytes, 1 TiB. Memory does not grow with the
// size or the number of blobs: a store holds up to 16 MiB of waiting writes,
// 16 MiB of pages to be written, 8 MiB of hashes, up to 1 MiB for each reading
// connection, and a few MiB for each large add or import that is under way. The database must be on a local file system: SQLite's
// write-ahead log does not work over a network.
//
// # Errors
//
// Errors wrap one of this package's sentinels where there is a reason to act
// on them: use [errors.Is]. Those of the file system come wrapped as they are.
//
// # Observation
//
// The expvar map "cairn" counts batches, requests and bytes committed, and the
// nanoseconds spent on commits (commit_ns) and on making them durable
// (sync_ns), over all stores of the process. The goroutines of a store carry
// the pprof label "cairn". The sqlite3 shell shows blobs in the view "blobs".
package cairn
