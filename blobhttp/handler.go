package blobhttp

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/cairnstore/cairn"
)

const (
	defaultMaxRequests  = 128
	defaultStallTimeout = time.Minute
	// maxRanges is the most ranges in one request, of either kind.
	maxRanges = 1024
	// maxByteRanges is the most parts of a multipart response.
	maxByteRanges = 64
)

// HandlerOptions configure a handler. The zero value, and nil, are the
// defaults.
type HandlerOptions struct {
	// WriteToken is what a client must send as a bearer token in order to add
	// blobs. Default (empty): nobody can.
	WriteToken string
	// MaxBodyBytes is the largest blob that can be added, in bytes. Default
	// (and if ≤ 0): [cairn.MaxBlobSize].
	MaxBodyBytes int64
	// MaxRequests is the most requests that are served at once; others are
	// told to come again. Each takes 1 to 2 MiB. Default (and if ≤ 0): 128.
	MaxRequests int
	// StallTimeout is how long a client may take none of the response, or send
	// nothing of its body, before the connection is closed. It does not bound
	// a transfer that goes on. Default (and if ≤ 0): one minute.
	StallTimeout time.Duration
	// Logger gets the errors of the store: damage, a full disk. Default:
	// nothing is logged.
	Logger *slog.Logger
}

func (o *HandlerOptions) maxBodyBytes() int64 {
	if o.MaxBodyBytes <= 0 {
		return cairn.MaxBlobSize
	}
	return o.MaxBodyBytes
}

func (o *HandlerOptions) maxRequests() int {
	if o.MaxRequests <= 0 {
		return defaultMaxRequests
	}
	return o.MaxRequests
}

func (o *HandlerOptions) stallTimeout() time.Duration {
	if o.StallTimeout <= 0 {
		return defaultStallTimeout
	}
	return o.StallTimeout
}

func (o *HandlerOptions) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// NewHandler returns a handler that serves the blobs of a store, as the
// package comment says. The store stays the caller's, and must not be closed
// before the server has been shut down: until then requests get 503.
func NewHandler(store *cairn.Store, opts *HandlerOptions) http.Handler {
	if opts == nil {
		opts = &HandlerOptions{}
	}
	return &handler{
		store:    store,
		slots:    make(chan struct{}, opts.maxRequests()),
		writable: opts.WriteToken != "",
		token:    sha256.Sum256([]byte(opts.WriteToken)),
		maxBody:  opts.maxBodyBytes(),
		stall:    opts.stallTimeout(),
		log:      opts.logger(),
	}
}

type handler struct {
	store    *cairn.Store
	slots    chan struct{} // holds a token for each request that is served
	writable bool
	token    [sha256.Size]byte // of the token, so that its length does not show
	maxBody  int64
	stall    time.Duration
	log      *slog.Logger
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := newResponse(rw, r, h.stall)
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		h.fail(w, r, &statusError{http.StatusServiceUnavailable, "too many requests at once"})
		return
	}
	if err := h.route(w, r); err != nil {
		h.fail(w, r, err)
		return
	}
	w.commit()
}

var errNoRoute = &statusError{http.StatusNotFound, "nothing is here: see /blob/HASH, /bao/HASH, /blobs"}

func (h *handler) route(w *response, r *http.Request) error {
	path, _ := strings.CutPrefix(r.URL.Path, "/")
	switch first, rest, named := strings.Cut(path, "/"); {
	case path == "blobs":
		return h.serveList(w, r)
	case path == "blob" && h.writable:
		if err := allow(w, r, http.MethodPut); err != nil {
			return err
		}
		return h.putBlob(w, r, nil)
	case path == "blob" && r.Method == http.MethodPut:
		return errNotWritable
	case !named || rest == "" || strings.Contains(rest, "/"):
		return errNoRoute
	case first == "blob":
		return h.serveBlob(w, r, rest)
	case first == "bao":
		return h.serveBao(w, r, rest)
	}
	return errNoRoute
}

// serveBlob serves all methods of one blob.
func (h *handler) serveBlob(w *response, r *http.Request, name string) error {
	methods := []string{http.MethodGet, http.MethodHead}
	if h.writable {
		methods = append(methods, http.MethodPut)
	} else if r.Method == http.MethodPut {
		return errNotWritable
	}
	if err := allow(w, r, methods...); err != nil {
		return err
	}
	hash, err := parseHash(name)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPut {
		return h.putBlob(w, r, &hash)
	}
	return h.getBlob(w, r, hash)
}

func parseHash(text string) (cairn.Hash, error) {
	hash, err := cairn.ParseHash(text)
	if err != nil {
		return hash, &statusError{http.StatusBadRequest, err.Error()}
	}
	return hash, nil
}

// allow refuses methods that are not listed.
func allow(w *response, r *http.Request, methods ...string) error {
	for _, m := range methods {
		if r.Method == m {
			return nil
		}
	}
	list := strings.Join(methods, ", ")
	w.Header().Set("Allow", list)
	return &statusError{http.StatusMethodNotAllowed, "only " + list + " here"}
}

var errNotWritable = &statusError{http.StatusForbidden, "this server takes no blobs: it has no write token"}

// authorize lets only those pass who have the token.
func (h *handler) authorize(w *response, r *http.Request) error {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if !h.writable || !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(sum[:], h.token[:]) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return &statusError{http.StatusUnauthorized, "adding blobs takes the write token"}
	}
	return nil
}
