package cairn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// A fileLock is the right to open a database for writing. It is an advisory
// lock of the operating system on a file beside the database, so it dies with
// its process; the file's content is the holder's process number.
//
// The lock is not on the database itself: SQLite locks that with POSIX record
// locks, which a process loses when it closes any descriptor of the file.
type fileLock struct{ f *flock.Flock }

// lockFile takes the lock of the database at path, or returns a LockedError.
func lockFile(path string) (*fileLock, error) {
	name := path + "-lock"
	for {
		f := flock.New(name, flock.SetPermissions(0o600), flock.SetFlag(os.O_CREATE|os.O_RDWR))
		ok, err := f.TryLock()
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if !ok {
			f.Close()
			return nil, &LockedError{Path: path, PID: holder(name)}
		}
		// The holder before us may have removed the file between our opening
		// and our locking it. Then we hold nothing.
		same, err := current(f, name)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if same {
			l := &fileLock{f}
			if err := os.WriteFile(name, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
				return nil, errors.Join(err, l.release())
			}
			return l, nil
		}
		f.Close()
	}
}

// current reports whether the locked file is still the one of that name.
func current(f *flock.Flock, name string) (bool, error) {
	held, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(held, named), err
}

// holder reads the process number of the holder. One that has locked the file
// but not yet written its number is given a moment.
func holder(name string) int {
	for range 20 {
		b, err := os.ReadFile(name)
		if pid, convErr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && convErr == nil {
			return pid
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

// release gives up the right. The file goes first, while it is still locked.
func (l *fileLock) release() error {
	err := os.Remove(l.f.Path())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.f.Close())
}
