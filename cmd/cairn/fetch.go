package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"github.com/cairnstore/cairn/blobhttp"
)

type fetchCmd struct {
	Server serverURL  `arg:"" name:"url" help:"The server: http://HOST:PORT, or HOST:PORT as serve prints it."`
	Hash   cairn.Hash `arg:"" name:"hash" help:"The blob."`
	Ranges bao.Ranges `name:"ranges" default:"all" placeholder:"R" help:"What is wanted of the blob, rounded out to whole groups of 16 chunks. ${ranges_help}"`
}

// Help is shown below the usage.
func (fetchCmd) Help() string {
	return "Prints HASH SIZE STATE FETCHED_BYTES.\n\n" +
		"Only what is missing is asked for, and everything is verified. " +
		"What verified before an error or an interrupt stays: the same command goes on from there. " +
		"What there is of the blob is printed in any case."
}

// A serverURL is the address of a server.
type serverURL string

// UnmarshalText is called by the parser.
func (s *serverURL) UnmarshalText(text []byte) error {
	address := string(text)
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return errors.New(whyNoURL(address))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is neither http://HOST:PORT nor HOST:PORT", u.Redacted())
	}
	*s = serverURL(address)
	return nil
}

// whyNoURL returns why an address cannot be parsed. What is before the "@" is
// left out of it: errors quote what is wrong, which may be part of a password.
func whyNoURL(address string) string {
	scheme, rest, _ := strings.Cut(address, "://")
	_, err := url.Parse(scheme + "://" + rest[strings.LastIndex(rest, "@")+1:])
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err.Error()
	}
	return "invalid user or password"
}

// fetched is what is printed of a fetch.
type fetched struct {
	Hash    cairn.Hash  `json:"hash"`
	Size    int64       `json:"size"`
	State   cairn.State `json:"state"`
	Fetched int64       `json:"fetched_bytes"`
}

func (c *fetchCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openWriting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	report, err := c.fetch(ctx, store, a)
	text := fmt.Sprintf("%v %d %v %d", c.Hash, report.Size, report.State, report.FetchedBytes)
	return errors.Join(err, a.print(a.out, text, fetched{c.Hash, report.Size, report.State, report.FetchedBytes}))
}

func (c *fetchCmd) fetch(ctx context.Context, store *cairn.Store, a *app) (blobhttp.FetchReport, error) {
	if c.Ranges.IsEmpty() { // which the options take for all
		status, err := store.Status(ctx, c.Hash)
		return blobhttp.FetchReport{State: status.State, Size: status.Size}, err
	}
	opts := &blobhttp.FetchOptions{Ranges: c.Ranges}
	if a.terminal {
		bar := &fetchMeter{w: a.err}
		defer func() { bar.finish() }()
		opts.Progress = bar.at
	}
	return blobhttp.Fetch(ctx, store, string(c.Server), c.Hash, opts)
}

// A fetchMeter shows a fetch, of which each response tells anew how much there
// is.
type fetchMeter struct {
	*meter
	w     io.Writer
	total int64
}

// at shows that so many bytes have come of so many, or of 0 if that is not
// known.
func (m *fetchMeter) at(fetched, expected int64) {
	if m.meter == nil || expected != m.total {
		m.finish()
		m.total = expected
		if expected == 0 {
			expected = -1
		}
		m.meter = newMeter(m.w, expected)
	}
	m.meter.at(fetched)
}
