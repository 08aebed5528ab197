package blobhttp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/cairnstore/cairn"
)

const (
	defaultListLimit = 256
	maxListLimit     = 1000
)

// A listing is the answer to GET /blobs.
type listing struct {
	Blobs []listed `json:"blobs"`
	// Next is the reference to the next page, relative to this one's address,
	// if there is one.
	Next string `json:"next,omitempty"`
}

type listed struct {
	Hash  cairn.Hash  `json:"hash"`
	Size  int64       `json:"size"`
	State cairn.State `json:"state"`
}

func (h *handler) serveList(w *response, r *http.Request) error {
	if err := allow(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	opts, err := listOptions(r.URL.RawQuery)
	if err != nil {
		return err
	}
	page := listing{Blobs: []listed{}}
	limit := opts.Limit
	opts.Limit++ // one more tells whether there is another page
	for info, err := range h.store.Blobs(r.Context(), &opts) {
		if errors.Is(err, cairn.ErrMismatch) {
			return &statusError{http.StatusBadRequest, err.Error()}
		}
		if err != nil {
			return err
		}
		if len(page.Blobs) == limit {
			page.Next = nextPage(opts.Prefix, page.Blobs[limit-1].Hash, limit)
			break
		}
		page.Blobs = append(page.Blobs, listed{info.Hash, info.Size, info.State})
	}
	w.Header().Set("Cache-Control", "no-store")
	return w.json(http.StatusOK, page)
}

func listOptions(query string) (opts cairn.ListOptions, err error) {
	values, err := parseQuery(query)
	if err != nil {
		return opts, err
	}
	opts.Prefix = values.Get("prefix")
	opts.Limit = defaultListLimit
	if values.Has("limit") {
		n, err := strconv.Atoi(values.Get("limit"))
		if err != nil || n < 1 {
			return opts, &statusError{http.StatusBadRequest, fmt.Sprintf("limit %q is no number above 0", values.Get("limit"))}
		}
		opts.Limit = min(n, maxListLimit)
	}
	if values.Has("after") {
		opts.After, err = parseHash(values.Get("after"))
	}
	return opts, err
}

func nextPage(prefix string, after cairn.Hash, limit int) string {
	query := url.Values{"after": {after.String()}, "limit": {strconv.Itoa(limit)}}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	return "?" + query.Encode()
}

// json answers with one line of JSON.
func (w *response) json(code int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.setLength(int64(len(text)))
	w.WriteHeader(code)
	w.Write(text) // the client may be gone
	return nil
}
