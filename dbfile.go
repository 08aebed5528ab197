package cairn

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// A dbFile is our own descriptor of a database, beside SQLite's. A process
// that closes any descriptor of a file loses all its POSIX record locks on
// that file, SQLite's too; so there is one for all stores of this process that
// have the file open, and it is closed with the last of them.
type dbFile struct {
	f    *os.File
	info os.FileInfo
	path string     // absolute, without symbolic links
	refs int        // guarded by dbFiles.mu
	kept []*os.File // that turned out to be of the database; guarded by dbFiles.mu
}

var dbFiles struct {
	mu   sync.Mutex
	open []*dbFile
}

// openDBFile returns the descriptor of the existing file at path. It must be
// released once no connection to the file is open any more.
func openDBFile(path string) (*dbFile, error) {
	dbFiles.mu.Lock()
	defer dbFiles.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	for _, d := range dbFiles.open {
		if os.SameFile(d.info, info) {
			d.refs++
			return d, nil
		}
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d := &dbFile{f: f, info: info, path: path, refs: 1}
	dbFiles.open = append(dbFiles.open, d)
	return d, nil
}

func (d *dbFile) release() error {
	dbFiles.mu.Lock()
	defer dbFiles.mu.Unlock()
	if d.refs--; d.refs > 0 {
		return nil
	}
	dbFiles.open = slices.DeleteFunc(dbFiles.open, func(other *dbFile) bool { return other == d })
	errs := []error{d.f.Close()}
	for _, f := range d.kept {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// keepIfDatabase reports whether an open file is part of a database that this
// process has open. Then it takes the file over, and closes it with that.
func keepIfDatabase(f *os.File, info os.FileInfo) bool {
	dbFiles.mu.Lock()
	defer dbFiles.mu.Unlock()
	d := findDBFile("", info)
	if d != nil {
		d.kept = append(d.kept, f)
	}
	return d != nil
}

// isOpenDatabase reports whether a file, see [isPartOf], is part of a database that
// this process has open.
func isOpenDatabase(name string, info os.FileInfo) bool {
	dbFiles.mu.Lock()
	defer dbFiles.mu.Unlock()
	return findDBFile(name, info) != nil
}

// findDBFile returns the open database that a file is part of, or nil. The caller
// holds dbFiles.mu.
func findDBFile(name string, info os.FileInfo) *dbFile {
	for _, d := range dbFiles.open {
		if info != nil && os.SameFile(d.info, info) || isPartOf(d.path, name, info) {
			return d
		}
	}
	return nil
}

// isPartOf reports whether a file is a database or one of those beside it: by its
// name, absolute and in a directory without symbolic links, or by what is there, if
// info is not nil.
func isPartOf(database, name string, info os.FileInfo) bool {
	for _, ending := range []string{"", "-wal", "-shm", "-journal", "-lock"} {
		if name == database+ending {
			return true
		}
		if info == nil {
			continue
		}
		if own, err := os.Stat(database + ending); err == nil && os.SameFile(info, own) {
			return true
		}
	}
	return false
}
