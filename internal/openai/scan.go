package openai

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

// Errors of FindModel.
var (
	ErrNotJSON  = errors.New("the request body is not a JSON object")
	ErrNoModel  = errors.New("the request body has no model")
	ErrNoString = errors.New("the model is not a text")
)

// maxDepth is the nesting limit of encoding/json.
const maxDepth = 10000

// maxEscapeBytes is the most bytes that an escaped character of a key has.
const maxEscapeBytes = len(`\u006d`)

// FindModel returns the value of the top-level key "model". To be fast on long
// prompts, it decodes nothing else. Like encoding/json, it uses the last of
// duplicate keys, decodes escapes, and rejects invalid JSON anywhere in the
// body. The error is or wraps ErrNotJSON, ErrNoModel or ErrNoString.
func FindModel(body []byte) (string, error) {
	s := jsonScanner{body: body, wantedKey: "model"}
	from, to, err := s.findValue()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotJSON, err)
	}
	if to == 0 {
		return "", ErrNoModel
	}
	value := body[from:to]
	if value[0] != '"' {
		return "", ErrNoString
	}
	var name string
	if err := json.Unmarshal(value, &name); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotJSON, err)
	}
	if name == "" {
		return "", ErrNoModel
	}
	return name, nil
}

// WantsStream reports whether the value of the top-level key "stream" is true.
// Like FindModel, it decodes nothing else and uses the last of duplicate keys.
func WantsStream(body []byte) bool {
	s := jsonScanner{body: body, wantedKey: "stream"}
	from, to, err := s.findValue()
	return err == nil && string(body[from:to]) == "true"
}

// findString returns the value of a top-level key, or "" if it is missing or not
// a text. The error says that the body is not a JSON object.
func findString(body []byte, key string) (string, error) {
	s := jsonScanner{body: body, wantedKey: key}
	from, to, err := s.findValue()
	if err != nil || to == 0 || body[from] != '"' {
		return "", err
	}
	var text string
	err = json.Unmarshal(body[from:to], &text)
	return text, err
}

// jsonScanner validates JSON and tracks positions without decoding values.
type jsonScanner struct {
	body      []byte
	at        int
	wantedKey string // the top-level key to find
	// open has a byte for each open object ('{') and array ('[').
	open []byte
}

// findValue scans the whole body and returns the position of the last value of
// the wanted key, or zeros if it is missing.
func (s *jsonScanner) findValue() (from, to int, err error) {
	s.skipSpace()
	if s.peek() != '{' {
		return 0, 0, s.errExpected("an object")
	}
	s.at++
	s.skipSpace()
	if s.peek() == '}' {
		s.at++
		return 0, 0, s.checkEnd()
	}
	for {
		wanted, err := s.scanKey()
		if err != nil {
			return 0, 0, err
		}
		begin := s.at
		if err := s.scanValue(); err != nil {
			return 0, 0, err
		}
		if wanted {
			from, to = begin, s.at
		}
		s.skipSpace()
		switch s.next() {
		case ',':
			s.skipSpace()
		case '}':
			return from, to, s.checkEnd()
		default:
			s.at--
			return 0, 0, s.errExpected("a comma or the object's end")
		}
	}
}

// scanKey scans a key and its colon, and reports whether it is the wanted key.
func (s *jsonScanner) scanKey() (bool, error) {
	begin := s.at
	escaped, err := s.scanString()
	if err != nil {
		return false, err
	}
	written := s.body[begin+1 : s.at-1]
	wanted := string(written) == s.wantedKey
	if escaped && len(written) <= len(s.wantedKey)*maxEscapeBytes {
		var key string
		if err := json.Unmarshal(s.body[begin:s.at], &key); err != nil {
			return false, err
		}
		wanted = key == s.wantedKey
	}
	s.skipSpace()
	if s.next() != ':' {
		s.at--
		return false, s.errExpected("a colon")
	}
	s.skipSpace()
	return wanted, nil
}

// scanValue scans a value of any type and depth, without recursion.
func (s *jsonScanner) scanValue() error {
	s.open = s.open[:0]
	for {
		opened, err := s.scanOne()
		if err != nil {
			return err
		}
		if opened {
			continue
		}
		more, err := s.scanClose()
		if err != nil || !more {
			return err
		}
	}
}

// scanOne scans a scalar or an empty object or array. For any other object or
// array it scans up to the first value and returns true.
func (s *jsonScanner) scanOne() (opened bool, err error) {
	switch c := s.peek(); c {
	case '{', '[':
		s.at++
		if len(s.open)+1 >= maxDepth {
			return false, fmt.Errorf("nested deeper than %d at byte %d", maxDepth, s.at)
		}
		s.skipSpace()
		if s.peek() == c+2 { // in ASCII, } and ] are two after { and [
			s.at++
			return false, nil
		}
		s.open = append(s.open, c)
		if c == '{' {
			_, err = s.scanKey()
		}
		return true, err
	case '"':
		_, err = s.scanString()
		return false, err
	case 't':
		return false, s.scanWord("true")
	case 'f':
		return false, s.scanWord("false")
	case 'n':
		return false, s.scanWord("null")
	default:
		return false, s.scanNumber()
	}
}

// scanClose scans what follows a value inside open objects and arrays. It
// returns true before a next value, and false after all are closed.
func (s *jsonScanner) scanClose() (bool, error) {
	for len(s.open) > 0 {
		open := s.open[len(s.open)-1]
		s.skipSpace()
		switch c := s.next(); {
		case c == ',' && open == '{':
			s.skipSpace()
			_, err := s.scanKey()
			return true, err
		case c == ',':
			s.skipSpace()
			return true, nil
		case c == open+2:
			s.open = s.open[:len(s.open)-1]
		default:
			s.at--
			return false, s.errExpected("a comma or an end")
		}
	}
	return false, nil
}

// scanString scans a string and reports whether it has escapes.
func (s *jsonScanner) scanString() (escaped bool, err error) {
	if s.next() != '"' {
		s.at--
		return false, s.errExpected("a string")
	}
	for {
		s.skipPlain()
		switch c := s.next(); c {
		case '"':
			return escaped, nil
		case '\\':
			escaped = true
			if err := s.scanEscape(); err != nil {
				return escaped, err
			}
		default:
			s.at--
			return escaped, s.errExpected("the string's end")
		}
	}
}

// skipPlain skips to the next quote, backslash or control character of a
// string, eight bytes at a time.
func (s *jsonScanner) skipPlain() {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	at, in := s.at, s.body
	for ; at+8 <= len(in); at += 8 {
		x := binary.LittleEndian.Uint64(in[at:])
		quote := x ^ ones*'"'
		slash := x ^ ones*'\\'
		// The high bit of each special byte is set. Bytes after the first
		// special byte may be wrong, but only the first one matters.
		special := ((x - ones*' ') &^ x) | ((quote - ones) &^ quote) | ((slash - ones) &^ slash)
		if special &= highs; special != 0 {
			s.at = at + bits.TrailingZeros64(special)/8
			return
		}
	}
	for at < len(in) && in[at] != '"' && in[at] != '\\' && in[at] >= ' ' {
		at++
	}
	s.at = at
}

// scanEscape scans an escape after its backslash.
func (s *jsonScanner) scanEscape() error {
	switch s.next() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			c := s.next() | 0x20
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				s.at--
				return s.errExpected("four hexadecimal digits")
			}
		}
		return nil
	default:
		s.at--
		return s.errExpected("an escape")
	}
}

// scanNumber scans a number.
func (s *jsonScanner) scanNumber() error {
	if s.peek() == '-' {
		s.at++
	}
	switch c := s.peek(); {
	case c == '0':
		s.at++
	case '1' <= c && c <= '9':
		s.skipDigits()
	default:
		return s.errExpected("a value")
	}
	if s.peek() == '.' {
		s.at++
		if !s.skipDigits() {
			return s.errExpected("a digit")
		}
	}
	if s.peek()|0x20 == 'e' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.skipDigits() {
			return s.errExpected("a digit")
		}
	}
	return nil
}

func (s *jsonScanner) skipDigits() bool {
	begin := s.at
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.at++
	}
	return s.at > begin
}

func (s *jsonScanner) scanWord(w string) error {
	if len(s.body)-s.at < len(w) || string(s.body[s.at:s.at+len(w)]) != w {
		return s.errExpected(w)
	}
	s.at += len(w)
	return nil
}

// checkEnd checks that nothing but white space follows.
func (s *jsonScanner) checkEnd() error {
	s.skipSpace()
	if s.at < len(s.body) {
		return s.errExpected("nothing more")
	}
	return nil
}

func (s *jsonScanner) skipSpace() {
	for s.at < len(s.body) {
		switch s.body[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end. A 0 is invalid everywhere in
// JSON, so the end is unambiguous.
func (s *jsonScanner) peek() byte {
	if s.at < len(s.body) {
		return s.body[s.at]
	}
	return 0
}

// next returns the next byte and moves on, even at the end, so that s.at--
// always undoes it.
func (s *jsonScanner) next() byte {
	c := s.peek()
	s.at++
	return c
}

// errExpected returns an error with the position but without the content,
// which may be private.
func (s *jsonScanner) errExpected(want string) error {
	if s.at >= len(s.body) {
		return fmt.Errorf("it ends where %s should be", want)
	}
	return fmt.Errorf("%s expected at byte %d", want, s.at)
}
