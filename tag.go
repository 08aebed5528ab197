package cairn

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"zombiezen.com/go/sqlite"
)

// MaxTagSize is the length in bytes of the longest tag name.
const MaxTagSize = 4096

// A Tag is a name, any bytes, that keeps content: what it names is not evicted,
// swept or deleted. A tag of format [HashSeq] keeps also the blobs that the
// sequence names, as far as it is there, but not what those name in turn.
type Tag struct {
	Name string
	HashAndFormat
	Created time.Time // when it was set last
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
	// Prefix is what the names begin with, byte by byte. Default: all.
	Prefix string
	// From is the first name that is listed, if there is such a tag. Default: the
	// first one of all.
	From string
	// To, if not empty, is the name that the listing ends before.
	To string
	// Limit is the most tags to list. Default (and if ≤ 0): no limit.
	Limit int
}

// SetTag sets a tag to content, whatever it was before. The content need not be
// there: it is kept from the moment on in which it comes. Complete content that is
// said to be a [HashSeq] must have the length of one, else it is [ErrMismatch], as
// is a name longer than [MaxTagSize], and damaged content is [ErrCorrupt], because
// its children cannot be known. A sequence costs some 40 bytes for each child; one of
// more than a few thousand is read before the tag is set.
//
// When SetTag returns nil, the tag is durable, as [Options.Durability] says. Other
// errors: [ErrConflict] for [TagOptions.Expect], [ErrFull], [ErrReadOnly],
// [ErrClosed].
func (s *Store) SetTag(ctx context.Context, name string, content HashAndFormat, opts *TagOptions) error {
	err := s.setTag(ctx, content, func(conn *sqlite.Conn) error { return s.putTag(conn, name, content, opts) })
	if err != nil {
		return fmt.Errorf("set tag %q: %w", name, err)
	}
	return nil
}

// CreateTag sets a tag of a new name, and returns that: "auto-" and the time, as
// iroh names them, and a number if there is such a tag already. Otherwise it is
// like [Store.SetTag].
func (s *Store) CreateTag(ctx context.Context, content HashAndFormat, opts *TagOptions) (name string, err error) {
	err = s.setTag(ctx, content, func(conn *sqlite.Conn) (err error) {
		if name, err = newTagName(conn); err == nil {
			err = s.putTag(conn, name, content, opts)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("create tag: %w", err)
	}
	return name, nil
}

// Tag returns a tag. If there is none it is [ErrNotFound].
func (s *Store) Tag(ctx context.Context, name string) (tag Tag, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		found := false
		if tag, found, err = findTag(conn, name); err == nil && !found {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return Tag{}, fmt.Errorf("tag %q: %w", name, err)
	}
	return tag, nil
}

// Tags lists tags in byte order of their names. Like [Store.Blobs], it holds
// nothing while the loop's body runs. A tag that is set or deleted meanwhile may
// or may not be listed; every other one is listed once. An error ends the listing.
func (s *Store) Tags(ctx context.Context, opts *TagListOptions) iter.Seq2[Tag, error] {
	if opts == nil {
		opts = &TagListOptions{}
	}
	from, to := max(opts.From, opts.Prefix), prefixEnd(opts.Prefix)
	if opts.To != "" {
		to = min(to, opts.To)
	}
	return func(yield func(Tag, error) bool) {
		left := opts.Limit
		err := eachPage(ctx, s, from, func(conn *sqlite.Conn, from string) (*sqlite.Stmt, error) {
			stmt := prep(conn, "tag_list")
			stmt.SetBytes(":from", []byte(from))
			stmt.SetBytes(":to", []byte(to))
			return stmt, nil
		}, scanTag, func(tag Tag) string { return tag.Name + "\x00" }, // the next name there can be
			func(tag Tag, err error) bool {
				left--
				return yield(tag, err) && left != 0
			})
		if err != nil {
			yield(Tag{}, fmt.Errorf("list tags: %w", err))
		}
	}
}

// DeleteTag deletes a tag. If there is none it is [ErrNotFound]. What it has kept
// goes with the next [Store.GC], or when room is needed; what came as a piece that
// nobody has any more goes at once. Other errors: [ErrReadOnly], [ErrClosed],
// [ErrFull].
func (s *Store) DeleteTag(ctx context.Context, name string) error {
	err := s.changeTags(ctx, func(conn *sqlite.Conn) error {
		if err := removeTag(conn, name); err != nil {
			return err
		}
		if conn.Changes() == 0 {
			return ErrNotFound
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete tag %q: %w", name, err)
	}
	return nil
}

// DeleteTags deletes all tags whose names begin with prefix, in one commit, and
// returns how many that were. None is not an error. See [Store.DeleteTag].
func (s *Store) DeleteTags(ctx context.Context, prefix string) (n int64, err error) {
	err = s.changeTags(ctx, func(conn *sqlite.Conn) error {
		stmt := prep(conn, "tag_remove_range")
		bindPrefix(stmt, prefix)
		err := exec(stmt)
		n = int64(conn.Changes())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete tags %q: %w", prefix, err)
	}
	return n, nil
}

// RenameTag gives a tag another name, in place of a tag that has it already. If
// there is no tag to rename it is [ErrNotFound]. See [Store.SetTag] for other
// errors.
func (s *Store) RenameTag(ctx context.Context, old, new string) error {
	err := s.changeTags(ctx, func(conn *sqlite.Conn) error {
		_, found, err := findTag(conn, old)
		if err == nil && !found {
			err = ErrNotFound
		}
		if err != nil || old == new {
			return err
		}
		if err := checkTagName(new); err != nil {
			return err
		}
		if err := removeTag(conn, new); err != nil {
			return err
		}
		stmt := prep(conn, "tag_rename")
		stmt.SetBytes(":old", []byte(old))
		stmt.SetBytes(":new", []byte(new))
		return exec(stmt)
	})
	if err != nil {
		return fmt.Errorf("rename tag %q to %q: %w", old, new, err)
	}
	return nil
}

// setTag submits what sets a tag to some content. A long sequence is indexed before.
func (s *Store) setTag(ctx context.Context, content HashAndFormat, put func(conn *sqlite.Conn) error) error {
	err := s.changeTags(ctx, put)
	if !errors.Is(err, errUnindexed) {
		return err
	}
	by := subject{hash: content.Hash, children: true}
	if err := s.guard.hold(ctx, by); err != nil {
		return err
	}
	defer s.guard.release(by)
	if err := s.holdChildren(ctx, content.Hash); err != nil {
		return err
	}
	return s.changeTags(ctx, put)
}

// changeTags submits a change of tags. What nobody has any more without them goes
// in the same transaction, but for the rest of what large sequences have
// protected.
func (s *Store) changeTags(ctx context.Context, change func(conn *sqlite.Conn) error) error {
	more := false
	err := s.remove(ctx, func(conn *sqlite.Conn) error {
		if err := change(conn); err != nil {
			return err
		}
		all, err := s.shed(conn)
		more = !all
		return err
	})
	for err == nil && more {
		// The change is made; what cannot be done now is done by later ones.
		if s.remove(ctx, func(conn *sqlite.Conn) error {
			all, err := s.shed(conn)
			more = !all
			return err
		}) != nil {
			break
		}
	}
	return err
}

// shed removes some of what protects nobody any more, after a change of tags, in
// the transaction, and reports whether that was all.
func (s *Store) shed(conn *sqlite.Conn) (all bool, err error) {
	all, err = shed(conn, shedChildren)
	if !all {
		s.keeper.sequences.left = true
	}
	return all, err
}

func checkTagName(name string) error {
	if len(name) > MaxTagSize {
		return fmt.Errorf("%w: a name of %d bytes, more than %d", ErrMismatch, len(name), MaxTagSize)
	}
	return nil
}

// putTag sets a tag, in the transaction. It is errUnindexed if it is one of a long
// sequence that has to be indexed before.
func (s *Store) putTag(conn *sqlite.Conn, name string, content HashAndFormat, opts *TagOptions) error {
	if opts == nil {
		opts = &TagOptions{}
	}
	if err := checkTagName(name); err != nil {
		return err
	}
	if content.Format > HashSeq {
		return fmt.Errorf("%w: %v", ErrMismatch, content.Format)
	}
	if opts.Expect != nil {
		now, found, err := findTag(conn, name)
		if err != nil {
			return err
		}
		if now.HashAndFormat != *opts.Expect || found && *opts.Expect == (HashAndFormat{}) {
			return fmt.Errorf("%w: it is not as expected", ErrConflict)
		}
	}
	stmt := prep(conn, "tag_put")
	stmt.SetBytes(":name", []byte(name))
	stmt.SetBytes(":hash", content.Hash[:])
	stmt.SetInt64(":format", int64(content.Format))
	stmt.SetInt64(":now", time.Now().UnixNano())
	if !opts.Expires.IsZero() {
		stmt.SetInt64(":expires", max(1, opts.Expires.UnixNano()))
	} else {
		stmt.SetInt64(":expires", 0)
	}
	if err := exec(stmt); err != nil || content.Format != HashSeq {
		return err
	}
	return s.indexTagged(conn, content.Hash)
}

// indexTagged makes sure that the children of a sequence are known that has just
// been tagged.
func (s *Store) indexTagged(conn *sqlite.Conn, hash Hash) error {
	blob, err := findBlob(conn, hash)
	if err != nil {
		return err
	}
	if blob.State == Complete {
		if err := blob.checkHashSeq(); err != nil {
			return err
		}
	}
	seq, err := findSequence(conn, hash)
	if err == nil {
		seq, err = s.indexPromptly(conn, seq, hash)
	}
	if err == nil && !seq.indexed {
		err = errUnindexed
	}
	return err
}

func removeTag(conn *sqlite.Conn, name string) error {
	stmt := prep(conn, "tag_remove")
	stmt.SetBytes(":name", []byte(name))
	return exec(stmt)
}

// findTag looks a tag up.
func findTag(conn *sqlite.Conn, name string) (tag Tag, found bool, err error) {
	stmt := prep(conn, "tag_get")
	stmt.SetBytes(":name", []byte(name))
	defer stmt.Reset()
	if found, err = stmt.Step(); found {
		tag = scanTag(stmt)
	}
	return tag, found, err
}

func scanTag(stmt *sqlite.Stmt) Tag {
	tag := Tag{Name: columnString(stmt, "name"), Created: time.Unix(0, stmt.GetInt64("created"))}
	stmt.GetBytes("hash", tag.Hash[:])
	tag.Format = Format(stmt.GetInt64("format"))
	if !stmt.IsNull("expires") {
		tag.Expires = time.Unix(0, stmt.GetInt64("expires"))
	}
	return tag
}

// newTagName returns a name that no tag has, in iroh's form.
func newTagName(conn *sqlite.Conn) (string, error) {
	base := "auto-" + time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	name := base
	for n := 1; ; n++ {
		_, found, err := findTag(conn, name)
		if err != nil || !found {
			return name, err
		}
		name = base + "-" + strconv.Itoa(n)
	}
}
