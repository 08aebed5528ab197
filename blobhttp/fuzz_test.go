package blobhttp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/blobhttp"
)

// FuzzRequest sends any address and range to a sound store: there is always an
// answer, and never an error of the server.
func FuzzRequest(f *testing.F) {
	s, err := cairn.Open(context.Background(), ":memory:", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	h := add(f, s, content(1, 50_000)).String()
	for _, seed := range []struct{ path, query, ranges, etag string }{
		{"/blob/" + h, "", "bytes=0-5", ""},
		{"/blob/" + h, "", "bytes=16380-16390,-5,40000-", `W/"` + h + `"`},
		{"/bao/" + h, "ranges=0..16,last", "", `"bao-` + h + `"`},
		{"/bao/" + h, "ranges=18446744073709551615..", "", "*"},
		{"/blobs", "limit=5&prefix=a&after=" + h, "", ""},
		{"/blob", "", "", ""},
		{"/", "", "", ""},
	} {
		for _, method := range []string{"GET", "HEAD", "PUT", "PATCH"} {
			f.Add(method, seed.path, seed.query, seed.ranges, seed.etag)
		}
	}
	handler := blobhttp.NewHandler(s, &blobhttp.HandlerOptions{WriteToken: "s3cret"})
	f.Fuzz(func(t *testing.T, method, path, query, ranges, etag string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Method = method
		r.URL = &url.URL{Path: path, RawQuery: query}
		r.Header = http.Header{"Range": {ranges}, "If-None-Match": {etag}, "If-Range": {etag}}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code < 200 || w.Code >= 500 {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
		mustBeHarmless(t, w.Result())
	})
}
