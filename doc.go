// Package cairn keeps the pieces of a torrent or p2p client, and content-addressed
// blobs, in one SQLite file, verified on every read. It is pure Go.
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
// # Scrubbing
//
// [Store.Scrub] hashes what is stored, all or a sample, resumable and at a bounded
// rate, beside everything else. What does not verify is removed: the blob is partial
// then and lacks exactly that, so that a client fetches only those ranges; a piece
// with such content is one that is being written again. A damaged outboard is
// derived from what is whole. [Store.Findings] is the same as a loop.
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
// # Pieces
//
// A piece is bytes under a caller's key, of a size that is known, written in any
// order by any number of goroutines ([Store.Piece], [Piece.WriteAt]). Exactly
// what was acknowledged is there, after a crash too; what was not written is an
// [*UnwrittenError], never zeros. [Piece.Complete] computes the hash and makes the
// piece a blob, in one commit, with the last blocks if they come with it
// ([Piece.CompleteBlocks]); content that is there already, under another key or as
// a blob, is kept once. [Store.Pieces] lists them, [NewProvider] gives them
// file-like names.
//
// # Files outside
//
// A file can be added where it lies ([Store.AddFile] with [Reference]), and a blob can be
// moved out to a file ([Store.Export] with [Reference]): then the database has its
// path and its outboard, and not its bytes. What is read of it is verified all the
// same. If the file has changed, and no other has the same content, a read says
// so with a [*CorruptError] that names all that is lost, and the blob is partial
// from then on.
//
// # Capacity and owners
//
// [Store.SetCapacity] bounds the bytes that are kept. When more comes, what was
// used longest ago goes, in the same commit; reads and writes are uses. What will
// not be read again can go before that ([Piece.EvictFirst]). Never evicted is what
// a tag, a temp tag, an open reader or a [Pin] protects; when that fills the capacity,
// writes are [ErrFull]. What is larger than the capacity is [ErrTooLarge] before
// anything is written. [Store.Events] tells what is gone.
//
// An [Owner], such as a torrent, has pieces and blobs, and may have a quota of its
// own. What several owners have is stored once. [Owner.Delete] drops an owner
// with all that only it has, in one commit.
//
// # Tags and collection
//
// A [Tag] is a name for content that is to stay, whether it is there yet or not;
// [AddOptions.Tag] sets it with the add, in one commit. A tag of format [HashSeq]
// keeps also the blobs that the sequence names. Every add returns a [TempTag], which
// protects the content until it is released, so that there is no moment without
// protection before a tag is set; a [Batch] releases many. [Store.GC] deletes what
// nothing protects: no tag, temp tag, pin or reader, no piece and no owner. It runs
// by hand or by itself ([Options.GCInterval]); nothing else deletes a blob that was
// added, but for the capacity.
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
// [Store.Close] ends everything but the tags; it is an error, which names it, that a
// reader was never closed. A [Blob], a [PieceReader], a [Pin] and a [TempTag] protect
// content from eviction and deletion until they are closed or released; all end
// with the process. A [Piece] and an [Owner] are names, and protect nothing.
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
// 16 MiB of pages to be written, 8 MiB of hashes, 4 MiB of those of pieces that
// are being written, up to 1 MiB for each reading connection, and a few MiB for
// each large add or import that is under way. A key and an owner's name have at
// most [MaxKeySize] bytes. The capacity bounds payload: each blob costs some 160
// bytes beside it, each piece 25 more and its key twice, which matters for tiny
// ones. The database must be on a local file system: SQLite's write-ahead log does not work
// over a network.
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
// the pprof label "cairn". The sqlite3 shell shows what is stored in the views
// "blobs", "pieces", "owners", "tags" and "paths".
package cairn
