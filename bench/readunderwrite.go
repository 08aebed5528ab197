package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cairnstore/cairn/bao"
)

// pieceSize is the size of what is written while others read.
const pieceSize = 4 << 20

// Measures of readUnderWrite. Latencies are in seconds.
const (
	aloneMedian  = "random read alone, median"
	aloneP99     = "random read alone, p99"
	besideMedian = "random read beside a writer, median"
	besideP99    = "random read beside a writer, p99"
	slowdown     = "p99 beside a writer / alone"
	writtenRate  = "written meanwhile, per second"
)

// readUnderWrite takes the latency of reading whole groups of the large blob
// at random, from one goroutine, first alone, then while another goroutine
// writes pieces of 4 MiB as fast as it can, group by group: Cairn by
// Piece.WriteAt and Complete, and, as a peer, by adding each as a blob; plain
// files as a new file each, with a sync at its end, and with the check of the
// hash of what is read; the databases as one transaction. Each round has a new
// store.
func readUnderWrite(size int64) workload {
	return workload{
		name:       "read-under-write",
		title:      fmt.Sprintf("16 KiB at random of %s, beside a writer of pieces of 4 MiB", formatBytes(float64(size))),
		durability: "each piece when complete",
		peers:      append([]string{cairnPeer, addPeer, checkedFile}, databases...),
		size:       size,
		run: func(c *child) error {
			if err := c.prepareBig(); err != nil {
				return err
			}
			return c.withBlob(c.readUnderWrite)
		},
		measures: []measure{
			extra(aloneMedian, formatSeconds), extra(aloneP99, formatSeconds),
			extra(besideMedian, formatSeconds), extra(besideP99, formatSeconds),
			extra(slowdown, formatRatio), extra(writtenRate, formatBytes), peakRSS,
		},
	}
}

func (c *child) readUnderWrite(b *bigBlob) error {
	if err := c.start(); err != nil {
		return err
	}
	for range 2 { // the first time fills the peer's caches
		if err := c.timeGroups(b, aloneMedian, aloneP99); err != nil {
			return err
		}
	}
	rate, err := besideWriter(b, func() error { return c.timeGroups(b, besideMedian, besideP99) })
	if err != nil {
		return err
	}
	c.Extra[slowdown] = c.Extra[besideP99] / c.Extra[aloneP99]
	c.Extra[writtenRate] = rate
	return c.stop(2*int64(c.Sizes.Reads), 2*int64(c.Sizes.Reads)*bao.GroupSize)
}

// timeGroups takes the latency of reads.
func (c *child) timeGroups(b *bigBlob, middle, high string) error {
	groups := c.Sizes.Big / bao.GroupSize
	seconds := make([]float64, c.Sizes.Reads)
	buf := new([bao.GroupSize]byte)
	rnd := rand.New(rand.NewPCG(uint64(c.Round), 0))
	for i := range seconds {
		group := rnd.Int64N(groups)
		start := time.Now()
		if err := b.readGroup(group, buf); err != nil {
			return err
		}
		seconds[i] = time.Since(start).Seconds()
	}
	c.latency(middle, high, seconds)
	return nil
}

// besideWriter runs f while another goroutine writes pieces, at least one, and
// returns how many bytes of them it wrote in a second.
func besideWriter(b *bigBlob, f func() error) (rate float64, err error) {
	var quit atomic.Bool
	pieces := 0
	done := make(chan error, 1)
	start := time.Now()
	go func() {
		content := make([]byte, pieceSize)
		var err error
		for ; err == nil && (pieces == 0 || !quit.Load()); pieces++ {
			fillPiece(content, pieces)
			err = b.writePiece(pieces, content)
		}
		done <- err
	}()
	err = f()
	quit.Store(true)
	err = errors.Join(err, <-done)
	return float64(pieces) * pieceSize / time.Since(start).Seconds(), err
}

// fillPiece makes the content of the i-th piece.
func fillPiece(content []byte, i int) {
	groups := len(content) / bao.GroupSize
	for g := range groups {
		fill(content[g*bao.GroupSize:][:bao.GroupSize], i*groups+g)
	}
}

func (s cairnStore) writePiece(i int, content []byte) error {
	return writePiece(s.Store, pieceKey("piece", i), content)
}

// writePieceFile writes a file of its own.
func (c *child) writePieceFile(i int, content []byte) error {
	f, err := os.Create(filepath.Join(c.Dir, fmt.Sprintf("piece-%d", i)))
	if err != nil {
		return err
	}
	for off := 0; err == nil && off < len(content); off += bao.GroupSize {
		_, err = f.Write(content[off : off+bao.GroupSize])
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// writeValues writes a value for each group, behind those of the large blob.
func writeValues(s store, i int, content []byte) error {
	const behind = 1 << 40
	groups := len(content) / bao.GroupSize
	batch := make([]entry, groups)
	for g := range batch {
		batch[g] = entry{numberKey(behind + int64(i*groups+g)), content[g*bao.GroupSize:][:bao.GroupSize]}
	}
	if err := s.Write(batch); err != nil {
		return err
	}
	return s.Sync()
}
