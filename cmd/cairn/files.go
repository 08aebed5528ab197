package main

import (
	"cmp"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
)

var errNotRegular = errors.New("not a regular file")

// files yields the file at path, or every regular file below the directory
// there, in byte order of their paths. A symbolic link at path is followed;
// one below a directory is no regular file. An error ends the sequence.
func files(path string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			yield(path, err)
		case info.IsDir():
			walk(path, yield)
		case !info.Mode().IsRegular():
			yield(path, &fs.PathError{Op: "open", Path: path, Err: errNotRegular})
		default:
			yield(path, nil)
		}
	}
}

// walk yields the regular files below a directory. It returns false if the
// walk is over.
func walk(dir string, yield func(string, error) bool) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		yield(dir, err)
		return false
	}
	slices.SortFunc(entries, byPath)
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch {
		case entry.IsDir():
			if !walk(path, yield) {
				return false
			}
		case entry.Type().IsRegular():
			if !yield(path, nil) {
				return false
			}
		}
	}
	return true
}

// byPath orders the entries of a directory like the paths of the files below
// them: "a-b" comes before "a/c" although "a" comes before "a-b".
func byPath(x, y fs.DirEntry) int {
	return cmp.Compare(pathName(x), pathName(y))
}

func pathName(entry fs.DirEntry) string {
	if entry.IsDir() {
		return entry.Name() + string(filepath.Separator)
	}
	return entry.Name()
}
