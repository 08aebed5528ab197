package cairn

import (
	"context"
	"fmt"
	"io"
	"iter"
)

// AddHashSeq stores a sequence of hashes as [Store.Add] does: 32 bytes each, end
// to end, and nothing else. What the temp tag and the tag name is a [HashSeq],
// whatever opts says, and protects what the hashes name; that need not be in the
// store. None is a sequence too: the empty blob.
func (s *Store) AddHashSeq(ctx context.Context, hashes iter.Seq[Hash], opts *AddOptions) (*TempTag, error) {
	tag, err := s.addHashSeq(ctx, hashes, opts)
	if err != nil {
		return nil, fmt.Errorf("add hash sequence: %w", err)
	}
	return tag, nil
}

// AddHashSeq is [Store.AddHashSeq] in the scope.
func (b *Batch) AddHashSeq(ctx context.Context, hashes iter.Seq[Hash], opts *AddOptions) (*TempTag, error) {
	return b.keep(b.s.AddHashSeq(ctx, hashes, opts))
}

func (s *Store) addHashSeq(ctx context.Context, hashes iter.Seq[Hash], opts *AddOptions) (*TempTag, error) {
	var own AddOptions
	if opts != nil {
		own = *opts
	}
	own.Format = HashSeq
	next, stop := iter.Pull(hashes)
	defer stop()
	return s.add(ctx, &hashReader{next: next}, &own, nil)
}

// A hashReader reads hashes, end to end.
type hashReader struct {
	next func() (Hash, bool)
	hash Hash
	left int // of hash, bytes that are not read yet
}

func (r *hashReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.left == 0 {
			hash, ok := r.next()
			if !ok {
				return n, io.EOF
			}
			r.hash, r.left = hash, len(hash)
		}
		m := copy(p[n:], r.hash[len(r.hash)-r.left:])
		n, r.left = n+m, r.left-m
	}
	return n, nil
}

// HashSeq yields the hashes of a sequence that is in the store, in its order. Of
// a partial one these are the first ones, up to what is absent, which is a
// [*MissingError]; [Store.Missing] goes on behind it. An error ends the loop:
// [ErrNotFound] if there is no such blob, [ErrMismatch] if it is no hash sequence,
// and those of reading it. The sequence is protected from deletion during the
// loop; no lock and no connection is held while its body runs, and memory does
// not grow with the sequence.
func (s *Store) HashSeq(ctx context.Context, hash Hash) iter.Seq2[Hash, error] {
	return func(yield func(Hash, error) bool) {
		err := s.hashSeq(ctx, hash, func(child Hash) error {
			if !yield(child, nil) {
				return errStopped
			}
			return nil
		})
		if err != nil && err != errStopped {
			yield(Hash{}, fmt.Errorf("hash sequence %v: %w", hash, err))
		}
	}
}

// hashSeq calls f with the hashes of a sequence, each verified.
func (s *Store) hashSeq(ctx context.Context, hash Hash, f func(Hash) error) error {
	b, err := s.openBlob(ctx, hash, "hash sequence "+hash.String())
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.row.Load().checkHashSeq(); err != nil {
		return err
	}
	if err := eachHash(b, f); err != nil {
		return err
	}
	return b.row.Load().checkHashSeq() // its size may not have been proven before
}

// checkHashSeq returns ErrMismatch if a blob is known to be no hash sequence.
func (row *blobRow) checkHashSeq() error {
	if row.SizeProven && row.Size%int64(len(Hash{})) != 0 {
		return errHashSeq
	}
	return nil
}
