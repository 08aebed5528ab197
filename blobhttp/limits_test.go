package blobhttp_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
)

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
	}{
		{cairn.ErrNotFound, 404},
		{&cairn.MissingError{}, 404},
		{cairn.ErrCorrupt, 500},
		{&cairn.CorruptError{Ranges: []cairn.ByteRange{{End: 5}}, Err: errors.New("/secret/path")}, 500},
		{errors.New("/secret/path"), 500},
		{cairn.ErrFull, 507},
		{fmt.Errorf("%w: %w", cairn.ErrFull, errors.New("/secret/path")), 507},
		{cairn.ErrTooLarge, 413},
		{&http.MaxBytesError{Limit: 5}, 413},
		{cairn.ErrReadOnly, 403},
		{cairn.ErrClosed, 503},
		{context.Canceled, 503},
	} {
		code, text := blobhttp.Answer(fmt.Errorf("wrapped: %w", tt.err))
		if code != tt.code || text == "" || strings.Contains(text, "secret") {
			t.Errorf("%v: %d %s, want %d", tt.err, code, text, tt.code)
		}
	}
}

// TestPanic has the goroutines that are not the server's panic. The server's
// must get it, with the place where it was.
func TestPanic(t *testing.T) {
	for name, run := range map[string]func() error{
		"pump":    func() error { return blobhttp.Pump(func() error { panic("oh no") }) },
		"content": blobhttp.ReadNothing,
	} {
		err := run()
		if err == nil || !strings.Contains(err.Error(), "goroutine") {
			t.Errorf("%s: %v", name, err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the server's goroutine goes on", name)
				}
			}()
			blobhttp.Fail(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), fmt.Errorf("wrapped: %w", err))
		}()
	}
	if err := blobhttp.Pump(func() error { return io.EOF }); err != io.EOF {
		t.Errorf("%v", err)
	}
}

// TestMaxRequests has more clients than may be served at once.
func TestMaxRequests(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	server := writable(t, s, blobhttp.HandlerOptions{MaxRequests: 2})
	data := content(1, 100)
	add(t, s, data)
	var uploads []*io.PipeWriter
	var answers sync.WaitGroup
	for range 2 {
		r, w := io.Pipe()
		uploads = append(uploads, w)
		answers.Go(func() {
			if resp, _ := do(t, "PUT", server+"/blob", token, r); resp.StatusCode != 201 {
				t.Errorf("upload: %s", resp.Status)
			}
		})
		// The server takes it only when the handler reads the body.
		if _, err := w.Write(make([]byte, 8<<20)); err != nil {
			t.Fatal(err)
		}
	}
	resp, _ := do(t, "GET", server+"/blob/"+hashOf(data).String(), "", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	mustBePlain(t, resp)
	for _, w := range uploads {
		w.Close()
	}
	answers.Wait()
	mustGive(t, server, data)
}

// inBubble runs a test with a store and a server that speaks over pipes, all of
// it with a clock that only goes on when everybody waits. In memory readers and
// writers wait for each other by that clock, so they must not meet.
func inBubble(t *testing.T, path string, f func(t *testing.T, s *cairn.Store, n *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := cairn.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		server := blobhttp.NewServer(blobhttp.NewHandler(s, &blobhttp.HandlerOptions{WriteToken: "s3cret"}))
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve(n) })
		f(t, s, n)
		server.Close()
		serving.Wait()
		time.Sleep(time.Second) // in which the server closes connections gracefully
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// pipes is a [net.Listener] without a network.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial opens a connection and sends the beginning of a request.
func (p *pipes) dial(t *testing.T, request string) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	p.conns <- server
	if _, err := io.WriteString(client, request); err != nil {
		t.Fatal(err)
	}
	return client
}

// TestSlowReader takes a blob at 1 KiB a second, for half an hour.
func TestSlowReader(t *testing.T) {
	inBubble(t, tempPath(t), func(t *testing.T, s *cairn.Store, n *pipes) {
		data := content(1, 2_000_000)
		h := add(t, s, data)
		for _, path := range []string{"/blob/", "/bao/"} {
			conn := n.dial(t, "GET "+path+h.String()+" HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(slowReader{conn}), nil)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			got, err := io.ReadAll(resp.Body)
			if err != nil || int64(len(got)) != resp.ContentLength || path == "/blob/" && !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes, %v", path, len(got), err)
			}
			if time.Since(start) < 30*time.Minute {
				t.Errorf("%s: took only %v", path, time.Since(start))
			}
			conn.Close()
		}
	})
}

// A slowReader reads 1 KiB a second.
type slowReader struct{ r io.Reader }

func (s slowReader) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return s.r.Read(p[:min(len(p), 1024)])
}

// TestStalledReader takes a part of a blob and then nothing more.
func TestStalledReader(t *testing.T) {
	inBubble(t, tempPath(t), func(t *testing.T, s *cairn.Store, n *pipes) {
		h := add(t, s, content(1, 2_000_000))
		for _, path := range []string{"/blob/", "/bao/"} {
			conn := n.dial(t, "GET "+path+h.String()+" HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := io.ReadFull(conn, make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			mustEnd(t, conn, 0)
		}
	})
}

// mustEnd waits for two minutes, in which the server must have closed the
// connection, and sends at most a few bytes more.
func mustEnd(t *testing.T, conn net.Conn, most int) {
	t.Helper()
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	rest, err := io.ReadAll(conn)
	if err != nil || len(rest) > most {
		t.Errorf("%d bytes came afterwards, %v", len(rest), err)
	}
}

// TestStalledHeader sends a part of a header, or nothing at all.
func TestStalledHeader(t *testing.T) {
	inBubble(t, tempPath(t), func(t *testing.T, s *cairn.Store, n *pipes) {
		for _, request := range []string{"", "GET /blobs HTTP/1.1\r\nHost:"} {
			conn := n.dial(t, request)
			mustEnd(t, conn, 1000)
		}
	})
}

// TestKeptConnection makes requests with long pauses over one connection: the
// deadlines of one must not be those of the next.
func TestKeptConnection(t *testing.T) {
	inBubble(t, tempPath(t), func(t *testing.T, s *cairn.Store, n *pipes) {
		data := content(1, 100*bao.GroupSize)
		h := add(t, s, data)
		conn := n.dial(t, "")
		defer conn.Close()
		r := bufio.NewReader(conn)
		for i := range 6 {
			request := "GET /blob/" + h.String() + " HTTP/1.1\r\nHost: x\r\n\r\n"
			want := data
			if i%2 == 1 {
				request = "PUT /blob HTTP/1.1\r\nHost: x\r\n" + token + "\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
				want = nil
			}
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 100 {
					t.Fatalf("%v, %v", resp, err)
				}
				time.Sleep(50 * time.Second)
				io.WriteString(conn, "abc")
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || want != nil && !bytes.Equal(got, want) || want == nil && resp.StatusCode != 201 {
				t.Errorf("request %d: %s, %d bytes, %v", i, resp.Status, len(got), err)
			}
			time.Sleep(110 * time.Second) // below the limit for idle connections
		}
	})
}

// TestSlowUpload sends a byte every 50 seconds.
func TestSlowUpload(t *testing.T) {
	inBubble(t, tempPath(t), func(t *testing.T, s *cairn.Store, n *pipes) {
		conn := n.dial(t, "PUT /blob HTTP/1.1\r\nHost: x\r\n"+token+"\r\nContent-Length: 20\r\n\r\n")
		defer conn.Close()
		data := content(1, 20)
		for i := range data {
			time.Sleep(50 * time.Second)
			if _, err := conn.Write(data[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != 201 {
			t.Fatalf("%v, %v", resp, err)
		}
		mustHave(t, s, data)
	})
}

// TestAbandoned closes connections in the middle of responses. The bubble fails
// if a goroutine is left then.
func TestAbandoned(t *testing.T) {
	inBubble(t, tempPath(t), func(t *testing.T, s *cairn.Store, n *pipes) {
		h := add(t, s, content(1, 3_000_000)).String()
		for _, request := range []string{
			"GET /blob/" + h + " HTTP/1.1\r\n",
			"GET /blob/" + h + " HTTP/1.1\r\nRange: bytes=100000-\r\n",
			"GET /blob/" + h + " HTTP/1.1\r\nRange: bytes=0-1000000,1200000-2000000\r\n",
			"GET /bao/" + h + " HTTP/1.1\r\n",
			"PUT /blob HTTP/1.1\r\n" + token + "\r\nContent-Length: 3000000\r\n",
		} {
			conn := n.dial(t, request+"Host: x\r\n\r\n")
			if strings.HasPrefix(request, "PUT") {
				conn.Write(make([]byte, 2_000_000))
			} else if _, err := io.ReadFull(conn, make([]byte, 50_000)); err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
	})
}

// TestLargeHeader sends more than a header may have.
func TestLargeHeader(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	server := serve(t, blobhttp.NewHandler(s, nil)).URL
	if code := raw(t, server, "GET /blobs HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n", false); code != 431 {
		t.Errorf("%d", code)
	}
}

// TestWriteBesideSlowReader writes to a store of which a client has taken only
// a part of a blob. In memory a reader that held anything would lock the writer
// out.
func TestWriteBesideSlowReader(t *testing.T) {
	inBubble(t, ":memory:", func(t *testing.T, s *cairn.Store, n *pipes) {
		h := add(t, s, content(1, 3_000_000)).String()
		for i, path := range []string{"/blob/", "/bao/"} {
			conn := n.dial(t, "GET "+path+h+" HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := io.ReadFull(conn, make([]byte, 50_000)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the server waits for the client
			data := content(byte(i+2), 100_000)
			if err := s.Delete(t.Context(), add(t, s, data)); err != nil {
				t.Error(err)
			}
			conn.Close()
		}
	})
}
