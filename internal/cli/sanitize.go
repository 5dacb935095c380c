package cli

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleanLine makes foreign text safe to print: one line, without control
// characters, terminal sequences and characters that reorder text.
func cleanLine(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case isHidden(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(withoutEscapes(text, false), "\uFFFD")))
}

// cleanOutput makes a line of a program's output safe for a terminal. Colours are
// kept, and reset at the end. Of a line that overwrites itself, such as a
// progress bar, the last state is kept.
func cleanOutput(line []byte) string {
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	text = strings.TrimRight(text, "\r")
	if at := strings.LastIndexByte(text, '\r'); at >= 0 {
		text = text[at+1:]
	}
	text = withoutEscapes(text, true)
	coloured := strings.Contains(text, "\x1b[")
	text = strings.Map(func(r rune) rune {
		if r != '\t' && r != '\x1b' && isHidden(r) {
			return -1
		}
		return r
	}, text)
	if coloured {
		text += "\x1b[m"
	}
	return text
}

// isHidden reports whether a character is invisible and changes what a terminal
// shows: control characters and those of bidirectional text.
func isHidden(r rune) bool {
	return unicode.Is(unicode.Cc, r) || r == 0x061C || r == 0x200E || r == 0x200F || r == 0x2028 || r == 0x2029 ||
		(r >= 0x202A && r <= 0x202E) || (r >= 0x2066 && r <= 0x2069)
}

// withoutEscapes removes terminal sequences. With colours, it keeps those of the
// form ESC [ digits m.
func withoutEscapes(text string, colours bool) string {
	if !strings.ContainsAny(text, "\x1b\u009b\u009d\u0090") {
		return text
	}
	var b strings.Builder
	for text != "" {
		r, size := utf8.DecodeRuneInString(text)
		var rest string
		switch r {
		case '\x1b':
			rest = afterEscape(text)
		case 0x9b:
			rest = afterCSI(text[size:])
		case 0x9d, 0x90:
			rest = afterString(text[size:])
		default:
			b.WriteString(text[:size])
			text = text[size:]
			continue
		}
		if sequence := text[:len(text)-len(rest)]; colours && isColour(sequence) {
			b.WriteString(sequence)
		}
		text = rest
	}
	return b.String()
}

// isColour reports whether a sequence is of the form ESC [ digits m.
func isColour(sequence string) bool {
	inner, ok := strings.CutPrefix(sequence, "\x1b[")
	if !ok || !strings.HasSuffix(inner, "m") {
		return false
	}
	return strings.Trim(inner[:len(inner)-1], "0123456789;:") == ""
}

// afterEscape returns the text after the sequence that it begins with.
func afterEscape(text string) string {
	if len(text) < 2 {
		return ""
	}
	switch text[1] {
	case '[':
		return afterCSI(text[2:])
	case ']', 'P', 'X', '^', '_':
		return afterString(text[2:])
	}
	rest := strings.TrimLeft(text[1:], " !\"#$%&'()*+,-./")
	if rest == "" || rest[0] < 0x30 || rest[0] > 0x7e {
		return rest
	}
	return rest[1:]
}

// afterCSI returns the text after the rest of a control sequence (CSI).
func afterCSI(text string) string {
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c > 0x7e {
			return text[i:]
		} else if c >= 0x40 {
			return text[i+1:]
		}
	}
	return ""
}

// afterString returns the text after a control string, such as a window title:
// after its terminator (BEL or ST), or "" without one.
func afterString(text string) string {
	for i := range len(text) {
		switch {
		case text[i] == '\a':
			return text[i+1:]
		case strings.HasPrefix(text[i:], "\x1b\\"), strings.HasPrefix(text[i:], "\u009c"):
			return text[i+2:]
		}
	}
	return ""
}
