package cairn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// smallResponse is the most bytes of a response for which no whole segment is
// set aside.
const smallResponse = 256 << 10

// importAge is the most that groups which keep coming wait in memory for their
// batch to fill.
const importAge = 20 * time.Millisecond

// ImportBao reads the response to a request for the given ranges of a blob (see
// [bao.Encode] for its form), to the end of r, and verifies it as it comes.
// Whole groups are stored, in a partial blob that is made if there is none, a
// batch in one transaction each; the rest is only verified, so ask for whole
// ones ([bao.Ranges.Groups]). The blob becomes complete with its last group.
// While groups keep coming, up to 64 of them wait in memory for a fraction of a
// second; those that a peer sends before it falls silent wait until it goes on,
// hangs up, or r ends. When ImportBao returns, all whole groups that verified
// are stored and durable, as [Options.Durability] says, unless its error is one
// of storing.
//
// The blob is protected from deletion during the import. Hold a [TempTag] to
// protect it longer.
//
// Imports may overlap, repeat each other, come in any order and be concurrent.
// Nothing that peers send is trusted. Memory is bounded by a few MiB whatever
// they state. A read that blocks is not interrupted: where a peer may fall
// silent, give r a deadline, or close it when ctx is done.
//
// Errors: [ErrMismatch] for what is not what the hash or the request says, and
// for anything behind the response; [io.ErrUnexpectedEOF] if it was cut off;
// [ErrMismatch] and [ErrTooLarge] if it states a size above [MaxBlobSize]; those
// of r and ctx, which is looked at between reads; [ErrFull], [ErrReadOnly],
// [ErrClosed].
func (s *Store) ImportBao(ctx context.Context, hash Hash, ranges bao.Ranges, r io.Reader) error {
	by := subject{hash: hash}
	if err := s.guard.hold(ctx, by); err != nil {
		return fmt.Errorf("import %v: %w", hash, err)
	}
	defer s.guard.release(by)
	err := s.importBao(ctx, hash, ranges, r)
	if err == nil {
		err = expectEnd(r)
	}
	if err != nil {
		return fmt.Errorf("import %v: %w", hash, err)
	}
	return nil
}

// ImportBaoStream is [Store.ImportBao] for a stream that goes on: it reads
// exactly the response, which may be followed by another one. After an error
// the stream is of no more use, because where the response ends is not known.
func (s *Store) ImportBaoStream(ctx context.Context, hash Hash, ranges bao.Ranges, r io.Reader) error {
	if err := s.importBao(ctx, hash, ranges, r); err != nil {
		return fmt.Errorf("import %v: %w", hash, err)
	}
	return nil
}

func (s *Store) importBao(ctx context.Context, hash Hash, ranges bao.Ranges, r io.Reader) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	if err := s.guard.hold(ctx, subject{hash: hash}); err != nil {
		return err
	}
	defer s.guard.release(subject{hash: hash})
	blob, err := s.findBlob(ctx, hash)
	if err != nil {
		return err
	}
	// What has been verified is stored even if the caller wants no more.
	im := &importer{steps: steps{s: s, ctx: context.WithoutCancel(ctx)}, hash: hash, ranges: ranges}
	im.decoder = bao.NewDecoder(r, bao.CV(hash), ranges)
	err = im.decode(ctx, blob)
	storeErr := im.finish()
	switch {
	case storeErr == nil:
		return err
	case err == nil || errors.Is(err, errNotStored):
		return storeErr
	}
	return fmt.Errorf("%w; and not all that came before is stored: %w", err, storeErr)
}

// errNotStored ends the decoding when a batch could not be stored. Why not,
// finish tells.
var errNotStored = errors.New("not stored")

// expectEnd returns an error if there is something behind the response.
func expectEnd(r io.Reader) error {
	var extra [1]byte
	_, err := io.ReadFull(r, extra[:])
	if err == nil {
		return fmt.Errorf("%w: data behind the response", ErrMismatch)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// An importer stores what a decoder yields, in batches that each hold all that
// belongs to their groups: whichever of them are committed, the blob is sound.
type importer struct {
	steps
	hash    Hash
	ranges  bao.Ranges
	decoder *bao.Decoder

	length   int64              // of the response, once the first group has come
	batch    *verified          // being filled, if not nil
	buf      *[segmentSize]byte // the batch's data, if it is that large
	path     []onPath           // the stored pairs above the current part, from the root
	total    int64              // bytes handed to the writer
	handed   time.Time          // when the last batch was
	pace     time.Duration      // that a full batch takes to come, averaged
	stepped  bool               // whether there was one
	stored   error              // the first that a step ended with
	proven   bool               // whether a batch has said that the size is
	complete bool               // before the import: the response is only verified
}

// An onPath is a pair on the way to the current part.
type onPath struct {
	end     uint64 // the chunk behind the pair's subtree
	pair    pairAt
	batched bool // in the batch that is being filled
}

// decode reads the response into batches. blob is what the store has of it.
func (im *importer) decode(ctx context.Context, blob blobRow) error {
	im.complete = blob.State == Complete
	im.handed, im.pace = time.Now(), bulkIdle
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part, err := im.decoder.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return mapBao(err)
		}
		if size := im.decoder.Size(); blob.SizeProven && size != blob.Size {
			return fmt.Errorf("%w: the size is %d, not %d as stated", ErrMismatch, blob.Size, size)
		}
		if im.complete {
			continue
		}
		if part.Pair != nil {
			im.enter(part)
		} else if err := im.leaf(part); err != nil {
			im.stored = err
			return errNotStored
		}
	}
}

// mapBao gives an error of the bao package the meaning it has for callers.
func mapBao(err error) error {
	switch {
	case errors.Is(err, bao.ErrMismatch):
		return &mapped{ErrMismatch, err}
	case errors.Is(err, bao.ErrTooLarge):
		// A peer says so. No honest one of a blob that can be stored does.
		return &mapped{ErrMismatch, &mapped{ErrTooLarge, err}}
	}
	return err
}

// enter notes a pair that will be stored once a group below it has come.
func (im *importer) enter(part bao.Part) {
	t, number, ok := part.Tile()
	if !ok {
		return
	}
	im.leave(part.Start)
	im.path = append(im.path, onPath{end: part.End, pair: pairAt{t, number, *part.Pair}})
}

// leave forgets the pairs whose subtrees end before the given chunk.
func (im *importer) leave(chunk uint64) {
	for len(im.path) > 0 && im.path[len(im.path)-1].end <= chunk {
		im.path = im.path[:len(im.path)-1]
	}
}

// leaf puts a whole group into the batch.
func (im *importer) leaf(part bao.Part) error {
	im.leave(part.Start)
	group := int64(part.Start / groupChunks)
	if part.Start != chunkOf(group) || len(part.Data) < bao.GroupLen(im.decoder.Size(), group) {
		return nil // a part of a group cannot be kept
	}
	if im.batch == nil {
		im.begin()
	}
	b := im.batch
	b.data = append(b.data, part.Data...)
	b.groups = append(b.groups, group)
	for i := range im.path {
		if p := &im.path[i]; !p.batched {
			p.batched = true
			b.pairs = append(b.pairs, p.pair)
		}
	}
	// A batch ends with a tile, so that none is written twice in a row.
	full := len(b.groups) == segmentGroups || group%groupRun == groupRun-1
	if age := time.Since(im.handed); full || age > importAge {
		im.pace += (age - im.pace) / 8
		return im.hand()
	}
	return nil
}

// begin starts a batch. A small response needs no buffer for a whole segment.
func (im *importer) begin() {
	im.batch = &verified{hash: im.hash, size: im.decoder.Size()}
	if im.length == 0 {
		im.length = bao.ResponseSize(im.batch.size, im.ranges)
	}
	if im.length > smallResponse {
		im.buf = segments.Get().(*[segmentSize]byte)
		im.batch.data = im.buf[:0]
	}
	for i := range im.path {
		im.path[i].batched = false
	}
}

// take ends the batch and returns it, ready to be stored.
func (im *importer) take() *verified {
	b := im.batch
	im.batch = nil
	b.proven = im.decoder.SizeProven()
	im.proven = im.proven || b.proven
	slices.SortStableFunc(b.pairs, func(x, y pairAt) int {
		return int(tileID(0, x.Tile) - tileID(0, y.Tile))
	})
	return b
}

// hand gives the batch to the writer as a step. Where batches come fast enough
// for bulk mode, it is one for that.
func (im *importer) hand() error {
	b := im.take()
	cost := int64(len(b.groups)) * bao.GroupSize
	im.total += cost
	im.stepped = true
	buf := im.buf
	im.buf = nil
	err := im.enqueue(cost, im.pace < bulkIdle && im.total > bulkMin, im.storing(b), im.telling(b), buf)
	im.handed = time.Now() // the wait for the writer is not the peer's
	return err
}

// storing returns what stores a batch. The writer calls it.
func (im *importer) storing(b *verified) func(conn *sqlite.Conn) error {
	return func(conn *sqlite.Conn) error {
		return b.store(conn, im.s)
	}
}

// telling returns what tells the observers of a batch.
func (im *importer) telling(b *verified) func() {
	return func() { im.s.observers.arrived(im.hash, b.groups) }
}

// finish stores what is left, and returns when all of it is durable: its commit
// is the point up to which an import is acknowledged. A crash before it leaves
// the batches that were committed, each of them whole.
func (im *importer) finish() error {
	last := im.rest()
	if last == nil && !im.stepped {
		return nil
	}
	if err := im.settleAll(); im.stored == nil {
		im.stored = err
	}
	var lost error
	req := &request{
		ctx:  im.ctx,
		done: make(chan struct{}),
		cost: requestOverhead,
		run: func(conn *sqlite.Conn) error {
			if lost = im.lost; last == nil {
				return nil
			}
			return im.storing(last)(conn)
		},
	}
	if last != nil {
		req.cost += int64(len(last.groups)) * bao.GroupSize
		req.after = im.telling(last)
	}
	err := im.s.writer.enqueue(req)
	if err == nil {
		err = req.wait()
	}
	if im.buf != nil {
		segments.Put(im.buf)
	}
	return cmp.Or(im.stored, lost, err)
}

// rest returns what no batch has been made of yet, nil if that is nothing.
func (im *importer) rest() *verified {
	if im.batch != nil {
		return im.take()
	}
	if im.decoder.SizeProven() && !im.proven && !im.complete {
		// The last chunk came without its group: its proof is kept.
		return &verified{hash: im.hash, size: im.decoder.Size(), proven: true}
	}
	return nil
}
