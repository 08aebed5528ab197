package main

import (
	"errors"
	"flag"
	"fmt"
	"testing"

	"github.com/anacrolix/torrent/storage"
	test_storage "github.com/anacrolix/torrent/storage/test"
)

// markPeers can write to pieces that are complete. File storage can if it does
// not rename files.
var markPeers = []string{cairnPeer, relaxedPieces, plainStorage, mmapStorage, boltStorage, memoryStorage}

// markComplete is the benchmark that comes with anacrolix/torrent: it writes
// pieces from a goroutine a block, marks them complete, and reads them back,
// over and over again.
func markComplete(times int) workload {
	return workload{
		name: "mark-complete",
		title: fmt.Sprintf("BenchmarkPieceMarkComplete, %d times %d pieces of %s",
			times, test_storage.DefaultNumPieces, formatPieceLength(test_storage.DefaultPieceSize)),
		durability: storageDurability(markPeers),
		peers:      markPeers,
		run: func(c *child) error {
			return c.withStorage(func(s storage.ClientImplCloser) error { return c.markComplete(s, times) })
		},
		measures: []measure{timePer("piece"), peakRSS},
	}
}

func (c *child) markComplete(s storage.ClientImplCloser, times int) error {
	testing.Init()
	if err := flag.Set("test.benchtime", fmt.Sprintf("%dx", times)); err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return err
	}
	r := testing.Benchmark(func(b *testing.B) {
		test_storage.BenchmarkPieceMarkComplete(b, s, test_storage.DefaultPieceSize, test_storage.DefaultNumPieces, 0)
	})
	if r.N != times {
		return errors.New("BenchmarkPieceMarkComplete failed")
	}
	c.Seconds = r.T.Seconds()
	return c.finish(int64(times)*test_storage.DefaultNumPieces, int64(times)*r.Bytes)
}
