package cli

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
)

// wrapText breaks text into lines of at most width columns, between words. A word
// that is longer than a line is broken, except a URL: it gets a line of its own, so
// that it can be copied. A width of 0 or less is unlimited. There is always one line.
func wrapText(text string, width int) []string {
	if width <= 0 || lipgloss.Width(text) <= width {
		return []string{text}
	}
	var lines []string
	line, used := "", 0
	startLine := func(word string) { line, used = word, lipgloss.Width(word) }
	for i, word := range strings.Split(text, " ") {
		switch size := lipgloss.Width(word); {
		case i == 0:
			startLine(word)
		case used+1+size <= width:
			line, used = line+" "+word, used+1+size
		default:
			if strings.TrimSpace(line) != "" {
				lines = append(lines, strings.TrimRight(line, " "))
			}
			startLine(word)
		}
		for used > width && !isURL(line) && !strings.Contains(line, "\x1b") {
			head := cutText(line, width)
			lines = append(lines, head)
			startLine(line[len(head):])
		}
	}
	return append(lines, strings.TrimRight(line, " "))
}

// cutText returns the longest beginning of text that has at most width columns, and at
// least one character.
func cutText(text string, width int) string {
	used := 0
	for i, r := range text {
		size := lipgloss.Width(string(r))
		if i > 0 && used+size > width {
			return text[:i]
		}
		used += size
	}
	return text
}

// isURL reports whether a word is a URL, also in parentheses or quotes.
func isURL(word string) bool {
	return strings.Contains(word, "://") && !strings.Contains(strings.TrimSpace(word), " ")
}

// indentLine puts a prefix of spaces or of a label before a line of wrapText. A URL that is wider
// than the terminal gets none, so that the terminal does not copy spaces into it.
func indentLine(prefix, line string, width int) string {
	if blank := strings.TrimSpace(prefix) == ""; blank && width > 0 && lipgloss.Width(prefix+line) > width && isURL(line) {
		return line
	}
	return prefix + line
}

// indentText wraps text to a width in columns. The first line begins with first,
// further lines with rest.
func indentText(first, rest, text string, width int) []string {
	left := 0
	if width > 0 {
		left = max(12, width-lipgloss.Width(first))
	}
	lines := wrapText(text, left)
	if first != rest && strings.TrimSpace(first) != "" && width > 0 && lipgloss.Width(first+lines[0]) > width && isURL(lines[0]) {
		lines = append([]string{""}, lines...) // the label, and the URL below it
	}
	for i := range lines {
		lines[i] = strings.TrimRight(indentLine(map[bool]string{true: first, false: rest}[i == 0], lines[i], width), " ")
	}
	return lines
}

// printWrapped prints a line, wrapped to the width of the stream. Further lines have the indentation
// of the first. Text of several lines is printed as it is.
func (s *stream) printWrapped(text string) {
	body := strings.TrimLeft(text, " ")
	if width := s.width(); width > 0 && lipgloss.Width(text) > width && !strings.Contains(text, "\n") {
		indent := text[:len(text)-len(body)]
		text = strings.Join(indentText(indent, indent, body, width), "\n")
	}
	fmt.Fprintln(s, text)
}

// printWrapped prints text to stderr, in lines that begin with indent.
func (s *screen) printWrapped(indent string, p textStyle, text string) {
	for _, line := range indentText(indent, indent, text, s.err.width()) {
		s.printInfo("%s", s.err.paint(p, line))
	}
}

// printLabeled prints text to stderr behind a label, such as "note". Further lines are aligned
// with the text. label has no styles; p styles it.
func (s *screen) printLabeled(label string, p textStyle, text string) {
	indent := strings.Repeat(" ", lipgloss.Width(label))
	for i, line := range indentText(label, indent, text, s.err.width()) {
		if i == 0 && strings.TrimSpace(label) != "" {
			rest := strings.TrimPrefix(line, strings.TrimRight(label, " "))
			spaces := len(label) - len(strings.TrimLeft(label, " "))
			line = label[:spaces] + s.err.paint(p, strings.TrimSpace(label)) + rest
		}
		s.printInfo("%s", line)
	}
}

// printNote prints a note of a plan.
func (s *screen) printNote(text string) { s.printLabeled(" note ", yellow, cleanLine(text)) }
