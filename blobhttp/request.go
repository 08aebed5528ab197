package blobhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// A FalseDataError says that a server has sent what is not the blob, or claimed
// a size that it cannot have, or has only the beginnings of responses. It is
// [cairn.ErrMismatch].
type FalseDataError struct {
	URL  string // that the data came from, behind all redirects; without a password
	Hash cairn.Hash
	Err  error // what did not verify; not nil
}

func (e *FalseDataError) Error() string {
	return fmt.Sprintf("the server at %s sent false data: %v", e.URL, e.Err)
}

// Is reports whether target is [cairn.ErrMismatch].
func (e *FalseDataError) Is(target error) bool { return target == cairn.ErrMismatch }

// Unwrap returns what did not verify.
func (e *FalseDataError) Unwrap() error { return e.Err }

// A StatusError is a server's answer that it does not send what was asked for.
// If it says that it has not got it, that is [cairn.ErrNotFound].
type StatusError struct {
	URL  string // that it came from, behind all redirects; without a password
	Code int    // the HTTP status
	Text string // the beginning of what the server says about it, if it is text; printable

	offered bao.Ranges // what the server has of what was asked for
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answers %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Text != "" {
		text += fmt.Sprintf(": %q", e.Text)
	}
	return text
}

// Is reports whether target is [cairn.ErrNotFound] and the answer is, too.
func (e *StatusError) Is(target error) bool {
	return target == cairn.ErrNotFound && (e.Code == http.StatusNotFound || e.Code == http.StatusGone)
}

// A retryError is a failure that another attempt may not meet.
type retryError struct {
	err   error
	after time.Duration // how long the server asks to wait
	short bool          // the response was well-formed for HTTP, but too short
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// maxErrorText is the most characters that are told of an answer which is no
// response.
const maxErrorText = 200

// request asks for ranges and stores the response.
func (f *fetch) request(ctx context.Context, ranges bao.Ranges) error {
	reqCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body := &download{f: f, stall: f.opts.stallTimeout(), told: f.report.FetchedBytes, toldAt: time.Now()}
	body.watch = time.AfterFunc(body.stall, func() {
		cancel(fmt.Errorf("the server has sent nothing for %v", body.stall))
	})
	defer body.watch.Stop()
	resp, err := f.send(reqCtx, ranges)
	body.watch.Stop()
	if err != nil {
		return f.blame(ctx, reqCtx, err, err)
	}
	defer resp.Body.Close()
	body.resp = resp
	if resp.StatusCode != http.StatusOK {
		return f.refusal(body)
	}
	body.expect(resp.ContentLength)
	body.report()
	err = f.store.ImportBao(reqCtx, f.hash, ranges, body)
	body.report()
	otherwise := err
	if body.err != nil || errors.Is(err, io.ErrUnexpectedEOF) {
		otherwise = &retryError{err: brokenOff(err), short: body.whole()}
	}
	return f.blame(ctx, reqCtx, err, otherwise)
}

// brokenOff makes an error of a connection that has ended early recognisable.
func brokenOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
}

func (f *fetch) send(ctx context.Context, ranges bao.Ranges) (*http.Response, error) {
	u := *f.url
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "ranges=" + ranges.String() // has nothing to escape
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	// A compressed response would be unpacked on the way, to any length.
	req.Header.Set("Accept-Encoding", "identity")
	f.report.Requests++
	f.from = f.url.Redacted()
	resp, err := f.opts.client().Do(req)
	switch {
	case err == nil:
		if resp.Request != nil {
			f.from = resp.Request.URL.Redacted()
		}
		return resp, nil
	case resp != nil || isHopeless(err): // with a response the client refuses a redirect
		return nil, err
	case errors.Is(err, io.EOF):
		err = brokenOff(err)
	}
	return nil, &retryError{err: err}
}

// isHopeless reports whether another request would end in the same way: at a
// server whose certificate is bad, or that does not speak TLS, or at a redirect
// to what is no http address.
func isHopeless(err error) bool {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) || errors.Is(err, http.ErrSchemeMismatch) {
		return true
	}
	var failed *url.Error
	if !errors.As(err, &failed) {
		return false
	}
	u, parseErr := url.Parse(failed.URL)
	return parseErr == nil && !isHTTP(u)
}

// blame tells what an error of a request means: otherwise, if it is none of the
// server's data and no stall. One of the store or of the caller's context comes
// before those that it may have led to.
func (f *fetch) blame(ctx, reqCtx context.Context, err, otherwise error) error {
	switch {
	case err == nil:
		return nil
	case isStoreError(err):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, cairn.ErrMismatch), errors.Is(err, cairn.ErrTooLarge):
		return &FalseDataError{f.from, f.hash, err}
	case reqCtx.Err() != nil: // it has stalled
		return &retryError{err: context.Cause(reqCtx)}
	}
	return otherwise
}

func isStoreError(err error) bool {
	for _, e := range []error{cairn.ErrFull, cairn.ErrReadOnly, cairn.ErrClosed, cairn.ErrCorrupt} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// refusal returns the error for an answer that is no response.
func (f *fetch) refusal(body *download) error {
	resp := body.resp
	err := &StatusError{URL: f.from, Code: resp.StatusCode}
	kind := strings.ToLower(resp.Header.Get("Content-Type"))
	if err.Code >= 400 && strings.HasPrefix(kind, "text/") {
		text, _ := io.ReadAll(io.LimitReader(body, maxErrorText*utf8.UTFMax)) // an addition to the status
		err.Text = printable(string(text))
	}
	if err.Code == http.StatusNotFound {
		// What cannot be read is no offer.
		err.offered, _ = bao.ParseRanges(resp.Header.Get(rangesHeader))
	}
	if c := err.Code; c >= 500 || c == http.StatusRequestTimeout || c == http.StatusTooManyRequests {
		return &retryError{err: err, after: retryAfter(resp.Header.Get("Retry-After"))}
	}
	return err
}

// printable returns the beginning of a text, in one line, without what could
// harm a terminal.
func printable(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == utf8.RuneError })
	clean := []rune(strings.Join(words, " "))
	return string(clean[:min(len(clean), maxErrorText)])
}

// retryAfter reads a number of seconds or a date.
func retryAfter(field string) time.Duration {
	if seconds, err := strconv.ParseUint(field, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(field); err == nil {
		return time.Until(date)
	}
	return 0
}

// progressStep and progressPause are how many bytes are read, and how long that
// may take, between two reports.
const (
	progressStep  = 1 << 20
	progressPause = 250 * time.Millisecond
)

// A download is a response's body: it counts, and ends a request whose server
// sends nothing.
type download struct {
	f     *fetch
	resp  *http.Response
	stall time.Duration
	watch *time.Timer // runs while the server is waited for

	expected int64 // bytes of the fetch when the response is over, or 0
	told     int64 // bytes of the fetch at the last report
	toldAt   time.Time
	ended    bool  // the body has
	err      error // of the connection
}

// whole reports whether the body is all that the server meant to send, as far
// as HTTP can tell. A body that ends with the connection may have been cut off.
func (d *download) whole() bool {
	framed := d.resp.ContentLength >= 0 || len(d.resp.TransferEncoding) > 0 || d.resp.ProtoMajor >= 2
	return d.ended && d.err == nil && framed
}

func (d *download) expect(length int64) {
	if length >= 0 {
		d.expected = d.f.report.FetchedBytes + length
	}
}

// Read implements [io.Reader].
func (d *download) Read(p []byte) (int, error) {
	d.watch.Reset(d.stall)
	n, err := d.resp.Body.Read(p)
	d.watch.Stop()
	d.f.report.FetchedBytes += int64(n)
	if err == io.EOF {
		d.ended = true
	} else if err != nil {
		d.err = err
	}
	if d.f.report.FetchedBytes-d.told >= progressStep || n > 0 && time.Since(d.toldAt) >= progressPause {
		d.report()
	}
	return n, err
}

func (d *download) report() {
	d.told, d.toldAt = d.f.report.FetchedBytes, time.Now()
	d.f.opts.progress(d.told, d.expected)
}
