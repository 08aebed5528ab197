package cairn

import (
	"os"
	"syscall"
)

// syncData makes a file's content durable, and of its metadata what is needed
// to read it back.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
