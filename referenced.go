package cairn

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"zombiezen.com/go/sqlite"
)

// IsReferenced reports whether a blob has bytes in the file that a path means (see
// [Reference]), by whatever name that is recorded, and whether it is there at the
// moment or not. Who replaces or changes such a file may destroy what the blob has.
// Another hard link is found where files have numbers, which is on Unix, and as long
// as the file is the one that was recorded. The answer is of the moment.
func (s *Store) IsReferenced(ctx context.Context, path string) (bool, error) {
	target, err := absolute(path)
	if err != nil {
		return false, fmt.Errorf("is %q referenced: %w", path, err)
	}
	info, err := os.Stat(target)
	if err != nil {
		info = nil // what is not there may be recorded all the same
	}
	used, err := s.isUsed(ctx, target, info, nil)
	if err != nil {
		return false, fmt.Errorf("is %q referenced: %w", path, err)
	}
	return used, nil
}

// isUsed reports whether a blob has bytes in a file that is to be replaced, by that
// name or another one; not the blob of a hash, if that is not nil. info is of what
// is there, nil if nothing is.
func (s *Store) isUsed(ctx context.Context, target string, info fs.FileInfo, except []byte) (used bool, err error) {
	real, err := filepath.EvalSymlinks(target)
	if err != nil {
		if real, err = inRealDir(target); err != nil {
			real = "" // it is to be in a directory that is not there yet
		}
	}
	var others []string
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		others = nil
		stmt := prep(conn, "path_of_others")
		stmt.SetBytes(":path", []byte(target))
		stmt.SetBytes(":real", []byte(real))
		setHash(stmt, except)
		here, err := columnStrings(stmt, nil)
		if used = len(here) > 0; err != nil || used || info == nil {
			return err
		}
		stmt = prep(conn, "path_same_real")
		stmt.SetBytes(":real", []byte(real))
		setHash(stmt, except)
		if others, err = columnStrings(stmt, nil); err != nil {
			return err
		}
		stmt = prep(conn, "path_same_inode")
		stmt.SetInt64(":inode", inodeOf(info))
		setHash(stmt, except)
		others, err = columnStrings(stmt, others)
		return err
	})
	for _, path := range others {
		other, err := os.Stat(path)
		used = used || err == nil && os.SameFile(info, other)
	}
	return used, err
}

func setHash(stmt *sqlite.Stmt, hash []byte) {
	if hash == nil {
		stmt.SetNull(":hash")
	} else {
		stmt.SetBytes(":hash", hash)
	}
}

// columnStrings appends the column path of all rows, and resets the statement.
func columnStrings(stmt *sqlite.Stmt, list []string) ([]string, error) {
	defer stmt.Reset()
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return list, err
		}
		list = append(list, columnString(stmt, "path"))
	}
}
