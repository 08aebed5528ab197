package torrent_test

import (
	"fmt"
	"testing"

	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

// manyPieces fills a store with complete pieces of a torrent, and returns it.
func manyPieces(t testing.TB, n int) *cairntorrent.Storage {
	t.Helper()
	store := openStore(t, "", &cairn.Options{Durability: cairn.Relaxed})
	s := cairntorrent.New(store, nil)
	info := infoOfSize(int64(n), 1)
	tor := openTorrent(t, s, info, infoHash("many"))
	done := make(chan int)
	for w := range 16 {
		go func() {
			for i := w; i < n; i += 16 {
				fill(t, pieceOf(tor, info, i), []byte{byte(i), byte(i >> 8)}[:1])
			}
			done <- w
		}()
	}
	for range 16 {
		<-done
	}
	return s
}

// BenchmarkOpenTorrent opens a torrent and asks for the completion of all of its
// pieces, as the client does.
func BenchmarkOpenTorrent(b *testing.B) {
	for _, n := range []int{1000, 50_000} {
		b.Run(fmt.Sprintf("pieces=%d", n), func(b *testing.B) {
			s := manyPieces(b, n)
			info := infoOfSize(int64(n), 1)
			for b.Loop() {
				tor := openTorrent(b, s, info, infoHash("many"))
				for i := range n {
					if !pieceOf(tor, info, i).Completion().Complete {
						b.Fatal(i)
					}
				}
				tor.Close()
			}
		})
	}
}
