package torrent_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	cairntorrent "github.com/cairnstore/cairn/torrent"
)

// TestDiskFull fills the disk in the middle of a transfer. It goes on when
// there is room, and nobody has to start anything anew.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=192m"); err != nil {
		t.Skip("a small file system cannot be mounted: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	data := content(7, 20<<20)
	mi := describe(t, "full", data, 1<<18)
	waiting := make(waits, 1)
	s := openStorage(t, filepath.Join(dir, "cairn.db"), &cairntorrent.Options{Logger: slog.New(waiting)})
	client := newClient(t, clientConfig(s))
	tor := addTorrent(t, client, mi)
	tor.DownloadAll()
	leave(t, dir, 3<<20)
	connect(tor, address(seed(t, mi, data)))
	wait(t, "until the disk is full", waiting)
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	wait(t, "the rest", tor.Complete().On())
	mustHold(t, tor, data)
	mustTrust(t, client)
	mustBeSound(t, s.Store())
}

// leave fills a file system but for some bytes.
func leave(t *testing.T, dir string, bytes int64) {
	t.Helper()
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	filler := make([]byte, max(0, int64(stat.Bavail)*stat.Bsize-bytes))
	err := os.WriteFile(filepath.Join(dir, "filler"), filler, 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) { // others write, too
		t.Fatal(err)
	}
}
