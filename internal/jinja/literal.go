package jinja

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// digitsEnd returns the end of the digits at a position. Single underscores
// may separate them.
func digitsEnd(s string, at int, isDigit func(byte) bool) int {
	end := at
	for at < len(s) && isDigit(s[at]) {
		at++
		end = at
		if at < len(s) && s[at] == '_' {
			at++
		}
	}
	return end
}

func isDecimal(c byte) bool { return c >= '0' && c <= '9' }
func isZero(c byte) bool    { return c == '0' }
func isBinary(c byte) bool  { return c == '0' || c == '1' }
func isOctal(c byte) bool   { return c >= '0' && c <= '7' }
func isHex(c byte) bool {
	return isDecimal(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// integerEnd returns the end of the integer at a position that has a digit.
func integerEnd(s string, at int) int {
	if s[at] != '0' {
		return digitsEnd(s, at, isDecimal)
	}
	if at+2 < len(s) {
		digit := map[byte]func(byte) bool{'b': isBinary, 'o': isOctal, 'x': isHex}[s[at+1]|0x20]
		if digit != nil {
			from := at + 2
			if s[from] == '_' {
				from++
			}
			if end := digitsEnd(s, from, digit); end > from {
				return end
			}
		}
	}
	return digitsEnd(s, at, isZero)
}

// floatEnd returns the end of the float at a position, or 0 when there is
// none.
func floatEnd(s string, at int) int {
	end := digitsEnd(s, at, isDecimal)
	isFloat := false
	if end+1 < len(s) && s[end] == '.' && isDecimal(s[end+1]) {
		end = digitsEnd(s, end+1, isDecimal)
		isFloat = true
	}
	if end < len(s) && s[end]|0x20 == 'e' {
		from := end + 1
		if from < len(s) && (s[from] == '+' || s[from] == '-') {
			from++
		}
		if to := digitsEnd(s, from, isDecimal); to > from {
			return to
		}
	}
	if isFloat {
		return end
	}
	return 0
}

// stringEnd returns the end of the string whose opening quote is at a
// position, or 0 when it is not closed.
func stringEnd(s string, at int) int {
	quote := s[at]
	for i := at + 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case quote:
			return i + 1
		}
	}
	return 0
}

func (l *lexer) lexString(end int) bool {
	value, problem := unescapeLiteral(l.source[l.at+1 : end-1])
	if problem != "" {
		return l.addError(problem)
	}
	l.addToken(tokenString, "", value)
	l.advanceTo(end)
	return true
}

var simpleEscapes = map[byte]string{
	'\n': "", '\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f",
	'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
}

// unescapeLiteral decodes the escapes of a string literal like Python's
// unicode-escape codec.
func unescapeLiteral(s string) (value, problem string) {
	if !strings.Contains(s, "\\") {
		return s, ""
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i >= len(s) {
			return "", "\\ at end of string"
		}
		c := s[i]
		if plain, ok := simpleEscapes[c]; ok {
			b.WriteString(plain)
			continue
		}
		switch {
		case isOctal(c):
			n := 0
			for k := 0; k < 3 && i < len(s) && isOctal(s[i]); k++ {
				n = n*8 + int(s[i]-'0')
				i++
			}
			i--
			b.WriteRune(rune(n))
		case c == 'x' || c == 'u' || c == 'U':
			width := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			r, ok := hexRune(s[i+1:], width)
			if !ok {
				return "", "truncated \\" + string(c) + strings.Repeat("X", width) + " escape"
			}
			b.WriteRune(r)
			i += width
		case c == 'N':
			return "", "character names (\\N) are not supported"
		default:
			b.WriteByte('\\')
			_, n := utf8.DecodeRuneInString(s[i:])
			b.WriteString(s[i : i+n])
			i += n - 1
		}
	}
	return b.String(), ""
}

func hexRune(s string, width int) (rune, bool) {
	if len(s) < width {
		return 0, false
	}
	for i := range width {
		if !isHex(s[i]) {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s[:width], 16, 32)
	return rune(n), err == nil && n <= utf8.MaxRune
}
