package cairn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// The errors of this package, to be tested with errors.Is. What is returned
// wraps one of them with the operation and its operand.
var (
	// ErrNotFound: what was asked for is not in the store, or there is no
	// database at the path. It is also [fs.ErrNotExist].
	ErrNotFound error = &sentinel{"not found", fs.ErrNotExist}
	// ErrCorrupt: what is stored is not what it must be. Where it is bytes of
	// a blob, it comes as a [*CorruptError] with the exact ranges.
	ErrCorrupt error = &sentinel{"damaged data", nil}
	// ErrMissing: the blob is partial and lacks what was asked for. It comes
	// as a [*MissingError] with the ranges.
	ErrMissing error = &sentinel{"data not present", nil}
	// ErrFull: the disk is full, or what may not be evicted fills the capacity
	// or a quota. The write that got it left nothing behind, and writing works
	// again once there is room.
	ErrFull error = &sentinel{"no space left", nil}
	// ErrTooLarge: more than the store can ever hold under one name: above
	// [MaxBlobSize], the capacity, or a quota; or more than a piece's size.
	ErrTooLarge error = &sentinel{"too large", nil}
	// ErrClosed: the store, or the handle, has been closed. It is also
	// [fs.ErrClosed].
	ErrClosed error = &sentinel{"closed", fs.ErrClosed}
	// ErrLocked: another process has the database open for writing. It comes
	// as a [*LockedError].
	ErrLocked error = &sentinel{"locked by another process", nil}
	// ErrReadOnly: a write on a store or a file that can only be read.
	ErrReadOnly error = &sentinel{"read-only", nil}
	// ErrConflict: something protects what was to be deleted or replaced.
	ErrConflict error = &sentinel{"in use", nil}
	// ErrMismatch: content does not have the hash or the form it was said to.
	ErrMismatch error = &sentinel{"mismatch", nil}
	// ErrNotCairn: the file is no Cairn database: no SQLite database at all,
	// another application's, a directory or a device.
	ErrNotCairn error = &sentinel{"not a Cairn database", nil}
	// ErrNewerSchema: a later version of Cairn wrote the database.
	ErrNewerSchema error = &sentinel{"written by a newer version of Cairn", nil}
)

type sentinel struct {
	text string
	also error
}

func (e *sentinel) Error() string { return e.text }
func (e *sentinel) Unwrap() error { return e.also }

// A ByteRange is the half-open range [Start, End) of a blob's bytes.
type ByteRange struct{ Start, End int64 }

// A CorruptError tells which bytes of a blob failed verification. The rest of
// the blob still reads. It is [ErrCorrupt].
type CorruptError struct {
	Hash   Hash
	Ranges []ByteRange // sorted, disjoint
	Err    error       // what was wrong; not nil
}

func (e *CorruptError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "blob %v: %v: bytes", e.Hash, ErrCorrupt)
	for _, r := range e.Ranges {
		fmt.Fprintf(&b, " %d..%d", r.Start, r.End)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Is reports whether target is [ErrCorrupt].
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns what was wrong.
func (e *CorruptError) Unwrap() error { return e.Err }

// A MissingError tells what a partial blob lacks of what was asked for. It is
// [ErrMissing].
type MissingError struct {
	Hash Hash
	// Ranges are the absent chunks of what was asked for. To fetch them so
	// that they can be kept, ask a peer for Ranges.Groups().
	Ranges bao.Ranges
}

func (e *MissingError) Error() string {
	const shown = 8 // ranges
	text := fmt.Sprintf("blob %v: %v: chunks %v", e.Hash, ErrMissing, e.Ranges.First(shown))
	if more := e.Ranges.Len() - shown; more > 0 {
		text += fmt.Sprintf(" and %d more ranges", more)
	}
	return text
}

// Is reports whether target is [ErrMissing].
func (e *MissingError) Is(target error) bool { return target == ErrMissing }

// An UnwrittenError tells which bytes of a piece have not been written, of those
// that were asked for. It is [ErrMissing].
type UnwrittenError struct {
	Key    string
	Ranges []ByteRange // sorted, disjoint
}

func (e *UnwrittenError) Error() string {
	const shown = 8 // ranges
	var b strings.Builder
	fmt.Fprintf(&b, "piece %q: not written: bytes", e.Key)
	for i, r := range e.Ranges {
		if i == shown {
			fmt.Fprintf(&b, " and %d more ranges", len(e.Ranges)-shown)
			break
		}
		fmt.Fprintf(&b, " %d..%d", r.Start, r.End)
	}
	return b.String()
}

// Is reports whether target is [ErrMissing].
func (e *UnwrittenError) Is(target error) bool { return target == ErrMissing }

// A LockedError tells which process has a database open for writing. It is
// [ErrLocked].
type LockedError struct {
	Path string
	PID  int // 0 if the holder has not written its number yet
}

func (e *LockedError) Error() string {
	if e.PID == os.Getpid() {
		return fmt.Sprintf("%s: locked by this process, which has it open already", e.Path)
	}
	return fmt.Sprintf("%s: %v (pid %d)", e.Path, ErrLocked, e.PID)
}

// Is reports whether target is [ErrLocked].
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// mapped carries one of the sentinels beside the driver's error, whose text
// is kept but which is no promise.
type mapped struct {
	as    error
	cause error
}

func (e *mapped) Error() string   { return fmt.Sprintf("%v: %v", e.as, e.cause) }
func (e *mapped) Unwrap() []error { return []error{e.as, e.cause} }

// mapSQLite gives an error of the driver the meaning it has for callers. It is
// the only place where SQLite's result codes are looked at. An error that is
// already one of ours stays as it is.
func mapSQLite(err error) error {
	if err == nil || isOurs(err) {
		return err
	}
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultFull:
		return &mapped{ErrFull, err}
	case sqlite.ResultConstraint:
		if sqlite.ErrCode(err) == sqlite.ResultConstraintTrigger {
			return errCrowded // by the triggers that keep the capacity
		}
	case sqlite.ResultCorrupt:
		return &mapped{ErrCorrupt, err}
	case sqlite.ResultNotADB:
		return &mapped{ErrNotCairn, err}
	case sqlite.ResultReadOnly, sqlite.ResultPerm:
		return &mapped{ErrReadOnly, err}
	case sqlite.ResultInterrupt:
		return &mapped{context.Canceled, err}
	}
	return err
}

func isOurs(err error) bool {
	var s *sentinel
	var c *CorruptError
	var l *LockedError
	var m *MissingError
	var u *UnwrittenError
	return errors.As(err, &s) || errors.As(err, &c) || errors.As(err, &l) || errors.As(err, &m) || errors.As(err, &u)
}
