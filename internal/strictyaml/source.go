package strictyaml

import (
	"strings"
	"unicode/utf8"
)

// measureWidth returns the number of characters of n to underline in its line.
func (b *builder) measureWidth(n *Node) int {
	switch n.Kind {
	case Mapping, Sequence:
		if len(n.Pairs) > 0 && n.Pairs[0].Key.Line == n.Line && n.Pairs[0].Key.Col == n.Col {
			return n.Pairs[0].Key.Width
		}
		return 1
	case Null, Bool, Int, Float, String:
	}
	rest := b.restOfLine(n.Line, n.Col)
	if rest == "" {
		return 1
	}
	if n.Quoted && (rest[0] == '"' || rest[0] == '\'') {
		return measureQuoted(rest)
	}
	if strings.HasPrefix(rest, n.Text) && n.Text != "" {
		return utf8.RuneCountInString(n.Text)
	}
	if i := strings.Index(rest, " #"); i >= 0 {
		rest = rest[:i]
	}
	return max(1, utf8.RuneCountInString(strings.TrimRight(rest, " \t\r")))
}

// restOfLine returns a line from a column on.
func (b *builder) restOfLine(line, col int) string {
	if line < 1 || line > len(b.lines) {
		return ""
	}
	row := strings.TrimPrefix(b.lines[line-1], "\ufeff")
	for range col - 1 {
		_, size := utf8.DecodeRuneInString(row)
		row = row[size:]
	}
	return row
}

// measureQuoted returns the width of a quoted scalar with its quotes, or of the
// part in its first line.
func measureQuoted(s string) int {
	quote := s[0]
	width := 1
	for i := 1; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		i, width = i+size, width+1
		switch {
		case quote == '"' && r == '\\' && i < len(s):
			_, size = utf8.DecodeRuneInString(s[i:])
			i, width = i+size, width+1
		case r != rune(quote):
		case quote == '\'' && i < len(s) && s[i] == '\'':
			i, width = i+1, width+1
		default:
			return width
		}
	}
	return width
}
