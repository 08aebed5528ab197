package cairn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/cairnstore/cairn/bao"
)

// A Want is what the store lacks of one blob.
type Want struct {
	Hash Hash
	// Ranges are the absent chunks, in whole groups. If the size is not proven,
	// they are open-ended, and so ask for its proof too.
	Ranges bao.Ranges
}

// errHashSeq is what is wrong with a hash sequence of an odd length.
var errHashSeq = fmt.Errorf("%w: the length of a hash sequence must be a multiple of %d", ErrMismatch, len(Hash{}))

// Missing yields what to ask a peer for in order to have the content complete:
// nothing if it is. For a [HashSeq] that is the sequence itself and then its
// children, as far as the sequence is there, in its order and each once.
// Asking again when more of the sequence has arrived yields more. The sequence
// is protected from deletion during the loop; no lock and no connection is held
// while its body runs. Memory grows by 32 bytes and some for each child that is
// not complete. An error ends the loop: [ErrMismatch] if the content is no hash
// sequence, and those of reading it.
func (s *Store) Missing(ctx context.Context, content HashAndFormat) iter.Seq2[Want, error] {
	return func(yield func(Want, error) bool) {
		err := s.missing(ctx, content, func(w Want) bool { return yield(w, nil) })
		if err != nil && err != errStopped {
			yield(Want{}, fmt.Errorf("missing of %v: %w", content.Hash, err))
		}
	}
}

func (s *Store) missing(ctx context.Context, content HashAndFormat, yield func(Want) bool) error {
	if err := s.guard.hold(ctx, subject{hash: content.Hash}); err != nil {
		return err
	}
	defer s.guard.release(subject{hash: content.Hash})
	blob, present, err := s.presence(ctx, content.Hash)
	if err != nil {
		return err
	}
	if err := yieldWant(blob, present, yield); err != nil {
		return err
	}
	if content.Format != HashSeq || blob.State == Absent {
		return nil
	}
	if err := blob.checkHashSeq(); err != nil {
		return err
	}
	seen := map[Hash]bool{content.Hash: true}
	return s.children(ctx, blob, present, func(child Hash) error {
		if seen[child] {
			return nil
		}
		blob, present, err := s.presence(ctx, child)
		if err != nil || blob.State == Complete {
			return err
		}
		seen[child] = true
		return yieldWant(blob, present, yield)
	})
}

// yieldWant yields what is not present of a blob, if anything.
func yieldWant(blob blobRow, present bao.Ranges, yield func(Want) bool) error {
	all := bao.All()
	if blob.State != Absent && blob.SizeProven {
		all = bao.Chunks(0, bao.ChunkCount(blob.Size))
	}
	want := Want{blob.hash, all.Minus(present)}
	if !want.Ranges.IsEmpty() && !yield(want) {
		return errStopped
	}
	return nil
}

// children calls f with the hashes of a sequence that are there.
func (s *Store) children(ctx context.Context, blob blobRow, present bao.Ranges, f func(Hash) error) error {
	b, err := s.openBlob(ctx, blob.hash, "blob "+blob.hash.String())
	if err != nil {
		return err
	}
	defer b.Close()
	return eachChild(b, blob, present, f)
}

// eachHash calls f with each hash that r has. A rest that is none, which only a
// damaged database can have, is left out.
func eachHash(r io.Reader, f func(Hash) error) error {
	buf := make([]byte, bao.GroupSize)
	for {
		n, err := io.ReadFull(r, buf)
		for rest := buf[:n]; len(rest) >= len(Hash{}); rest = rest[len(Hash{}):] {
			if err := f(Hash(rest)); err != nil {
				return err
			}
		}
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
