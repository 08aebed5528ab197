package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/anacrolix/generics"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

// Names of the peers that are storages of anacrolix/torrent, beside Cairn.
const (
	durableBlocks = "cairn-durable"
	relaxedPieces = "cairn-relaxed"
	fileStorage   = "file-storage"
	plainStorage  = "file-storage-nopart"
	mmapStorage   = "mmap-storage"
	boltStorage   = "bolt-storage"
	memoryStorage = "memory-storage"
)

// storageOpeners open storages, with their defaults if the name does not say
// otherwise. File storage is the default of a client.
var storageOpeners = map[string]func(dir string) (storage.ClientImplCloser, error){
	cairnPeer:     func(dir string) (storage.ClientImplCloser, error) { return openTorrents(dir, nil) },
	durableBlocks: func(dir string) (storage.ClientImplCloser, error) { return openTorrents(dir, &durableOptions) },
	relaxedPieces: func(dir string) (storage.ClientImplCloser, error) { return openTorrents(dir, &relaxedOptions) },
	fileStorage:   func(dir string) (storage.ClientImplCloser, error) { return storage.NewFile(dir), nil },
	plainStorage:  func(dir string) (storage.ClientImplCloser, error) { return openPlainStorage(dir), nil },
	mmapStorage:   func(dir string) (storage.ClientImplCloser, error) { return storage.NewMMap(dir), nil },
	boltStorage:   func(dir string) (storage.ClientImplCloser, error) { return storage.NewBoltDB(dir), nil },
	memoryStorage: func(string) (storage.ClientImplCloser, error) { return memoryClient{}, nil },
}

// durableOptions make every block as durable as a complete piece.
var durableOptions = cairntorrent.Options{DurableBlocks: true}

// relaxedOptions have a commit survive the process, but not a power loss.
var relaxedOptions = cairntorrent.Options{Store: &cairn.Options{Durability: cairn.Relaxed}}

func openTorrents(dir string, opts *cairntorrent.Options) (storage.ClientImplCloser, error) {
	return cairntorrent.Open(context.Background(), filepath.Join(dir, "cairn.db"), opts)
}

// openPlainStorage opens file storage that gives files their name from the
// beginning, not when they are complete.
func openPlainStorage(dir string) storage.ClientImplCloser {
	return storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: dir, UsePartFiles: generics.Some(false)})
}

// promises says what a storage keeps, if not just each piece and the record of
// its completion once it is marked complete.
var promises = map[string]string{
	durableBlocks: "each block",
	relaxedPieces: "never",
	fileStorage:   "its data, the record never",
	plainStorage:  "its data, the record never",
	mmapStorage:   "its data, the record never",
	boltStorage:   "never",
	memoryStorage: "never",
}

// storageDurability is the second column of what is written to storages.
func storageDurability(peers []string) string {
	var others []string
	for _, peer := range peers {
		if promise, ok := promises[peer]; ok {
			others = append(others, peer+": "+promise)
		}
	}
	return "each piece when complete (" + strings.Join(others, "; ") + ")"
}

// withStorage opens the child's storage, hands it to f, and closes it.
func (c *child) withStorage(f func(s storage.ClientImplCloser) error) error {
	opener, ok := storageOpeners[c.Peer]
	if !ok {
		return fmt.Errorf("%s is not a storage of torrents", c.Peer)
	}
	s, err := opener(c.Dir)
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}

// withTorrent opens a torrent in the child's storage, hands it to f, and
// closes both.
func (c *child) withTorrent(file *torrentFile, f func(t *storage.Torrent) error) error {
	return c.withStorage(func(s storage.ClientImplCloser) error {
		t, err := storage.NewClient(s).OpenTorrent(context.Background(), &file.info, file.meta.HashInfoBytes())
		if err != nil {
			return err
		}
		return errors.Join(f(t), t.Close())
	})
}
