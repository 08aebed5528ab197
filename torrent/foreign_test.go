package torrent_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
)

// python returns a Python that has libtorrent, or skips the test.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import libtorrent").Run() == nil {
			return name
		}
	}
	t.Skip("libtorrent is not installed (Debian: python3-libtorrent)")
	return ""
}

// start starts a program that ends with the test, if not before, and returns
// the lines it prints.
func start(t *testing.T, name string, args ...string) *bufio.Scanner {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, &stderr)
		}
	})
	return bufio.NewScanner(out)
}

// The sizes of files in the folder of a torrent. What follows a file in a v2
// torrent is aligned, and the client cannot serve the short block before; and
// it can fail an assertion while it waits for the hashes of a file that is
// larger than a piece. Both are so with any storage.
var (
	oddSizes   = []int{1 << 20, 1, 65536, 65535, 300_001, 20}
	blockSizes = []int{1 << 20, 1 << 14, 65536, 49152, 294912}
	pieceSizes = []int{65536, 1 << 14, 65536, 49152, 1 << 15}
)

// writeFolder writes a folder of files of the given sizes, and returns its name
// and their content.
func writeFolder(t *testing.T, dir string, sizes []int) (name string, files map[string][]byte) {
	t.Helper()
	name, files = "folder", make(map[string][]byte)
	for i, size := range sizes {
		file := filepath.Join(name, fmt.Sprint(i%2), fmt.Sprintf("file%d", i))
		files[file] = content(uint64(i)+10, size)
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), files[file], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return name, files
}

// mustHoldFiles compares the files of a torrent with those of a folder.
func mustHoldFiles(t *testing.T, tor *torrent.Torrent, files map[string][]byte) {
	t.Helper()
	found := 0
	for _, f := range tor.Files() {
		want, ok := files[filepath.FromSlash(f.Path())]
		if !ok {
			continue // padding
		}
		found++
		mustReadAll(t, io.NewSectionReader(fromStorage{tor}, f.Offset(), f.Length()), want)
	}
	if found != len(files) {
		t.Errorf("%d files of %d", found, len(files))
	}
}

// fromStorage reads a torrent from its storage, as a client's reader does not
// reach the last files of a v2 torrent.
type fromStorage struct{ *torrent.Torrent }

func (s fromStorage) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) && err == nil {
		p := s.Piece(int(off / s.Info().PieceLength))
		m, readErr := p.Storage().ReadAt(b[n:], off-p.Info().Offset())
		n, off = n+m, off+int64(m)
		if m == 0 {
			err = readErr
		}
	}
	return n, err
}

func mustHaveFiles(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, error %v", name, len(got), len(want), err)
		}
	}
}

// TestLibtorrent downloads torrents of all versions from libtorrent, and has
// libtorrent download them from Cairn.
func TestLibtorrent(t *testing.T) {
	python := python(t)
	const script = "testdata/peer.py"
	for version, sizes := range map[string][]int{"v1": oddSizes, "hybrid": blockSizes, "v2": pieceSizes} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			name, files := writeFolder(t, dir, sizes)
			file := filepath.Join(dir, "torrent")
			if out, err := exec.Command(python, script, "create", dir, name, version, file).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			mi, err := metainfo.LoadFromFile(file)
			if err != nil {
				t.Fatal(err)
			}
			seeder := start(t, python, script, "seed", file, dir)
			if !seeder.Scan() {
				t.Fatal("libtorrent does not seed")
			}
			s := openStorage(t, tempPath(t), nil)
			client := newClient(t, clientConfig(s))
			tor := addTorrent(t, client, mi)
			tor.DownloadAll()
			connect(tor, "127.0.0.1:"+seeder.Text())
			wait(t, "the download", tor.Complete().On())
			mustHoldFiles(t, tor, files)
			mustTrust(t, client)

			target := t.TempDir()
			leecher := start(t, python, script, "fetch", file, target, strconv.Itoa(client.LocalPort()))
			if !leecher.Scan() || leecher.Text() != "done" {
				t.Fatal("libtorrent does not download")
			}
			mustHaveFiles(t, target, files)
			mustBeSound(t, s.Store())
		})
	}
}

// tracker starts a tracker that tells everybody of the given peers.
func tracker(t *testing.T, peers ...string) (announce string) {
	t.Helper()
	var compact strings.Builder
	for _, peer := range peers {
		address, err := net.ResolveTCPAddr("tcp4", peer)
		if err != nil {
			t.Fatal(err)
		}
		compact.Write(address.IP.To4())
		compact.Write([]byte{byte(address.Port >> 8), byte(address.Port)})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(bencode.MustMarshal(map[string]any{"interval": 60, "peers": compact.String()}))
	}))
	t.Cleanup(server.Close)
	return server.URL + "/announce"
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// aria2c starts aria2c on loopback.
func aria2c(t *testing.T, dir, torrentFile string, args ...string) *bufio.Scanner {
	t.Helper()
	return start(t, "aria2c", append([]string{
		"--no-conf", "--dir=" + dir, "--interface=127.0.0.1", "--enable-dht=false", "--enable-dht6=false",
		"--bt-enable-lpd=false", "--enable-peer-exchange=false", "--file-allocation=none",
		"--summary-interval=0", "--torrent-file=" + torrentFile,
	}, args...)...)
}

// TestAria2c downloads from aria2c, and has aria2c download from Cairn.
func TestAria2c(t *testing.T) {
	if _, err := exec.LookPath("aria2c"); err != nil {
		t.Skip("aria2c is not installed (Debian: aria2)")
	}
	dir := t.TempDir()
	name, files := writeFolder(t, dir, oddSizes)
	info := metainfo.Info{PieceLength: 64 << 10}
	if err := info.BuildFromFilePath(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	mi := &metainfo.MetaInfo{InfoBytes: bencode.MustMarshal(info)}
	port := freePort(t)
	file := filepath.Join(dir, "torrent")
	mustSave(t, file, mi)
	seeder := aria2c(t, dir, file, "--listen-port="+port, "--check-integrity=true", "--seed-ratio=0")
	for seeder.Scan() && !strings.Contains(seeder.Text(), "Verification finished") {
	}

	s := openStorage(t, tempPath(t), nil)
	client := newClient(t, clientConfig(s))
	tor := addTorrent(t, client, mi)
	tor.DownloadAll()
	connect(tor, "127.0.0.1:"+port)
	wait(t, "the download", tor.Complete().On())
	mustHoldFiles(t, tor, files)
	mustTrust(t, client)

	mi.Announce = tracker(t, address(client))
	mustSave(t, file, mi)
	target := t.TempDir()
	leecher := aria2c(t, target, file, "--seed-time=0", "--listen-port="+freePort(t))
	for leecher.Scan() {
	}
	mustHaveFiles(t, target, files)
}
