package main

import (
	"context"
	"fmt"

	"github.com/cairnstore/cairn"
)

// tagConns set tags at once.
const tagConns = 16

func tagName(i int) string { return fmt.Sprintf("tag/%08d", i) }

// tagContent is what the i-th tag names. It is in no store.
func tagContent(i int) cairn.HashAndFormat {
	var buf [tinySize]byte
	fill(buf[:], i)
	return cairn.HashAndFormat{Hash: cairn.Hash(hashOf(buf[:])), Format: cairn.Raw}
}

// tagValue is what a peer that knows no tags stores of the i-th one.
func tagValue(i int) []byte {
	content := tagContent(i)
	return append(content.Hash[:], byte(content.Format))
}

// setTags sets tags from several goroutines, each of which waits until its tag is
// durable before it sets the next one. The databases store the hash and the format
// under the name, and so protect nothing.
func setTags(n int) workload {
	return workload{
		name:       "tag-set",
		title:      fmt.Sprintf("%d tags, %d goroutines", n, tagConns),
		durability: "each tag when acknowledged",
		peers:      []string{cairnPeer, bboltPeer, tunedBbolt, pebblePeer},
		run:        func(c *child) error { return c.with(func(s store) error { return c.setTags(s, n) }) },
		measures:   []measure{timePer("tag"), peakRSS, fileSize},
	}
}

func (c *child) setTags(s store, n int) error {
	if err := c.start(); err != nil {
		return err
	}
	err := spread(tagConns, n, func(_, i int) error {
		if s, ok := s.(cairnStore); ok {
			return s.SetTag(context.Background(), tagName(i), tagContent(i), nil)
		}
		return s.Put([]byte(tagName(i)), tagValue(i))
	})
	if err != nil {
		return err
	}
	return c.stop(int64(n), 0)
}

// A lister is a store that can go through its keys in their order.
type lister interface {
	Each(f func(key, value []byte)) error
}

// listTags lists all the tags of a prepared store.
func listTags(n int) workload {
	return workload{
		name:       "tag-list",
		title:      fmt.Sprintf("%d tags in order", n),
		durability: readDurability,
		peers:      []string{cairnPeer, bboltPeer, pebblePeer},
		store:      "tags",
		prepare:    func(c *child) error { return c.with(func(s store) error { return prepareTags(s, n) }) },
		run:        func(c *child) error { return c.with(func(s store) error { return c.listTags(s, n) }) },
		measures:   []measure{elapsed, peakRSS},
	}
}

func prepareTags(s store, n int) error {
	if s, ok := s.(cairnStore); ok {
		return spread(loaders, n, func(_, i int) error {
			return s.SetTag(context.Background(), tagName(i), tagContent(i), nil)
		})
	}
	batch := make([]entry, n)
	for i := range batch {
		batch[i] = entry{[]byte(tagName(i)), tagValue(i)}
	}
	if err := s.Write(batch); err != nil {
		return err
	}
	return settle(s)
}

func (c *child) listTags(s store, n int) error {
	if err := c.start(); err != nil {
		return err
	}
	listed := 0
	switch s := s.(type) {
	case cairnStore:
		for tag, err := range s.Tags(context.Background(), nil) {
			if err != nil {
				return err
			}
			if tag.Name != "" {
				listed++
			}
		}
	case lister:
		err := s.Each(func(key, value []byte) {
			if len(key) > 0 && len(value) == len(cairn.Hash{})+1 {
				listed++
			}
		})
		if err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s lists nothing", c.Peer)
	}
	if listed != n {
		return fmt.Errorf("%d tags of %d", listed, n)
	}
	return c.stop(int64(n), 0)
}
