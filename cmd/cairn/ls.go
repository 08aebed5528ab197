package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cairnstore/cairn"
)

type lsCmd struct {
	State  string    `name:"state" enum:"complete,partial,all" default:"all" placeholder:"STATE" help:"complete, partial or all. Default: all."`
	Prefix hexPrefix `name:"prefix" placeholder:"HEX" help:"List hashes that begin with HEX."`
	Limit  *int      `name:"limit" placeholder:"N" help:"List N blobs at most."`
}

// A hexPrefix is the beginning of a hash.
type hexPrefix string

// UnmarshalText is called by the parser.
func (p *hexPrefix) UnmarshalText(text []byte) error {
	*p = hexPrefix(text)
	if len(text) > 2*len(cairn.Hash{}) {
		return fmt.Errorf("%q is longer than a hash", text)
	}
	if strings.Trim(string(text), "0123456789abcdefABCDEF") != "" {
		return fmt.Errorf("%q is not hexadecimal", text)
	}
	return nil
}

// Validate is called by the parser.
func (c *lsCmd) Validate() error {
	if c.Limit != nil && *c.Limit < 0 {
		return errors.New("--limit must not be negative")
	}
	return nil
}

// listed is what is printed of a blob.
type listed struct {
	Hash     cairn.Hash  `json:"hash"`
	Size     int64       `json:"size"`
	State    cairn.State `json:"state"`
	Stored   int64       `json:"stored"`
	LastUsed string      `json:"last_used"`
}

// timeFormat is RFC 3339 with all nine digits, so that times in UTC have the
// order of their text.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

func (c *lsCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	if c.Limit != nil && *c.Limit == 0 {
		return nil
	}
	out := bufio.NewWriter(a.out)
	defer func() { err = errors.Join(err, out.Flush()) }()
	for blob, err := range store.Blobs(ctx, c.options()) {
		if err != nil {
			return err
		}
		if err := a.print(out, lsText(blob), lsObject(blob)); err != nil {
			return err
		}
	}
	return nil
}

func (c *lsCmd) options() *cairn.ListOptions {
	opts := &cairn.ListOptions{Prefix: string(c.Prefix)}
	switch c.State {
	case "complete":
		opts.State = cairn.Complete
	case "partial":
		opts.State = cairn.Partial
	}
	if c.Limit != nil {
		opts.Limit = *c.Limit
	}
	return opts
}

func lsText(blob cairn.BlobInfo) string {
	return fmt.Sprintf("%v %d %v", blob.Hash, blob.Size, blob.State)
}

func lsObject(blob cairn.BlobInfo) listed {
	return listed{
		Hash:     blob.Hash,
		Size:     blob.Size,
		State:    blob.State,
		Stored:   blob.Stored,
		LastUsed: blob.LastUsed.In(time.UTC).Format(timeFormat),
	}
}
