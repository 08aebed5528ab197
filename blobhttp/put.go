package blobhttp

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// added is the answer to a PUT.
type added struct {
	Hash cairn.Hash `json:"hash"`
	Size int64      `json:"size"`
}

// putBlob adds the body, if it has the wanted hash where one is given.
func (h *handler) putBlob(w *response, r *http.Request, want *cairn.Hash) error {
	if err := h.authorize(w, r); err != nil {
		return err
	}
	if r.Header.Get("Content-Range") != "" {
		return &statusError{http.StatusBadRequest, "a blob is added as a whole: no Content-Range"}
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		w.Header().Set("Accept-Encoding", "identity")
		return &statusError{http.StatusUnsupportedMediaType, fmt.Sprintf("a blob is added as it is: no Content-Encoding %q", coding)}
	}
	if r.ContentLength > h.maxBody {
		return &http.MaxBytesError{Limit: h.maxBody}
	}
	body := &upload{w: w, r: http.MaxBytesReader(w.ResponseWriter, r.Body, h.maxBody), want: want}
	tag, err := h.store.Add(r.Context(), body, nil)
	if err != nil {
		return body.blame(err)
	}
	// The blob stays until somebody deletes it.
	defer tag.Release()
	location := tag.Hash().String()
	if want == nil {
		location = "blob/" + location
	}
	w.Header().Set("Location", location)
	w.Header().Set("Cache-Control", "no-store")
	return w.json(http.StatusCreated, added{tag.Hash(), body.size})
}

// An upload is the body of a request on its way to the store. If a hash is
// wanted, it is compared before the store learns that the body has ended: the
// store then takes the whole as an addition that has failed, and keeps nothing.
// What was there before is not touched.
type upload struct {
	w    *response
	r    io.Reader
	want *cairn.Hash
	sum  bao.Hasher
	size int64 // so far
	end  error // of the body: io.EOF, or what is wrong with it
}

// Read implements [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	if u.end != nil {
		return 0, u.end
	}
	u.w.extendRead()
	n, err := u.r.Read(p)
	u.size += int64(n)
	if u.want != nil {
		if _, sumErr := u.sum.Write(p[:n]); sumErr != nil {
			return 0, sumErr
		}
	}
	if err == io.EOF {
		u.w.endRead()
		err = u.verify()
	}
	u.end = err
	return n, err
}

// verify returns io.EOF if the body has the hash that it must have.
func (u *upload) verify() error {
	if u.want == nil {
		return io.EOF
	}
	root, err := u.sum.Finish()
	if err != nil {
		return err
	}
	if got := cairn.Hash(root); got != *u.want {
		return &statusError{http.StatusConflict, fmt.Sprintf("the body has the hash %v", got)}
	}
	return io.EOF
}

// blame tells errors of the client from those of the store.
func (u *upload) blame(err error) error {
	var tooLarge *http.MaxBytesError
	var status *statusError
	switch {
	case u.end == nil || u.end == io.EOF || errors.As(err, &tooLarge) || errors.As(err, &status):
		return err
	case errors.Is(u.end, os.ErrDeadlineExceeded):
		return &statusError{http.StatusRequestTimeout, "the body did not go on"}
	}
	return &statusError{http.StatusBadRequest, fmt.Sprintf("the body ended early: %v", u.end)}
}
