package blobhttp_test

import (
	"bytes"
	"encoding/base32"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
	"lukechampine.com/blake3"
)

// openStore opens a store that must close without an error.
func openStore(t testing.TB, path string, opts *cairn.Options) *cairn.Store {
	t.Helper()
	s, err := cairn.Open(t.Context(), path, opts)
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

func tempPath(t testing.TB) string { return filepath.Join(t.TempDir(), "cairn.db") }

// content returns n pseudo-random bytes, the same for the same seed.
func content(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func hashOf(b []byte) cairn.Hash { return cairn.Hash(blake3.Sum256(b)) }

func base32Of(h cairn.Hash) string {
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h[:]))
}

func parse(t testing.TB, text string) bao.Ranges {
	t.Helper()
	r, err := bao.ParseRanges(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func add(t testing.TB, s *cairn.Store, b []byte) cairn.Hash {
	t.Helper()
	tag, err := s.AddBytes(t.Context(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tag.Release()
	return tag.Hash()
}

// respond returns the response of a store to a request.
func respond(t testing.TB, s *cairn.Store, h cairn.Hash, ranges string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.ExportBao(t.Context(), h, parse(t, ranges), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// copyRanges brings ranges of a blob from one store to another.
func copyRanges(t testing.TB, from, to *cairn.Store, h cairn.Hash, ranges string) {
	t.Helper()
	r := bytes.NewReader(respond(t, from, h, ranges))
	if err := to.ImportBao(t.Context(), h, parse(t, ranges), r); err != nil {
		t.Fatal(err)
	}
}

func mustHave(t testing.TB, s *cairn.Store, want []byte) {
	t.Helper()
	b, err := s.Blob(t.Context(), hashOf(want))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d: %v", len(got), len(want), err)
	}
}

func mustBeAbsent(t testing.TB, s *cairn.Store, h cairn.Hash) {
	t.Helper()
	if status, err := s.Status(t.Context(), h); err != nil || status.State != cairn.Absent {
		t.Errorf("%v: %+v, %v", h, status, err)
	}
}

// serve starts a server that ends, with all its connections, with the test.
func serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config = blobhttp.NewServer(h)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// do sends a request with some header fields, "Name: value" each and joined by
// "|". The response must come whole.
func do(t testing.TB, method, url, header string, body io.Reader) (*http.Response, []byte) {
	t.Helper()
	resp, got, err := try(t, method, url, header, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, got
}

func try(t testing.TB, method, url, header string, body io.Reader) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.SplitSeq(header, "|") {
		if name, value, ok := strings.Cut(field, ": "); ok {
			req.Header.Set(name, value)
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirects
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp, got, err
}

// mustBeHarmless checks the header fields that keep browsers from running
// anything.
func mustBeHarmless(t testing.TB, resp *http.Response) {
	t.Helper()
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" ||
		resp.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" ||
		resp.Header.Get("Content-Security-Policy") != "default-src 'none'; sandbox" {
		t.Errorf("%v: %s: %v", resp.Request, resp.Status, resp.Header)
	}
}

// mustBePlain checks an answer that is an error.
func mustBePlain(t testing.TB, resp *http.Response) {
	t.Helper()
	mustBeHarmless(t, resp)
	if resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" ||
		resp.Header.Get("Etag") != "" || strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("%s %s: %s: %v", resp.Request.Method, resp.Request.URL, resp.Status, resp.Header)
	}
}

// A counting reader has no end.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.n
	}
	c.n++
	return len(p), nil
}
