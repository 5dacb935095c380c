package wire

import (
	"encoding/json"
	"iter"
	"unicode/utf8"
)

// rawField is a field of a JSON object.
type rawField struct {
	name  string
	value json.RawMessage
}

// splitObject returns the fields of an object in a valid JSON document. ok is false if raw is no object. json.Decoder would
// read each value again at every level that it lies in.
func splitObject(raw json.RawMessage) (fields iter.Seq[rawField], ok bool) {
	at := skipSpace(raw, 0)
	if at == len(raw) || raw[at] != '{' {
		return nil, false
	}
	return func(yield func(rawField) bool) {
		for at := skipSpace(raw, at+1); raw[at] != '}'; {
			end := skipString(raw, at)
			name := decodeString(raw[at:end])
			at = skipSpace(raw, end)  // the colon
			at = skipSpace(raw, at+1) // the value
			end = skipValue(raw, at)  // behind it
			if !yield(rawField{name, raw[at:end:end]}) {
				return
			}
			if at = skipSpace(raw, end); raw[at] == ',' {
				at = skipSpace(raw, at+1)
			}
		}
	}, true
}

// skipSpace returns the index of the first byte that is no white space, from an index on.
func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' || text[at] == '\n') {
		at++
	}
	return at
}

// skipString returns the index behind the string that begins at an index.
func skipString(text []byte, at int) int {
	for at++; text[at] != '"'; at++ {
		if text[at] == '\\' {
			at++
		}
	}
	return at + 1
}

// skipValue returns the index behind the value that begins at an index.
func skipValue(text []byte, at int) int {
	depth := 0
	for at < len(text) {
		switch text[at] {
		case '"':
			at = skipString(text, at)
			if depth == 0 {
				return at
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // of the parent: a scalar ends before it
				return at
			}
			if depth--; depth == 0 {
				return at + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return at
			}
		}
		at++
	}
	return at
}

// decodeString returns the text of a JSON string.
func decodeString(quoted []byte) string {
	inner := quoted[1 : len(quoted)-1]
	isPlain := utf8.Valid(inner)
	for _, c := range inner {
		isPlain = isPlain && c != '\\'
	}
	if isPlain {
		return string(inner)
	}
	var text string
	_ = json.Unmarshal(quoted, &text) // it is valid
	return text
}
