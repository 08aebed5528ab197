package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cairnstore/cairn"
)

// Of the blobs in the store to collect, one in 10 is a tagged sequence, 8 are the
// children of these, and one is garbage.
const (
	perSequence = 8
	perTag      = perSequence + 2
)

// The contents of the blobs are numbered from these on.
const (
	firstGarbage = 1 << 28
	firstBeside  = 1 << 29 // each round has 1 << 20 of its own
)

// Measures of collect. Latencies and times are in seconds.
const (
	markTime    = "mark"
	sweepTime   = "mark and sweep"
	gcHeap      = "Go heap, at most"
	gcSys       = "memory of the Go runtime, at most"
	gcRSSGrowth = "growth of RSS"
	besideGCMed = "durable add beside a collection, median"
	besideGCP99 = "durable add beside a collection, p99"
	besideGCMax = "durable add beside a collection, max"
	addMax      = "durable add, max"
)

// collect marks a store of n blobs, by a dry run, and sweeps it, with nothing
// beside that, for the time and the memory; then it sweeps once more while another
// goroutine adds small blobs, one after the other, whose latency is compared with
// what it is without a collection. The garbage is made anew before each sweep, so
// all rounds have the same store.
func collect(n int) workload {
	tags := n / perTag
	return workload{
		name: "gc",
		title: fmt.Sprintf("sweep %d of %d blobs of 32 to 300 bytes, under %d tagged sequences of %d",
			tags, tags*perTag, tags, perSequence),
		durability: "each add when acknowledged, the sweep when it returns",
		peers:      []string{cairnPeer},
		store:      "gc",
		prepare:    func(c *child) error { return c.prepareTagged(tags) },
		run:        func(c *child) error { return c.collect(tags) },
		measures: []measure{
			extra(markTime, formatSeconds), extra(sweepTime, formatSeconds),
			extra(gcHeap, formatBytes), extra(gcSys, formatBytes), extra(gcRSSGrowth, formatBytes),
			extra(addMedian, formatSeconds), extra(addP99, formatSeconds), extra(addMax, formatSeconds),
			extra(besideGCMed, formatSeconds), extra(besideGCP99, formatSeconds), extra(besideGCMax, formatSeconds),
			peakRSS, fileSize,
		},
	}
}

// collectable makes the content of the i-th blob, of 32 to 300 bytes.
func collectable(buf []byte, i int) []byte {
	content := buf[:32+i%269]
	fill(content, i)
	return content
}

const maxCollectable = 300

// prepareTagged stores the sequences, each with a tag, and their children, in the
// fastest way, durable when it closes.
func (c *child) prepareTagged(tags int) error {
	ctx := context.Background()
	s, err := openCairnWith(c.Dir, &cairn.Options{Durability: cairn.Relaxed})
	if err != nil {
		return err
	}
	bufs := buffers(loaders, maxCollectable)
	err = spread(loaders, tags, func(worker, i int) error {
		var sequence []byte
		for j := range perSequence {
			hash, err := addLoose(s, collectable(bufs[worker], i*perSequence+j))
			if err != nil {
				return err
			}
			sequence = append(sequence, hash[:]...)
		}
		tag, err := s.AddBytes(ctx, sequence, &cairn.AddOptions{Format: cairn.HashSeq, Tag: tagName(i)})
		if err == nil {
			tag.Release()
		}
		return err
	})
	return errors.Join(err, s.Close())
}

// addLoose adds a blob that nothing protects then.
func addLoose(s *cairn.Store, content []byte) (cairn.Hash, error) {
	tag, err := s.AddBytes(context.Background(), content, nil)
	if err != nil {
		return cairn.Hash{}, err
	}
	tag.Release()
	return tag.Hash(), nil
}

func (c *child) collect(tags int) error {
	s, err := openCairnWith(c.Dir, nil)
	if err != nil {
		return err
	}
	err = litter(s, tags)
	if err == nil {
		err = c.start()
	}
	if err == nil {
		err = c.collectAlone(s, tags)
	}
	if err == nil {
		err = litter(s, tags)
	}
	if err == nil {
		err = c.collectBeside(s, tags)
	}
	if err == nil {
		err = c.stop(int64(2*tags), 0)
	}
	return errors.Join(err, s.Close())
}

// litter adds the garbage.
func litter(s *cairn.Store, n int) error {
	bufs := buffers(loaders, maxCollectable)
	return spread(loaders, n, func(worker, i int) error {
		_, err := addLoose(s, collectable(bufs[worker], firstGarbage+i))
		return err
	})
}

// collectAlone measures the time and the memory of a collection: first of a mark
// alone, then of a mark and a sweep, which is the time that this takes longer.
func (c *child) collectAlone(s *cairn.Store, tags int) error {
	before := rss().now
	memory := watchMemory()
	mark, err := timeCollection(s, &cairn.GCOptions{DryRun: true}, tags)
	if err != nil {
		return err
	}
	both, err := timeCollection(s, nil, tags)
	if err != nil {
		return err
	}
	used := memory()
	c.Extra[markTime], c.Extra[sweepTime] = mark, both
	c.Extra[gcHeap], c.Extra[gcSys] = used.heap, used.sys
	c.Extra[gcRSSGrowth] = float64(rss().peak - before)
	return nil
}

// timeCollection collects to the end, and returns how many seconds that takes. It
// sees to it that all the garbage is gone, beside what another turn has left, and
// nothing else.
func timeCollection(s *cairn.Store, opts *cairn.GCOptions, tags int) (seconds float64, err error) {
	start := time.Now()
	r, err := s.GC(context.Background(), opts)
	seconds = time.Since(start).Seconds()
	if err == nil && (!r.Done && !r.DryRun || r.Swept < int64(tags) || r.Marked < int64(tags*(perTag-1))) {
		err = fmt.Errorf("collected %+v, want %d of %d swept", r, tags, tags*perTag)
	}
	return seconds, err
}

// collectBeside takes the latency of adds, first alone, then beside a collection.
func (c *child) collectBeside(s *cairn.Store, tags int) error {
	next := firstBeside + c.Round<<20
	n := 0
	seconds, err := timeLooseAdds(s, &next, func() bool { n++; return n > c.Sizes.Adds })
	if err != nil {
		return err
	}
	c.Extra[addMax] = slices.Max(seconds)
	c.latency(addMedian, addP99, seconds)

	var quit atomic.Bool
	done := make(chan error, 1)
	go func() {
		_, err := timeCollection(s, nil, tags)
		quit.Store(true)
		done <- err
	}()
	n = 0
	seconds, err = timeLooseAdds(s, &next, func() bool { n++; return n > 1 && quit.Load() })
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	c.Extra[besideGCMax] = slices.Max(seconds)
	c.latency(besideGCMed, besideGCP99, seconds)
	return nil
}

// timeLooseAdds adds small blobs from the next one on until it may quit.
func timeLooseAdds(s *cairn.Store, next *int, quit func() bool) (seconds []float64, err error) {
	buf := make([]byte, maxCollectable)
	for ; !quit(); *next++ {
		content := collectable(buf, *next)
		start := time.Now()
		if _, err := addLoose(s, content); err != nil {
			return nil, err
		}
		seconds = append(seconds, time.Since(start).Seconds())
	}
	return seconds, nil
}

// goMemory is what the Go runtime takes, in bytes.
type goMemory struct{ heap, sys float64 }

// watchMemory looks at the runtime's memory again and again, until the function it
// returns is called, which returns the most of each. It does not stop the world.
func watchMemory() (most func() goMemory) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"}}
	var m goMemory
	look := func() {
		metrics.Read(samples)
		m.heap = max(m.heap, float64(samples[0].Value.Uint64()))
		m.sys = max(m.sys, float64(samples[1].Value.Uint64()))
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			look()
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	return func() goMemory {
		close(quit)
		<-done
		look()
		return m
	}
}
