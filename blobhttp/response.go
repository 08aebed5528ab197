package blobhttp

import (
	"io"
	"net/http"
	"time"
)

const (
	// firstPiece is how much is written at once at first, and to slow clients.
	firstPiece = 16 << 10
	// quick and slow are times for one write: when it took less, the next is
	// larger; when it took more, the next is small again.
	quick = 50 * time.Millisecond
	slow  = time.Second
)

// A response is a [http.ResponseWriter] that sends its header only with the
// first byte of the body, so that a read which fails before it can still become
// an error, and that gives the client time for each piece. Its request's
// goroutine owns it.
type response struct {
	http.ResponseWriter
	ctl   *http.ResponseController
	stall time.Duration

	code int  // to be sent, if not 0
	sent bool // the header has been
	step int  // how much to write at once
	// err is what went wrong with what was to be sent, if anything; not an
	// error of the connection.
	err  error
	gone bool // the connection has had one
}

// newResponse also sets the header fields that all responses have.
func newResponse(rw http.ResponseWriter, r *http.Request, stall time.Duration) *response {
	w := &response{ResponseWriter: rw, ctl: http.NewResponseController(rw), stall: stall, step: firstPiece}
	// Servers ask for the rest of a body before they answer, and may have to
	// answer "100 Continue": with the deadlines of an earlier request.
	w.extendWrite()
	if r.Body != nil && r.Body != http.NoBody {
		w.extendRead()
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	return w
}

// extendWrite and extendRead give the client more time. Where there is no
// connection, as in tests, there are no deadlines.
func (w *response) extendWrite() { w.ctl.SetWriteDeadline(time.Now().Add(w.stall)) }
func (w *response) extendRead()  { w.ctl.SetReadDeadline(time.Now().Add(w.stall)) }

// endRead takes the deadline back when the body has been read: the server goes
// on to read, in order to notice that the client is gone, and must not take a
// long commit for that.
func (w *response) endRead() { w.ctl.SetReadDeadline(time.Time{}) }

// WriteHeader implements [http.ResponseWriter]. The last code before the first
// byte counts.
func (w *response) WriteHeader(code int) { w.code = code }

// commit sends the header.
func (w *response) commit() {
	if w.sent {
		return
	}
	w.sent = true
	w.extendWrite()
	if w.code != 0 {
		w.ResponseWriter.WriteHeader(w.code)
	}
}

// Write implements [io.Writer]. A client that is slow gets small pieces, so
// that each that it takes proves that it goes on.
func (w *response) Write(p []byte) (n int, err error) {
	w.commit()
	for n < len(p) && err == nil {
		var m int
		m, err = w.writePiece(p[n:min(len(p), n+w.step)])
		n += m
	}
	return n, err
}

func (w *response) writePiece(p []byte) (int, error) {
	w.extendWrite()
	start := time.Now()
	n, err := w.ResponseWriter.Write(p)
	w.gone = w.gone || err != nil
	switch took := time.Since(start); {
	case took > slow:
		w.step = firstPiece
	case took < quick:
		w.step = min(2*w.step, pieceSize)
	}
	return n, err
}

// ReadFrom implements [io.ReaderFrom], which [io.CopyN] looks for. Content is
// copied in large pieces, the next of which is read while one is sent. The
// error of src is kept in w.err.
func (w *response) ReadFrom(src io.Reader) (written int64, err error) {
	dst := &counter{w: w}
	if isContent(src) {
		err = pump(dst, func(p *pipeline) error { return p.copyFrom(src) })
	} else { // the parts of a multipart response
		_, err = io.Copy(dst, src)
	}
	if !w.gone {
		w.err = err
	}
	return dst.n, err
}

// isContent reports whether a reader is a limited one of a content.
func isContent(r io.Reader) bool {
	limited, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = limited.R.(*content)
	}
	return ok
}

// A counter counts what is written through it.
type counter struct {
	w io.Writer
	n int64
}

// Write implements [io.Writer].
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
