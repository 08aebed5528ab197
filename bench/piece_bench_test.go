package main

import (
	"fmt"
	"testing"

	test_storage "github.com/anacrolix/torrent/storage/test"
	"github.com/cairnstore/cairn/bao"
)

// BenchmarkPiece writes pieces of one group and completes them, in the way of
// a torrent client.
func BenchmarkPiece(b *testing.B) {
	for _, conns := range []int{1, blockConns} {
		b.Run(fmt.Sprintf("size=16KiB/conns=%d", conns), func(b *testing.B) {
			s := benchStore(b)
			b.SetBytes(bao.GroupSize)
			benchParallel(b, conns, func(i int, buf []byte) error {
				fill(buf, i)
				return writePiece(s, pieceKey("bench", i), buf)
			})
		})
	}
}

// BenchmarkPieceMarkComplete is the benchmark of anacrolix/torrent.
func BenchmarkPieceMarkComplete(b *testing.B) {
	for _, peer := range markPeers {
		b.Run("storage="+peer, func(b *testing.B) {
			s, err := storageOpeners[peer](b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := s.Close(); err != nil {
					b.Error(err)
				}
			})
			test_storage.BenchmarkPieceMarkComplete(b, s, test_storage.DefaultPieceSize, test_storage.DefaultNumPieces, 0)
		})
	}
}
