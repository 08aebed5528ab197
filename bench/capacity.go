package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// unlimitedPeer is Cairn without a capacity, where the subject has one.
const unlimitedPeer = "cairn-unlimited"

// relaxedBlocks is how a torrent client writes: a block is acknowledged when
// it is committed, the complete piece when it is durable.
var relaxedBlocks = cairn.PieceOptions{Durability: cairn.Relaxed}

// capacity writes pieces of one group to a full store, which evicts as much as
// comes in, against the same store without a capacity. The peers take turns
// with one store: after its turn, the one without a capacity sets it again,
// and so leaves as many pieces as it found, the latest.
func capacity(name string, resident int) workload {
	return workload{
		name:       name,
		title:      fmt.Sprintf("pieces of 16 KiB into a store of %d, %d goroutines", resident, blockConns),
		durability: "each piece when complete",
		peers:      []string{cairnPeer, unlimitedPeer},
		store:      name,
		oneStore:   true,
		prepare:    func(c *child) error { return c.prepareFull(resident) },
		run:        func(c *child) error { return c.turnOver(resident) },
		measures:   []measure{timePer("piece"), peakRSS, fileSize},
	}
}

// prepareFull fills a store in the fastest way, with whole pieces that are
// durable when it closes, and gives it the capacity of just these.
func (c *child) prepareFull(resident int) error {
	ctx := context.Background()
	s, err := openCairnWith(c.Dir, &cairn.Options{Durability: cairn.Relaxed})
	if err != nil {
		return err
	}
	bufs := buffers(loaders, bao.GroupSize)
	err = spread(loaders, resident, func(worker, i int) error {
		buf := bufs[worker]
		fill(buf, i)
		_, err := s.PutPiece(ctx, pieceKey("resident", i), bytes.NewReader(buf), int64(len(buf)), nil)
		return err
	})
	if err == nil {
		err = s.SetCapacity(ctx, fullAt(resident))
	}
	return errors.Join(err, s.Close())
}

func pieceKey(prefix string, i int) string { return fmt.Sprintf("%s/%08d", prefix, i) }

// fullAt is the capacity of a number of pieces.
func fullAt(pieces int) int64 { return int64(pieces) * bao.GroupSize }

func (c *child) turnOver(resident int) error {
	ctx := context.Background()
	s, err := openCairnWith(c.Dir, nil)
	if err != nil {
		return err
	}
	err = checkFull(ctx, s, resident)
	if err == nil && c.Peer == unlimitedPeer {
		err = s.SetCapacity(ctx, cairn.Unlimited)
	}
	if err == nil {
		err = c.writePieces(s, resident)
	}
	if err == nil && c.Peer == unlimitedPeer {
		err = s.SetCapacity(ctx, fullAt(resident))
	}
	if err == nil {
		err = checkFull(ctx, s, resident)
	}
	return errors.Join(err, s.Close())
}

// checkFull returns an error if the store does not hold what it should, but
// for a few pieces.
func checkFull(ctx context.Context, s *cairn.Store, resident int) error {
	usage, err := s.Usage(ctx)
	if err != nil {
		return err
	}
	full := fullAt(resident)
	if usage.Capacity != full || usage.Used > full || usage.Used < full-full/50 {
		return fmt.Errorf("capacity %d, used %d, want %d of %d", usage.Capacity, usage.Used, full, full)
	}
	return nil
}

// writePieces measures the writing of pieces that no turn before has written.
func (c *child) writePieces(s *cairn.Store, resident int) error {
	n := c.Sizes.Turnover
	turn := 2 * c.Round
	if c.Peer == unlimitedPeer {
		turn++
	}
	prefix := fmt.Sprintf("turn %d", turn)
	bufs := buffers(blockConns, bao.GroupSize)
	if err := c.start(); err != nil {
		return err
	}
	err := spread(blockConns, n, func(worker, i int) error {
		fill(bufs[worker], resident+turn*n+i)
		return writePiece(s, pieceKey(prefix, i), bufs[worker])
	})
	if err != nil {
		return err
	}
	return c.stop(int64(n), fullAt(n))
}

// writePiece writes a piece group by group and completes it.
func writePiece(s *cairn.Store, key string, content []byte) error {
	ctx := context.Background()
	p, err := s.Piece(ctx, key, int64(len(content)), &relaxedBlocks)
	if err != nil {
		return err
	}
	for off := 0; err == nil && off < len(content); off += bao.GroupSize {
		_, err = p.WriteAt(content[off:min(off+bao.GroupSize, len(content))], int64(off))
	}
	if err == nil {
		_, err = p.Complete(ctx)
	}
	return errors.Join(err, p.Close())
}
