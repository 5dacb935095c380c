package cli

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleanLine makes one harmless line of text that came from elsewhere: no
// control characters, no line breaks, nothing that reorders what stands there.
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

// cleanOutput makes a line of a program's output harmless for a terminal.
// Colours stay, and end with the line; of a progress line that draws over
// itself, the last drawing stays.
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

// isHidden are characters that a reader cannot see, and that change what the
// terminal shows: controls of both sets, and those of bidirectional text.
func isHidden(r rune) bool {
	return unicode.Is(unicode.Cc, r) || r == 0x061C || r == 0x200E || r == 0x200F || r == 0x2028 || r == 0x2029 ||
		(r >= 0x202A && r <= 0x202E) || (r >= 0x2066 && r <= 0x2069)
}

// withoutEscapes removes the control sequences of terminals, whole. With
// colours, those of the form ESC [ digits m stay.
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

func isColour(sequence string) bool {
	inner, ok := strings.CutPrefix(sequence, "\x1b[")
	if !ok || !strings.HasSuffix(inner, "m") {
		return false
	}
	return strings.Trim(inner[:len(inner)-1], "0123456789;:") == ""
}

// afterEscape is what follows the sequence that text begins with.
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

// afterString skips a title or another text meant for the terminal, up to
// its end (BEL or ST), else all of it.
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
