package blobhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
)

// quickly are options for servers that fail at once.
var quickly = &blobhttp.FetchOptions{RetryDelay: 1}

// TestFetch goes from one store to another.
func TestFetch(t *testing.T) {
	from := openStore(t, ":memory:", nil)
	server := serve(t, blobhttp.NewHandler(from, nil)).URL
	for i, size := range []int{0, 1, 1024, bao.GroupSize, bao.GroupSize + 1, 3_000_000} {
		data := content(byte(i), size)
		h := add(t, from, data)
		s := openStore(t, tempPath(t), nil)
		var told int64
		report, err := blobhttp.Fetch(t.Context(), s, server+"/", h, &blobhttp.FetchOptions{
			Progress: func(fetched, expected int64) {
				if fetched < told || fetched > expected {
					t.Errorf("%d of %d bytes after %d", fetched, expected, told)
				}
				told = fetched
			},
		})
		want := blobhttp.FetchReport{
			State: cairn.Complete, Size: int64(size),
			FetchedBytes: bao.ResponseSize(int64(size), bao.All()), Requests: 1,
		}
		if err != nil || report != want || told != want.FetchedBytes {
			t.Errorf("%+v, %v, told of %d", report, err, told)
		}
		mustHave(t, s, data)
		want.FetchedBytes, want.Requests = 0, 0
		if report, err := blobhttp.Fetch(t.Context(), s, server, h, nil); err != nil || report != want {
			t.Errorf("again: %+v, %v", report, err)
		}
	}
}

// TestFetchRanges fetches parts, one after another.
func TestFetchRanges(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	data := content(1, 40*bao.GroupSize+700)
	h := add(t, from, data)
	server := serve(t, blobhttp.NewHandler(from, nil)).URL
	for _, tt := range []struct {
		ranges, have string
		requests     int
	}{
		{"3..4", "0..16", 1},
		{"0..16", "0..16", 0},
		{"0..30,100..101", "0..32,96..112", 1},
		{"last", "0..32,96..112,640..641", 1},
		{"last", "0..32,96..112,640..641", 0},
		{"99999..", "0..32,96..112,640..641", 0},
		{"600..", "0..32,96..112,592..641", 1},
		{"all", "0..641", 1},
	} {
		report, err := blobhttp.Fetch(t.Context(), s, server, h, &blobhttp.FetchOptions{Ranges: parse(t, tt.ranges)})
		if err != nil || report.Requests != tt.requests {
			t.Errorf("%s: %+v, %v", tt.ranges, report, err)
		}
		if got, err := s.Ranges(t.Context(), h); err != nil || got.String() != tt.have {
			t.Errorf("%s: has %v, %v; want %s", tt.ranges, got, err, tt.have)
		}
	}
	mustHave(t, s, data)
}

// TestFetchManyRanges lacks every other group: more than one request can name.
func TestFetchManyRanges(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	const groups = 600
	data := content(1, groups*bao.GroupSize)
	h := add(t, from, data)
	var every []string
	for g := 0; g < groups; g += 2 {
		every = append(every, fmt.Sprintf("%d..%d", 16*g, 16*g+16))
	}
	copyRanges(t, from, s, h, strings.Join(every, ","))
	handler := blobhttp.NewHandler(from, nil)
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.RequestURI) > 4096 {
			t.Errorf("an address of %d bytes", len(r.RequestURI))
		}
		handler.ServeHTTP(w, r)
	})).URL
	report, err := blobhttp.Fetch(t.Context(), s, server, h, nil)
	if err != nil || report.Requests != 3 {
		t.Errorf("%+v, %v", report, err)
	}
	mustHave(t, s, data)
}

// TestFetchDisconnects has the first response end after each of its bytes, and
// the fetch go on.
func TestFetchDisconnects(t *testing.T) {
	step := 61
	if testing.Short() {
		step = 997
	}
	testDisconnects(t, 2*bao.GroupSize+700, "all", step)
	testDisconnects(t, bao.GroupSize+70, "16..", 1)
}

func testDisconnects(t *testing.T, size int, ranges string, step int) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	h := add(t, from, content(1, size))
	whole := respond(t, from, h, ranges)
	var cut, requests atomic.Int64
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response := respond(t, from, h, r.URL.Query().Get("ranges"))
		w.Header().Set("Content-Length", fmt.Sprint(len(response)))
		if requests.Add(1) == 1 {
			w.Write(response[:cut.Load()])
			w.(http.Flusher).Flush() // else the client's transport repeats the request
			panic(http.ErrAbortHandler)
		}
		w.Write(response)
	})).URL
	opts := &blobhttp.FetchOptions{RetryDelay: 1, Ranges: parse(t, ranges)}
	for n := 0; n < len(whole); n += step {
		cut.Store(int64(n))
		requests.Store(0)
		report, err := blobhttp.Fetch(t.Context(), s, server, h, opts)
		if err != nil || report.Requests != 2 || report.Size != int64(size) {
			t.Fatalf("cut at %d: %+v, %v", n, report, err)
		}
		// At most a group and what proves it came twice.
		if most := int64(len(whole) + bao.GroupSize + 2*bao.PairSize + 8); report.FetchedBytes > most {
			t.Errorf("cut at %d: %d bytes fetched, at most %d were needed", n, report.FetchedBytes, most)
		}
		have, err := s.Ranges(t.Context(), h)
		if missing := parse(t, ranges).Effective(int64(size)).Minus(have); err != nil || !missing.IsEmpty() {
			t.Errorf("cut at %d: %v is missing, %v", n, missing, err)
		}
		if err := s.Delete(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFetchInPieces has a server break off every response after a few groups.
// What has come is not fetched again.
func TestFetchInPieces(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, tempPath(t), nil)
	data := content(1, 4<<20)
	h := add(t, from, data)
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response := respond(t, from, h, r.URL.Query().Get("ranges"))
		w.Header().Set("Content-Length", fmt.Sprint(len(response)))
		w.Write(response[:min(len(response), 300_000)])
		if len(response) > 300_000 {
			panic(http.ErrAbortHandler)
		}
	})).URL
	report, err := blobhttp.Fetch(t.Context(), s, server, h, quickly)
	if err != nil || report.Requests < 13 || report.FetchedBytes > int64(len(data))*11/10 {
		t.Errorf("%+v, %v", report, err)
	}
	mustHave(t, s, data)
}

// TestFetchLies has a server send what is not the blob, after a part that is.
func TestFetchLies(t *testing.T) {
	from := openStore(t, ":memory:", nil)
	data := content(1, 20*bao.GroupSize+100)
	h := add(t, from, data)
	other := add(t, from, content(2, len(data)))
	honest := serve(t, blobhttp.NewHandler(from, nil)).URL
	whole := respond(t, from, h, "all")
	size := func(header string) []byte { return append([]byte(header), whole[8:]...) }
	for _, tt := range []struct {
		name     string
		response func() io.Reader
		kept     string
	}{
		{"a bit", func() io.Reader { return bytesOf(flip(whole, len(whole)-300_000)) }, "0..16"},
		{"the first pair", func() io.Reader { return bytesOf(flip(whole, 9)) }, ""},
		{"the last byte", func() io.Reader { return bytesOf(flip(whole, len(whole)-1)) }, "0..320"},
		{"other ranges", func() io.Reader { return bytesOf(respond(t, from, h, "16..32")) }, ""},
		{"another blob", func() io.Reader { return bytesOf(respond(t, from, other, "all")) }, ""},
		{"size 2^63", func() io.Reader { return bytesOf(size("\x00\x00\x00\x00\x00\x00\x00\x80")) }, ""},
		{"size 2^40", func() io.Reader { return bytesOf(size("\x00\x00\x00\x00\x00\x01\x00\x00")) }, ""},
		{"size 0", func() io.Reader { return bytesOf(size("\x00\x00\x00\x00\x00\x00\x00\x00")) }, ""},
		{"endless", func() io.Reader { return io.MultiReader(bytesOf(whole), &counting{}) }, "0..321"},
		{"only noise", func() io.Reader { return &counting{} }, ""},
		{"a page of text", func() io.Reader { return strings.NewReader(strings.Repeat("<html>", 100)) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, ":memory:", nil)
			liar := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, tt.response()) })).URL
			report, err := blobhttp.Fetch(t.Context(), s, liar, h, quickly)
			var lie *blobhttp.FalseDataError
			if !errors.As(err, &lie) || !errors.Is(err, cairn.ErrMismatch) || !strings.HasPrefix(lie.URL, liar) || lie.Hash != h {
				t.Errorf("got %v, want a FalseDataError", err)
			}
			if report.Requests != 1 || report.FetchedBytes > int64(len(whole))+1 {
				t.Errorf("%+v", report)
			}
			if got, err := s.Ranges(t.Context(), h); err != nil || got.String() != tt.kept {
				t.Errorf("kept %v, %v, want %s", got, err, tt.kept)
			}
			if _, err := blobhttp.Fetch(t.Context(), s, honest, h, nil); err != nil {
				t.Fatal(err)
			}
			mustHave(t, s, data)
		})
	}
}

// TestFetchShort has every response end early, in ways of which HTTP knows that
// they are the end, and in others.
func TestFetchShort(t *testing.T) {
	from := openStore(t, ":memory:", nil)
	data := content(1, 20*bao.GroupSize+100)
	h := add(t, from, data)
	type frame struct {
		name string
		lie  bool
		send func(w http.ResponseWriter, part []byte, whole int)
	}
	frames := []frame{
		{"Content-Length", true, func(w http.ResponseWriter, part []byte, _ int) {
			w.Header().Set("Content-Length", fmt.Sprint(len(part)))
			w.Write(part)
		}},
		{"chunked", true, func(w http.ResponseWriter, part []byte, _ int) {
			w.(http.Flusher).Flush()
			w.Write(part)
		}},
		{"closed", false, func(w http.ResponseWriter, part []byte, _ int) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\n"+string(part))
			conn.Close()
		}},
		{"broken", false, func(w http.ResponseWriter, part []byte, whole int) {
			w.Header().Set("Content-Length", fmt.Sprint(whole))
			w.Write(part)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}},
		{"no answer", false, func(http.ResponseWriter, []byte, int) { panic(http.ErrAbortHandler) }},
	}
	for _, keep := range []int{0, 4, 8, 100, -1} {
		for _, f := range frames {
			name := fmt.Sprintf("%s, %d bytes", f.name, keep)
			s := openStore(t, ":memory:", nil)
			server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				whole := respond(t, from, h, r.URL.Query().Get("ranges"))
				n := keep
				if n < 0 {
					n += len(whole)
				}
				f.send(w, whole[:n], len(whole))
			})).URL
			report, err := blobhttp.Fetch(t.Context(), s, server, h, &blobhttp.FetchOptions{RetryDelay: 1, Attempts: 3})
			var lie *blobhttp.FalseDataError
			if errors.As(err, &lie) != f.lie || errors.Is(err, cairn.ErrMismatch) != f.lie || errors.Is(err, io.ErrUnexpectedEOF) == f.lie {
				t.Errorf("%s: %v", name, err)
			}
			requests, kept := 3, ""
			if keep < 0 && f.name != "no answer" {
				requests, kept = 4, "0..320" // the first has brought something
			}
			if err == nil || report.Requests != requests || !strings.Contains(err.Error(), "3 requests in a row have brought nothing") {
				t.Errorf("%s: %+v, %v", name, report, err)
			}
			if got, err := s.Ranges(t.Context(), h); err != nil || got.String() != kept {
				t.Errorf("%s: kept %v, %v, want %s", name, got, err, kept)
			}
		}
	}
}

// TestFetchMixedFailures has a server that is not to blame for one short
// response among other failures.
func TestFetchMixedFailures(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	h := add(t, from, content(1, 100_000))
	var requests atomic.Int64
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})).URL
	_, err := blobhttp.Fetch(t.Context(), s, server, h, &blobhttp.FetchOptions{RetryDelay: 1, Attempts: 3})
	if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, cairn.ErrMismatch) {
		t.Errorf("%v", err)
	}
}

// TestFetchHopeless counts the requests that come of what cannot change.
func TestFetchHopeless(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	plain := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch to := strings.Split(r.URL.Path, "/")[1]; to {
		case "loop":
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		default:
			w.Header().Set("Location", to+"://u:s3cret@x/")
			w.WriteHeader(http.StatusFound)
		}
	})).URL
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for _, base := range []string{plain + "/loop", plain + "/ftp", plain + "/file", secure.URL, strings.Replace(plain, "http", "https", 1)} {
		report, err := blobhttp.Fetch(t.Context(), s, base, hashOf([]byte("x")), quickly)
		if err == nil || report.Requests != 1 || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %+v, %v", base, report, err)
		}
	}
}

// TestFetchRedirected tells which server has lied.
func TestFetchRedirected(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	liar := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("<html>", 100))
	})).URL
	honest := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(liar, "//", "//u:s3cret@", 1)+r.URL.Path, http.StatusFound)
	})).URL
	_, err := blobhttp.Fetch(t.Context(), s, honest, hashOf([]byte("x")), quickly)
	var lie *blobhttp.FalseDataError
	if !errors.As(err, &lie) || !strings.Contains(lie.URL, strings.TrimPrefix(liar, "http://")) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v", err)
	}
}

// TestFetchPasswords has addresses with a password fail in every way.
func TestFetchPasswords(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	server := serve(t, blobhttp.NewHandler(s, nil)).URL
	for _, base := range []string{
		"http://u:s3cret@a b/", "http://u:s3cret/x@host/", "http://u:s3c%ret@host/", "http://u:s3cret@host:port/", "http://u:s3cret@host/\x00",
		"u:s3cret@host/x", "ftp://u:s3cret@host", "//u:s3cret@host", ":u:s3cret@host",
		strings.Replace(server, "//", "//u:s3cret@", 1), "http://u:s3cret@127.0.0.1:1/",
	} {
		if _, err := blobhttp.Fetch(t.Context(), s, base, hashOf([]byte("x")), quickly); err == nil || strings.Contains(err.Error(), "s3c") {
			t.Errorf("%q: %v", base, err)
		}
	}
	if _, err := blobhttp.Fetch(t.Context(), s, "://x", hashOf([]byte("x")), nil); err == nil || !strings.Contains(err.Error(), "missing protocol scheme") {
		t.Errorf("%v", err)
	}
}

// TestFetchRefusedText looks at what is told of an answer.
func TestFetchRefusedText(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	for _, tt := range []struct {
		code       int
		kind, text string
		want       string
	}{
		{404, "text/plain; charset=utf-8", "no such\x1b[2J\r\nblob\u202e\xff\u200b!\n", "no such [2J blob !"},
		{404, "Text/HTML", strings.Repeat("ä", 1000), strings.Repeat("ä", 200)},
		{404, "application/json", "{}", ""},
		{404, "", "x", ""},
		{206, "text/plain", "a part", ""},
	} {
		server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = []string{tt.kind}
			w.WriteHeader(tt.code)
			io.WriteString(w, tt.text)
		})).URL
		_, err := blobhttp.Fetch(t.Context(), s, server, hashOf([]byte("x")), quickly)
		var status *blobhttp.StatusError
		if !errors.As(err, &status) || status.Text != tt.want {
			t.Errorf("%d %s: %v", tt.code, tt.kind, err)
		}
	}
}

// TestFetchProgress has a slow server: the meter is told of the start, and then
// often.
func TestFetchProgress(t *testing.T) {
	inBubble(t, ":memory:", func(t *testing.T, from *cairn.Store, _ *pipes) {
		h := add(t, from, content(1, 100_000))
		whole := respond(t, from, h, "all")
		s, err := cairn.Open(t.Context(), ":memory:", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		server, client := overPipes(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
			for part := range slices.Chunk(whole, 1000) { // 10 s in all
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
				w.Write(part)
			}
		})
		var told []int64
		last := time.Now()
		_, err = blobhttp.Fetch(t.Context(), s, "http://x", h, &blobhttp.FetchOptions{Client: client, Progress: func(fetched, expected int64) {
			if expected != int64(len(whole)) || time.Since(last) > 350*time.Millisecond {
				t.Errorf("%d of %d bytes after %v", fetched, expected, time.Since(last))
			}
			told, last = append(told, fetched), time.Now()
		}})
		if err != nil || len(told) < 30 || len(told) > 60 || told[0] != 0 || told[len(told)-1] != int64(len(whole)) {
			t.Errorf("%v: %v", told, err)
		}
		client.CloseIdleConnections()
		server.Close()
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

func bytesOf(b []byte) io.Reader { return strings.NewReader(string(b)) }

func flip(b []byte, at int) []byte {
	b = append([]byte(nil), b...)
	b[at] ^= 1
	return b
}

// TestFetchRefused counts the requests that an answer is worth.
func TestFetchRefused(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	h := hashOf([]byte("x"))
	for _, tt := range []struct{ code, requests int }{
		{400, 1}, {401, 1}, {403, 1}, {404, 1}, {410, 1}, {416, 1}, {204, 1}, {206, 1}, {304, 1},
		{408, 3}, {429, 3}, {500, 3}, {502, 3}, {503, 3}, {507, 3},
	} {
		server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(tt.code)
			if tt.code >= 400 {
				fmt.Fprintln(w, "because\x1b[2J", strings.Repeat("x", 100_000))
			}
		})).URL
		report, err := blobhttp.Fetch(t.Context(), s, server, h, &blobhttp.FetchOptions{RetryDelay: 1, Attempts: 3})
		var status *blobhttp.StatusError
		if !errors.As(err, &status) || status.Code != tt.code || report.Requests != tt.requests {
			t.Errorf("%d: %+v, %v", tt.code, report, err)
			continue
		}
		if errors.Is(err, cairn.ErrNotFound) != (tt.code == 404 || tt.code == 410) {
			t.Errorf("%d: not found: %v", tt.code, errors.Is(err, cairn.ErrNotFound))
		}
		if len(err.Error()) > 2000 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%d: %s", tt.code, err)
		}
	}
	mustBeAbsent(t, s, h)
}

// TestFetchRecovers has a server be overloaded first.
func TestFetchRecovers(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	data := content(1, 100_000)
	h := add(t, from, data)
	handler := blobhttp.NewHandler(from, nil)
	var requests atomic.Int64
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) <= 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(w, r)
	})).URL
	report, err := blobhttp.Fetch(t.Context(), s, server, h, quickly)
	if err != nil || report.Requests != 4 {
		t.Errorf("%+v, %v", report, err)
	}
	mustHave(t, s, data)
}

// TestFetchKilled kills the server in the middle and fetches the rest from
// another one.
func TestFetchKilled(t *testing.T) {
	from, s := openStore(t, tempPath(t), nil), openStore(t, tempPath(t), nil)
	data := content(1, 32<<20)
	h := add(t, from, data)
	server := httptest.NewServer(blobhttp.NewHandler(from, nil))
	var once sync.Once
	first, err := blobhttp.Fetch(t.Context(), s, server.URL, h, &blobhttp.FetchOptions{
		RetryDelay: 1, Attempts: 2,
		Progress: func(fetched, _ int64) {
			if fetched > 8<<20 {
				once.Do(func() {
					server.Listener.Close()
					server.CloseClientConnections()
				})
			}
		},
	})
	server.Close()
	if err == nil || first.State != cairn.Partial || first.FetchedBytes >= int64(len(data)) {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := blobhttp.Fetch(t.Context(), s, serve(t, blobhttp.NewHandler(from, nil)).URL, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sum := first.FetchedBytes + second.FetchedBytes; sum > bao.ResponseSize(int64(len(data)), bao.All())+64<<10 {
		t.Errorf("%d + %d bytes fetched", first.FetchedBytes, second.FetchedBytes)
	}
	mustHave(t, s, data)
}

// TestFetchFromTwo fetches one blob from two servers at once.
func TestFetchFromTwo(t *testing.T) {
	from, s := openStore(t, tempPath(t), nil), openStore(t, tempPath(t), nil)
	data := content(1, 8<<20)
	h := add(t, from, data)
	var fetches sync.WaitGroup
	for range 2 {
		server := serve(t, blobhttp.NewHandler(from, nil)).URL
		fetches.Go(func() {
			if report, err := blobhttp.Fetch(t.Context(), s, server, h, nil); err != nil || report.State != cairn.Complete {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
	fetches.Wait()
	mustHave(t, s, data)
}

// TestExchange has two stores, each with a half, complete each other.
func TestExchange(t *testing.T) {
	from := openStore(t, ":memory:", nil)
	data := content(1, 100*bao.GroupSize)
	h := add(t, from, data)
	halves := []string{"0..800", "800.."}
	var stores []*cairn.Store
	var servers []string
	for _, half := range halves {
		s := openStore(t, tempPath(t), nil)
		copyRanges(t, from, s, h, half)
		stores = append(stores, s)
		servers = append(servers, serve(t, blobhttp.NewHandler(s, nil)).URL)
	}
	for i, s := range stores {
		report, err := blobhttp.Fetch(t.Context(), s, servers[1-i], h, &blobhttp.FetchOptions{Ranges: parse(t, halves[1-i])})
		if err != nil || report.State != cairn.Complete || report.FetchedBytes > int64(len(data))*6/10 {
			t.Errorf("%+v, %v", report, err)
		}
		mustHave(t, s, data)
	}
}

// TestFetchErrors are those that come of the caller.
func TestFetchErrors(t *testing.T) {
	from := openStore(t, ":memory:", nil)
	h := add(t, from, content(1, 100_000))
	server := serve(t, blobhttp.NewHandler(from, nil)).URL
	for _, base := range []string{"", "://", "ftp://x", "file:///etc/passwd", "http://", "localhost:80", "/blob"} {
		if _, err := blobhttp.Fetch(t.Context(), from, base, hashOf([]byte("y")), quickly); err == nil {
			t.Errorf("%q is an address", base)
		}
	}
	closed, err := cairn.Open(t.Context(), ":memory:", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if _, err := blobhttp.Fetch(t.Context(), closed, server, h, nil); !errors.Is(err, cairn.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	file := tempPath(t)
	openStore(t, file, nil).Close()
	readOnly := openStore(t, file, &cairn.Options{ReadOnly: true})
	if report, err := blobhttp.Fetch(t.Context(), readOnly, server, h, nil); !errors.Is(err, cairn.ErrReadOnly) || report.Requests > 1 {
		t.Errorf("read-only: %+v, %v", report, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	because := errors.New("enough")
	s := openStore(t, ":memory:", nil)
	report, err := blobhttp.Fetch(ctx, s, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(respond(t, from, h, "all")[:50_000])
		w.(http.Flusher).Flush()
		cancel(because)
		<-r.Context().Done()
	})).URL, h, nil)
	if !errors.Is(err, because) || report.Requests != 1 {
		t.Errorf("cancelled: %+v, %v", report, err)
	}
}

// TestFetchStalled has a server that stops in the middle of every response, or
// before it.
func TestFetchStalled(t *testing.T) {
	for _, sent := range []int{0, 50_000} {
		inBubble(t, ":memory:", func(t *testing.T, from *cairn.Store, _ *pipes) {
			h := add(t, from, content(1, 200_000))
			s, err := cairn.Open(t.Context(), ":memory:", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			server, client := overPipes(t, func(w http.ResponseWriter, r *http.Request) {
				response := respond(t, from, h, r.URL.Query().Get("ranges"))
				if w.Write(response[:min(len(response), sent)]); len(response) > sent {
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				}
			})
			start := time.Now()
			report, err := blobhttp.Fetch(t.Context(), s, "http://x", h, &blobhttp.FetchOptions{Client: client})
			if sent > 0 && (err != nil || report.Requests != 5) {
				t.Errorf("%+v, %v", report, err)
			}
			if sent == 0 && (err == nil || !strings.Contains(err.Error(), "sent nothing for 30s") || report.Requests != 5) {
				t.Errorf("%+v, %v", report, err)
			}
			if took := time.Since(start); took < 120*time.Second || took > 160*time.Second {
				t.Errorf("took %v", took)
			}
			client.CloseIdleConnections()
			server.Close()
			time.Sleep(time.Second)
			synctest.Wait()
		})
	}
}

// overPipes starts a server over pipes and a client for it.
func overPipes(t *testing.T, f http.HandlerFunc) (*http.Server, *http.Client) {
	n := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := blobhttp.NewServer(f)
	go server.Serve(n)
	dial := func(context.Context, string, string) (net.Conn, error) { return n.dial(t, ""), nil }
	return server, &http.Client{Transport: &http.Transport{DialContext: dial}}
}

// TestFetchRetryAfter has a server ask for more time than the fetch would give,
// and for more than it may.
func TestFetchRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		field string
		took  time.Duration
	}{
		{"7", 7 * time.Second},
		{"3000", 30 * time.Second},
		{"99999999999999999999", 200 * time.Millisecond},
		{"-1", 200 * time.Millisecond},
		{"Sat, 02 Jan 1999 15:04:05 GMT", 200 * time.Millisecond},
		{time.Date(2000, 1, 1, 0, 0, 9, 0, time.UTC).Format(http.TimeFormat), 9 * time.Second}, // the bubble's clock
	} {
		inBubble(t, ":memory:", func(t *testing.T, from *cairn.Store, _ *pipes) {
			h := add(t, from, nil)
			s, err := cairn.Open(t.Context(), ":memory:", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			first := true
			server, client := overPipes(t, func(w http.ResponseWriter, r *http.Request) {
				if first {
					first = false
					w.Header().Set("Retry-After", tt.field)
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				w.Write(respond(t, from, h, "all"))
			})
			start := time.Now()
			if _, err := blobhttp.Fetch(t.Context(), s, "http://x", h, &blobhttp.FetchOptions{Client: client}); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took < tt.took || took > tt.took*5/4+time.Millisecond {
				t.Errorf("%s: took %v, want %v", tt.field, took, tt.took)
			}
			client.CloseIdleConnections()
			server.Close()
			time.Sleep(time.Second)
			synctest.Wait()
		})
	}
}

// TestFetchParts takes from each of two servers what it has.
func TestFetchParts(t *testing.T) {
	data := content(5, 100*bao.GroupSize+9)
	hash := hashOf(data)
	whole := openStore(t, ":memory:", nil)
	add(t, whole, data)
	var scattered bao.Ranges
	for i := uint64(0); i < 90; i += 2 {
		scattered = scattered.Union(bao.Chunks(i*16, i*16+16))
	}
	rest := bao.All().Minus(scattered)
	store := openStore(t, ":memory:", nil)
	for i, part := range []bao.Ranges{scattered, rest} {
		half := openStore(t, ":memory:", nil)
		copyRanges(t, whole, half, hash, part.String())
		server := httptest.NewServer(blobhttp.NewHandler(half, nil))
		defer server.Close()
		report, err := blobhttp.Fetch(t.Context(), store, server.URL, hash, nil)
		if i == 0 && !errors.Is(err, cairn.ErrNotFound) || i == 1 && err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
		if report.Requests > 6 {
			t.Errorf("part %d: %d requests", i, report.Requests)
		}
		if got, err := store.Ranges(t.Context(), hash); err != nil || !part.Intersect(bao.Chunks(0, bao.ChunkCount(int64(len(data))))).Minus(got).IsEmpty() {
			t.Errorf("part %d: has %v, %v", i, got, err)
		}
	}
	if status, err := store.Status(t.Context(), hash); err != nil || status.State != cairn.Complete {
		t.Errorf("%+v, %v", status, err)
	}
}

// TestFetchFalseOffers: a server that offers what it then does not send is
// asked a few times.
func TestFetchFalseOffers(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Cairn-Ranges", "0..16")
		http.NotFound(w, r)
	}))
	defer server.Close()
	_, err := blobhttp.Fetch(t.Context(), openStore(t, ":memory:", nil), server.URL, hashOf([]byte("x")), nil)
	if !errors.Is(err, cairn.ErrNotFound) || asked > 6 {
		t.Errorf("asked %d times, then %v", asked, err)
	}
}
