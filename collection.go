package cairn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"unicode/utf8"

	"github.com/cairnstore/cairn/bao"
)

// A Collection is a list of named blobs, such as the files of a directory. Names
// are any UTF-8, and need not be unique; many programs take them for paths, so
// look at those of a stranger before you make files of them.
//
// In the store it is what iroh's peers exchange, two blobs. The first one, whose
// hash names the collection, is a [HashSeq]: the hash of the second, then those of
// the entries. The second one has the names, in the form of iroh 0.12 and later:
//
//	13 bytes    "CollectionV0."
//	varint      number of names, which is that of the entries
//	each name   varint, its length in bytes, and so many bytes of UTF-8
//
// A varint has 7 bits a byte, the lowest ones first, and bit 7 on all but the last.
type Collection []CollectionEntry

// A CollectionEntry is one blob of a collection.
type CollectionEntry struct {
	Name string
	Hash Hash
}

// MaxCollectionSize is the most bytes that the two blobs of a collection have
// together: 128 MiB. One that is read takes at most 1.5 times as much memory.
const MaxCollectionSize = 128 << 20

// collectionHeader begins the names of a collection.
const collectionHeader = "CollectionV0."

// AddCollection stores a collection as [Store.Add] does, and returns a temp tag of
// its hash, a [HashSeq]. That, and the tag that opts may ask for, protect both of
// its blobs and what the entries name; which need not be in the store, and should
// be protected until AddCollection returns if it is. The names are committed
// first: when adding the sequence fails, or a crash comes between, they stay as a
// blob that nothing protects.
//
// Errors are those of [Store.Add]; before anything is written, [ErrMismatch] for
// a name that is not UTF-8, and [ErrTooLarge] for more than [MaxCollectionSize].
func (s *Store) AddCollection(ctx context.Context, c Collection, opts *AddOptions) (*TempTag, error) {
	tag, err := s.addCollection(ctx, c, opts)
	if err != nil {
		return nil, fmt.Errorf("add collection: %w", err)
	}
	return tag, nil
}

// AddCollection is [Store.AddCollection] in the scope.
func (b *Batch) AddCollection(ctx context.Context, c Collection, opts *AddOptions) (*TempTag, error) {
	return b.keep(b.s.AddCollection(ctx, c, opts))
}

func (s *Store) addCollection(ctx context.Context, c Collection, opts *AddOptions) (*TempTag, error) {
	names, err := c.encodeNames()
	if err != nil {
		return nil, err
	}
	// The names are held until the sequence protects them.
	first, err := s.add(ctx, bytes.NewReader(names), nil, nil)
	if err != nil {
		return nil, err
	}
	defer first.Release()
	return s.addHashSeq(ctx, func(yield func(Hash) bool) {
		if !yield(first.Hash()) {
			return
		}
		for _, e := range c {
			if !yield(e.Hash) {
				return
			}
		}
	}, opts)
}

// encodeNames returns the content of the collection's second blob.
func (c Collection) encodeNames() ([]byte, error) {
	size := len(collectionHeader) + varintSize(len(c))
	for i, e := range c {
		if !utf8.ValidString(e.Name) {
			return nil, fmt.Errorf("%w: name %d, %.100q, is not UTF-8", ErrMismatch, i, e.Name)
		}
		size += varintSize(len(e.Name)) + len(e.Name)
		if err := checkCollectionSize(int64(len(c))+1, int64(size)); err != nil {
			return nil, err
		}
	}
	names := append(make([]byte, 0, size), collectionHeader...)
	names = binary.AppendUvarint(names, uint64(len(c)))
	for _, e := range c {
		names = binary.AppendUvarint(names, uint64(len(e.Name)))
		names = append(names, e.Name...)
	}
	return names, nil
}

// varintSize returns the length in bytes of n ≥ 0 as a varint.
func varintSize(n int) int { return (bits.Len64(uint64(n)|1) + 6) / 7 }

// checkCollectionSize returns ErrTooLarge for blobs of so many hashes and so many
// bytes of names.
func checkCollectionSize(hashes, names int64) error {
	if max(hashes, names) > MaxCollectionSize || hashes*int64(len(Hash{}))+names > MaxCollectionSize {
		return fmt.Errorf("%w: a collection has at most %d bytes", ErrTooLarge, int64(MaxCollectionSize))
	}
	return nil
}

// Collection returns the collection of a hash. Both of its blobs have to be in the
// store, what the entries name need not; each byte is verified. If the hash is not
// in the store it is [ErrNotFound], if some of either blob is not, a
// [*MissingError] that names it. What is no collection is [ErrMismatch], also one
// that iroh 0.11 or an earlier version made; one of more than [MaxCollectionSize]
// is [ErrTooLarge]. All else are errors of reading.
func (s *Store) Collection(ctx context.Context, hash Hash) (Collection, error) {
	c, err := s.collection(ctx, hash)
	if err != nil {
		return nil, fmt.Errorf("collection %v: %w", hash, err)
	}
	return c, nil
}

func (s *Store) collection(ctx context.Context, hash Hash) (Collection, error) {
	seq, err := s.openBlob(ctx, hash, "collection "+hash.String())
	if err != nil {
		return nil, err
	}
	defer seq.Close()
	row, err := seq.require(bao.All())
	if bad := row.checkHashSeq(); bad != nil { // to fetch the rest would not help
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	hashes := row.Size / int64(len(Hash{}))
	if hashes == 0 {
		return nil, fmt.Errorf("%w: an empty sequence is no collection", ErrMismatch)
	}
	var first Hash
	if _, err := seq.ReadAt(first[:], 0); err != nil && err != io.EOF {
		return nil, err
	}
	names, err := s.collectionNames(ctx, first, hashes)
	if err != nil {
		return nil, err
	}
	c, err := decodeNames(names, hashes-1)
	if err != nil {
		return nil, err
	}
	i := -1 // the entry that comes next; the names have none
	err = eachHash(seq, func(child Hash) error {
		if i >= 0 {
			c[i].Hash = child
		}
		i++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// collectionNames reads the second blob of a collection whose first one has so
// many hashes. It looks at the header before the rest: the first child of a
// sequence can be anything.
func (s *Store) collectionNames(ctx context.Context, hash Hash, hashes int64) (string, error) {
	b, err := s.openBlob(ctx, hash, "names of a collection, blob "+hash.String())
	if errors.Is(err, ErrNotFound) {
		return "", &MissingError{hash, bao.All()}
	}
	if err != nil {
		return "", err
	}
	defer b.Close()
	row, err := b.require(bao.All())
	if err != nil {
		return "", err
	}
	header := make([]byte, len(collectionHeader))
	n, err := b.ReadAt(header, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	if string(header[:n]) != collectionHeader {
		return "", errNoNames
	}
	if err := checkCollectionSize(hashes, row.Size); err != nil {
		return "", err
	}
	var names strings.Builder
	names.Grow(int(row.Size))
	_, err = b.WriteTo(&names)
	return names.String(), err
}

// errNoNames is what is wrong with a second blob of another form.
var errNoNames = fmt.Errorf("%w: the names of a collection must begin with %q; those of iroh 0.11 and earlier do not",
	ErrMismatch, collectionHeader)

// decodeNames returns a collection of n names without hashes. The names share the
// memory of the string. What it says of their number and of their lengths is
// compared with what there is before anything is made of that size. Like iroh's
// decoder it takes varints that are longer than they need to be, and does not look
// at what comes behind the last name.
func decodeNames(names string, n int64) (Collection, error) {
	rest, found := strings.CutPrefix(names, collectionHeader)
	if !found {
		return nil, errNoNames
	}
	claimed, rest, ok := cutVarint(rest)
	if !ok {
		return nil, fmt.Errorf("%w: the number of a collection's names is not whole", ErrMismatch)
	}
	if claimed != uint64(n) {
		return nil, fmt.Errorf("%w: %d names of a collection with %d entries", ErrMismatch, claimed, n)
	}
	if claimed > uint64(len(rest)) { // each takes a byte at least
		return nil, errNameCut(len(rest))
	}
	c := make(Collection, n)
	for i := range c {
		var size uint64
		if size, rest, ok = cutVarint(rest); !ok || size > uint64(len(rest)) {
			return nil, errNameCut(i)
		}
		c[i].Name, rest = rest[:size], rest[size:]
		if !utf8.ValidString(c[i].Name) {
			return nil, fmt.Errorf("%w: name %d is not UTF-8", ErrMismatch, i)
		}
	}
	return c, nil
}

// cutVarint cuts a varint of at most 64 bits off the front of s. If there is none
// it is not ok.
func cutVarint(s string) (n uint64, rest string, ok bool) {
	n, size := binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
	if size <= 0 {
		return 0, s, false
	}
	return n, s[size:], true
}

func errNameCut(i int) error {
	return fmt.Errorf("%w: name %d of a collection is not whole", ErrMismatch, i)
}
