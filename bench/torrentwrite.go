package main

import (
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
)

const (
	// blockSize is what peers of a torrent send at once.
	blockSize = 16 << 10
	// blockConns write blocks at once.
	blockConns = 16
	// writePieceSize is the piece length of torrentWrite.
	writePieceSize = 4 << 20
)

// torrentWrite writes the blocks of a torrent to its storage, in random order,
// from several goroutines, as a client with many peers does. Who writes the
// last block of a piece reads the piece back, compares its SHA-1, and marks it
// complete; Cairn computes the BLAKE3 hash then too. For plain files it is a
// copy with one sync, the limit.
func torrentWrite(size int64) workload {
	peers := []string{cairnPeer, durableBlocks, relaxedPieces, filesPeer, fileStorage, mmapStorage, boltStorage}
	return workload{
		name: "torrent-write",
		title: fmt.Sprintf("%s in pieces of %s, blocks of 16 KiB at random, %d goroutines",
			formatBytes(float64(size)), formatPieceLength(writePieceSize), blockConns),
		durability: storageDurability(peers),
		peers:      peers,
		size:       size,
		run:        func(c *child) error { return c.torrentWrite(size) },
		measures:   []measure{elapsed, peakRSS, fileSize},
	}
}

func (c *child) torrentWrite(size int64) error {
	if c.Peer == filesPeer {
		return c.with(func(s store) error { return c.addFile(s, size) })
	}
	file, err := c.torrentFile(writePieceSize)
	if err != nil {
		return err
	}
	order := rand.New(rand.NewPCG(1, uint64(c.Round))).Perm(file.blocks())
	return c.withTorrent(file, func(t *storage.Torrent) error {
		if err := c.start(); err != nil {
			return err
		}
		if err := c.writeBlocks(t, &file.info, blockConns, order); err != nil {
			return err
		}
		return c.stop(int64(len(order)), size)
	})
}

// writeBlocks writes blocks of the source, which are in the given order all
// there are, and completes the pieces.
func (c *child) writeBlocks(t *storage.Torrent, info *metainfo.Info, conns int, order []int) error {
	source, err := os.Open(c.Source)
	if err != nil {
		return err
	}
	defer source.Close()
	left := make([]atomic.Int64, info.NumPieces())
	for i := range left {
		left[i].Store(info.Piece(i).Length())
	}
	bufs := buffers(conns, blockSize)
	return spread(conns, len(order), func(worker, i int) error {
		off := int64(order[i]) * blockSize
		block := bufs[worker][:min(blockSize, info.Length-off)]
		if _, err := source.ReadAt(block, off); err != nil {
			return err
		}
		p := info.Piece(int(off / info.PieceLength))
		piece := t.Piece(p)
		if _, err := piece.WriteAt(block, off-p.Offset()); err != nil {
			return err
		}
		if left[p.Index()].Add(-int64(len(block))) > 0 {
			return nil
		}
		return completePiece(piece, p)
	})
}

// completePiece does what a client does when it has all blocks of a piece.
func completePiece(piece storage.Piece, p metainfo.Piece) error {
	h := sha1.New()
	if _, err := piece.WriteTo(h); err != nil {
		return err
	}
	if metainfo.Hash(h.Sum(nil)) != p.V1Hash().Unwrap() {
		return fmt.Errorf("piece %d: wrong hash", p.Index())
	}
	return piece.MarkComplete()
}

// A torrentFile describes the source as a torrent of one file.
type torrentFile struct {
	info metainfo.Info
	meta metainfo.MetaInfo
}

// torrentFile hashes the source.
func (c *child) torrentFile(pieceLength int64) (*torrentFile, error) {
	file := &torrentFile{info: metainfo.Info{PieceLength: pieceLength}}
	if err := file.info.BuildFromFilePath(c.Source); err != nil {
		return nil, err
	}
	encoded, err := bencode.Marshal(file.info)
	file.meta.InfoBytes = encoded
	return file, err
}

// blocks returns how many blocks the torrent has.
func (f *torrentFile) blocks() int { return int((f.info.Length + blockSize - 1) / blockSize) }
