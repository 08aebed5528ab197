package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/cairnstore/cairn/bao"
)

// readRandom reads whole groups of the large blob at random: Cairn by
// Blob.ReadAt; plain files by pread, bare and with the check of the group's
// hash; the databases have each group as a value under its number. All of it
// is in the page cache.
func readRandom(size int64, conns int) workload {
	plural := ""
	if conns > 1 {
		plural = "s"
	}
	return workload{
		name:       fmt.Sprintf("read-random-%d", conns),
		title:      fmt.Sprintf("16 KiB at random of %s, %d goroutine%s", formatBytes(float64(size)), conns, plural),
		durability: readDurability,
		peers:      append([]string{cairnPeer, filesPeer, checkedFile}, databases...),
		size:       size,
		store:      bigStore,
		prepare:    (*child).prepareBig,
		run: func(c *child) error {
			return c.withBlob(func(b *bigBlob) error { return c.readRandom(b, conns) })
		},
		measures: []measure{perRead, peakRSS, fileSize},
	}
}

func (c *child) readRandom(b *bigBlob, conns int) error {
	groups := c.Sizes.Big / bao.GroupSize
	each := c.Sizes.Reads / conns
	if err := c.start(); err != nil {
		return err
	}
	err := parallel(conns, func(worker int) error {
		buf := new([bao.GroupSize]byte)
		rnd := rand.New(rand.NewPCG(uint64(c.Round), uint64(worker)))
		for range each {
			if err := b.readGroup(rnd.Int64N(groups), buf); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	ops := int64(each) * int64(conns)
	return c.stop(ops, ops*bao.GroupSize)
}
