package torrent_test

import (
	"path/filepath"
	"testing"

	g "github.com/anacrolix/generics"
	"github.com/anacrolix/torrent/storage"
	test_storage "github.com/anacrolix/torrent/storage/test"
	"github.com/anacrolix/torrent/test"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

// TestLeecherStorage is the client's own suite of transfers into a storage.
// With a capacity, the client takes another path at each piece and each read;
// its suite waits for the whole torrent of 13 bytes, in pieces of 5, so the
// capacity is three pieces.
func TestLeecherStorage(t *testing.T) {
	for _, c := range []struct {
		name string
		opts *cairntorrent.Options
	}{
		{"Unlimited", nil},
		{"Capacity", capped(15)},
		{"DurableBlocks", &cairntorrent.Options{DurableBlocks: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			test.TestLeecherStorage(t, test.LeecherStorageTestCase{
				Name: "Cairn",
				Factory: func(dir string) storage.ClientImplCloser {
					return openStorage(t, filepath.Join(dir, "cairn.db"), c.opts)
				},
			})
		})
	}
}

// BenchmarkPieceMarkComplete is the client's own benchmark of a storage: it
// writes pieces block by block, completes each and reads it back.
func BenchmarkPieceMarkComplete(b *testing.B) {
	const pieces, size = test_storage.DefaultNumPieces, test_storage.DefaultPieceSize
	for _, c := range []struct {
		name     string
		capacity int64
		open     func(b *testing.B) storage.ClientImplCloser
	}{
		{"Cairn/Default", 0, func(b *testing.B) storage.ClientImplCloser { return openStorage(b, tempPath(b), nil) }},
		{"Cairn/Memory", 0, func(b *testing.B) storage.ClientImplCloser { return openStorage(b, ":memory:", nil) }},
		{"Cairn/Capacity", pieces * size / 2, func(b *testing.B) storage.ClientImplCloser {
			return openStorage(b, tempPath(b), capped(pieces*size/2))
		}},
		{"Cairn/DurableBlocks", 0, func(b *testing.B) storage.ClientImplCloser {
			return openStorage(b, tempPath(b), &cairntorrent.Options{DurableBlocks: true})
		}},
		{"File", 0, func(b *testing.B) storage.ClientImplCloser {
			return storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: b.TempDir(), UsePartFiles: g.Some(false)})
		}},
		{"Bolt", 0, func(b *testing.B) storage.ClientImplCloser { return storage.NewBoltDB(b.TempDir()) }},
		{"Mmap", 0, func(b *testing.B) storage.ClientImplCloser { return storage.NewMMap(b.TempDir()) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := c.open(b)
			defer s.Close()
			test_storage.BenchmarkPieceMarkComplete(b, s, size, pieces, c.capacity)
		})
	}
}
