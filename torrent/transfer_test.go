package torrent_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	g "github.com/anacrolix/generics"
	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

// mustTrust fails the test if a client has banned anybody.
func mustTrust(t testing.TB, client *torrent.Client) {
	t.Helper()
	if banned := client.BadPeerIPs(); len(banned) > 0 {
		t.Errorf("honest peers were banned: %v", banned)
	}
}

// TestTransfer downloads a torrent, and seeds it on from the store.
func TestTransfer(t *testing.T) {
	data := content(1, 5<<20+12345)
	mi := describe(t, "transfer", data, 1<<18)
	store := openStore(t, tempPath(t), nil)
	s := cairntorrent.New(store, nil)
	defer s.Close()
	middle := newClient(t, clientConfig(s))
	mustHold(t, download(t, seed(t, mi, data), middle, mi), data)
	usage, err := s.Owner(mi.HashInfoBytes()).Usage(t.Context())
	if err != nil || usage.Bytes != int64(len(data)) {
		t.Errorf("the torrent takes %d bytes of %d, error %v", usage.Bytes, len(data), err)
	}
	last := newClient(t, clientConfig(openStorage(t, tempPath(t), &cairntorrent.Options{DurableBlocks: true})))
	mustHold(t, download(t, middle, last, mi), data)
	mustTrust(t, last)
}

// TestTransferBounded reads torrents that are larger than what may be kept of
// them: by the store's capacity, which may be one piece, or by a quota.
func TestTransferBounded(t *testing.T) {
	const pieceLength, pieces = 64 << 10, 20
	data := content(2, pieces*pieceLength-1000)
	mi := describe(t, "bounded", data, pieceLength)
	from := seed(t, mi, data)
	type test struct {
		capacity, quota int64
		readahead       int64
		responsive      bool
	}
	var tests []test
	for _, limit := range []int64{pieceLength, 3*pieceLength + 500, 8 * pieceLength} {
		for _, readahead := range []int64{0, 2 * pieceLength, 1 << 30} {
			tests = append(tests,
				test{capacity: limit, readahead: readahead},
				test{capacity: limit, readahead: readahead, responsive: true},
				test{capacity: cairn.Unlimited, quota: limit, readahead: readahead},
			)
		}
	}
	for _, c := range tests {
		t.Run(fmt.Sprintf("capacity=%d,quota=%d,readahead=%d,responsive=%v", c.capacity, c.quota, c.readahead, c.responsive), func(t *testing.T) {
			t.Parallel()
			s := openStorage(t, tempPath(t), capped(c.capacity))
			if c.quota > 0 {
				if err := s.Owner(mi.HashInfoBytes()).SetQuota(t.Context(), c.quota); err != nil {
					t.Fatal(err)
				}
			}
			client := newClient(t, clientConfig(s))
			tor := addTorrent(t, client, mi)
			connect(tor, address(from))
			r := tor.NewReader()
			defer r.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r.SetContext(ctx)
			r.SetReadahead(c.readahead)
			if c.responsive {
				r.SetResponsive()
			}
			for range 2 {
				mustReadAll(t, r, data)
			}
			mustTrust(t, client)
			usage, err := s.Owner(mi.HashInfoBytes()).Usage(t.Context())
			if err != nil || usage.Bytes > max(c.capacity, c.quota) {
				t.Errorf("%d bytes are kept, error %v", usage.Bytes, err)
			}
		})
	}
}

// mustReadAll reads from the start.
func mustReadAll(t testing.TB, r io.ReadSeeker, data []byte) {
	t.Helper()
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %d of %d bytes: %v", len(got), len(data), err)
	}
	if string(got) != string(data) {
		t.Fatalf("%d bytes differ from the %d that were seeded", len(got), len(data))
	}
}

// TestReadersOfSmallCapacity has two readers at different places of a torrent
// of which only a few pieces fit.
func TestReadersOfSmallCapacity(t *testing.T) {
	const pieceLength = 32 << 10
	data := content(3, 24*pieceLength)
	mi := describe(t, "readers", data, pieceLength)
	s := openStorage(t, tempPath(t), capped(4*pieceLength))
	client := newClient(t, clientConfig(s))
	tor := addTorrent(t, client, mi)
	connect(tor, address(seed(t, mi, data)))
	var readers sync.WaitGroup
	for i := range 2 {
		readers.Go(func() {
			r := tor.NewReader()
			defer r.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r.SetContext(ctx)
			off := i * 12 * pieceLength
			if _, err := r.Seek(int64(off), io.SeekStart); err != nil {
				t.Error(err)
			}
			b := make([]byte, 12*pieceLength)
			if n, err := io.ReadFull(r, b); err != nil || string(b) != string(data[off:off+len(b)]) {
				t.Errorf("reader %d: %d bytes, error %v", i, n, err)
			}
		})
	}
	readers.Wait()
	mustTrust(t, client)
}

// waits is a handler for the log that tells when a write waits for room.
type waits chan struct{}

func (w waits) Enabled(context.Context, slog.Level) bool { return true }
func (w waits) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w waits) WithGroup(string) slog.Handler            { return w }
func (w waits) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "a write waits" {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	return nil
}

// TestFullOfPins fills the capacity with what may not be evicted, in the middle
// of a transfer. It goes on when there is room.
func TestFullOfPins(t *testing.T) {
	const pieceLength, pieces = 64 << 10, 16
	data := content(4, pieces*pieceLength)
	mi := describe(t, "pins", data, pieceLength)
	hash := mi.HashInfoBytes().HexString()
	store := openStore(t, tempPath(t), &cairn.Options{Capacity: pieces * pieceLength})
	waiting := make(waits, 1)
	s := cairntorrent.New(store, &cairntorrent.Options{Logger: slog.New(waiting)})
	defer s.Close()
	var foreign, own cairn.Window
	for i := range pieces {
		own.Keys = append(own.Keys, fmt.Sprintf("%s/%08d", hash, i))
		if i < pieces-5 {
			key := fmt.Sprintf("foreign/%d", i)
			if _, err := store.PutPiece(t.Context(), key, strings.NewReader(string(content(uint64(i)+100, pieceLength))), pieceLength, nil); err != nil {
				t.Fatal(err)
			}
			foreign.Keys = append(foreign.Keys, key)
		}
	}
	inTheWay, err := store.Pin(t.Context(), foreign)
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := store.Pin(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	defer wanted.Release()
	client := newClient(t, clientConfig(s))
	tor := addTorrent(t, client, mi)
	tor.DownloadAll()
	connect(tor, address(seed(t, mi, data)))
	wait(t, "until the capacity is full", waiting)
	inTheWay.Release()
	wait(t, "the rest", tor.Complete().On())
	mustHold(t, tor, data)
	mustTrust(t, client)
	for i := range pieces {
		mustBeState(t, pieceOf(openTorrent(t, s, infoOf(t, mi), mi.HashInfoBytes()), infoOf(t, mi), i), complete)
	}
}

// TestWaitEnds closes a torrent, and a storage, whose writes wait for room.
func TestWaitEnds(t *testing.T) {
	for _, end := range []string{"torrent", "storage", "removed"} {
		t.Run(end, func(t *testing.T) {
			store := openStore(t, ":memory:", &cairn.Options{Capacity: blockSize})
			waiting := make(waits, 1)
			s := cairntorrent.New(store, &cairntorrent.Options{Logger: slog.New(waiting), Buffer: -1})
			info, hash := infoOfSize(2*blockSize, blockSize), infoHash("ends")
			tor := openTorrent(t, s, info, hash)
			fill(t, pieceOf(tor, info, 0), content(1, blockSize))
			pin, err := store.Pin(t.Context(), cairn.Window{Keys: []string{hash.HexString() + "/00000000"}})
			if err != nil {
				t.Fatal(err)
			}
			result := make(chan error)
			go func() {
				_, err := pieceOf(tor, info, 1).WriteAt(content(2, blockSize), 0)
				result <- err
			}()
			wait(t, "until there is no room", waiting)
			switch end {
			case "torrent":
				err = tor.Close()
			case "storage":
				err = s.Close()
			case "removed":
				pin.Release()
				err = s.RemoveTorrent(t.Context(), hash)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := <-result; end != "removed" || err != nil {
				mustBe(t, err, cairn.ErrClosed)
			}
			pin.Release()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A vanishing storage loses each piece before it is hashed for the first time.
type vanishing struct {
	*cairntorrent.Storage
	lost *sync.Map
}

func (v vanishing) OpenTorrent(ctx context.Context, info *metainfo.Info, hash metainfo.Hash) (storage.TorrentImpl, error) {
	impl, err := v.Storage.OpenTorrent(ctx, info, hash)
	open := impl.PieceWithHash
	impl.Piece = nil
	impl.PieceWithHash = func(p metainfo.Piece, pieceHash g.Option[[]byte]) storage.PieceImpl {
		return vanishingPiece{open(p, pieceHash), v, fmt.Sprintf("%s/%08d", hash.HexString(), p.Index())}
	}
	return impl, err
}

type vanishingPiece struct {
	storage.PieceImpl
	v   vanishing
	key string
}

func (p vanishingPiece) WriteTo(w io.Writer) (int64, error) {
	if _, lost := p.v.lost.LoadOrStore(p.key, true); !lost {
		if n, err := p.v.Store().DeletePieces(context.Background(), p.key); n != 1 || err != nil {
			return 0, fmt.Errorf("%d pieces deleted: %w", n, err)
		}
	}
	return p.PieceImpl.(io.WriterTo).WriteTo(w)
}

// TestVanishedChunks loses chunks that peers have sent before they are hashed.
// They are fetched again, from the same peers.
func TestVanishedChunks(t *testing.T) {
	data := content(5, 3<<20)
	mi := describe(t, "vanishing", data, 1<<18)
	s := openStorage(t, tempPath(t), nil)
	client := newClient(t, clientConfig(vanishing{s, new(sync.Map)}))
	tor := download(t, seed(t, mi, data), client, mi)
	mustHold(t, tor, data)
	mustTrust(t, client)
}

// TestEvictedAfterCompletion evicts what the client knows to be complete.
func TestEvictedAfterCompletion(t *testing.T) {
	data := content(6, 2<<20)
	mi := describe(t, "evicted", data, 1<<17)
	for _, bounded := range []bool{false, true} {
		opts := &cairntorrent.Options{Store: &cairn.Options{Capacity: cairn.Unlimited}}
		if bounded {
			opts.Store.Capacity = 4 << 20
		}
		s := openStorage(t, tempPath(t), opts)
		client := newClient(t, clientConfig(s))
		tor := download(t, seed(t, mi, data), client, mi)
		for range 2 {
			if err := s.Store().SetCapacity(t.Context(), 1<<20); err != nil {
				t.Fatal(err)
			}
			if err := s.Store().SetCapacity(t.Context(), 4<<20); err != nil {
				t.Fatal(err)
			}
			mustHold(t, tor, data)
		}
		mustTrust(t, client)
	}
}

// TestClientOnClosedStorage has a client open a torrent on a storage that has
// been closed.
func TestClientOnClosedStorage(t *testing.T) {
	s := openStorage(t, tempPath(t), nil)
	client := newClient(t, clientConfig(s))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	infoBytes, err := bencode.Marshal(infoOfSize(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	tor := addTorrent(t, client, &metainfo.MetaInfo{InfoBytes: infoBytes})
	wait(t, "the info", tor.GotInfo())
}
