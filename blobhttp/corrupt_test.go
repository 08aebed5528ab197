package blobhttp_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// damaged makes a store with one blob, of which one group is damaged.
func damaged(t *testing.T, data []byte, group int) *cairn.Store {
	t.Helper()
	path := tempPath(t)
	s, err := cairn.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, data)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := fmt.Sprintf(`update "row" set data = cast(x'0011' || substr(data, 3) as blob) where id & (1 << 26) - 1 = %d`, group)
	if err := sqlitex.ExecuteScript(conn, text, nil); err != nil || conn.Changes() != 1 {
		t.Fatal(conn.Changes(), err)
	}
	return openStore(t, path, nil)
}

// TestDamage damages one group. What a client gets is right or an error, and
// the rest can still be had.
func TestDamage(t *testing.T) {
	const groups = 100
	data := content(1, groups*bao.GroupSize)
	h := hashOf(data)
	for _, group := range []int{0, 1, 31, 32, 70, groups - 1} {
		s := damaged(t, data, group)
		server := serve(t, blobhttp.NewHandler(s, nil)).URL
		start, end := group*bao.GroupSize, (group+1)*bao.GroupSize
		named := fmt.Sprintf("bytes %d..%d", start, end)

		for _, from := range []int{0, start, start + 100, end - 1} {
			resp, body, err := try(t, "GET", server+"/blob/"+h.String(), fmt.Sprintf("Range: bytes=%d-", from), nil)
			mustBeRefused(t, resp, body, err, data[from:], named)
			if err != nil && len(body) > max(0, start-from) {
				t.Errorf("group %d: %d bytes from %d on", group, len(body), from)
			}
		}
		for _, ranges := range []string{"all", fmt.Sprintf("%d..%d", 16*group, 16*group+16), fmt.Sprintf("%d..%d", 16*group+3, 16*group+4)} {
			resp, body, err := try(t, "GET", server+"/bao/"+h.String()+"?ranges="+ranges, "", nil)
			mustBeRefused(t, resp, body, err, body, named)
		}
		if group > 0 {
			resp, body := do(t, "GET", server+"/blob/"+h.String(), fmt.Sprintf("Range: bytes=0-%d", start-1), nil)
			if resp.StatusCode != 206 || !bytes.Equal(body, data[:start]) {
				t.Errorf("before group %d: %s", group, resp.Status)
			}
		}
		if group < groups-1 {
			resp, body := do(t, "GET", server+"/blob/"+h.String(), fmt.Sprintf("Range: bytes=%d-", end), nil)
			if resp.StatusCode != 206 || !bytes.Equal(body, data[end:]) {
				t.Errorf("behind group %d: %s", group, resp.Status)
			}
		}
	}
}

// mustBeRefused checks that a response is an error that names the bytes, or
// breaks off after a part of what was wanted.
func mustBeRefused(t *testing.T, resp *http.Response, body []byte, err error, want []byte, named string) {
	t.Helper()
	if resp == nil {
		t.Errorf("no response: %v", err)
		return
	}
	if resp.StatusCode == http.StatusInternalServerError && err == nil {
		mustBePlain(t, resp)
		if !strings.Contains(string(body), named) {
			t.Errorf("%s", body)
		}
		return
	}
	if err == nil || !bytes.HasPrefix(want, body) {
		t.Errorf("%s: %d bytes, %v", resp.Status, len(body), err)
	}
}

// TestDamageInPart has one part of a multipart response be damaged: the parts
// before are there, and of this one all that comes before the damage.
func TestDamageInPart(t *testing.T) {
	data := content(1, 50*bao.GroupSize)
	const start = 20 * bao.GroupSize // of the damage
	server := serve(t, blobhttp.NewHandler(damaged(t, data, 20), nil)).URL + "/blob/" + hashOf(data).String()
	for _, from := range []int{300_000, start - 10, start, start + 10} {
		resp, body, err := try(t, "GET", server, fmt.Sprintf("Range: bytes=0-99,%d-400000,-5", from), nil)
		if resp == nil || resp.StatusCode != 206 || err == nil {
			t.Fatalf("from %d: %v, %v", from, resp, err)
		}
		_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		part, err := r.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(part); !bytes.HasPrefix(data[:100], got) || from < start && len(got) < 100 {
			t.Errorf("from %d: the first part has %d bytes", from, len(got))
		}
		if part, err = r.NextPart(); err != nil {
			continue
		}
		if got, err := io.ReadAll(part); err == nil || !bytes.HasPrefix(data[min(from, start):start], got) {
			t.Errorf("from %d: the second part has %d bytes, %v", from, len(got), err)
		}
	}
	// What is at the very beginning can still be told.
	for _, ranges := range []string{"327680-327680,0-99", "330000-400000,-5", "330000-330000"} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, body := do(t, method, server, "Range: bytes="+ranges, nil)
			if resp.StatusCode != 500 || method == "GET" && !strings.Contains(string(body), "bytes 327680..344064") {
				t.Errorf("%s %s: %s: %s", method, ranges, resp.Status, body)
			}
			mustBePlain(t, resp)
		}
	}
}

// TestFetchDamage fetches from a damaged store: all but the damaged group
// comes, the error tells of it, and another server has the rest.
func TestFetchDamage(t *testing.T) {
	data := content(1, 100*bao.GroupSize)
	h := hashOf(data)
	bad := serve(t, blobhttp.NewHandler(damaged(t, data, 70), nil)).URL
	s := openStore(t, ":memory:", nil)
	_, err := blobhttp.Fetch(t.Context(), s, bad, h, &blobhttp.FetchOptions{RetryDelay: 1})
	if err == nil || !strings.Contains(err.Error(), "bytes 1146880..1163264") {
		t.Errorf("%v", err)
	}
	if got, err := s.Ranges(t.Context(), h); err != nil || got.String() != "0..1120" {
		t.Errorf("ranges %v, %v", got, err)
	}
	from := openStore(t, ":memory:", nil)
	add(t, from, data)
	report, err := blobhttp.Fetch(t.Context(), s, serve(t, blobhttp.NewHandler(from, nil)).URL, h, nil)
	if err != nil || report.FetchedBytes > 31*bao.GroupSize {
		t.Errorf("%+v, %v", report, err)
	}
	mustHave(t, s, data)
}
