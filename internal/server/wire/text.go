package wire

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// findTextFlaw returns what is wrong with the texts of a JSON document that is otherwise
// valid, empty if nothing is. encoding/json replaces such characters silently.
func findTextFlaw(document []byte) string {
	if !utf8.Valid(document) {
		return "the body is not UTF-8"
	}
	for rest := document; ; {
		at := bytes.IndexByte(rest, '\\')
		if at < 0 {
			return ""
		}
		unit, isUnit := parseEscape(rest[at:])
		if !isUnit {
			rest = rest[at+2:] // valid JSON has a character after the backslash
			continue
		}
		rest = rest[at+escapeLength:]
		if !utf16.IsSurrogate(unit) {
			continue
		}
		second, isUnit := parseEscape(rest)
		if !isUnit || utf16.DecodeRune(unit, second) == utf8.RuneError {
			return "a text contains half of a surrogate pair"
		}
		rest = rest[escapeLength:]
	}
}

const escapeLength = len(`\u0000`)

// parseEscape returns the UTF-16 unit of the escape at the beginning of text, such as
// \u00e4.
func parseEscape(text []byte) (unit rune, ok bool) {
	if len(text) < escapeLength || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	value, err := strconv.ParseUint(string(text[2:escapeLength]), 16, 16)
	return rune(value), err == nil
}

// IsText reports whether a text is one that every database can hold: PostgreSQL refuses
// U+0000.
func IsText(text string) bool {
	return utf8.ValidString(text) && !strings.Contains(text, "\x00")
}
