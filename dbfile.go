package cairn

import (
	"os"
	"sync"
)

// A dbFile is our own descriptor of a database, beside SQLite's. A process
// that closes any descriptor of a file loses all its POSIX record locks on
// that file, SQLite's too; so there is one for all stores of this process that
// have the file open, and it is closed with the last of them.
type dbFile struct {
	f    *os.File
	info os.FileInfo
	refs int // guarded by dbFiles.mu
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
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d := &dbFile{f: f, info: info, refs: 1}
	dbFiles.open = append(dbFiles.open, d)
	return d, nil
}

func (d *dbFile) release() error {
	dbFiles.mu.Lock()
	defer dbFiles.mu.Unlock()
	if d.refs--; d.refs > 0 {
		return nil
	}
	for i, other := range dbFiles.open {
		if other == d {
			dbFiles.open = append(dbFiles.open[:i], dbFiles.open[i+1:]...)
			break
		}
	}
	return d.f.Close()
}
