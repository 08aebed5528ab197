package blobhttp_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
)

// TestBao compares responses with what the store exports.
func TestBao(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	const size = 90*bao.GroupSize + 100 // several pieces
	h := add(t, s, content(1, size))
	server := serve(t, blobhttp.NewHandler(s, nil)).URL + "/bao/" + h.String()
	for _, ranges := range []string{"all", "last", "0..1", "0..16,48..64,last", "5..7,100..", "100000..", "999999..1000000", "16..32,0..16", ""} {
		want := respond(t, s, h, ranges)
		for _, address := range []string{server + "?ranges=" + ranges, server + "?ranges=" + url.QueryEscape(ranges) + "&x=1"} {
			resp, got := do(t, "GET", address, "", nil)
			if resp.StatusCode != 200 || !bytes.Equal(got, want) || resp.ContentLength != int64(len(want)) {
				t.Errorf("%q: %s, %d bytes, %d announced, want %d", ranges, resp.Status, len(got), resp.ContentLength, len(want))
			}
			if resp.Header.Get("Content-Type") != "application/octet-stream" || resp.Header.Get("Etag") != `"bao-`+h.String()+`"` {
				t.Errorf("%q: %v", ranges, resp.Header)
			}
			mustBeHarmless(t, resp)
			head, _ := do(t, "HEAD", address, "", nil)
			if head.StatusCode != 200 || head.ContentLength != int64(len(want)) {
				t.Errorf("HEAD %q: %s, %d bytes", ranges, head.Status, head.ContentLength)
			}
		}
	}
	if resp, got := do(t, "GET", server, "", nil); resp.StatusCode != 200 || !bytes.Equal(got, respond(t, s, h, "all")) {
		t.Errorf("without ranges: %s, %d bytes", resp.Status, len(got))
	}
	if resp, _ := do(t, "GET", server, `If-None-Match: "x", W/"bao-`+h.String()+`"`, nil); resp.StatusCode != http.StatusNotModified {
		t.Errorf("If-None-Match: %s", resp.Status)
	}
}

func TestBadBaoRanges(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	h := add(t, s, content(1, 100))
	server := serve(t, blobhttp.NewHandler(s, nil)).URL + "/bao/" + h.String()
	many := func(n int) string {
		var parts []string
		for i := range n {
			parts = append(parts, fmt.Sprintf("%d..%d", 2*i, 2*i+1))
		}
		return strings.Join(parts, ",")
	}
	for _, query := range []string{
		"ranges=x", "ranges=5..5", "ranges=5..4", "ranges=-1..4", "ranges=0..1,", "ranges=,", "ranges=0...1",
		"ranges=0..18446744073709551616", "ranges=all;last", "ranges=%zz", "ranges=0..1&ranges=0..1", "ranges=" + many(1025),
	} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, _ := do(t, method, server+"?"+query, "", nil)
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s %.50s: %s", method, query, resp.Status)
			}
			mustBePlain(t, resp)
		}
	}
	if resp, _ := do(t, "GET", server+"?ranges="+many(1024), "", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("1024 ranges: %s", resp.Status)
	}
	if resp, _ := do(t, "GET", server+"?ranges="+many(9000), "", nil); resp.StatusCode < 400 || resp.StatusCode >= 500 {
		t.Errorf("a header of 100 kB: %s", resp.Status)
	}
}

// TestPartialBao serves what is there.
func TestPartialBao(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	h := add(t, from, content(1, 300*bao.GroupSize))
	server := serve(t, blobhttp.NewHandler(s, nil)).URL + "/bao/" + h.String()
	var every []string
	for i := 1; i < 300; i += 2 {
		every = append(every, fmt.Sprintf("%d..%d", 16*i, 16*i+16))
	}
	there := strings.Join(every, ",")
	copyRanges(t, from, s, h, there)
	for _, ranges := range []string{"16..32", "16..17,50..60", "last", there} {
		resp, got := do(t, "GET", server+"?ranges="+ranges, "", nil)
		want := respond(t, from, h, ranges)
		if resp.StatusCode != 200 || !bytes.Equal(got, want) || resp.Header.Get("Etag") != "" || strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%.40s: %s, %d bytes, %v", ranges, resp.Status, len(got), resp.Header)
		}
		if resp, _ := do(t, "HEAD", server+"?ranges="+ranges, "", nil); resp.ContentLength != int64(len(want)) {
			t.Errorf("%.40s: HEAD has %d bytes, want %d", ranges, resp.ContentLength, len(want))
		}
	}
	for _, tt := range []struct{ ranges, named string }{
		{"0..1", "chunks 0..16"},
		{"16..33", "chunks 32..48"},
		{"all", "224..240 and 142 more ranges"},
	} {
		resp, text := do(t, "GET", server+"?ranges="+tt.ranges, "", nil)
		if resp.StatusCode != 404 || !strings.Contains(string(text), tt.named) || len(text) > 2000 {
			t.Errorf("%s: %s: %s", tt.ranges, resp.Status, text)
		}
		if resp, _ := do(t, "HEAD", server+"?ranges="+tt.ranges, "", nil); resp.StatusCode != 404 {
			t.Errorf("HEAD %s: %s", tt.ranges, resp.Status)
		}
	}
}

// TestList goes through the pages.
func TestList(t *testing.T) {
	from, s := openStore(t, ":memory:", nil), openStore(t, ":memory:", nil)
	want := make(map[string]string)
	for i := range 30 {
		want[add(t, s, content(byte(i), i)).String()] = fmt.Sprintf("%d complete", i)
	}
	partial := add(t, from, content(99, 50_000))
	copyRanges(t, from, s, partial, "0..16")
	want[partial.String()] = "50000 partial"

	server := serve(t, blobhttp.NewHandler(s, nil)).URL
	got := make(map[string]string)
	var order []string
	at, err := url.Parse(server + "/blobs?limit=7")
	if err != nil {
		t.Fatal(err)
	}
	for pages := 1; ; pages++ {
		page := list(t, at.String())
		for _, b := range page.Blobs {
			got[b.Hash] = fmt.Sprintf("%d %s", b.Size, b.State)
			order = append(order, b.Hash)
		}
		if page.Next == "" {
			if pages != 5 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		if at, err = at.Parse(page.Next); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(order) != len(want) || !slices.IsSorted(order) {
		t.Errorf("got %v, want %v", got, want)
	}
	page := list(t, server+"/blobs?limit=1&prefix="+strings.ToUpper(order[3][:5]))
	if len(page.Blobs) != 1 || page.Blobs[0].Hash != order[3] || page.Next != "" {
		t.Errorf("by prefix: %+v", page)
	}
	if page := list(t, server+"/blobs?limit=31"); len(page.Blobs) != 31 || page.Next != "" {
		t.Errorf("all at once: %d, next %q", len(page.Blobs), page.Next)
	}
	if page := list(t, server+"/blobs?after="+strings.Repeat("f", 64)); page.Blobs == nil || len(page.Blobs) != 0 {
		t.Errorf("behind the last: %+v", page)
	}
	for _, query := range []string{"limit=0", "limit=-1", "limit=x", "prefix=xyz", "prefix=" + strings.Repeat("0", 65), "after=1", "limit=1&limit=2"} {
		if resp, text := do(t, "GET", server+"/blobs?"+query, "", nil); resp.StatusCode != 400 {
			t.Errorf("%s: %s: %s", query, resp.Status, text)
		}
	}
	if resp, body := do(t, "HEAD", server+"/blobs", "", nil); resp.StatusCode != 200 || len(body) != 0 {
		t.Errorf("HEAD: %s, %d bytes", resp.Status, len(body))
	}
}

// TestListLimit asks for more than a page may have.
func TestListLimit(t *testing.T) {
	s := openStore(t, ":memory:", nil)
	for i := range 1001 {
		add(t, s, []byte(fmt.Sprint(i)))
	}
	server := serve(t, blobhttp.NewHandler(s, nil)).URL
	if page := list(t, server+"/blobs?limit=1000000"); len(page.Blobs) != 1000 || page.Next == "" {
		t.Errorf("%d blobs, next %q", len(page.Blobs), page.Next)
	}
	if page := list(t, server+"/blobs"); len(page.Blobs) != 256 || page.Next == "" {
		t.Errorf("%d blobs, next %q", len(page.Blobs), page.Next)
	}
}

type listPage struct {
	Blobs []struct {
		Hash  string
		Size  int64
		State string
	}
	Next string
}

func list(t *testing.T, address string) (page listPage) {
	t.Helper()
	resp, body := do(t, "GET", address, "", nil)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %s, %v", address, resp.Status, resp.Header)
	}
	mustBeHarmless(t, resp)
	if err := json.Unmarshal(body, &page); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return page
}

// mustGive checks that a server has a blob's content.
func mustGive(t *testing.T, server string, data []byte) {
	t.Helper()
	resp, body := do(t, "GET", server+"/blob/"+hashOf(data).String(), "", nil)
	if resp.StatusCode != 200 || !bytes.Equal(body, data) {
		t.Errorf("%s, %d bytes of %d", resp.Status, len(body), len(data))
	}
}
