package main

import (
	"fmt"
	"io"
)

// readDurability is the second column of what writes nothing.
const readDurability = "reads only"

// readSeq reads the large blob from its start to its end: Cairn by
// Blob.WriteTo; plain files by pread of 1 MiB, bare and with the check of each
// group's hash that Cairn makes.
func readSeq(size int64) workload {
	return workload{
		name:       "read-seq",
		title:      formatBytes(float64(size)) + " in order",
		durability: readDurability,
		peers:      []string{cairnPeer, filesPeer, checkedFile},
		size:       size,
		store:      bigStore,
		prepare:    (*child).prepareBig,
		run:        func(c *child) error { return c.withBlob(c.readSeq) },
		measures:   []measure{elapsed, peakRSS, fileSize},
	}
}

func (c *child) readSeq(b *bigBlob) error {
	if err := c.start(); err != nil {
		return err
	}
	n, err := b.writeTo(io.Discard)
	if err != nil {
		return err
	}
	if n != c.Sizes.Big {
		return fmt.Errorf("read %d bytes of %d", n, c.Sizes.Big)
	}
	return c.stop(1, n)
}
