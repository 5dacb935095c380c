package openai

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
)

const (
	maxDepth     = 10000 // the nesting limit of encoding/json
	maxFieldName = 32    // bytes of a field's name that a receiver may want
	maxEscape    = len(`\u006d`)
)

// fieldReceiver receives what a jsonScanner finds.
type fieldReceiver interface {
	// receiveField receives a field of the outermost object: its name without escapes, and where its value lies. Of
	// fields with the same name, the last counts. Names longer than maxFieldName are left out.
	receiveField(name []byte, from, to int)
	// receiveType receives a text that is the value of a field "type" in any object.
	receiveType(text []byte)
}

// jsonScanner checks that a text is one JSON object while the text arrives in pieces, and reports the fields of that
// object. It looks at each byte once and decodes no values. Like encoding/json, it accepts bytes in strings that are
// not UTF-8.
type jsonScanner struct {
	receiver fieldReceiver
	state    scanState
	at       int    // how much of the text is scanned
	open     []byte // a byte for each open object ('{') and array ('[')
	err      error

	from      int    // where the present string begins, with its quote
	isEscaped bool   // the present string has escapes
	isKey     bool   // the present string is a key
	hexDigits int    // of the present escape that are still to come
	word      string // the rest of the present true, false or null

	name      [maxFieldName]byte // of the present field of the outermost object
	nameLen   int                // -1: nobody wants it
	valueFrom int                // where its value begins
	isType    bool               // the latest key is "type"
}

// scanState is what may follow.
type scanState uint8

const (
	inString scanState = iota
	inEscape
	inHex
	inWord
	inMinus    // a digit must follow
	inZero     // a fraction, an exponent or the number's end
	inInteger  // more digits, too
	inPoint    // a digit must follow
	inFraction // more digits, an exponent or the number's end
	inExponent // a sign or a digit
	inSign     // a digit must follow
	inPower    // more digits or the number's end

	// White space may come before all of the following.
	wantObject
	wantKeyOrEnd
	wantKey
	wantColon
	wantValue
	wantValueOrEnd
	wantCommaOrEnd
	wantNothing
)

// expected is what an error says should follow in a state.
var expected = [...]string{
	inString: "the string's end", inEscape: "an escape", inHex: "four hexadecimal digits", inWord: "true, false or null",
	inMinus: "a digit", inZero: "a value", inInteger: "a value", inPoint: "a digit", inFraction: "a digit",
	inExponent: "a digit", inSign: "a digit", inPower: "a digit",
	wantObject: "an object", wantKeyOrEnd: "a string", wantKey: "a string", wantColon: "a colon", wantValue: "a value",
	wantValueOrEnd: "a value", wantCommaOrEnd: "a comma or an end", wantNothing: "nothing more",
}

// begin makes the scanner ready for a new text.
func (s *jsonScanner) begin(receiver fieldReceiver) {
	*s = jsonScanner{receiver: receiver, state: wantObject, open: s.open[:0]}
}

// scan goes on to the end of the text that has arrived. text begins with what it was before.
func (s *jsonScanner) scan(text []byte) {
	for s.err == nil && s.at < len(text) {
		c := text[s.at]
		switch {
		case s.state == inString:
			s.scanString(text)
		case s.state < wantObject:
			s.scanPart(text, c)
		case c == ' ' || c == '\n' || c == '\r' || c == '\t':
			s.at++
		default:
			s.scanToken(c)
		}
	}
}

// finish returns what is wrong with the whole text, or nil.
func (s *jsonScanner) finish() error {
	switch {
	case s.err != nil:
		return s.err
	case s.state != wantNothing:
		return fmt.Errorf("it ends where %s should be", expected[s.state])
	default:
		return nil
	}
}

// fail ends the scan. The error has the position but not the content, which may be private.
func (s *jsonScanner) fail() {
	s.err = fmt.Errorf("%s expected at byte %d", expected[s.state], s.at)
}

// scanToken scans the first byte of a token.
func (s *jsonScanner) scanToken(c byte) {
	switch {
	case s.state == wantKey && c == '"', s.state == wantKeyOrEnd && c == '"':
		s.beginString(true)
	case s.state == wantColon && c == ':':
		s.at++
		s.state = wantValue
		if len(s.open) == 1 {
			s.valueFrom = -1
		}
	case s.state == wantValue, s.state == wantValueOrEnd && c != ']':
		s.beginValue(c)
	case s.state == wantCommaOrEnd && c == ',':
		s.at++
		if s.state = wantValue; s.open[len(s.open)-1] == '{' {
			s.state = wantKey
		}
	case s.state == wantObject && c == '{':
		s.openOne(c, wantKeyOrEnd)
	case s.state == wantKeyOrEnd && c == '}', s.state == wantValueOrEnd && c == ']',
		s.state == wantCommaOrEnd && c == s.open[len(s.open)-1]+2: // in ASCII, } and ] are two after { and [
		s.at++
		s.open = s.open[:len(s.open)-1]
		s.endValue()
	default:
		s.fail()
	}
}

// beginValue scans the first byte of a value.
func (s *jsonScanner) beginValue(c byte) {
	if len(s.open) == 1 && s.valueFrom < 0 {
		s.valueFrom = s.at
	}
	switch {
	case c == '"':
		s.beginString(false)
	case c == '{':
		s.openOne(c, wantKeyOrEnd)
	case c == '[':
		s.openOne(c, wantValueOrEnd)
	case c == 't':
		s.beginWord("true")
	case c == 'f':
		s.beginWord("false")
	case c == 'n':
		s.beginWord("null")
	case c == '-':
		s.moveTo(inMinus)
	case c == '0':
		s.moveTo(inZero)
	case '1' <= c && c <= '9':
		s.moveTo(inInteger)
	default:
		s.fail()
	}
}

// moveTo accepts a byte.
func (s *jsonScanner) moveTo(state scanState) {
	s.at++
	s.state = state
}

func (s *jsonScanner) beginWord(word string) {
	s.word = word[1:]
	s.moveTo(inWord)
}

func (s *jsonScanner) openOne(c byte, state scanState) {
	if len(s.open) >= maxDepth {
		s.err = fmt.Errorf("nested deeper than %d at byte %d", maxDepth, s.at)
		return
	}
	s.open = append(s.open, c)
	s.moveTo(state)
}

func (s *jsonScanner) beginString(isKey bool) {
	s.from, s.isKey, s.isEscaped = s.at, isKey, false
	s.moveTo(inString)
}

// scanString scans within a string up to its end, or up to an escape that has not arrived yet.
func (s *jsonScanner) scanString(text []byte) {
	at := s.at
	for {
		at = skipPlain(text, at)
		if at+1 < len(text) && text[at] == '\\' && isShortEscape[text[at+1]] {
			at += 2
			s.isEscaped = true
			continue
		}
		break
	}
	s.at = at
	if at == len(text) {
		return
	}
	switch text[at] {
	case '"':
		s.at++
		s.endString(text[s.from+1 : at])
	case '\\':
		s.isEscaped = true
		s.moveTo(inEscape)
	default:
		s.fail()
	}
}

// isShortEscape has the bytes that are an escape after a backslash.
var isShortEscape = [256]bool{'"': true, '\\': true, '/': true, 'b': true, 'f': true, 'n': true, 'r': true, 't': true}

// endString ends a string, which is a key or a value. written is without the quotes.
func (s *jsonScanner) endString(written []byte) {
	if !s.isKey {
		if s.isType && !s.isEscaped {
			s.receiver.receiveType(written)
		}
		s.endValue()
		return
	}
	s.state = wantColon
	s.isType = string(written) == "type"
	if len(s.open) != 1 {
		return
	}
	s.nameLen = -1
	switch {
	case !s.isEscaped && len(written) <= maxFieldName:
		s.nameLen = copy(s.name[:], written)
	case s.isEscaped && len(written) <= maxFieldName*maxEscape:
		var name string
		if json.Unmarshal([]byte(`"`+string(written)+`"`), &name) == nil && len(name) <= maxFieldName {
			s.nameLen = copy(s.name[:], name)
		}
	}
}

// endValue ends a value.
func (s *jsonScanner) endValue() {
	s.isType = false
	switch len(s.open) {
	case 0:
		s.state = wantNothing
		return
	case 1:
		if s.nameLen >= 0 {
			s.receiver.receiveField(s.name[:s.nameLen], s.valueFrom, s.at)
		}
	}
	s.state = wantCommaOrEnd
}

// scanPart scans the next byte of an escape, a word or a number.
func (s *jsonScanner) scanPart(text []byte, c byte) {
	isDigit := '0' <= c && c <= '9'
	switch s.state {
	case inEscape:
		s.scanEscape(c)
	case inHex:
		if letter := c | 0x20; !isDigit && (letter < 'a' || letter > 'f') {
			s.fail()
			return
		}
		s.at++
		if s.hexDigits--; s.hexDigits == 0 {
			s.state = inString
		}
	case inWord:
		if c != s.word[0] {
			s.fail()
			return
		}
		s.at++
		if s.word = s.word[1:]; s.word == "" {
			s.endValue()
		}
	case inMinus:
		switch {
		case c == '0':
			s.moveTo(inZero)
		case isDigit:
			s.moveTo(inInteger)
		default:
			s.fail()
		}
	case inPoint, inSign:
		if !isDigit {
			s.fail()
			return
		}
		s.moveTo(s.state + 1)
	case inExponent:
		switch {
		case isDigit:
			s.moveTo(inPower)
		case c == '+' || c == '-':
			s.moveTo(inSign)
		default:
			s.fail()
		}
	default:
		s.scanNumber(text)
	}
}

func (s *jsonScanner) scanEscape(c byte) {
	switch {
	case isShortEscape[c]:
		s.moveTo(inString)
	case c == 'u':
		s.hexDigits = 4
		s.moveTo(inHex)
	default:
		s.fail()
	}
}

// scanNumber scans what follows a number that could end here.
func (s *jsonScanner) scanNumber(text []byte) {
	if s.state != inZero {
		for s.at < len(text) && '0' <= text[s.at] && text[s.at] <= '9' {
			s.at++
		}
		if s.at == len(text) {
			return
		}
	}
	switch c := text[s.at]; {
	case c == '.' && s.state <= inInteger:
		s.moveTo(inPoint)
	case c|0x20 == 'e' && s.state != inPower:
		s.moveTo(inExponent)
	default:
		s.endValue()
	}
}

// Masks for eight bytes at once.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// findSpecial returns a mask of eight bytes: the first high bit is that of the first byte that is a quote, a backslash or
// a control character. Later bits may be wrong.
func findSpecial(x uint64) uint64 {
	control := x ^ ones*2 // it makes a quote the byte after the control characters, and keeps those what they are
	slash := x ^ ones*'\\'
	return ((control-ones*('"'^2+1))&^control | (slash-ones)&^slash) & highs
}

// skipPlain returns the position of the next quote, backslash or control character of a string.
func skipPlain(text []byte, at int) int {
	for ; at+8 <= len(text); at += 8 {
		if special := findSpecial(binary.LittleEndian.Uint64(text[at:])); special != 0 {
			return at + bits.TrailingZeros64(special)/8
		}
		for at+40 <= len(text) {
			next := text[at+8 : at+40]
			special := findSpecial(binary.LittleEndian.Uint64(next)) |
				findSpecial(binary.LittleEndian.Uint64(next[8:])) |
				findSpecial(binary.LittleEndian.Uint64(next[16:])) |
				findSpecial(binary.LittleEndian.Uint64(next[24:]))
			if special != 0 {
				break
			}
			at += 32
		}
	}
	for at < len(text) && text[at] != '"' && text[at] != '\\' && text[at] >= ' ' {
		at++
	}
	return at
}
