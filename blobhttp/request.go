package blobhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// A FalseDataError says that a server has sent what is not the blob, or claimed
// a size that it cannot have. It is [cairn.ErrMismatch].
type FalseDataError struct {
	URL  string // without a password
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
	URL  string // without a password
	Code int    // the HTTP status
	Text string // the beginning of what the server says about it
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s answers %d %s: %q", e.URL, e.Code, http.StatusText(e.Code), e.Text)
}

// Is reports whether target is [cairn.ErrNotFound] and the answer is, too.
func (e *StatusError) Is(target error) bool {
	return target == cairn.ErrNotFound && (e.Code == http.StatusNotFound || e.Code == http.StatusGone)
}

// A retryError is a failure that another attempt may not meet.
type retryError struct {
	err   error
	after time.Duration // how long the server asks to wait
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// maxErrorText is the most bytes that are read of an answer which is no
// response.
const maxErrorText = 512

// request asks for ranges and stores the response.
func (f *fetch) request(ctx context.Context, ranges bao.Ranges) error {
	reqCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body := &download{f: f, stall: f.opts.stallTimeout(), told: f.report.FetchedBytes}
	body.watch = time.AfterFunc(body.stall, func() {
		cancel(fmt.Errorf("the server has sent nothing for %v", body.stall))
	})
	defer body.watch.Stop()
	resp, err := f.send(reqCtx, ranges)
	body.watch.Stop()
	if err != nil {
		return f.blame(ctx, reqCtx, err, true)
	}
	defer resp.Body.Close()
	body.resp = resp
	if resp.StatusCode != http.StatusOK {
		return f.refusal(body)
	}
	body.expect(resp.ContentLength)
	err = f.store.ImportBao(reqCtx, f.hash, ranges, body)
	body.report()
	return f.blame(ctx, reqCtx, err, body.err != nil || errors.Is(err, io.ErrUnexpectedEOF))
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
	return f.opts.client().Do(req)
}

// blame tells what an error of a request means, of which broken tells whether
// the connection has had one. One of the store or of the caller's context
// comes before those that it may have led to.
func (f *fetch) blame(ctx, reqCtx context.Context, err error, broken bool) error {
	switch {
	case err == nil:
		return nil
	case isStoreError(err):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, cairn.ErrMismatch), errors.Is(err, cairn.ErrTooLarge):
		return &FalseDataError{f.url.Redacted(), f.hash, err}
	case reqCtx.Err() != nil: // it has stalled
		return &retryError{err: context.Cause(reqCtx)}
	case broken:
		return &retryError{err: err}
	}
	return err
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
	text, _ := io.ReadAll(io.LimitReader(body, maxErrorText)) // an addition to the status
	err := &StatusError{f.url.Redacted(), resp.StatusCode, strings.TrimSpace(string(text))}
	if c := err.Code; c >= 500 || c == http.StatusRequestTimeout || c == http.StatusTooManyRequests {
		return &retryError{err, retryAfter(resp.Header.Get("Retry-After"))}
	}
	return err
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

// progressStep is how many bytes are read between two reports.
const progressStep = 1 << 20

// A download is a response's body: it counts, and ends a request whose server
// sends nothing.
type download struct {
	f     *fetch
	resp  *http.Response
	stall time.Duration
	watch *time.Timer // runs while the server is waited for

	expected int64 // bytes of the fetch when the response is over, or 0
	told     int64 // bytes of the fetch at the last report
	err      error // of the connection
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
	if err != nil && err != io.EOF {
		d.err = err
	}
	if d.f.report.FetchedBytes-d.told >= progressStep {
		d.report()
	}
	return n, err
}

func (d *download) report() {
	d.told = d.f.report.FetchedBytes
	d.f.opts.progress(d.told, d.expected)
}
