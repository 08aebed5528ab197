package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"
)

// tinySize is the size of the many blobs in a store to open.
const tinySize = 100

// Measures of openStore beside the time that opening took, which is the
// result's. Latencies are in seconds.
const (
	rssAfterOpen = "RSS after open"
	addMedian    = "durable add, median"
	addP99       = "durable add, p99"
	getMedian    = "random read, median"
	getP99       = "random read, p99"
)

// openStore opens a store of many small blobs, then takes the latency of
// single durable adds and of reads at random, from one goroutine. All rounds
// share one store, which grows by what they add. Cairn hashes what it adds and
// verifies what it reads; the others are handed the hashes as keys and do not.
// There are no plain files: opening those costs nothing, and their number is
// the file system's business.
func openStore(name string, n int) workload {
	return workload{
		name:       name,
		title:      fmt.Sprintf("store of %d blobs of %d bytes", n, tinySize),
		durability: "each blob when acknowledged",
		peers:      append([]string{cairnPeer}, databases...),
		store:      name,
		prepare: func(c *child) error {
			return c.with(func(s store) error {
				if err := load(s, smallBatches(n, tinySize)); err != nil {
					return err
				}
				return settle(s)
			})
		},
		run: func(c *child) error { return c.openStore(n) },
		measures: []measure{
			{"open", formatSeconds, elapsed.value},
			extra(rssAfterOpen, formatBytes),
			extra(addMedian, formatSeconds), extra(addP99, formatSeconds),
			extra(getMedian, formatSeconds), extra(getP99, formatSeconds),
			peakRSS, fileSize,
		},
	}
}

func (c *child) openStore(n int) (err error) {
	if err := c.start(); err != nil {
		return err
	}
	s, err := c.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c.Seconds = time.Since(c.started).Seconds()
	debug.FreeOSMemory() // garbage of the opening is not what a store costs
	c.Extra[rssAfterOpen] = float64(rss().now)
	if err := c.timeAdds(s, n); err != nil {
		return err
	}
	if err := c.timeGets(s, n); err != nil {
		return err
	}
	return c.finish(int64(c.Sizes.Adds+c.Sizes.Gets), int64(c.Sizes.Adds+c.Sizes.Gets)*tinySize)
}

// timeAdds adds blobs that no earlier round has added.
func (c *child) timeAdds(s store, n int) error {
	seconds := make([]float64, c.Sizes.Adds)
	put := s.Put
	if s, ok := s.(lonePutter); ok {
		put = s.PutAlone
	}
	content := make([]byte, tinySize)
	for i := range seconds {
		fill(content, n+c.Round*c.Sizes.Adds+i)
		key := hashOf(content)
		start := time.Now()
		if err := put(key, content); err != nil {
			return err
		}
		seconds[i] = time.Since(start).Seconds()
	}
	c.latency(addMedian, addP99, seconds)
	return nil
}

// timeGets reads blobs that the store was prepared with.
func (c *child) timeGets(s store, n int) error {
	seconds := make([]float64, c.Sizes.Gets)
	want, got := make([]byte, tinySize), make([]byte, tinySize)
	rnd := rand.New(rand.NewPCG(uint64(c.Round), 0))
	for i := range seconds {
		fill(want, rnd.IntN(n))
		key := hashOf(want)
		start := time.Now()
		if _, err := s.Get(key, got); err != nil {
			return err
		}
		seconds[i] = time.Since(start).Seconds()
		if !bytes.Equal(got, want) {
			return fmt.Errorf("blob %x: wrong content", key)
		}
	}
	c.latency(getMedian, getP99, seconds)
	return nil
}

// latency puts the median and the 99th percentile into the result.
func (c *child) latency(middle, high string, seconds []float64) {
	slices.Sort(seconds)
	c.Extra[middle] = median(seconds)
	c.Extra[high] = percentile(seconds, 99)
}
