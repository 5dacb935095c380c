package gitignore

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// setting is one variable of a configuration file of git.
type setting struct {
	key      string // such as core.ignorecase; section and name in lower case, the subsection as written
	value    string
	hasValue bool // false for a name without `=`, which means true
}

// parseConfig parses a configuration file of git. Settings before a malformed line are returned with the error.
func parseConfig(content []byte) ([]setting, error) {
	p := configParser{text: string(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))), line: 1}
	p.text = strings.ReplaceAll(p.text, "\r\n", "\n")
	var result []setting
	section := ""
	for {
		p.skipSpaces()
		switch c := p.peek(); {
		case c == 0 && p.at >= len(p.text):
			return result, nil
		case c == '#' || c == ';':
			p.skipLine()
		case c == '[':
			name, ok := p.parseSection()
			if !ok {
				return result, fmt.Errorf("line %d is no section", p.line)
			}
			section = name
		default:
			s, ok := p.parseSetting()
			if !ok || section == "" {
				return result, fmt.Errorf("line %d is no setting", p.line)
			}
			s.key = section + "." + s.key
			result = append(result, s)
		}
	}
}

type configParser struct {
	text string
	at   int
	line int
}

// peek returns the next byte, or 0 at the end.
func (p *configParser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// next consumes a byte. It returns 0 at the end.
func (p *configParser) next() byte {
	c := p.peek()
	if c == '\n' {
		p.line++
	}
	p.at++
	return c
}

func (p *configParser) skipSpaces() {
	for isConfigSpace(p.peek()) || p.peek() == '\n' {
		p.next()
	}
}

func (p *configParser) skipLine() {
	for p.at < len(p.text) && p.peek() != '\n' {
		p.next()
	}
}

// parseSection parses `[section]`, `[section "subsection"]` and the old `[section.subsection]`.
func (p *configParser) parseSection() (string, bool) {
	p.next()
	var name strings.Builder
	for {
		switch c := p.next(); {
		case c == ']':
			return name.String(), name.Len() > 0
		case isConfigSpace(c):
			return p.parseSubsection(name.String())
		case isNameByte(c) || c == '.':
			name.WriteByte(lowerByte(c))
		default:
			return "", false
		}
	}
}

func (p *configParser) parseSubsection(section string) (string, bool) {
	for isConfigSpace(p.peek()) {
		p.next()
	}
	if p.next() != '"' {
		return "", false
	}
	name := []byte(section + ".")
	for {
		c := p.next()
		switch {
		case c == 0 || c == '\n':
			return "", false
		case c == '"':
			return string(name), p.next() == ']'
		case c == '\\':
			if c = p.next(); c == 0 || c == '\n' {
				return "", false
			}
		}
		name = append(name, c)
	}
}

// parseSetting parses `name = value` or `name`.
func (p *configParser) parseSetting() (setting, bool) {
	var result setting
	if !isLetter(p.peek()) {
		return result, false
	}
	for isNameByte(p.peek()) {
		result.key += string(lowerByte(p.next()))
	}
	for isConfigSpace(p.peek()) {
		p.next()
	}
	switch p.peek() {
	case '=':
		p.next()
		value, ok := p.parseValue()
		result.value, result.hasValue = value, true
		return result, ok
	case '\n', 0:
		return result, true
	}
	return result, false
}

// parseValue parses the text behind `=`: quotes keep spaces and comments, a backslash continues on the next line.
func (p *configParser) parseValue() (string, bool) {
	var value []byte
	spaces := 0 // of an unquoted run that belongs to the value only if something follows
	isQuoted := false
	for {
		c := p.peek()
		if c == 0 || c == '\n' {
			return string(value[:len(value)-spaces]), !isQuoted
		}
		p.next()
		switch {
		case isConfigSpace(c) && !isQuoted:
			if len(value) > 0 {
				value = append(value, c)
				spaces++
			}
			continue
		case (c == '#' || c == ';') && !isQuoted:
			p.skipLine()
			continue
		case c == '"':
			isQuoted = !isQuoted
		case c == '\\':
			escaped := p.next()
			at := strings.IndexByte("ntb\\\"\n", escaped)
			if escaped == 0 || at < 0 {
				return "", false
			}
			if escaped == '\n' {
				continue
			}
			value = append(value, "\n\t\b\\\""[at])
		default:
			value = append(value, c)
		}
		spaces = 0
	}
}

func isConfigSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' }

func isNameByte(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' }

// isTrue reads a boolean setting as git does. Other words than those of git are false.
func (s setting) isTrue() bool {
	switch strings.ToLower(s.value) {
	case "true", "yes", "on":
		return true
	case "":
		return !s.hasValue
	}
	n, err := strconv.Atoi(strings.TrimSpace(s.value))
	return err == nil && n != 0
}
