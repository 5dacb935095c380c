package openai

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

// Why a body names no model.
var (
	ErrNotJSON  = errors.New("the request body is not a JSON object")
	ErrNoModel  = errors.New("the request body has no model")
	ErrNoString = errors.New("the model is not a text")
)

// maxDepth is how deep encoding/json goes, and so do we.
const maxDepth = 10000

// maxEscape is how many bytes one letter of a key takes at most.
const maxEscape = len(`\u006d`)

// FindModel returns the value of the top-level key "model", without decoding
// anything else: prompts are long. Like encoding/json it takes the last of
// several, understands escapes, and refuses whatever is not JSON, wherever in
// the body that is.
func FindModel(body []byte) (string, error) {
	s := scanner{in: body, want: "model"}
	from, to, err := s.top()
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

// WantsStream says whether a body asks for a stream: the value of its top-level
// key "stream" is true. As FindModel it decodes nothing else, and takes the last
// of several.
func WantsStream(body []byte) bool {
	s := scanner{in: body, want: "stream"}
	from, to, err := s.top()
	return err == nil && string(body[from:to]) == "true"
}

// scanner walks over JSON and remembers nothing but where it is.
type scanner struct {
	in   []byte
	at   int
	want string // the top-level key that is looked for
	// inside has a byte for each open object ('{') or array ('[').
	inside []byte
}

// top walks the whole body and returns where the last value of the wanted key is.
func (s *scanner) top() (from, to int, err error) {
	s.space()
	if s.peek() != '{' {
		return 0, 0, s.unexpected("an object")
	}
	s.at++
	s.space()
	if s.peek() == '}' {
		s.at++
		return 0, 0, s.end()
	}
	for {
		wanted, err := s.key()
		if err != nil {
			return 0, 0, err
		}
		begin := s.at
		if err := s.value(); err != nil {
			return 0, 0, err
		}
		if wanted {
			from, to = begin, s.at
		}
		s.space()
		switch s.next() {
		case ',':
			s.space()
		case '}':
			return from, to, s.end()
		default:
			s.at--
			return 0, 0, s.unexpected("a comma or the object's end")
		}
	}
}

// key reads a key and its colon, up to the value, and says whether the key is
// the wanted one.
func (s *scanner) key() (bool, error) {
	begin := s.at
	escaped, err := s.text()
	if err != nil {
		return false, err
	}
	written := s.in[begin+1 : s.at-1]
	wanted := string(written) == s.want
	if escaped && len(written) <= len(s.want)*maxEscape {
		var key string
		if err := json.Unmarshal(s.in[begin:s.at], &key); err != nil {
			return false, err
		}
		wanted = key == s.want
	}
	s.space()
	if s.next() != ':' {
		s.at--
		return false, s.unexpected("a colon")
	}
	s.space()
	return wanted, nil
}

// value walks over one value of any kind and depth, without recursion.
func (s *scanner) value() error {
	s.inside = s.inside[:0]
	for {
		opened, err := s.one()
		if err != nil {
			return err
		}
		if opened {
			continue
		}
		more, err := s.close()
		if err != nil || !more {
			return err
		}
	}
}

// one reads a scalar, an empty object or array, or the opening of one up to
// where its first value begins: then opened is true.
func (s *scanner) one() (opened bool, err error) {
	switch c := s.peek(); c {
	case '{', '[':
		s.at++
		if len(s.inside)+1 >= maxDepth {
			return false, fmt.Errorf("nested deeper than %d at byte %d", maxDepth, s.at)
		}
		s.space()
		if s.peek() == c+2 { // } and ] stand two behind { and [
			s.at++
			return false, nil
		}
		s.inside = append(s.inside, c)
		if c == '{' {
			_, err = s.key()
		}
		return true, err
	case '"':
		_, err = s.text()
		return false, err
	case 't':
		return false, s.word("true")
	case 'f':
		return false, s.word("false")
	case 'n':
		return false, s.word("null")
	default:
		return false, s.number()
	}
}

// close reads what follows a value within the objects and arrays that are
// open: it returns true where a next value begins, and false once all are
// closed.
func (s *scanner) close() (bool, error) {
	for len(s.inside) > 0 {
		open := s.inside[len(s.inside)-1]
		s.space()
		switch c := s.next(); {
		case c == ',' && open == '{':
			s.space()
			_, err := s.key()
			return true, err
		case c == ',':
			s.space()
			return true, nil
		case c == open+2:
			s.inside = s.inside[:len(s.inside)-1]
		default:
			s.at--
			return false, s.unexpected("a comma or an end")
		}
	}
	return false, nil
}

// text walks over a string and says whether it has escapes.
func (s *scanner) text() (escaped bool, err error) {
	if s.next() != '"' {
		s.at--
		return false, s.unexpected("a string")
	}
	for {
		s.plain()
		switch c := s.next(); c {
		case '"':
			return escaped, nil
		case '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return escaped, err
			}
		default:
			s.at--
			return escaped, s.unexpected("the string's end")
		}
	}
}

// plain moves on to the next byte of a string that is a quote, a backslash or
// a control character; eight at a time.
func (s *scanner) plain() {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	at, in := s.at, s.in
	for ; at+8 <= len(in); at += 8 {
		x := binary.LittleEndian.Uint64(in[at:])
		quote := x ^ ones*'"'
		slash := x ^ ones*'\\'
		// A byte's high bit is set where it is special. Bytes after the first
		// such one may be set wrongly; only the first is looked at.
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

// escape reads what follows a backslash.
func (s *scanner) escape() error {
	switch s.next() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			c := s.next() | 0x20
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				s.at--
				return s.unexpected("four hexadecimal digits")
			}
		}
		return nil
	default:
		s.at--
		return s.unexpected("an escape")
	}
}

// number walks over a number.
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.at++
	}
	switch c := s.peek(); {
	case c == '0':
		s.at++
	case '1' <= c && c <= '9':
		s.digits()
	default:
		return s.unexpected("a value")
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return s.unexpected("a digit")
		}
	}
	if s.peek()|0x20 == 'e' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.digits() {
			return s.unexpected("a digit")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	begin := s.at
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.at++
	}
	return s.at > begin
}

func (s *scanner) word(w string) error {
	if len(s.in)-s.at < len(w) || string(s.in[s.at:s.at+len(w)]) != w {
		return s.unexpected(w)
	}
	s.at += len(w)
	return nil
}

// end makes sure that nothing follows.
func (s *scanner) end() error {
	s.space()
	if s.at < len(s.in) {
		return s.unexpected("nothing more")
	}
	return nil
}

func (s *scanner) space() {
	for s.at < len(s.in) {
		switch s.in[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// peek returns the byte that comes next, 0 at the end. No JSON has a 0
// outside a string, and none unescaped inside one, so it is never mistaken.
func (s *scanner) peek() byte {
	if s.at < len(s.in) {
		return s.in[s.at]
	}
	return 0
}

// next is peek that moves on, past the end as well: s.at-- always undoes it.
func (s *scanner) next() byte {
	c := s.peek()
	s.at++
	return c
}

// unexpected names the place, never what stands there: bodies are private.
func (s *scanner) unexpected(want string) error {
	if s.at >= len(s.in) {
		return fmt.Errorf("it ends where %s should be", want)
	}
	return fmt.Errorf("%s expected at byte %d", want, s.at)
}
