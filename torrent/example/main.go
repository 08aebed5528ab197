// Command example seeds a folder, downloads it with a second client into one
// SQLite file, over loopback, and compares the files.
//
//	go run ./torrent/example [FOLDER]
//
// Without a folder it makes one of some files, 30 MB, and removes it again.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	g "github.com/anacrolix/generics"
	alog "github.com/anacrolix/log"
	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	cairntorrent "github.com/cairnstore/cairn/torrent"
)

func main() {
	dir, err := os.MkdirTemp("", "cairn-example-")
	if err != nil {
		log.Fatal(err)
	}
	folder := filepath.Join(dir, "folder")
	if len(os.Args) > 1 {
		folder, err = filepath.Abs(os.Args[1])
	} else {
		err = makeFolder(folder)
	}
	if err == nil {
		err = run(context.Background(), folder, filepath.Join(dir, "cairn.db"))
	}
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// run seeds a folder from where it is, and downloads it to a database.
func run(ctx context.Context, folder, database string) error {
	files := storage.NewFileOpts(storage.NewFileClientOpts{
		ClientBaseDir:   filepath.Dir(folder),
		PieceCompletion: storage.NewMapPieceCompletion(),
		UsePartFiles:    g.Some(false), // leaves the folder as it is
	})
	defer files.Close()
	seeder, err := startClient(files)
	if err != nil {
		return err
	}
	defer seeder.Close()

	cairn, err := cairntorrent.Open(ctx, database, nil)
	if err != nil {
		return err
	}
	defer cairn.Close()
	leecher, err := startClient(cairn)
	if err != nil {
		return err
	}
	defer leecher.Close()

	meta, err := describe(folder)
	if err != nil {
		return err
	}
	seeding, err := seeder.AddTorrent(meta)
	if err != nil {
		return err
	}
	showProgress("verified", seeding)
	download, err := leecher.AddTorrent(meta)
	if err != nil {
		return err
	}
	download.AddClientPeer(seeder)
	download.DownloadAll()
	showProgress("downloaded", download)
	return compare(download, filepath.Dir(folder))
}

// startClient starts a client on loopback that talks only to whom it is told to.
func startClient(s storage.ClientImpl) (*torrent.Client, error) {
	config := torrent.NewDefaultClientConfig()
	config.DefaultStorage = s
	config.Seed = true
	config.ListenHost = torrent.LoopbackListenHost
	config.ListenPort = 0
	config.NoDHT = true
	config.DisableTrackers = true
	config.NoDefaultPortForwarding = true
	config.KeepAliveTimeout = time.Second // see the comment of package cairntorrent
	config.Logger = alog.Default.FilterLevel(alog.Error)
	return torrent.NewClient(config)
}

// describe makes the torrent of a folder.
func describe(folder string) (*metainfo.MetaInfo, error) {
	info := metainfo.Info{PieceLength: 256 << 10}
	if err := info.BuildFromFilePath(folder); err != nil {
		return nil, err
	}
	infoBytes, err := bencode.Marshal(info)
	return &metainfo.MetaInfo{InfoBytes: infoBytes}, err
}

// showProgress shows how much of a torrent there is until all of it is.
func showProgress(what string, t *torrent.Torrent) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-t.Complete().On():
			done = true
		case <-tick.C:
		}
		fmt.Printf("\r%s %.1f of %.1f MiB", what, float64(t.BytesCompleted())/(1<<20), float64(t.Length())/(1<<20))
	}
	fmt.Println()
}

// compare compares the files of a torrent with those below dir.
func compare(t *torrent.Torrent, dir string) error {
	for _, file := range t.Files() {
		original, err := os.Open(filepath.Join(dir, filepath.FromSlash(file.Path())))
		if err != nil {
			return err
		}
		downloaded := file.NewReader()
		want, got := sha256.New(), sha256.New()
		_, err = io.Copy(want, original)
		original.Close()
		if err == nil {
			_, err = io.CopyN(got, downloaded, file.Length()) // it may go on with the next file
		}
		downloaded.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", file.Path(), err)
		}
		if string(want.Sum(nil)) != string(got.Sum(nil)) {
			return fmt.Errorf("%s differs", file.Path())
		}
	}
	fmt.Println(len(t.Files()), "files are equal")
	return nil
}

// makeFolder makes a folder of a few random files.
func makeFolder(folder string) error {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	for i, size := range []int{20 << 20, 10_000_000, 1} {
		data := make([]byte, size)
		rand.Read(data)
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprint("file", i)), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
