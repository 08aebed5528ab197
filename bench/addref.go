package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairnstore/cairn"
)

// addReference adds a file that stays where it is: Cairn reads and hashes it, and
// stores its path and its outboard. It is compared with hashing the file, which is
// the limit and stores nothing, and with having the bytes a second time: in the
// database, or in a copy with one sync.
func addReference(size int64) workload {
	return workload{
		name:       "add-reference",
		title:      "one file of " + formatBytes(float64(size)) + " by reference",
		durability: fmt.Sprintf("whole at the end (%s: nothing is stored)", hashPeer),
		peers:      []string{cairnPeer, addPeer, hashPeer, filesPeer},
		size:       size,
		run:        func(c *child) error { return c.addReference(size) },
		measures:   []measure{elapsed, peakRSS},
	}
}

func (c *child) addReference(size int64) error {
	switch c.Peer {
	case hashPeer:
		return c.timeHashFile(c.Source, 1)
	case cairnPeer:
		s, err := openCairnWith(c.Dir, nil)
		if err != nil {
			return err
		}
		return errors.Join(c.refer(s, size), s.Close())
	}
	return c.with(func(s store) error { return c.addFile(s, size) })
}

func (c *child) refer(s *cairn.Store, size int64) error {
	if err := c.start(); err != nil {
		return err
	}
	tag, err := s.AddFile(context.Background(), c.Source, &cairn.AddOptions{Mode: cairn.Reference})
	if err != nil {
		return err
	}
	defer tag.Release()
	if err := c.stop(1, size); err != nil {
		return err
	}
	st, err := s.Status(context.Background(), tag.Hash())
	if err == nil && (st.State != cairn.Complete || st.External != size) {
		err = fmt.Errorf("added %+v, want %d bytes outside", st, size)
	}
	return err
}
