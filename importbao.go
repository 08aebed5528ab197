package cairn

import (
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
// batch in one transaction each; the rest is only verified. The blob becomes
// complete with its last group. When ImportBao returns, with or without an
// error, everything that verified before is stored; when it returns nil, or any
// error but one of storing, that is durable as [Options.Durability] says.
//
// Imports may overlap, repeat each other, come in any order and be concurrent.
// Nothing that peers send is trusted. Memory is bounded by a few MiB whatever
// they state. A response that must be followed by others in the same stream
// has to be cut off there; [bao.ResponseSize] tells where.
//
// Errors: [ErrMismatch] for what is not what the hash or the request says, and
// for anything behind the response; [io.ErrUnexpectedEOF] if it was cut off;
// [ErrTooLarge] if it states a size above [MaxBlobSize]; those of r and ctx,
// which is looked at between reads; [ErrFull], [ErrReadOnly], [ErrClosed].
func (s *Store) ImportBao(ctx context.Context, hash Hash, ranges bao.Ranges, r io.Reader) error {
	if err := s.importBao(ctx, hash, ranges, r); err != nil {
		return fmt.Errorf("import %v: %w", hash, err)
	}
	return nil
}

func (s *Store) importBao(ctx context.Context, hash Hash, ranges bao.Ranges, r io.Reader) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	if err := s.guard.hold(ctx, hash); err != nil {
		return err
	}
	defer s.guard.release(hash)
	blob, err := s.findBlob(ctx, hash)
	if err != nil {
		return err
	}
	// What has been verified is stored even if the caller wants no more.
	im := &importer{steps: steps{s: s, ctx: context.WithoutCancel(ctx)}, hash: hash, ranges: ranges}
	im.decoder = bao.NewDecoder(r, bao.CV(hash), ranges)
	err = im.decode(ctx, blob)
	if err == nil {
		err = expectEnd(r)
	}
	return errors.Join(err, im.finish())
}

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

	batch   *verified          // being filled, if not nil
	buf     *[segmentSize]byte // the batch's data, if it is that large
	path    []onPath           // the stored pairs above the current part, from the root
	total   int64              // bytes handed to the writer
	handed  time.Time          // when the last batch was
	pace    time.Duration      // that a full batch takes to come, averaged
	stepped bool               // whether there was one
	proven  bool               // whether a batch has said that the size is
}

// An onPath is a pair on the way to the current part.
type onPath struct {
	end     uint64 // the chunk behind the pair's subtree
	pair    pairAt
	batched bool // in the batch that is being filled
}

// decode reads the response into batches. blob is what the store has of it.
func (im *importer) decode(ctx context.Context, blob blobRow) error {
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
		if part.Pair != nil {
			im.enter(part)
		} else if err := im.leaf(part); err != nil {
			return err
		}
	}
}

// mapBao gives an error of the bao package the meaning it has for callers.
func mapBao(err error) error {
	switch {
	case errors.Is(err, bao.ErrMismatch):
		return &mapped{ErrMismatch, err}
	case errors.Is(err, bao.ErrTooLarge):
		return &mapped{ErrTooLarge, err}
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
	group := int64(part.Start / chunkOf(1))
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
	if bao.ResponseSize(im.batch.size, im.ranges) > smallResponse {
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
		return b.store(conn, im.s.newID, time.Now().UnixNano())
	}
}

// telling returns what tells the observers of a batch.
func (im *importer) telling(b *verified) func() {
	return func() { im.s.observers.arrived(im.hash, b.groups) }
}

// finish stores what is left, and returns when all of it is durable. Its commit
// is the point up to which an import is acknowledged; a crash before it leaves
// the batches that were committed, each of them whole.
func (im *importer) finish() error {
	var last *verified
	switch {
	case im.batch != nil:
		last = im.take()
		if im.buf != nil {
			defer segments.Put(im.buf)
		}
	case im.decoder.SizeProven() && !im.proven:
		// The last chunk came without its group: its proof is kept.
		last = &verified{hash: im.hash, size: im.decoder.Size(), proven: true}
	case !im.stepped:
		return nil
	}
	err := im.settleAll()
	req := &request{
		ctx:  im.ctx,
		done: make(chan error, 1),
		cost: requestOverhead,
		run: func(conn *sqlite.Conn) error {
			if im.lost != nil || last == nil {
				return im.lost
			}
			return im.storing(last)(conn)
		},
	}
	if last != nil {
		req.cost += int64(len(last.groups)) * bao.GroupSize
		req.after = im.telling(last)
	}
	if enqueueErr := im.s.writer.enqueue(req); enqueueErr != nil {
		return errors.Join(err, enqueueErr)
	}
	return errors.Join(err, req.wait())
}
