package blobhttp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
)

// BenchmarkServe downloads 256 MiB over the loopback: from a plain file by
// [http.FileServer], and from a store.
func BenchmarkServe(b *testing.B) {
	const size = 256 << 20
	dir := b.TempDir()
	data := content(1, size)
	name := filepath.Join(dir, "plain")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		b.Fatal(err)
	}
	s := openStore(b, filepath.Join(dir, "cairn.db"), nil)
	h := add(b, s, data)
	files := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer files.Close()
	blobs := serve(b, blobhttp.NewHandler(s, nil))
	response := bao.ResponseSize(size, bao.All())
	for _, bb := range []struct {
		name string
		url  string
		size int64
	}{
		{"file", files.URL + "/plain", size},
		{"blob", fmt.Sprintf("%s/blob/%v", blobs.URL, h), size},
		{"bao", fmt.Sprintf("%s/bao/%v", blobs.URL, h), response},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(bb.size)
			buf := make([]byte, 1<<20)
			for b.Loop() {
				download(b, bb.url, bb.size, buf)
			}
		})
	}
}

// BenchmarkFetch downloads 64 MiB from one store to another.
func BenchmarkFetch(b *testing.B) {
	const size = 64 << 20
	s := openStore(b, filepath.Join(b.TempDir(), "cairn.db"), nil)
	h := add(b, s, content(1, size))
	server := serve(b, blobhttp.NewHandler(s, nil))
	to := openStore(b, filepath.Join(b.TempDir(), "cairn.db"), nil)
	b.SetBytes(size)
	for b.Loop() {
		report, err := blobhttp.Fetch(b.Context(), to, server.URL, h, nil)
		if err != nil || report.State != cairn.Complete {
			b.Fatalf("%+v, %v", report, err)
		}
		b.StopTimer()
		if err := to.Delete(b.Context(), h); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func download(b *testing.B, url string, size int64, buf []byte) {
	resp, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var got int64
	for {
		n, err := resp.Body.Read(buf)
		got += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if got != size || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s, %d bytes", resp.Status, got)
	}
}
