package blobhttp_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
)

// TestRanges asks for parts of a blob in every way.
func TestRanges(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	const size = 1_200_000 // several pieces
	data := content(1, size)
	h := add(t, s, data)
	url := serve(t, blobhttp.NewHandler(s, nil)).URL + "/blob/" + h.String()
	etag := `"` + h.String() + `"`
	for _, tt := range []struct {
		header string // "Name: value", several joined by |
		code   int
		start  int
		end    int
	}{
		{"", 200, 0, size},
		{"Range: bytes=0-0", 206, 0, 1},
		{"Range: bytes=0-", 206, 0, size},
		{"Range: bytes=5-16390", 206, 5, 16391},
		{"Range: bytes=16384-32767", 206, 16384, 32768},
		{"Range: bytes=700000-1150000", 206, 700_000, 1_150_001},
		{"Range: bytes=1199999-", 206, size - 1, size},
		{"Range: bytes=1199990-99999999", 206, size - 10, size},
		{"Range: bytes=-7", 206, size - 7, size},
		{"Range: bytes=-99999999", 206, 0, size},
		{"Range: bytes=1200000-", 416, 0, 0},
		{"Range: bytes=5-4", 416, 0, 0},
		{"Range: bytes=-0", 416, 0, 0},
		{"Range: bytes=0-1, -00", 206, 0, 2}, // what is not there is left out
		{"Range: bytes=1200000-,5-6", 206, 5, 7},
		{"Range: bytes=x", 416, 0, 0},
		{"Range: bytes=--5", 416, 0, 0},
		{"Range: bytes=+1-2", 416, 0, 0},
		{"Range: bytes=0-99999999999999999999", 416, 0, 0},
		{"Range: lines=1-2", 200, 0, size},
		{"Range: lines", 200, 0, size},
		{"Range: bytes=", 200, 0, size},
		{"Range: BYTES=1-2", 206, 1, 3},
		{"Range: bytes=0-9223372036854775807", 206, 0, size},
		{"Range: bytes=0-0" + strings.Repeat(",0-0", 64), 416, 0, 0},
		{"Range: bytes=1-2|If-Range: " + etag, 206, 1, 3},
		{"Range: bytes=1-2|If-Range: \"other\"", 200, 0, size},
		{"Range: bytes=1-2|If-Range: W/" + etag, 200, 0, size},
		{"Range: bytes=1200000-|If-Range: \"other\"", 200, 0, size},
		{"Range: bytes=1200000-|If-Range: " + etag, 416, 0, 0},
		{"Range: bytes=0-0" + strings.Repeat(",0-0", 64) + "|If-Range: \"other\"", 200, 0, size},
		{"Range: bytes=x|If-None-Match: " + etag, 304, 0, 0},
		{"Range: bytes=-0|If-Match: \"other\"", 412, 0, 0},
		{"If-None-Match: " + etag, 304, 0, 0},
		{"If-None-Match: \"x\", W/" + etag, 304, 0, 0},
		{"If-None-Match: *", 304, 0, 0},
		{"If-None-Match: \"other\"", 200, 0, size},
		{"If-Match: " + etag, 200, 0, size},
		{"If-Match: \"other\"", 412, 0, 0},
		{"If-Match: W/" + etag, 412, 0, 0},
		{"If-Match: *", 200, 0, size},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, body := do(t, method, url, tt.header, nil)
			name := method + " " + tt.header
			if resp.StatusCode != tt.code {
				t.Errorf("%s: %s", name, resp.Status)
			}
			if want := fmt.Sprintf("bytes */%d", size); (tt.code == 416) != (resp.Header.Get("Content-Range") == want) {
				t.Errorf("%s: Content-Range %q", name, resp.Header.Get("Content-Range"))
			}
			if tt.code >= 400 {
				mustBePlain(t, resp)
				continue
			}
			if resp.Header.Get("Etag") != etag || resp.Header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
				t.Errorf("%s: %v", name, resp.Header)
			}
			if tt.code == 304 {
				continue
			}
			if resp.ContentLength != int64(tt.end-tt.start) {
				t.Errorf("%s: %d bytes announced", name, resp.ContentLength)
			}
			if want := fmt.Sprintf("bytes %d-%d/%d", tt.start, tt.end-1, size); tt.code == 206 && resp.Header.Get("Content-Range") != want {
				t.Errorf("%s: range %q, want %q", name, resp.Header.Get("Content-Range"), want)
			}
			if method == "GET" && !bytes.Equal(body, data[tt.start:tt.end]) {
				t.Errorf("%s: %d bytes differ", name, len(body))
			}
		}
	}
}

// TestMultipart asks for several ranges at once.
func TestMultipart(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	data := content(1, 200_000)
	h := add(t, s, data)
	url := serve(t, blobhttp.NewHandler(s, nil)).URL + "/blob/" + h.String()
	resp, body := do(t, "GET", url, "Range: bytes=0-99,16380-120000,-5", nil)
	mustBeParts(t, resp, body, data[:100], data[16_380:120_001], data[len(data)-5:])
	// More than the whole is not worth parts.
	resp, body = do(t, "GET", url, "Range: bytes=0-,0-", nil)
	if resp.StatusCode != 200 || !bytes.Equal(body, data) {
		t.Errorf("overlapping: %s, %d bytes", resp.Status, len(body))
	}
}

func mustBeParts(t *testing.T, resp *http.Response, body []byte, parts ...[]byte) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" || resp.StatusCode != 206 {
		t.Fatalf("%s, %v, %v", resp.Status, resp.Header, err)
	}
	r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for _, want := range parts {
		part, err := r.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(part); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %d bytes, %v", part.Header, len(got), err)
		}
	}
}

// TestAbsentRange has no range of an absent blob be bad.
func TestAbsentRange(t *testing.T) {
	url := serve(t, blobhttp.NewHandler(openStore(t, ":memory:", nil), nil)).URL
	for _, header := range []string{"Range: bytes=-0", "Range: bytes=x", "If-None-Match: *", "If-Match: \"x\""} {
		if resp, _ := do(t, "GET", url+"/blob/"+strings.Repeat("0", 64), header, nil); resp.StatusCode != 404 {
			t.Errorf("%s: %s", header, resp.Status)
		}
	}
}

// TestCostOfGaps makes requests to a partial blob with many gaps. What they
// allocate must not depend on the gaps that nobody asked for.
func TestCostOfGaps(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	handler := blobhttp.NewHandler(s, nil)
	groups := 10_000
	if testing.Short() {
		groups = 1000
	}
	var every []string
	for g := 1; g < groups; g += 2 {
		every = append(every, fmt.Sprintf("%d..%d", 16*g, 16*g+16))
	}
	every = append(every, "last")
	few, many := add(t, from, content(1, 9*bao.GroupSize)), add(t, from, content(2, groups*bao.GroupSize))
	copyRanges(t, from, s, few, strings.Join(every[:4], ",")+",last")
	copyRanges(t, from, s, many, strings.Join(every, ","))
	for _, tt := range []struct {
		method, path, ranges string
		code                 int
		most                 uint64 // bytes more for many gaps than for few
	}{
		{"GET", "/blob/%v", "", 404, 10_000},
		{"HEAD", "/blob/%v", "", 404, 10_000},
		{"HEAD", "/blob/%v", "bytes=16384-16384", 206, 10_000},
		{"GET", "/blob/%v", "bytes=0-0", 404, 10_000},
		{"GET", "/blob/%v", "bytes=0-0,16384-16384,49152-", 404, 800_000},
		{"GET", "/blob/%v", "bytes=0-", 404, 800_000},
		{"HEAD", "/bao/%v?ranges=16..17", "", 200, 10_000},
		{"HEAD", "/bao/%v?ranges=0..1", "", 404, 10_000},
		{"HEAD", "/bao/%v", "", 404, 800_000},
		{"GET", "/bao/%v", "", 404, 800_000},
	} {
		cost := func(h cairn.Hash) uint64 {
			least := ^uint64(0) // what the store keeps for the next time is paid once
			for range 20 {      // the race detector has pools forget some
				r := httptest.NewRequest(tt.method, fmt.Sprintf(tt.path, h), nil)
				r.Header.Set("Range", tt.ranges)
				w := httptest.NewRecorder()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				handler.ServeHTTP(w, r)
				runtime.ReadMemStats(&after)
				if w.Code != tt.code {
					t.Errorf("%s %s %s: %d", tt.method, tt.path, tt.ranges, w.Code)
				}
				least = min(least, after.TotalAlloc-before.TotalAlloc)
			}
			return least
		}
		if small, large := cost(few), cost(many); large > small+tt.most {
			t.Errorf("%s %s %s: %d bytes for few gaps, %d for many", tt.method, tt.path, tt.ranges, small, large)
		}
	}
}

func TestEmptyBlob(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	h := add(t, s, nil)
	url := serve(t, blobhttp.NewHandler(s, nil)).URL
	for _, header := range []string{"", "Range: bytes=0-", "Range: bytes=-5"} {
		resp, body := do(t, "GET", url+"/blob/"+h.String(), header, nil)
		if resp.StatusCode != 200 || len(body) != 0 || resp.ContentLength != 0 {
			t.Errorf("%s: %s, %d bytes", header, resp.Status, len(body))
		}
	}
	resp, body := do(t, "GET", url+"/bao/"+h.String(), "", nil)
	if resp.StatusCode != 200 || !bytes.Equal(body, make([]byte, 8)) {
		t.Errorf("%s, %x", resp.Status, body)
	}
}

// TestRoutes goes through addresses and methods.
func TestRoutes(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	h := add(t, s, content(1, 100))
	hex := h.String()
	readOnly := serve(t, blobhttp.NewHandler(s, nil)).URL
	writable := serve(t, blobhttp.NewHandler(s, &blobhttp.HandlerOptions{WriteToken: "secret"})).URL
	for _, tt := range []struct {
		server, method, path string
		code                 int
		allow                string
	}{
		{readOnly, "GET", "/blob/" + hex, 200, ""},
		{readOnly, "GET", "/blob/" + strings.ToUpper(hex), 200, ""},
		{readOnly, "GET", "/blob/" + base32Of(h), 200, ""},
		{readOnly, "GET", "/blob/" + strings.ToUpper(base32Of(h)), 200, ""},
		{readOnly, "GET", "/bao/" + base32Of(h), 200, ""},
		{readOnly, "GET", "/blob/%" + fmt.Sprintf("%x", hex[0]) + hex[1:], 200, ""},
		{readOnly, "GET", "/blob/" + hex[:63], 400, ""},
		{readOnly, "GET", "/blob/" + hex + "0", 400, ""},
		{readOnly, "GET", "/bao/x", 400, ""},
		{readOnly, "GET", "/blob/<script>", 400, ""},
		{readOnly, "GET", "/blob/" + strings.Repeat("0", 64), 404, ""},
		{readOnly, "GET", "/bao/" + strings.Repeat("0", 64), 404, ""},
		{readOnly, "HEAD", "/bao/" + strings.Repeat("0", 64), 404, ""},
		{readOnly, "GET", "/blob/" + hex + "/", 404, ""},
		{readOnly, "GET", "/blob/" + hex + "/x", 404, ""},
		{readOnly, "GET", "//blob/" + hex, 404, ""},
		{readOnly, "GET", "/blob/../bao/" + hex, 404, ""},
		{readOnly, "GET", "/", 404, ""},
		{readOnly, "GET", "/blob/", 404, ""},
		{readOnly, "GET", "/blob", 404, ""},
		{readOnly, "GET", "/bao", 404, ""},
		{readOnly, "GET", "/blobs/", 404, ""},
		{readOnly, "GET", "/" + hex, 404, ""},
		{readOnly, "DELETE", "/blob/" + hex, 405, "GET, HEAD"},
		{readOnly, "POST", "/bao/" + hex, 405, "GET, HEAD"},
		{readOnly, "OPTIONS", "/blobs", 405, "GET, HEAD"},
		{readOnly, "PUT", "/blobs", 405, "GET, HEAD"},
		{readOnly, "PUT", "/blob", 403, ""},
		{readOnly, "PUT", "/blob/" + hex, 403, ""},
		{writable, "GET", "/blob", 405, "PUT"},
		{writable, "POST", "/blob", 405, "PUT"},
		{writable, "DELETE", "/blob/" + hex, 405, "GET, HEAD, PUT"},
		{writable, "PUT", "/blob", 401, ""},
		{writable, "PUT", "/blob/" + hex, 401, ""},
		{writable, "PUT", "/blob/x", 400, ""},
		{writable, "GET", "/blob/" + hex, 200, ""},
	} {
		resp, _ := do(t, tt.method, tt.server+tt.path, "", nil)
		if resp.StatusCode != tt.code || resp.Header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: %s, allow %q; want %d, %q", tt.method, tt.path, resp.Status, resp.Header.Get("Allow"), tt.code, tt.allow)
		}
		if tt.code >= 400 {
			mustBePlain(t, resp)
		}
	}
}

// TestContentType gives nothing a type that a browser would execute.
func TestContentType(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	url := serve(t, blobhttp.NewHandler(s, nil)).URL
	const text, binary = "text/plain; charset=utf-8", "application/octet-stream"
	for _, tt := range []struct{ content, want string }{
		{"<html><script>alert(1)</script>", text},
		{"<!DOCTYPE HTML>", text},
		{"  <script>alert(1)</script>", text},
		{"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>", text},
		{"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>", text},
		{"alert(1)", text},
		{"%PDF-1.7", binary},
		{"%!PS-Adobe-", binary},
		{"\x00asm\x01\x00\x00\x00", binary},
		{"PK\x03\x04", binary},
		{"\x00\x01\x02", binary},
		{"", text},
		{"plain words", text},
		{"\xef\xbb\xbf<html>", text},
		{"\xfe\xff\x00<\x00h", "text/plain; charset=utf-16be"},
		{"\x89PNG\x0d\x0a\x1a\x0a", "image/png"},
		{"GIF89a<script>", "image/gif"},
		{"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "video/mp4"},
		{"ID3", "audio/mpeg"},
		{"OggS\x00", "application/ogg"},
	} {
		h := add(t, s, []byte(tt.content))
		for _, method := range []string{"GET", "HEAD"} {
			resp, _ := do(t, method, url+"/blob/"+h.String(), "", nil)
			if got := resp.Header.Get("Content-Type"); got != tt.want || resp.StatusCode != 200 {
				t.Errorf("%q: %s, type %q, want %q", tt.content, resp.Status, got, tt.want)
			}
			mustBeHarmless(t, resp)
		}
	}
}

// TestPartialBlob serves what is there.
func TestPartialBlob(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	data := content(1, 20*bao.GroupSize+5)
	h := add(t, from, data)
	url := serve(t, blobhttp.NewHandler(s, nil)).URL + "/blob/" + h.String()
	copyRanges(t, from, s, h, "16..64")
	for _, header := range []string{"", "Range: bytes=16384-16385"} {
		if resp, body := do(t, "GET", url, header, nil); resp.StatusCode != 404 || !strings.Contains(string(body), "not proven") {
			t.Errorf("without a proven size: %s: %s", resp.Status, body)
		}
	}
	copyRanges(t, from, s, h, "last")
	for _, tt := range []struct {
		method, header string
		code           int
		start, end     int
		missing        string
	}{
		{"GET", "Range: bytes=20000-20009,60000-65535", 206, 0, 0, "multipart"},
		{"GET", "Range: bytes=20000-20009,60000-65536", 404, 0, 0, "chunks 64..80"},
		{"GET", "Range: bytes=0-0,20000-20009", 404, 0, 0, "chunks 0..16"},
		{"GET", "Range: bytes=0-0,999999-", 404, 0, 0, "chunks 0..16"},
		{"GET", "Range: bytes=999999-", 416, 0, 0, ""},
		{"GET", "Range: bytes=0-0|If-Range: \"other\"", 404, 0, 0, "partial"},
		{"GET", "Range: bytes=16384-65535", 206, 16384, 65536, ""},
		{"GET", "Range: bytes=20000-40000", 206, 20000, 40001, ""},
		{"GET", "Range: bytes=16384-65536", 404, 0, 0, "chunks 64..80"},
		{"GET", "Range: bytes=0-16384", 404, 0, 0, "chunks 0..16"},
		{"GET", "Range: bytes=0-", 404, 0, 0, "chunks 0..16,64..320"},
		{"GET", "", 404, 0, 0, "partial"},
	} {
		resp, body := do(t, tt.method, url, tt.header, nil)
		if head, _ := do(t, "HEAD", url, tt.header, nil); head.StatusCode != resp.StatusCode || resp.StatusCode < 400 && head.ContentLength != resp.ContentLength {
			t.Errorf("HEAD %s: %s, %d bytes; GET: %s, %d bytes", tt.header, head.Status, head.ContentLength, resp.Status, resp.ContentLength)
		}
		if resp.StatusCode != tt.code {
			t.Errorf("%s: %s: %s", tt.header, resp.Status, body)
		}
		if tt.missing == "multipart" {
			mustBeParts(t, resp, body, data[20000:20010], data[60000:65536])
			continue
		}
		if tt.code == 206 && !bytes.Equal(body, data[tt.start:tt.end]) {
			t.Errorf("%s: %d bytes differ", tt.header, len(body))
		}
		if !strings.Contains(string(body), tt.missing) {
			t.Errorf("%s: %s", tt.header, body)
		}
		if tt.code == 404 {
			mustBePlain(t, resp)
		}
	}
}

// TestStoreClosed answers, and does not hang.
func TestStoreClosed(t *testing.T) {
	s, err := cairn.Open(t.Context(), ":memory:", nil)
	if err != nil {
		t.Fatal(err)
	}
	h := add(t, s, content(1, 100))
	url := serve(t, blobhttp.NewHandler(s, nil)).URL
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/blobs", "/blob/" + h.String(), "/bao/" + h.String()} {
		if resp, _ := do(t, "GET", url+path, "", nil); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}
