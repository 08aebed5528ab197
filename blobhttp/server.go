package blobhttp

import (
	"net/http"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
)

// NewServer returns a server for a handler with the limits that a handler
// cannot set itself: 10 seconds for a request's header, which may have 32 KiB,
// and two minutes for a connection without a request. It has no limits for
// whole requests; the handler of [NewHandler] has its own. The caller sets the
// address, starts it and shuts it down.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
	}
}
