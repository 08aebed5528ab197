package main

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	smallSize  = 4 << 10
	smallConns = 16
)

// addSmall adds small blobs from several goroutines, each of which waits until
// its blob is durable before it makes the next one. Cairn hashes the blobs
// while it is measured; the others get the hashes, made before, as keys.
// Bbolt comes twice: with its defaults, by which a batch waits 10 ms for 1,000
// callers, and told how many callers there are.
func addSmall(n int) workload {
	return workload{
		name:       "add-small",
		title:      fmt.Sprintf("%d blobs of 4 KiB, %d goroutines", n, smallConns),
		durability: "each blob when acknowledged (" + looseFiles + ": its name only later)",
		peers:      append([]string{cairnPeer, filesPeer, looseFiles, tunedBbolt}, databases...),
		run:        func(c *child) error { return c.with(c.addSmall) },
		measures:   []measure{elapsed, peakRSS, fileSize},
	}
}

func (c *child) addSmall(s store) error {
	n := c.Sizes.Small
	keys := make([][]byte, n)
	content := make([]byte, smallSize)
	for i := range keys {
		fill(content, i)
		keys[i] = hashOf(content)
	}
	if err := c.start(); err != nil {
		return err
	}
	bufs := buffers(smallConns, smallSize)
	err := spread(smallConns, n, func(worker, i int) error {
		fill(bufs[worker], i)
		return s.Put(keys[i], bufs[worker])
	})
	if err != nil {
		return err
	}
	return c.stop(int64(n), int64(n)*smallSize)
}

// spread hands the numbers below n to goroutines, and returns the first error.
func spread(conns, n int, f func(worker, i int) error) error {
	var next atomic.Int64
	return parallel(conns, func(worker int) error {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			if err := f(worker, i); err != nil {
				return err
			}
		}
		return nil
	})
}

// buffers makes a buffer for each goroutine.
func buffers(conns, size int) [][]byte {
	list := make([][]byte, conns)
	for i := range list {
		list[i] = make([]byte, size)
	}
	return list
}

// parallel runs f in n goroutines and returns the first error.
func parallel(n int, f func(worker int) error) (first error) {
	var wg sync.WaitGroup
	var once sync.Once
	for worker := range n {
		wg.Go(func() {
			if err := f(worker); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}
