package blobhttp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

const (
	defaultAttempts   = 5
	defaultRetryDelay = 200 * time.Millisecond
	defaultFetchStall = 30 * time.Second
	// maxRetryDelay bounds what a server can ask for, too.
	maxRetryDelay = 30 * time.Second
	// rangesPerRequest keeps addresses below the 8 KiB that proxies take.
	rangesPerRequest = 128
)

// FetchOptions configure a fetch. Nil is the default.
type FetchOptions struct {
	// Ranges are what is wanted of the blob. They are rounded out to whole
	// groups. Default (and if empty): all.
	Ranges bao.Ranges
	// Client makes the requests. It should have no timeout for whole requests.
	// Default: [http.DefaultClient].
	Client *http.Client
	// Attempts is how many requests in a row may bring nothing before the
	// fetch fails. Default (and if ≤ 0): 5.
	Attempts int
	// RetryDelay is the pause after the first failure. It doubles with each
	// further one that brings nothing, up to 30 seconds, and is varied a
	// little. Default (and if ≤ 0): 200 ms.
	RetryDelay time.Duration
	// StallTimeout is how long a server may send nothing before its request
	// counts as failed. Default (and if ≤ 0): 30 s.
	StallTimeout time.Duration
	// Progress, if not nil, is called with the bytes of responses that have
	// been read so far, at the start and the end of each response, and in
	// between about once every MiB and, while data arrives, four times a
	// second, from the goroutine that called Fetch. expected is how many there
	// will be after the current response, if the server says so, or 0.
	Progress func(fetched, expected int64)
}

func (o *FetchOptions) ranges() bao.Ranges {
	if o.Ranges.IsEmpty() {
		return bao.All()
	}
	return o.Ranges
}

func (o *FetchOptions) client() *http.Client {
	if o.Client == nil {
		return http.DefaultClient
	}
	return o.Client
}

func (o *FetchOptions) attempts() int {
	if o.Attempts <= 0 {
		return defaultAttempts
	}
	return o.Attempts
}

func (o *FetchOptions) retryDelay() time.Duration {
	if o.RetryDelay <= 0 {
		return defaultRetryDelay
	}
	return o.RetryDelay
}

func (o *FetchOptions) stallTimeout() time.Duration {
	if o.StallTimeout <= 0 {
		return defaultFetchStall
	}
	return o.StallTimeout
}

func (o *FetchOptions) progress(fetched, expected int64) {
	if o.Progress != nil {
		o.Progress(fetched, expected)
	}
}

// A FetchReport tells what a fetch has come to.
type FetchReport struct {
	State        cairn.State // of the blob in the store
	Size         int64       // of the blob in bytes, as far as known
	FetchedBytes int64       // of response bodies: content and its proofs
	Requests     int         // that were sent
}

// Fetch downloads a blob, or what is wanted of it, from a server with the
// routes of [NewHandler] into a store. It asks for what the store lacks, and
// for nothing if that is nothing. What comes is verified as it comes and stored
// as [cairn.Store.ImportBao] does; a failed fetch keeps all of it, and the next
// one, from whatever server, goes on from there. From a server that has only a
// part of what is wanted it takes that part, and then fails as if the server had
// nothing. While it goes on the blob is protected from deletion. base is the address of the server: that of its
// routes without "/bao/HASH".
//
// A request that fails, stalls or is answered with 408, 429 or 5xx is repeated
// for what is missing then, as long as requests bring something; see
// [FetchOptions]. Not repeated is what cannot turn out differently, such as a
// bad certificate or a redirect that leads nowhere. Fetch returns nil once all
// that is wanted is stored.
//
// Other errors: [*FalseDataError] for a server that sends what is not the blob,
// without another attempt, or responses that are well-formed for HTTP but too
// short, when a whole row of them has brought nothing: a single one may come of
// a proxy. [*StatusError], which is [cairn.ErrNotFound] if the server has not
// got what is wanted. [io.ErrUnexpectedEOF] for connections that keep breaking
// before the end of the response. Those of ctx, of the store, and others of the
// connection. The report is right in any case.
//
// Several fetches of one blob from different servers may go on at once; each
// asks for all that is missing when it asks.
func Fetch(ctx context.Context, store *cairn.Store, base string, hash cairn.Hash, opts *FetchOptions) (FetchReport, error) {
	if opts == nil {
		opts = &FetchOptions{}
	}
	f := &fetch{store: store, hash: hash, opts: opts}
	err := f.setBase(base)
	if err == nil {
		tag := store.TempTag(cairn.HashAndFormat{Hash: hash})
		defer tag.Release()
		err = f.run(ctx)
	}
	// The report is wanted of a cancelled fetch, too.
	status, statusErr := store.Status(context.WithoutCancel(ctx), hash)
	f.report.State, f.report.Size = status.State, status.Size
	if err == nil {
		err = statusErr
	}
	if err != nil {
		return f.report, fmt.Errorf("fetch %v: %w", hash, err)
	}
	return f.report, nil
}

// A fetch is one call of Fetch. Its goroutine owns it.
type fetch struct {
	store *cairn.Store
	hash  cairn.Hash
	opts  *FetchOptions
	url   *url.URL // of the blob's responses
	from  string   // where the last answer came from, without a password
	// offered is what the server has said that it has of what it was asked for.
	offered bao.Ranges
	report  FetchReport
}

func (f *fetch) setBase(base string) error {
	u, err := url.Parse(base)
	if err != nil {
		return addressError(base, err)
	}
	if !isHTTP(u) {
		if u.User == nil && strings.Contains(base, "@") {
			return errAddress // the password may be in any part of it
		}
		return fmt.Errorf("%q is no http address", u.Redacted())
	}
	f.url = u.JoinPath("bao", f.hash.String())
	return nil
}

func isHTTP(u *url.URL) bool {
	return (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

var errAddress = errors.New("the server's address is not one of http")

// addressError tells what is wrong with an address, but not the address, which
// may have a password. If it can have one, of which the reason may quote a part,
// the reason is not told either.
func addressError(base string, err error) error {
	var parsing *url.Error
	if strings.Contains(base, "@") || !errors.As(err, &parsing) {
		return errAddress
	}
	return fmt.Errorf("%w: %w", errAddress, parsing.Err)
}

// run sends requests until there is nothing left to ask for.
func (f *fetch) run(ctx context.Context) error {
	for row := (failures{}); ; {
		want, before, err := f.want(ctx)
		if err != nil || want.IsEmpty() {
			return err
		}
		if offered := want.Intersect(f.offered); !offered.IsEmpty() {
			want = offered
		}
		err = f.request(ctx, want.First(rangesPerRequest))
		var again *retryError
		if err != nil && !errors.As(err, &again) && !f.takeOffer(err, want) {
			return err
		}
		after, statusErr := f.store.Status(ctx, f.hash)
		if statusErr != nil {
			return statusErr
		}
		if after.Stored > before.Stored || after.SizeProven && !before.SizeProven {
			row = failures{}
		} else if row.add(again); row.idle >= f.opts.attempts() {
			return f.giveUp(row, err)
		}
		if again != nil {
			if err := pause(ctx, f.delay(row.idle, again)); err != nil {
				return err
			}
		}
	}
}

// takeOffer reports whether an error is the answer of a server that has only a
// part of what is wanted. The next request then asks for that.
func (f *fetch) takeOffer(err error, want bao.Ranges) bool {
	var refused *StatusError
	if !errors.As(err, &refused) {
		return false
	}
	f.offered = want.Intersect(refused.offered)
	return !f.offered.IsEmpty()
}

// failures are a row of requests that have brought nothing.
type failures struct {
	idle  int
	short int // of them, those whose response was too short
}

func (r *failures) add(again *retryError) {
	r.idle++
	if again != nil && again.short {
		r.short++
	}
}

// giveUp returns the error of a fetch that ends with a row of failures. If all
// of the responses were too short, though the connections were sound, the
// server has them so.
func (f *fetch) giveUp(row failures, err error) error {
	if err == nil {
		err = errEmpty
	} else if row.short == row.idle {
		err = &FalseDataError{f.from, f.hash, fmt.Errorf("its responses end early: %v", err)} // not a broken connection
	}
	return fmt.Errorf("%d requests in a row have brought nothing: %w", row.idle, err)
}

// errEmpty is what is wrong with responses that are right and of no use.
var errEmpty = errors.New("the responses were empty")

// want returns what to ask for, and the blob's status from before.
func (f *fetch) want(ctx context.Context) (want bao.Ranges, status cairn.Status, err error) {
	if status, err = f.store.Status(ctx, f.hash); err != nil {
		return want, status, err
	}
	ranges := f.opts.ranges()
	if status.SizeProven {
		ranges = ranges.Effective(status.Size)
	}
	for missing, err := range f.store.Missing(ctx, cairn.HashAndFormat{Hash: f.hash}) {
		if err != nil {
			return want, status, err
		}
		want = ranges.Groups().Intersect(missing.Ranges)
	}
	return want, status, nil
}

// delay returns how long to wait after a failure; idle requests in a row have
// brought nothing.
func (f *fetch) delay(idle int, err *retryError) time.Duration {
	d := f.opts.retryDelay()
	for range min(idle-1, 30) {
		d = min(2*d, maxRetryDelay)
	}
	d += rand.N(d/4 + 1) // so that many clients do not come back at once
	return min(max(d, err.after), maxRetryDelay)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
