package blobhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

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
	var p *panicError
	if errors.As(err, &p) {
		panic(p) // in a goroutine where it ends only this connection
	}
	if w.gone {
		panic(http.ErrAbortHandler)
	}
	a := answer(err)
	if a.code == http.StatusInternalServerError || a.code == http.StatusInsufficientStorage {
		h.log.Error("blobhttp: request failed", "method", r.Method, "path", r.URL.Path, "sent", w.sent, "err", err)
	}
	if w.sent {
		// What has been verified is of use; and a client that has not even
		// got the header would take that for a server that is gone.
		w.extendWrite()
		w.ctl.Flush()
		panic(http.ErrAbortHandler)
	}
	header := w.Header()
	for _, name := range []string{"Accept-Ranges", "Content-Length", "Etag"} {
		header.Del(name)
	}
	if a.code != http.StatusRequestedRangeNotSatisfiable {
		header.Del("Content-Range") // the other errors are not about a range of the blob
	}
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodPut {
		header.Set("Connection", "close") // what is left of the body is not wanted
	}
	w.code = a.code
	fmt.Fprintln(w, a.text) // the client may be gone
}

// A panicError is a panic of a goroutine that is not the server's, where it
// would end the whole program.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("%v\n\n%s", e.value, e.stack) }

// caught, when it is deferred, turns a panic into an error.
func caught(err *error) {
	if v := recover(); v != nil {
		*err = &panicError{v, debug.Stack()}
	}
}
