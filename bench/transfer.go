package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/storage"
	"golang.org/x/time/rate"
)

// clientPatience is the longest that a client may take for anything.
const clientPatience = 10 * time.Minute

// transfer has one client download a torrent from another, over loopback in
// one process. The storage of the downloading client is what is compared; the
// other always reads the source. The client hashes the pieces itself.
func transfer(size, pieceLength int64) workload {
	peers := []string{cairnPeer, fileStorage, memoryStorage}
	pieceSize := formatPieceLength(pieceLength)
	return workload{
		name:       "transfer-" + strings.ReplaceAll(pieceSize, " ", ""),
		title:      fmt.Sprintf("%s between two torrent clients, pieces of %s", formatBytes(float64(size)), pieceSize),
		durability: storageDurability(peers),
		peers:      peers,
		size:       size,
		run: func(c *child) error {
			return c.withStorage(func(s storage.ClientImplCloser) error { return c.transfer(s, pieceLength) })
		},
		measures: []measure{elapsed},
	}
}

func formatPieceLength(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func (c *child) transfer(target storage.ClientImplCloser, pieceLength int64) error {
	file, err := c.torrentFile(pieceLength)
	if err != nil {
		return err
	}
	source := storage.NewFileWithCompletion(filepath.Dir(c.Source), storage.NewMapPieceCompletion())
	return withClient(source, func(seeder *torrent.Client) error {
		seeding, err := addTorrent(seeder, file)
		if err != nil {
			return err
		}
		if err := seeding.wait(); err != nil {
			return err
		}
		return withClient(target, func(leecher *torrent.Client) error { return c.leech(leecher, seeder, file) })
	})
}

// leech measures a download that ends when every piece is marked complete.
func (c *child) leech(leecher, seeder *torrent.Client, file *torrentFile) error {
	t, err := addTorrent(leecher, file)
	if err != nil {
		return err
	}
	if err := t.waitChecked(); err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return err
	}
	t.DownloadAll()
	t.AddClientPeer(seeder)
	if err := t.wait(); err != nil {
		return err
	}
	stats := t.Stats()
	if hashed := stats.BytesHashed.Int64(); hashed < file.info.Length {
		return fmt.Errorf("hashed only %d bytes", hashed)
	}
	return c.stop(int64(file.info.NumPieces()), file.info.Length)
}

// withClient starts a client that uses a storage, hands it to f, and closes
// it, but not the storage.
func withClient(s storage.ClientImpl, f func(cl *torrent.Client) error) error {
	cl, err := torrent.NewClient(clientConfig(s))
	if err != nil {
		return err
	}
	err = f(cl)
	return errors.Join(append(cl.Close(), err)...)
}

// clientConfig is the default, but for whom it talks to: nobody beyond
// loopback, by TCP, and without a limit.
func clientConfig(s storage.ClientImpl) *torrent.ClientConfig {
	cfg := torrent.NewDefaultClientConfig()
	cfg.DefaultStorage = s
	cfg.ListenHost = torrent.LoopbackListenHost
	cfg.KeepAliveTimeout = time.Second // see the documentation of Cairn's package torrent
	cfg.ListenPort = 0
	cfg.Seed = true
	cfg.NoDHT = true
	cfg.DisableTrackers = true
	cfg.NoDefaultPortForwarding = true
	cfg.DisablePEX = true
	cfg.DisableUTP = true
	cfg.DisableIPv6 = true
	cfg.DisableWebtorrent = true
	cfg.DisableWebseeds = true
	cfg.DialRateLimiter = rate.NewLimiter(rate.Inf, 0)
	cfg.Slogger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return cfg
}

// A clientTorrent is a torrent of a client. Its first write error ends the
// wait, for the client would wait for ever.
type clientTorrent struct {
	*torrent.Torrent
	failed chan error
}

func addTorrent(cl *torrent.Client, file *torrentFile) (*clientTorrent, error) {
	t, err := cl.AddTorrent(&file.meta)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	t.SetOnWriteChunkError(func(err error) {
		select {
		case failed <- err:
		default:
		}
	})
	return &clientTorrent{t, failed}, nil
}

// waitChecked returns when the client knows of each piece whether it is there.
// If the storage does not know, the client tries to hash it.
func (t *clientTorrent) waitChecked() error {
	timeout := time.NewTimer(clientPatience)
	defer timeout.Stop()
	changes := t.SubscribePieceStateChanges()
	defer changes.Close()
	for i := range t.NumPieces() {
		for state := t.PieceState(i); !state.Ok || state.Checking; state = t.PieceState(i) {
			select {
			case <-changes.Values:
			case <-timeout.C:
				return fmt.Errorf("piece %d unchecked after %v", i, clientPatience)
			}
		}
	}
	return nil
}

// wait returns when all pieces are complete.
func (t *clientTorrent) wait() error {
	timeout := time.NewTimer(clientPatience)
	defer timeout.Stop()
	select {
	case <-t.Complete().On():
		return nil
	case err := <-t.failed:
		return err
	case <-timeout.C:
		return fmt.Errorf("incomplete after %v: %d bytes missing", clientPatience, t.BytesMissing())
	}
}
