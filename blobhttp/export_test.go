package blobhttp

import (
	"io"
	"log/slog"
	"net/http"
	"time"
)

// Answer returns the status and the text for an error.
func Answer(err error) (code int, text string) {
	a := answer(err)
	return a.code, a.text
}

// Fail answers with an error.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	h := &handler{log: slog.New(slog.DiscardHandler)}
	h.fail(newResponse(w, r, time.Second), r, err)
}

// Pump runs what panics, or does not, as a response is produced.
func Pump(produce func() error) error {
	return pump(io.Discard, func(*pipeline) error { return produce() })
}

// ReadNothing reads a content whose blob is nil, which panics.
func ReadNothing() error {
	_, err := (&content{size: 1}).Read(make([]byte, 1))
	return err
}
