package blobhttp_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
)

const token = "Authorization: Bearer s3cret"

func writable(t testing.TB, s *cairn.Store, opts blobhttp.HandlerOptions) string {
	opts.WriteToken = "s3cret"
	return serve(t, blobhttp.NewHandler(s, &opts)).URL
}

func TestPut(t *testing.T) {
	s := openStore(t, tempPath(t), nil)
	url := writable(t, s, blobhttp.HandlerOptions{})
	for i, size := range []int{0, 1, bao.GroupSize - 1, bao.GroupSize, bao.GroupSize + 1, 5 * bao.GroupSize, 1 << 20, 3<<20 + 5} {
		for _, named := range []bool{false, true} {
			data := content(byte(2*i), size)
			address, location := url+"/blob", "blob/"
			if named {
				data = content(byte(2*i+1), size)
				address, location = url+"/blob/"+hashOf(data).String(), ""
			}
			for range 2 { // the second time it is there already
				resp, body := do(t, "PUT", address, token, bytes.NewReader(data))
				var got struct {
					Hash string
					Size int64
				}
				if err := json.Unmarshal(body, &got); err != nil || resp.StatusCode != 201 {
					t.Fatalf("%s: %s", resp.Status, body)
				}
				if got.Hash != hashOf(data).String() || got.Size != int64(size) || resp.Header.Get("Location") != location+got.Hash {
					t.Errorf("%s, at %s", body, resp.Header.Get("Location"))
				}
			}
			mustHave(t, s, data)
			mustGive(t, url, data)
		}
	}
}

// TestPutOther has the body be another one than the address says. What was
// there before stays.
func TestPutOther(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, tempPath(t), nil)
	server := writable(t, s, blobhttp.HandlerOptions{})
	there := content(9, 100_000)
	add(t, s, there)
	partial := content(8, 100_000)
	copyRanges(t, from, s, add(t, from, partial), "0..16")
	for _, size := range []int{0, 1, bao.GroupSize, 2*bao.GroupSize + 1, 3 << 20} {
		data := content(1, size)
		for _, want := range []cairn.Hash{hashOf(content(2, 10)), hashOf(there), hashOf(partial)} {
			for _, body := range []io.Reader{bytes.NewReader(data), iotest.OneByteReader(bytes.NewReader(data[:min(size, 3)]))} {
				resp, text := do(t, "PUT", server+"/blob/"+want.String(), token, body)
				if resp.StatusCode != http.StatusConflict || !strings.Contains(string(text), "has the hash") {
					t.Errorf("%d bytes: %s: %s", size, resp.Status, text)
				}
			}
		}
		mustBeAbsent(t, s, hashOf(data))
		// The body is something that is there, under the wrong name.
		resp, _ := do(t, "PUT", server+"/blob/"+hashOf(data).String(), token, bytes.NewReader(there))
		if resp.StatusCode != http.StatusConflict {
			t.Errorf("%s", resp.Status)
		}
		mustHave(t, s, there)
	}
	if ranges, err := s.Ranges(t.Context(), hashOf(partial)); err != nil || ranges.String() != "0..16" {
		t.Errorf("ranges %v, %v", ranges, err)
	}
}

func TestToken(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	server := writable(t, s, blobhttp.HandlerOptions{})
	none := serve(t, blobhttp.NewHandler(s, nil)).URL
	data := content(1, 100)
	for _, tt := range []struct {
		server, header string
		code           int
	}{
		{server, "", 401},
		{server, "Authorization: Bearer", 401},
		{server, "Authorization: Bearer ", 401},
		{server, "Authorization: Bearer wrong", 401},
		{server, "Authorization: Bearer s3cre", 401},
		{server, "Authorization: Bearer s3cretx", 401},
		{server, "Authorization: Bearer s3cret s3cret", 401},
		{server, "Authorization: Basic s3cret", 401},
		{server, "Authorization: s3cret", 401},
		{none, token, 403},
		{none, "Authorization: Bearer ", 403},
		{none, "", 403},
	} {
		for _, path := range []string{"/blob", "/blob/" + hashOf(data).String()} {
			resp, _ := do(t, "PUT", tt.server+path, tt.header, bytes.NewReader(data))
			if resp.StatusCode != tt.code || (tt.code == 401) != (resp.Header.Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("%s with %q: %s, %v", path, tt.header, resp.Status, resp.Header)
			}
			mustBePlain(t, resp)
		}
	}
	mustBeAbsent(t, s, hashOf(data))
	if resp, _ := do(t, "PUT", server+"/blob", "Authorization: bearer s3cret", bytes.NewReader(data)); resp.StatusCode != 201 {
		t.Errorf("lower case: %s", resp.Status)
	}
}

// TestPutLimits has bodies that are too large, break off, or stall.
func TestPutLimits(t *testing.T) {
	s := openStore(t, tempPath(t), nil)
	server := writable(t, s, blobhttp.HandlerOptions{MaxBodyBytes: 3 << 20})
	impatient := writable(t, s, blobhttp.HandlerOptions{StallTimeout: 50 * time.Millisecond})
	large := content(1, 3<<20+1)
	for _, body := range []io.Reader{bytes.NewReader(large), io.MultiReader(bytes.NewReader(large))} { // the second is chunked
		resp, _, err := try(t, "PUT", server+"/blob", token, body)
		if err == nil && resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("too large: %s", resp.Status)
		}
	}
	mustBeAbsent(t, s, hashOf(large))
	if resp, _ := do(t, "PUT", server+"/blob", token, bytes.NewReader(large[1:])); resp.StatusCode != 201 {
		t.Errorf("of the largest size: %s", resp.Status)
	}
	if resp, _ := do(t, "PUT", server+"/blob", token+"|Content-Range: bytes 0-9/20", bytes.NewReader(large[:10])); resp.StatusCode != 400 {
		t.Errorf("a part: %s", resp.Status)
	}
	for coding, code := range map[string]int{"gzip": 415, "identity, gzip": 415, "x": 415, "identity": 201, "Identity": 201} {
		resp, _ := do(t, "PUT", server+"/blob", token+"|Content-Encoding: "+coding, bytes.NewReader(large[1:]))
		if resp.StatusCode != code || (code == 415) != (resp.Header.Get("Accept-Encoding") == "identity") {
			t.Errorf("Content-Encoding %s: %s, %v", coding, resp.Status, resp.Header)
		}
	}
	for _, tt := range []struct {
		name, request string
		closeWrite    bool
		code          int
	}{
		{"stalls", "Content-Length: 100\r\n\r\nabc", false, 408},
		{"stalls at once", "Content-Length: 100\r\n\r\n", false, 408},
		{"stalls without a token", "Content-Length: 100\r\nAuthorization: none\r\n\r\n", false, 401},
		{"breaks off", "Content-Length: 100\r\n\r\nabc", true, 400},
		{"breaks off in a chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nab", true, 400},
		{"is no chunk", "Transfer-Encoding: chunked\r\n\r\nx\r\n", false, 400},
	} {
		head := "PUT /blob HTTP/1.1\r\nHost: x\r\n"
		if !strings.Contains(tt.request, "Authorization") {
			head += token + "\r\n"
		}
		server := server
		if strings.HasPrefix(tt.name, "stalls") {
			server = impatient
		}
		if code := raw(t, server, head+tt.request, tt.closeWrite); code != tt.code {
			t.Errorf("a body that %s: %d, want %d", tt.name, code, tt.code)
		}
	}
	n := 0
	for range s.Blobs(t.Context(), nil) {
		n++
	}
	if n != 1 {
		t.Errorf("%d blobs are there, want 1", n)
	}
}

// raw sends a request as it is, and returns the status.
func raw(t *testing.T, server, request string, closeWrite bool) int {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if closeWrite {
		conn.(*net.TCPConn).CloseWrite()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("%q: %v", request, err)
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// TestPutReadOnly has a token, but a store that takes nothing.
func TestPutReadOnly(t *testing.T) {
	path := tempPath(t)
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	server := writable(t, openStore(t, path, &cairn.Options{ReadOnly: true}), blobhttp.HandlerOptions{})
	if resp, text := do(t, "PUT", server+"/blob", token, strings.NewReader("x")); resp.StatusCode != 403 {
		t.Errorf("%s: %s", resp.Status, text)
	}
}
