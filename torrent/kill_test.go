package torrent_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
	cairntorrent "github.com/cairnstore/cairn/torrent"
	"golang.org/x/time/rate"
)

var (
	kills    = flag.Int("kills", 8, "how often TestKill kills a downloading process; 200 in the long run")
	killSeed = flag.Uint64("killseed", 0, "seed of the moments at which TestKill kills; 0 is a random one")
)

// childEnv tells a process of this test binary to be a leecher, in the
// directory that is its value.
const childEnv = "CAIRN_TORRENT_TEST_CHILD"

// runChild downloads the torrent DIR/torrent from the peer whose address is in
// DIR/peer to DIR/cairn.db. It prints each piece once that is complete, and
// "done".
func runChild(dir string) error {
	mi, err := metainfo.LoadFromFile(filepath.Join(dir, "torrent"))
	if err != nil {
		return err
	}
	peer, err := os.ReadFile(filepath.Join(dir, "peer"))
	if err != nil {
		return err
	}
	s, err := cairntorrent.Open(context.Background(), filepath.Join(dir, "cairn.db"), nil)
	if err != nil {
		return err
	}
	client, err := torrent.NewClient(clientConfig(s))
	if err != nil {
		return err
	}
	tor, err := client.AddTorrent(mi)
	if err != nil {
		return err
	}
	changes := tor.SubscribePieceStateChanges()
	for i := range tor.NumPieces() {
		if tor.PieceState(i).Complete {
			fmt.Println("complete", i)
		}
	}
	go func() {
		for change := range changes.Values {
			if change.Complete {
				fmt.Println("complete", change.Index)
			}
		}
	}()
	tor.DownloadAll()
	tor.AddPeers([]torrent.PeerInfo{{Addr: stringAddr(peer), Trusted: true}})
	<-tor.Complete().On()
	fmt.Println("done")
	_, err = io.Copy(io.Discard, os.Stdin) // until killed
	return err
}

// TestKill kills a downloading process at random moments, again and again on
// one database. Each piece that was complete stays so, no byte is wrong, and
// the download ends.
func TestKill(t *testing.T) {
	random := rand.New(rand.NewPCG(1, newSeed(t)))
	const pieceLength = 128 << 10
	dir := t.TempDir()
	data := content(random.Uint64(), 12<<20)
	mi := describe(t, "kill", data, pieceLength)
	from := limitedSeed(t, mi, data, 24<<20)
	mustSave(t, filepath.Join(dir, "torrent"), mi)
	if err := os.WriteFile(filepath.Join(dir, "peer"), []byte(address(from)), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "cairn.db")
	complete := make(map[int]bool)
	whole := 0
	for round := range *kills {
		done := runAndKill(t, dir, time.Duration(random.IntN(400))*time.Millisecond, complete)
		n := mustResume(t, path, mi, data, complete)
		t.Logf("kill %d: %d of %d pieces", round, n, len(data)/pieceLength)
		if done {
			whole++
			removeDatabase(t, path)
			clear(complete)
		}
	}
	t.Logf("%d downloads came to their end", whole)
	s := openStorage(t, path, nil)
	mustHold(t, download(t, from, newClient(t, clientConfig(s)), mi), data)
	mustBeSound(t, s.Store())
}

// newSeed returns the seed of a random test, and prints it.
func newSeed(t *testing.T) uint64 {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-killseed %d", seed)
	return seed
}

// limitedSeed seeds at a limited number of bytes per second.
func limitedSeed(t *testing.T, mi *metainfo.MetaInfo, data []byte, bytesPerSecond int) *torrent.Client {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, infoOf(t, mi).Name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	config := clientConfig(fileStorage(t, dir))
	config.UploadRateLimiter = rate.NewLimiter(rate.Limit(bytesPerSecond), 1<<20)
	client := newClient(t, config)
	wait(t, "the seeder verifies", addTorrent(t, client, mi).Complete().On())
	return client
}

func mustSave(t *testing.T, name string, mi *metainfo.MetaInfo) {
	t.Helper()
	var buf bytes.Buffer
	if err := mi.Write(&buf); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runAndKill runs a child, kills it after a while, notes what it said was
// complete, and reports whether it had done all.
func runAndKill(t *testing.T, dir string, after time.Duration, complete map[int]bool) (done bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer timer.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var piece int
		if lines.Text() == "done" {
			done = true
			cmd.Process.Kill()
		} else if _, err := fmt.Sscanf(lines.Text(), "complete %d\n", &piece); err == nil {
			complete[piece] = true
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return done
}

// mustResume checks what a killed process has left, and returns the number of
// complete pieces.
func mustResume(t *testing.T, path string, mi *metainfo.MetaInfo, data []byte, acknowledged map[int]bool) (n int) {
	t.Helper()
	s, err := cairntorrent.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustBeSound(t, s.Store())
	info := infoOf(t, mi)
	tor, err := storage.NewClient(s).OpenTorrent(t.Context(), info, mi.HashInfoBytes())
	if err != nil {
		t.Fatal(err)
	}
	for i := range info.NumPieces() {
		p := pieceOf(tor, info, i)
		c := p.Completion()
		if !c.Ok || c.Err != nil || !c.Complete && acknowledged[i] {
			t.Errorf("piece %d, which was complete: %v, is %+v", i, acknowledged[i], c)
		}
		if c.Complete {
			n++
			h := sha1.New()
			if _, err := p.WriteTo(h); err != nil || !bytes.Equal(h.Sum(nil), info.Piece(i).V1Hash().Value.Bytes()) {
				t.Errorf("piece %d is wrong, error %v", i, err)
			}
		}
	}
	mustBeWritten(t, s.Store(), data, info.PieceLength)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// mustBeWritten compares the bytes that are there of incomplete pieces, too.
func mustBeWritten(t *testing.T, store *cairn.Store, data []byte, pieceLength int64) {
	t.Helper()
	for info, err := range store.Pieces(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		index, err := strconv.Atoi(filepath.Base(info.Key))
		if err != nil {
			t.Fatal(err)
		}
		p, err := store.OpenPiece(t.Context(), info.Key)
		if err != nil {
			t.Fatal(err)
		}
		ranges, err := p.Written(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range ranges {
			b := make([]byte, r.End-r.Start)
			if n, err := p.ReadAt(b, r.Start); n < len(b) {
				t.Fatal(err)
			}
			if start := int64(index)*pieceLength + r.Start; !bytes.Equal(b, data[start:start+int64(len(b))]) {
				t.Errorf("piece %d is wrong at %d", index, r.Start)
			}
		}
		p.Close()
	}
}

func removeDatabase(t *testing.T, path string) {
	t.Helper()
	for _, end := range []string{"", "-wal", "-shm", "-journal", "-lock"} {
		if err := os.Remove(path + end); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}
