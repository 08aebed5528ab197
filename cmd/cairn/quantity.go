package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cairnstore/cairn"
	"github.com/dustin/go-humanize"
)

// A byteCount is a number of bytes: digits alone, or a number with a unit, like
// 10GiB (of 2^30 bytes) or 1.5GB (of 10^9).
type byteCount int64

// UnmarshalText is called by the parser.
func (n *byteCount) UnmarshalText(text []byte) error {
	count, err := parseBytes(string(text))
	*n = byteCount(count)
	return err
}

// parseBytes does not leave plain numbers to the library: it rounds large ones,
// and drops fractions of a byte. Commas, which it ignores, mean different things
// to different people.
func parseBytes(text string) (int64, error) {
	if n, err := strconv.ParseUint(text, 10, 63); err == nil {
		return int64(n), nil
	}
	hasUnit := strings.TrimRight(text, "0123456789.") == text
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 || !hasUnit || strings.Contains(text, ",") {
		return 0, fmt.Errorf("%q is no number of bytes, like 1000 or 10GiB", text)
	}
	return int64(n), nil
}

// noLimit is how the absence of a limit is written.
const noLimit = "none"

// limitHelp tells how limits are written.
const limitHelp = "Bytes, like 1000 or 10GiB; 0 lets nothing stay, none sets no limit."

// A byteLimit is a number of bytes, or none.
type byteLimit int64

// UnmarshalText is called by the parser.
func (l *byteLimit) UnmarshalText(text []byte) error {
	if string(text) == noLimit {
		*l = byteLimit(cairn.Unlimited)
		return nil
	}
	return (*byteCount)(l).UnmarshalText(text)
}

// limitText returns what is printed of a limit.
func limitText(limit int64) string {
	if limit == cairn.Unlimited {
		return noLimit
	}
	return strconv.FormatInt(limit, 10)
}

// limitObject returns what JSON has of a limit: null if there is none.
func limitObject(limit int64) *int64 {
	if limit == cairn.Unlimited {
		return nil
	}
	return &limit
}
