package torrent_test

import (
	"context"
	"io"
	"path/filepath"
	"testing"

	"github.com/anacrolix/missinggo/v2/resource"
	"github.com/anacrolix/torrent/storage"
	"github.com/anacrolix/torrent/test"
	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

// putting hides what lets completion move blocks, so that they are put together.
type putting struct {
	resource.Provider
	storage.ConsecutiveChunkReader
	storage.PrefixDeleter
}

// TestLeecherResources is the client's suite over its storage of resources, in
// which completion moves the blocks of a piece, puts them together, or does
// that without any help of the provider.
func TestLeecherResources(t *testing.T) {
	for name, show := range map[string]func(cairntorrent.Provider) storage.PieceProvider{
		"Move":  func(p cairntorrent.Provider) storage.PieceProvider { return p },
		"Put":   func(p cairntorrent.Provider) storage.PieceProvider { return putting{p, p, p} },
		"Plain": func(p cairntorrent.Provider) storage.PieceProvider { return struct{ resource.Provider }{p} },
	} {
		t.Run(name, func(t *testing.T) {
			test.TestLeecherStorage(t, test.LeecherStorageTestCase{
				Name: "CairnResources",
				Factory: func(dir string) storage.ClientImplCloser {
					store, err := cairn.Open(context.Background(), filepath.Join(dir, "cairn.db"), nil)
					if err != nil {
						t.Fatal(err)
					}
					provider := cairntorrent.Provider{Provider: cairn.NewProvider(store, nil)}
					return struct {
						storage.ClientImpl
						io.Closer
					}{storage.NewResourcePieces(show(provider)), store}
				},
			})
		})
	}
}
