package blobhttp

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// immutable is the Cache-Control of what can never be different.
const immutable = "public, max-age=31536000, immutable"

// getBlob serves a blob's content. All that can be wrong with the request is
// found before [http.ServeContent] begins to answer.
func (h *handler) getBlob(w *response, r *http.Request, hash cairn.Hash) error {
	c, err := h.openContent(r, hash)
	if err != nil {
		return err
	}
	defer c.blob.Close()
	etag := `"` + hash.String() + `"`
	if field := r.Header.Get("If-Match"); field != "" && !matches(field, etag, true) {
		return &statusError{http.StatusPreconditionFailed, "the blob is what its hash says"}
	}
	if matches(r.Header.Get("If-None-Match"), etag, false) {
		w.setImmutable(etag)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	ranges, err := byteRanges(rangeField(r.Header, etag), c.size)
	if err != nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", c.size))
		return err
	}
	if err := c.check(r.Method, ranges); err != nil {
		return err
	}
	w.setImmutable(etag)
	w.Header().Set("Content-Type", contentType(c.blob))
	http.ServeContent(w, asking(r, ranges), "", time.Time{}, c)
	return w.err
}

// setImmutable says that what the ETag names can never be different.
func (w *response) setImmutable(etag string) {
	w.Header().Set("Etag", etag)
	w.Header().Set("Cache-Control", immutable)
}

// asking returns the request with nothing in its header but these ranges.
func asking(r *http.Request, ranges []cairn.ByteRange) *http.Request {
	r = r.WithContext(r.Context())
	r.Header = http.Header{}
	if len(ranges) > 0 {
		r.Header.Set("Range", formatRanges(ranges))
	}
	return r
}

// A content reads a blob for [http.ServeContent], which uses it from one
// goroutine at a time, the last of which may outlive the request.
type content struct {
	blob    *cairn.Blob
	partial bool
	size    int64
	pos     int64
}

// openContent opens a complete blob, or a partial one whose size is proven.
// The caller closes its blob.
func (h *handler) openContent(r *http.Request, hash cairn.Hash) (*content, error) {
	blob, err := h.store.Blob(r.Context(), hash)
	if err != nil {
		return nil, err
	}
	status, err := h.store.Status(r.Context(), hash)
	if err == nil && !status.SizeProven {
		err = &statusError{http.StatusNotFound, "the blob is partial, and its size is not proven"}
	}
	if err != nil {
		blob.Close()
		return nil, err
	}
	return &content{blob: blob, partial: status.State == cairn.Partial, size: status.Size}, nil
}

var errPartial = &statusError{http.StatusNotFound, "the blob is partial: only ranges that are there can be had"}

// check returns an error if the blob lacks some of the ranges, or if the first
// bytes do not verify where [http.ServeContent] would send something before it
// reads them. No ranges are the whole.
func (c *content) check(method string, ranges []cairn.ByteRange) error {
	first := int64(0)
	if len(ranges) > 0 {
		first = ranges[0].Start
	}
	if c.partial {
		if len(ranges) == 0 {
			return errPartial // it lacks something, or it would not be partial
		}
		if err := require(c.blob, c.size, chunksOf(ranges)); err != nil {
			return err
		}
	}
	if method != http.MethodHead && len(ranges) < 2 {
		return nil
	}
	if _, err := c.blob.ReadAt(make([]byte, 1), first); err != nil && err != io.EOF {
		return err
	}
	return nil
}

// Read implements [io.Reader]. Where it can it ends with a group, so that none
// is verified twice.
func (c *content) Read(p []byte) (n int, err error) {
	defer caught(&err) // the goroutine may not be the server's
	if c.pos >= c.size {
		return 0, io.EOF
	}
	end := min(c.pos+int64(len(p)), c.size)
	if whole := end &^ (bao.GroupSize - 1); end < c.size && whole > c.pos {
		end = whole
	}
	n, err = c.blob.ReadAt(p[:end-c.pos], c.pos)
	c.pos += int64(n)
	if err == io.EOF && c.pos < c.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Seek implements [io.Seeker], as far as [http.ServeContent] uses it.
func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.pos
	case io.SeekEnd:
		offset += c.size
	}
	c.pos = offset
	return offset, nil
}

// contentType returns a type by a blob's first bytes that no browser executes.
// If they cannot be read there is none to tell; whoever asks for them will get
// the error.
func contentType(blob *cairn.Blob) string {
	var start [512]byte
	n, err := blob.ReadAt(start[:], 0)
	if err != nil && err != io.EOF {
		return "application/octet-stream"
	}
	return passiveType(http.DetectContentType(start[:n]))
}

// passiveType keeps the types of which it is known that they are only shown,
// and has text be plain.
func passiveType(detected string) string {
	family, _, _ := strings.Cut(detected, "/")
	switch {
	case strings.Contains(detected, "svg"):
	case family == "image", family == "audio", family == "video", detected == "application/ogg":
		return detected
	case strings.HasPrefix(detected, "text/plain;"):
		return detected
	case family == "text":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}
