package main

import (
	"io"
	"os"
	"sync/atomic"

	"github.com/cairnstore/cairn/bao"
)

// Peers that only read a file, by pread of 1 MiB, and hash its groups: the limit
// of whatever verifies it.
const (
	hashPeer  = "pread-hash"
	hashPeer2 = "pread-hash-2"
)

// hashFile hashes the groups of a file from several goroutines, and returns its
// size in bytes.
func hashFile(path string, conns int) (int64, error) {
	const block = 1 << 20
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	bufs := buffers(conns, block)
	var sum atomic.Uint32 // keeps the compiler from leaving the hashes out
	err = spread(conns, int((info.Size()+block-1)/block), func(worker, i int) error {
		off := int64(i) * block
		n, err := f.ReadAt(bufs[worker], off)
		if err != nil && err != io.EOF {
			return err
		}
		for at := 0; at < n; at += bao.GroupSize {
			group := (*[bao.GroupSize]byte)(bufs[worker][at:])
			cv := bao.GroupCV(group, min(bao.GroupSize, n-at), (off+int64(at))/bao.GroupSize, false)
			sum.Add(uint32(cv[0]))
		}
		return nil
	})
	return info.Size(), err
}

// timeHashFile measures hashFile.
func (c *child) timeHashFile(path string, conns int) error {
	if err := c.start(); err != nil {
		return err
	}
	n, err := hashFile(path, conns)
	if err != nil {
		return err
	}
	return c.stop(1, n)
}
