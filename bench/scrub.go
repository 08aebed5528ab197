package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cairnstore/cairn"
)

// scrubLarge is how many large blobs a half of the bytes to scrub is in. The other
// half is in blobs of scrubSmall bytes.
const (
	scrubLarge = 4
	scrubSmall = 64 << 10
)

// scrub hashes all that is in a store of large and of small blobs. It is compared
// with hashing the database file as it lies there, from one goroutine and from
// two. The time is that of as many bytes as each has hashed.
func scrub(size int64) workload {
	return workload{
		name: "scrub",
		title: fmt.Sprintf("%s, half in %d blobs, half in blobs of %s",
			formatBytes(float64(size)), scrubLarge, formatBytes(scrubSmall)),
		durability: readDurability,
		peers:      []string{cairnPeer, hashPeer, hashPeer2},
		size:       size,
		store:      "scrub",
		oneStore:   true,
		prepare:    func(c *child) error { return c.prepareScrub(size) },
		run:        func(c *child) error { return c.scrub(size) },
		measures: []measure{
			{"time per GiB", formatSeconds, func(r result) float64 { return r.Seconds / float64(r.Bytes) * (1 << 30) }},
			peakRSS, fileSize,
		},
	}
}

// prepareScrub cuts the source into blobs.
func (c *child) prepareScrub(size int64) error {
	f, err := os.Open(c.Source)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := openCairnWith(c.Dir, &cairn.Options{Durability: cairn.Relaxed})
	if err != nil {
		return err
	}
	add := func(r io.Reader) error {
		tag, err := s.Add(context.Background(), r, nil)
		if err == nil {
			tag.Release()
		}
		return err
	}
	large := size / 2 / scrubLarge
	for i := range int64(scrubLarge) {
		if err == nil {
			err = add(io.NewSectionReader(f, i*large, large))
		}
	}
	if err == nil {
		bufs := buffers(tagConns, scrubSmall)
		err = spread(tagConns, int(size/2/scrubSmall), func(worker, i int) error {
			if _, err := f.ReadAt(bufs[worker], size/2+int64(i)*scrubSmall); err != nil {
				return err
			}
			return add(bytes.NewReader(bufs[worker]))
		})
	}
	return errors.Join(err, s.Close())
}

func (c *child) scrub(size int64) error {
	switch c.Peer {
	case hashPeer:
		return c.timeHashFile(filepath.Join(c.Dir, "cairn.db"), 1)
	case hashPeer2:
		return c.timeHashFile(filepath.Join(c.Dir, "cairn.db"), 2)
	}
	s, err := openCairnWith(c.Dir, nil)
	if err != nil {
		return err
	}
	return errors.Join(c.scrubStore(s, size), s.Close())
}

func (c *child) scrubStore(s *cairn.Store, size int64) error {
	if err := c.start(); err != nil {
		return err
	}
	r, err := s.Scrub(context.Background(), nil)
	if err != nil {
		return err
	}
	want := size/2/scrubLarge*scrubLarge + size/2/scrubSmall*scrubSmall
	if r.Bytes != want || r.Damaged != 0 || !r.Done {
		return fmt.Errorf("scrubbed %+v, want %d bytes", r, want)
	}
	return c.stop(r.Scanned, r.Bytes)
}
