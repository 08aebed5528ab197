package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// importConns download at once.
const importConns = 8

// importRandom downloads a blob in ranges of 16 KiB, in random order, from
// several goroutines that wait for each to be durable. Cairn verifies each
// range; plain files are one sparse file, with a write and a sync a range, and
// keep no record of what is there.
func importRandom(size int64) workload {
	return workload{
		name:       "import-random",
		title:      fmt.Sprintf("%s in ranges of 16 KiB, %d goroutines", formatBytes(float64(size)), importConns),
		durability: "each range when acknowledged",
		peers:      []string{cairnPeer, filesPeer},
		size:       size,
		run:        func(c *child) error { return c.importRandom(size) },
		measures: []measure{
			{"time per range", formatSeconds, func(r result) float64 { return r.Seconds / float64(r.Ops) }},
			fileSize,
		},
	}
}

func (c *child) importRandom(size int64) error {
	data, err := os.ReadFile(c.Source)
	if err != nil {
		return err
	}
	order := rand.New(rand.NewPCG(1, uint64(c.Round))).Perm(int(bao.Groups(size)))
	if c.Peer == filesPeer {
		return c.writeRandom(data, order)
	}
	responses, root, err := groupResponses(data)
	if err != nil {
		return err
	}
	return c.with(func(s store) error {
		return c.eachOf(order, func(group int) error {
			start := uint64(group) * (bao.GroupSize / bao.ChunkSize)
			ranges := bao.Chunks(start, start+bao.GroupSize/bao.ChunkSize)
			return s.(cairnStore).ImportBao(context.Background(), cairn.Hash(root), ranges, bytes.NewReader(responses[group]))
		})
	})
}

// writeRandom writes the groups to their places in one file.
func (c *child) writeRandom(data []byte, order []int) error {
	f, err := os.Create(filepath.Join(c.Dir, "blob"))
	if err != nil {
		return err
	}
	defer f.Close()
	return c.eachOf(order, func(group int) error {
		off := group * bao.GroupSize
		if _, err := f.WriteAt(data[off:min(off+bao.GroupSize, len(data))], int64(off)); err != nil {
			return err
		}
		return f.Sync()
	})
}

// eachOf measures f for every group, from several goroutines.
func (c *child) eachOf(order []int, f func(group int) error) error {
	if err := c.start(); err != nil {
		return err
	}
	err := spread(importConns, len(order), func(_, i int) error { return f(order[i]) })
	if err != nil {
		return err
	}
	return c.stop(int64(len(order)), int64(len(order))*bao.GroupSize)
}

// A source is content in memory with its hash tree.
type source struct {
	*bytes.Reader
	tiles map[bao.Tile][]byte
}

func (s source) ReadTile(t bao.Tile) ([]byte, error) { return s.tiles[t], nil }

// groupResponses encodes every group of the data by itself.
func groupResponses(data []byte) (responses [][]byte, root bao.CV, err error) {
	src := source{bytes.NewReader(data), make(map[bao.Tile][]byte)}
	h := bao.Hasher{Emit: func(t bao.Tile, pairs []byte) error {
		src.tiles[t] = pairs
		return nil
	}}
	if _, err := h.Write(data); err != nil {
		return nil, root, err
	}
	if root, err = h.Finish(); err != nil {
		return nil, root, err
	}
	for g := range bao.Groups(int64(len(data))) {
		var out bytes.Buffer
		start := uint64(g) * (bao.GroupSize / bao.ChunkSize)
		ranges := bao.Chunks(start, start+bao.GroupSize/bao.ChunkSize)
		if err := bao.Encode(&out, root, int64(len(data)), ranges, src); err != nil {
			return nil, root, err
		}
		responses = append(responses, out.Bytes())
	}
	return responses, root, nil
}
