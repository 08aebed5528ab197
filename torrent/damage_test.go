package torrent_test

import (
	"io"
	"testing"

	"github.com/anacrolix/torrent/storage"
	cairntorrent "github.com/cairnstore/cairn/torrent"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// damage changes a byte of every stored group of a database that is closed.
func damage(t *testing.T, path string) {
	t.Helper()
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const text = `update "row" set data = cast(substr(data, 1, length(data) - 1) || x'55' as blob)`
	if err := sqlitex.ExecuteTransient(conn, text, nil); err != nil {
		t.Fatal(err)
	}
}

// TestDamage damages all pieces of a torrent that is complete. What is wrong is
// never returned: it is fetched again, and the client needs not be told.
func TestDamage(t *testing.T) {
	data := content(8, 1<<20)
	mi := describe(t, "damage", data, 1<<17)
	from := seed(t, mi, data)
	path := tempPath(t)
	s, err := cairntorrent.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, clientConfig(s))
	download(t, from, client, mi)
	client.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damage(t, path)

	s = openStorage(t, path, nil)
	client = newClient(t, clientConfig(s))
	mustHold(t, download(t, from, client, mi), data)
	mustTrust(t, client)
	mustBeSound(t, s.Store())
	info := infoOf(t, mi)
	tor := openTorrent(t, s, info, mi.HashInfoBytes())
	for i := range info.NumPieces() {
		mustBeState(t, pieceOf(tor, info, i), complete)
		mustHash(t, pieceOf(tor, info, i), data[i<<17:(i+1)<<17])
	}
}

// TestDamagedPiece reads and hashes damaged pieces of two torrents that have the
// same content, and writes them anew.
func TestDamagedPiece(t *testing.T) {
	path, data := tempPath(t), content(9, 4*blockSize)
	info := infoOfSize(int64(len(data)), int64(len(data)))
	s, err := cairntorrent.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		fill(t, pieceOf(openTorrent(t, s, info, infoHash(name)), info, 0), data)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damage(t, path)

	s = openStorage(t, path, nil)
	a := pieceOf(openTorrent(t, s, info, infoHash("a")), info, 0)
	if _, err := a.WriteTo(io.Discard); err != io.EOF {
		t.Errorf("a damaged piece was hashed: %v", err)
	}
	mustBeState(t, a, absent)
	b := pieceOf(openTorrent(t, s, info, infoHash("b")), info, 0)
	mustRead(t, b, 0, nil, io.EOF)
	mustBeState(t, b, absent)
	for _, p := range []storage.Piece{a, b} {
		fill(t, p, data)
		mustHash(t, p, data)
	}
	mustBeSound(t, s.Store())
}
