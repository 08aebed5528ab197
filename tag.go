package cairn

import (
	"context"
	"errors"
	"iter"
	"time"
)

var errStub = errors.New("not there yet")

// MaxTagSize is the length in bytes of the longest tag name.
const MaxTagSize = 4096

// A Tag is a name, any bytes, that keeps content from being swept, evicted and
// deleted.
type Tag struct {
	Name string
	HashAndFormat
	Created time.Time
	Expires time.Time // zero: never
}

// TagOptions configure a tag. Nil is the default.
type TagOptions struct {
	// Expect, if not nil, is what the tag must have now; the zero value means
	// that there must be none. If it is not so, nothing changes, and the error
	// is [ErrConflict].
	Expect *HashAndFormat
	// Expires is when the tag may go: the next [Store.GC] after that deletes
	// it. Until then it protects. Default (zero): never.
	Expires time.Time
}

// TagListOptions select from a listing of tags. Nil is everything.
type TagListOptions struct {
	// Prefix is what the names begin with. Default: all.
	Prefix string
	// From is the first name that is listed, if there is such a tag. Default: the
	// first one of all.
	From string
	// To, if not empty, is the name that the listing ends before.
	To string
	// Limit is the most tags to list. Default (and if ≤ 0): no limit.
	Limit int
}

// SetTag sets a tag.
func (s *Store) SetTag(ctx context.Context, name string, content HashAndFormat, opts *TagOptions) error {
	return errStub
}

// CreateTag sets a tag of a new name, "auto-" and the time, and returns the name.
func (s *Store) CreateTag(ctx context.Context, content HashAndFormat, opts *TagOptions) (name string, err error) {
	return "", errStub
}

// Tag returns a tag. If there is none it is [ErrNotFound].
func (s *Store) Tag(ctx context.Context, name string) (Tag, error) { return Tag{}, errStub }

// Tags lists tags in byte order of their names.
func (s *Store) Tags(ctx context.Context, opts *TagListOptions) iter.Seq2[Tag, error] {
	return func(yield func(Tag, error) bool) { yield(Tag{}, errStub) }
}

// DeleteTag deletes a tag. If there is none it is [ErrNotFound].
func (s *Store) DeleteTag(ctx context.Context, name string) error { return errStub }

// DeleteTags deletes all tags whose names begin with prefix, in one commit, and
// returns how many that were. None is not an error.
func (s *Store) DeleteTags(ctx context.Context, prefix string) (int64, error) { return 0, errStub }

// RenameTag gives a tag another name, in place of a tag that has it already. If
// there is no tag to rename it is [ErrNotFound].
func (s *Store) RenameTag(ctx context.Context, old, new string) error { return errStub }

// Tag returns the name of the tag that was set with the add, empty if none was.
func (t *TempTag) Tag() string { return "" }
