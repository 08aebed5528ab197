package main

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

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
