//go:build unix

package cairn

import (
	"io/fs"
	"syscall"
)

// inodeOf returns a file's number in its file system.
func inodeOf(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Ino)
	}
	return 0
}
