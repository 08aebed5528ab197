package cairn

import (
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cairnstore/cairn/bao"
)

// A Hash is the BLAKE3 hash of a blob's content.
type Hash bao.CV

// EmptyHash is the hash of the empty blob.
var EmptyHash = Hash(bao.GroupCV(new([bao.GroupSize]byte), 0, 0, true))

var base32Hash = base32.StdEncoding.WithPadding(base32.NoPadding)

// ParseHash reads a hash as 64 hexadecimal digits or as iroh's 52 base32
// characters, in upper or lower case. Anything else is [ErrMismatch].
func ParseHash(s string) (Hash, error) {
	var h Hash
	var n int
	var err error
	switch len(s) {
	case 2 * len(h):
		n, err = hex.Decode(h[:], []byte(s))
	case base32Hash.EncodedLen(len(h)):
		var b [40]byte // room for what Decode may write before it fails
		n, err = base32Hash.Decode(b[:], []byte(strings.ToUpper(s)))
		copy(h[:], b[:])
	}
	if err != nil || n != len(h) || base32Overhang(s) {
		return Hash{}, fmt.Errorf("parse hash %q: %w: want 64 hexadecimal or 52 base32 characters", s, ErrMismatch)
	}
	return h, nil
}

// base32Overhang reports whether the last of 52 base32 characters has bits
// beyond the 256 of a hash, so that each hash has one base32 form.
func base32Overhang(s string) bool {
	if len(s) != 52 {
		return false
	}
	switch s[51] {
	case 'A', 'Q', 'a', 'q':
		return false
	}
	return true
}

// String returns the hash as 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns what String returns. It implements
// [encoding.TextMarshaler].
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what [ParseHash] reads. It implements
// [encoding.TextUnmarshaler].
func (h *Hash) UnmarshalText(text []byte) (err error) {
	*h, err = ParseHash(string(text))
	return err
}

// A Format tells what a blob's content is to the store.
type Format uint8

const (
	// Raw content is not looked at.
	Raw Format = 0
	// HashSeq content is a sequence of 32-byte hashes of other blobs.
	HashSeq Format = 1
)

// String returns "raw" or "hashseq".
func (f Format) String() string {
	switch f {
	case Raw:
		return "raw"
	case HashSeq:
		return "hashseq"
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// HashAndFormat names content and tells how to read it.
type HashAndFormat struct {
	Hash   Hash
	Format Format
}
