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

// getBlob serves a blob's content.
func (h *handler) getBlob(w *response, r *http.Request, hash cairn.Hash) error {
	if err := checkRanges(r.Header.Get("Range")); err != nil {
		return err
	}
	c, err := h.openContent(r, hash)
	if err != nil {
		return err
	}
	defer c.blob.Close()
	if r.Method == http.MethodHead && r.Header.Get("Range") == "" {
		if err := c.require(c.size); err != nil {
			return err
		}
	}
	w.Header().Set("Etag", `"`+hash.String()+`"`)
	w.Header().Set("Cache-Control", immutable)
	w.Header().Set("Content-Type", contentType(c.blob))
	if c.size == 0 {
		r = r.Clone(r.Context())
		r.Header.Del("Range") // ServeContent takes a suffix of nothing for satisfiable
	}
	http.ServeContent(w, r, "", time.Time{}, c)
	if w.code == http.StatusPreconditionFailed {
		return &statusError{w.code, "the blob is what its hash says"}
	}
	return w.err
}

// checkRanges refuses what [http.ServeContent] lets pass: any number of ranges,
// and the last 0 bytes.
func checkRanges(field string) error {
	list, _ := strings.CutPrefix(field, "bytes=")
	if n := strings.Count(list, ",") + 1; n > maxByteRanges {
		return &statusError{http.StatusRequestedRangeNotSatisfiable, fmt.Sprintf("%d ranges, at most %d are served", n, maxByteRanges)}
	}
	for part := range strings.SplitSeq(list, ",") {
		suffix, ok := strings.CutPrefix(strings.TrimSpace(part), "-")
		if ok && suffix != "" && strings.Trim(suffix, "0") == "" {
			return &statusError{http.StatusRequestedRangeNotSatisfiable, "the last 0 bytes are no range"}
		}
	}
	return nil
}

// A content reads a blob for [http.ServeContent], which uses it from one
// goroutine at a time, the last of which may outlive the request.
type content struct {
	h       *handler
	r       *http.Request
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
	return &content{h: h, r: r, blob: blob, partial: status.State == cairn.Partial, size: status.Size}, nil
}

// require returns an error if the blob lacks some of the next n bytes.
func (c *content) require(n int64) error {
	if !c.partial {
		return nil
	}
	present, err := c.h.store.Ranges(c.r.Context(), c.blob.Hash())
	if err != nil {
		return err
	}
	missing := bao.Bytes(uint64(c.pos), uint64(c.pos+n)).Groups().Intersect(bao.Chunks(0, bao.ChunkCount(c.size))).Minus(present)
	if missing.IsEmpty() {
		return nil
	}
	return &cairn.MissingError{Hash: c.blob.Hash(), Ranges: missing}
}

// Read implements [io.Reader]. Where it can it ends with a group, so that none
// is verified twice.
func (c *content) Read(p []byte) (int, error) {
	if c.pos >= c.size {
		return 0, io.EOF
	}
	end := min(c.pos+int64(len(p)), c.size)
	if whole := end &^ (bao.GroupSize - 1); end < c.size && whole > c.pos {
		end = whole
	}
	n, err := c.blob.ReadAt(p[:end-c.pos], c.pos)
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
