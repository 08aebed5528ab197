package blobhttp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// serveBao serves the verified response to a request for ranges of a blob.
func (h *handler) serveBao(w *response, r *http.Request, name string) error {
	if err := allow(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	hash, err := parseHash(name)
	if err != nil {
		return err
	}
	ranges, err := requestedRanges(r.URL.RawQuery)
	if err != nil {
		return err
	}
	status, err := h.store.Status(r.Context(), hash)
	if err == nil && status.State == cairn.Absent {
		err = cairn.ErrNotFound
	}
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Cache-Control", "no-store")
	if status.State == cairn.Complete {
		// A part of one has no ETag: its size, which a response begins with,
		// may not be the true one.
		etag := `"bao-` + hash.String() + `"`
		w.setImmutable(etag)
		if matches(r.Header.Get("If-None-Match"), etag, false) {
			header.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	} else if err := h.requireRanges(w, r, hash, ranges); err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		w.setLength(bao.ResponseSize(status.Size, ranges))
		return nil
	}
	body := &baoBody{w: w, ranges: ranges}
	err = pump(body, func(p *pipeline) error {
		out := &pieceWriter{p: p}
		// What comes before an error has been verified, and is sent too.
		return errors.Join(h.store.ExportBao(r.Context(), hash, ranges, out), out.flush())
	})
	if !body.started {
		w.setLength(0)
	}
	return err
}

// requireRanges returns an error if a partial blob lacks some of the ranges, and
// tells the client what it has of them. An export finds that out, too, but looks
// for all of them at once.
func (h *handler) requireRanges(w *response, r *http.Request, hash cairn.Hash, ranges bao.Ranges) error {
	blob, err := h.store.Blob(r.Context(), hash)
	if err != nil {
		return err
	}
	defer blob.Close()
	err = require(blob, blob.Size(), ranges)
	if errors.Is(err, cairn.ErrMissing) {
		there, offerErr := offer(blob, blob.Size(), ranges)
		if offerErr != nil {
			return offerErr
		}
		w.Header().Set(rangesHeader, there.String())
	}
	return err
}

func (w *response) setLength(n int64) { w.Header().Set("Content-Length", strconv.FormatInt(n, 10)) }

// requestedRanges returns the ranges that a query asks for: all if it names
// none.
func requestedRanges(query string) (bao.Ranges, error) {
	values, err := parseQuery(query)
	if err != nil {
		return bao.Ranges{}, err
	}
	if !values.Has("ranges") {
		return bao.All(), nil
	}
	text := values.Get("ranges")
	if n := strings.Count(text, ",") + 1; n > maxRanges {
		return bao.Ranges{}, &statusError{http.StatusBadRequest, fmt.Sprintf("%d ranges, at most %d are served", n, maxRanges)}
	}
	ranges, err := bao.ParseRanges(text)
	if err != nil {
		return bao.Ranges{}, &statusError{http.StatusBadRequest, err.Error()}
	}
	return ranges, nil
}

// parseQuery reads a query in which each name comes once.
func parseQuery(query string) (url.Values, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, &statusError{http.StatusBadRequest, fmt.Sprintf("query: %v", err)}
	}
	for name, v := range values {
		if len(v) > 1 {
			return nil, &statusError{http.StatusBadRequest, fmt.Sprintf("query: %q is there %d times", name, len(v))}
		}
	}
	return values, nil
}

// matches reports whether an If-Match or If-None-Match field lists the ETag. A
// strong comparison takes no weak one for it.
func matches(field, etag string, strong bool) bool {
	for part := range strings.SplitSeq(field, ",") {
		part = strings.TrimSpace(part)
		if !strong {
			part = strings.TrimPrefix(part, "W/")
		}
		if part == "*" || part == etag {
			return true
		}
	}
	return false
}

// A baoBody passes an export on to the client, in large pieces. It takes the
// length from the size that the export begins with, because a partial blob's
// may change until then.
type baoBody struct {
	w       *response
	ranges  bao.Ranges
	started bool
}

// Write implements [io.Writer].
func (b *baoBody) Write(p []byte) (int, error) {
	if !b.started {
		if len(p) < 8 {
			return 0, io.ErrShortBuffer
		}
		b.started = true
		length := bao.ResponseSize(int64(binary.LittleEndian.Uint64(p)), b.ranges)
		b.w.setLength(length)
		if len(p) < bao.GroupSize && int64(len(p)) < length {
			// The export has failed before it came to a group. Without this
			// piece the error can still become an answer.
			return len(p), nil
		}
	}
	return b.w.Write(p)
}
