package torrent_test

import (
	"flag"
	"fmt"
	"sync"
	"testing"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

var transferMiB = flag.Int("transfer", 128, "MiB that BenchmarkTransfer transfers; 1024 in the long run")

// BenchmarkTransfer downloads a torrent over loopback, from a client that has it
// in a file.
func BenchmarkTransfer(b *testing.B) {
	data := content(1, *transferMiB<<20)
	for _, pieceLength := range []int64{256 << 10, 1 << 20, 4 << 20} {
		mi := describe(b, "transfer", data, pieceLength)
		for _, c := range []struct {
			name string
			open func(b *testing.B) storage.ClientImpl
		}{
			{"File", func(b *testing.B) storage.ClientImpl { return storage.NewFile(b.TempDir()) }},
			{"FileNoFlush", func(b *testing.B) storage.ClientImpl { return fileStorage(b, b.TempDir()) }},
			{"Cairn", func(b *testing.B) storage.ClientImpl { return openStorage(b, tempPath(b), nil) }},
		} {
			b.Run(fmt.Sprintf("piece=%dKiB/%s", pieceLength>>10, c.name), func(b *testing.B) {
				from := seed(b, mi, data)
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					b.StopTimer()
					to := newClient(b, clientConfig(c.open(b)))
					b.StartTimer()
					download(b, from, to, mi).Drop()
				}
			})
		}
	}
}

// BenchmarkOpenTorrent opens a torrent and asks for the completion of all of its
// pieces, as the client does.
func BenchmarkOpenTorrent(b *testing.B) {
	for _, n := range []int{1000, 50_000} {
		b.Run(fmt.Sprintf("pieces=%d", n), func(b *testing.B) {
			store := openStore(b, "", &cairn.Options{Durability: cairn.Relaxed})
			s := cairntorrent.New(store, nil)
			info := infoOfSize(int64(n), 1)
			fillAll(b, openTorrent(b, s, info, infoHash("many")), info)
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

// fillAll completes all pieces of a torrent whose pieces have one byte.
func fillAll(t testing.TB, tor *storage.Torrent, info *metainfo.Info) {
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			for i := w; i < info.NumPieces(); i += 16 {
				fill(t, pieceOf(tor, info, i), []byte{byte(i)})
			}
		})
	}
	writers.Wait()
}
