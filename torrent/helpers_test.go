package torrent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/anacrolix/log"
	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		if err := runChild(role); err != nil {
			slog.Error("child", "err", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// patience bounds what must come to an end by itself.
const patience = 2 * time.Minute

// openStorage opens a Storage that must close without an error.
func openStorage(t testing.TB, path string, opts *cairntorrent.Options) *cairntorrent.Storage {
	t.Helper()
	s, err := cairntorrent.Open(t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openStore opens a store that must close without an error and be sound then.
func openStore(t testing.TB, path string, opts *cairn.Options) *cairn.Store {
	t.Helper()
	s, err := cairn.Open(t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mustBeSound(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// mustBeSound fails the test for every problem that Check finds.
func mustBeSound(t testing.TB, s *cairn.Store) {
	t.Helper()
	for p, err := range s.Check(context.Background(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		t.Error(p)
	}
}

func tempPath(t testing.TB) string { return filepath.Join(t.TempDir(), "cairn.db") }

// capped are options with a capacity.
func capped(bytes int64) *cairntorrent.Options {
	return &cairntorrent.Options{Store: &cairn.Options{Capacity: bytes}}
}

// content returns n pseudo-random bytes, the same for the same seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	src.Read(b)
	return b
}

// describe returns the torrent of one file with the given content.
func describe(t testing.TB, name string, data []byte, pieceLength int64) *metainfo.MetaInfo {
	t.Helper()
	info := metainfo.Info{Name: name, Length: int64(len(data)), PieceLength: pieceLength}
	err := info.GeneratePieces(func(metainfo.FileInfo) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	infoBytes, err := bencode.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	return &metainfo.MetaInfo{InfoBytes: infoBytes}
}

func infoOf(t testing.TB, mi *metainfo.MetaInfo) *metainfo.Info {
	t.Helper()
	info, err := mi.UnmarshalInfo()
	if err != nil {
		t.Fatal(err)
	}
	return &info
}

// clientConfig returns the configuration of a client that talks to nobody but
// whom it is told to, on loopback.
func clientConfig(s storage.ClientImpl) *torrent.ClientConfig {
	config := torrent.NewDefaultClientConfig()
	config.ListenHost = torrent.LoopbackListenHost
	config.ListenPort = 0
	config.NoDHT = true
	config.DisableTrackers = true
	config.DisablePEX = true
	config.DisableUTP = true
	config.DisableIPv6 = true
	config.NoDefaultPortForwarding = true
	config.DisableAcceptRateLimiting = true
	config.Seed = true
	config.DropMutuallyCompletePeers = false         // they may come to lose something
	config.KeepAliveTimeout = 200 * time.Millisecond // as the package comment recommends
	config.DefaultStorage = s
	config.Logger = log.Default.FilterLevel(log.Disabled)
	config.Slogger = slog.New(slog.DiscardHandler)
	return config
}

// newClient starts a client that is closed before its storage.
func newClient(t testing.TB, config *torrent.ClientConfig) *torrent.Client {
	t.Helper()
	client, err := torrent.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(client.Close()...); err != nil {
			t.Error(err)
		}
	})
	return client
}

// addTorrent adds a torrent, the info of which is given, to a client.
func addTorrent(t testing.TB, client *torrent.Client, mi *metainfo.MetaInfo) *torrent.Torrent {
	t.Helper()
	spec, err := torrent.TorrentSpecFromMetaInfoErr(mi)
	if err != nil {
		t.Fatal(err)
	}
	if spec.InfoHash.IsZero() { // the client wants a short hash of a v2 torrent, too
		spec.InfoHash = *spec.InfoHashV2.Value.ToShort()
		spec.InfoHashV2.SetNone()
	}
	tor, _, err := client.AddTorrentSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	return tor
}

// seed starts a client that has the content of a torrent, in a file.
func seed(t testing.TB, mi *metainfo.MetaInfo, data []byte) *torrent.Client {
	t.Helper()
	dir := t.TempDir()
	info := infoOf(t, mi)
	if err := os.WriteFile(filepath.Join(dir, info.Name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, clientConfig(fileStorage(t, dir)))
	tor := addTorrent(t, client, mi)
	wait(t, "the seeder verifies", tor.Complete().On())
	return client
}

// fileStorage returns the client's own storage in plain files.
func fileStorage(t testing.TB, dir string) storage.ClientImpl {
	s := storage.NewFileOpts(storage.NewFileClientOpts{
		ClientBaseDir:   dir,
		PieceCompletion: storage.NewMapPieceCompletion(),
		Logger:          slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { s.Close() })
	return s
}

// wait fails the test if a channel stays open.
func wait(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("this does not come to an end: ", what)
	}
}

// connect tells a torrent of its peers.
func connect(tor *torrent.Torrent, addresses ...string) {
	var peers []torrent.PeerInfo
	for _, address := range addresses {
		peers = append(peers, torrent.PeerInfo{Addr: stringAddr(address), Trusted: true})
	}
	tor.AddPeers(peers)
}

// stringAddr is the address of a peer.
type stringAddr string

func (a stringAddr) String() string { return string(a) }

// address returns where a client listens.
func address(client *torrent.Client) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(client.LocalPort()))
}

// download has a client fetch a whole torrent from another, and returns it.
func download(t testing.TB, from, to *torrent.Client, mi *metainfo.MetaInfo) *torrent.Torrent {
	t.Helper()
	tor := addTorrent(t, to, mi)
	tor.DownloadAll()
	connect(tor, address(from))
	wait(t, "the download", tor.Complete().On())
	return tor
}

// mustHold fails the test if a torrent, read through the client, is not data.
func mustHold(t testing.TB, tor *torrent.Torrent, data []byte) {
	t.Helper()
	r := tor.NewReader()
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.SetContext(ctx)
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("%d bytes differ from the %d that were seeded", len(got), len(data))
	}
}
