package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/cairnstore/cairn"
)

// A name is a piece's key, an owner's name or a tag's. All have the same bound.
type name string

// Decode is called by the parser, which would make U+FFFD of what is no UTF-8 for
// an UnmarshalText.
func (n *name) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("name")
	if err != nil {
		return err
	}
	*n = name(token.String())
	if len(*n) == 0 || len(*n) > cairn.MaxKeySize {
		return fmt.Errorf("must have 1 to %d bytes", cairn.MaxKeySize)
	}
	return nil
}

// namesHelp tells how names of a kind are printed, in text and in a field of a
// JSON object.
func namesHelp(kind, field string) string {
	return "A " + kind + " that is not one visible word is printed in quotes, like a string in Go. " +
		"In JSON, U+FFFD stands for what is no UTF-8, and " + field + "_base64 has the exact bytes."
}

// nameText returns a key or a name as one word of a line of text: as it is, or,
// if that would not be one visible word, in quotes like a Go string. Text that
// begins with a quote has been quoted.
func nameText(name string) string {
	invisible := func(r rune) bool { return r == utf8.RuneError || !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	if name == "" || name[0] == '"' || strings.ContainsFunc(name, invisible) {
		return strconv.Quote(name)
	}
	return name
}

// nameBytes returns a key or a name for a second field of a JSON object, if it
// is no UTF-8: in the first one, U+FFFD stands for what is not.
func nameBytes(name string) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(name)
}
