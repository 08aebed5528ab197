package blobhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/cairnstore/cairn"
)

// A statusError is an answer to the client.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// answer returns what the client is told of an error. Errors of the system are
// not shown: they may name files.
func answer(err error) statusError {
	var status *statusError
	var tooLarge *http.MaxBytesError
	var missing *cairn.MissingError
	switch {
	case errors.As(err, &status):
		return *status
	case errors.As(err, &tooLarge):
		return statusError{http.StatusRequestEntityTooLarge, fmt.Sprintf("at most %d bytes", tooLarge.Limit)}
	case errors.As(err, &missing):
		return statusError{http.StatusNotFound, missing.Error()}
	case errors.Is(err, cairn.ErrNotFound):
		return statusError{http.StatusNotFound, "no such blob"}
	case errors.Is(err, cairn.ErrTooLarge):
		return statusError{http.StatusRequestEntityTooLarge, fmt.Sprintf("at most %d bytes", int64(cairn.MaxBlobSize))}
	case errors.Is(err, cairn.ErrFull):
		return statusError{http.StatusInsufficientStorage, "the store is full"}
	case errors.Is(err, cairn.ErrReadOnly):
		return statusError{http.StatusForbidden, "the store is read-only"}
	case errors.Is(err, cairn.ErrCorrupt):
		return statusError{http.StatusInternalServerError, corruptText(err)}
	case errors.Is(err, cairn.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return statusError{http.StatusServiceUnavailable, "shutting down"}
	}
	return statusError{http.StatusInternalServerError, "internal error"}
}

func corruptText(err error) string {
	var corrupt *cairn.CorruptError
	if !errors.As(err, &corrupt) || len(corrupt.Ranges) == 0 {
		return "damaged data"
	}
	r := corrupt.Ranges[0]
	return fmt.Sprintf("blob %v: damaged data: bytes %d..%d", corrupt.Hash, r.Start, r.End)
}

// fail answers with an error or, if a part of the body has been sent already,
// closes the connection, so that nobody can take that part for the whole.
func (h *handler) fail(w *response, r *http.Request, err error) {
	if w.gone {
		panic(http.ErrAbortHandler)
	}
	a := answer(err)
	if a.code == http.StatusInternalServerError || a.code == http.StatusInsufficientStorage {
		h.log.Error("blobhttp: request failed", "method", r.Method, "path", r.URL.Path, "sent", w.sent, "err", err)
	}
	if w.sent {
		panic(http.ErrAbortHandler)
	}
	header := w.Header()
	for _, name := range []string{"Accept-Ranges", "Content-Length", "Content-Range", "Etag"} {
		header.Del(name)
	}
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodPut {
		header.Set("Connection", "close") // what is left of the body is not wanted
	}
	w.code = a.code
	fmt.Fprintln(w, a.text) // the client may be gone
}
