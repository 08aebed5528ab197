package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/storage"
)

const (
	// reopenPieceSize is the piece length of torrentReopen.
	reopenPieceSize = 1 << 20
	// startPieceSize is that of torrentStart: the least there is.
	startPieceSize = 16 << 10
)

// Measures beside the result's time.
const (
	readBack    = "read back"
	openStorage = "open the storage"
)

// torrentReopen starts a client on a storage with a finished torrent, waits
// until it has learned that all is there, which takes no hashing, and reads
// all of it through the client.
func torrentReopen(size int64) workload {
	return workload{
		name:       "torrent-reopen",
		title:      fmt.Sprintf("finished torrent of %s in pieces of %s", formatBytes(float64(size)), formatPieceLength(reopenPieceSize)),
		durability: readDurability,
		peers:      []string{cairnPeer, fileStorage},
		size:       size,
		store:      "torrent-reopen",
		prepare:    func(c *child) error { return c.finishTorrent(reopenPieceSize) },
		run:        (*child).torrentReopen,
		measures: []measure{
			{"open until complete", formatSeconds, elapsed.value},
			extra(readBack, formatSeconds), fileSize,
		},
	}
}

// finishTorrent writes the source to the storage and completes all pieces,
// the last one first: file storage looks at all pieces of a file from its
// first up to one that is incomplete each time.
func (c *child) finishTorrent(pieceLength int64) error {
	file, err := c.torrentFile(pieceLength)
	if err != nil {
		return err
	}
	order := make([]int, file.blocks())
	for i := range order {
		order[i] = len(order) - 1 - i
	}
	return c.withTorrent(file, func(t *storage.Torrent) error {
		return c.writeBlocks(t, &file.info, loaders, order)
	})
}

func (c *child) torrentReopen() error {
	file, err := c.torrentFile(reopenPieceSize)
	if err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return err
	}
	return c.withStorage(func(s storage.ClientImplCloser) error {
		return withClient(s, func(cl *torrent.Client) error { return c.reopened(cl, file) })
	})
}

// reopened ends the first measure and makes the second.
func (c *child) reopened(cl *torrent.Client, file *torrentFile) error {
	t, err := addTorrent(cl, file)
	if err != nil {
		return err
	}
	if err := t.wait(); err != nil {
		return err
	}
	c.Seconds = time.Since(c.started).Seconds()
	stats := t.Stats()
	if hashed := stats.BytesHashed.Int64(); hashed > 0 {
		return fmt.Errorf("hashed %d bytes", hashed)
	}
	r := t.NewReader()
	defer r.Close()
	start := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	if n != file.info.Length {
		return fmt.Errorf("read %d bytes of %d", n, file.info.Length)
	}
	c.Extra[readBack] = time.Since(start).Seconds()
	return c.finish(1, n)
}

// torrentStart opens a torrent of many pieces in its storage and asks for the
// completion of each, as a client does when it starts.
func torrentStart(pieces int) workload {
	return workload{
		name:       "torrent-start",
		title:      fmt.Sprintf("completion of %d pieces of 16 KiB", pieces),
		durability: readDurability,
		peers:      []string{cairnPeer, fileStorage, boltStorage},
		size:       int64(pieces) * startPieceSize,
		store:      "torrent-start",
		prepare:    (*child).prepareStart,
		run:        (*child).torrentStart,
		measures: []measure{
			{"open torrent, all completions", formatSeconds, elapsed.value},
			extra(openStorage, formatSeconds), peakRSS, fileSize,
		},
	}
}

// prepareStart makes the finished torrent. What file storage finds under the
// name of a file it takes for complete, and records that when it opens the
// torrent, which is all that it would have to show for 50,000 syncs.
func (c *child) prepareStart() error {
	if c.Peer != fileStorage {
		return c.finishTorrent(startPieceSize)
	}
	if err := c.copySource(filepath.Join(c.Dir, filepath.Base(c.Source))); err != nil {
		return err
	}
	file, err := c.torrentFile(startPieceSize)
	if err != nil {
		return err
	}
	return c.withTorrent(file, func(*storage.Torrent) error { return nil })
}

func (c *child) torrentStart() error {
	file, err := c.torrentFile(startPieceSize)
	if err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return err
	}
	return c.withStorage(func(s storage.ClientImplCloser) error {
		c.Extra[openStorage] = time.Since(c.started).Seconds()
		return c.listCompletion(s, file)
	})
}

func (c *child) listCompletion(s storage.ClientImpl, file *torrentFile) error {
	start := time.Now()
	t, err := storage.NewClient(s).OpenTorrent(context.Background(), &file.info, file.meta.HashInfoBytes())
	if err != nil {
		return err
	}
	n := file.info.NumPieces()
	for i := range n {
		piece := t.Piece(file.info.Piece(i))
		if got := piece.Completion(); !got.Ok || !got.Complete {
			return errors.Join(fmt.Errorf("piece %d: %+v", i, got), t.Close())
		}
	}
	c.Seconds = time.Since(start).Seconds()
	return errors.Join(c.finish(int64(n), 0), t.Close())
}
