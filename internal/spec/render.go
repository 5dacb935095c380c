package spec

import (
	"fmt"
	"strings"
	"unicode"
)

// Limits for long lines: the columns of a line that are shown, and how many of
// them precede the caret.
const (
	maxLineColumns = 100
	columnsBefore  = 40
)

// palette holds the terminal escape sequences for the parts of a report.
type palette struct{ place, mark, quiet, off string }

var colorPalette = palette{place: "\x1b[1m", mark: "\x1b[1;31m", quiet: "\x1b[2m", off: "\x1b[0m"}

// Render formats the problems for the terminal: for each its position, the line
// with a caret, and the hint; then their number.
func (p Problems) Render(colour bool) string {
	if len(p) == 0 {
		return ""
	}
	var look palette
	if colour {
		look = colorPalette
	}
	var b strings.Builder
	for _, problem := range p {
		problem.render(&b, look)
		b.WriteByte('\n')
	}
	what := "problems"
	if len(p) == 1 {
		what = "problem"
	}
	where := ""
	if p[0].File != "" {
		where = " in " + p[0].File
	}
	fmt.Fprintf(&b, "%d %s%s\n", len(p), what, removeControls(where))
	return b.String()
}

func (p Problem) render(b *strings.Builder, look palette) {
	fmt.Fprintf(b, "%s%s%s%s%s%s\n", look.place, p.formatPlace(), look.off, look.mark, removeControls(p.Message),
		look.off)
	if p.Line > 0 && (p.Source != "" || p.Before != "") {
		source, col := cutLine([]rune(p.Source), p.Col)
		if strings.TrimSpace(p.Before) != "" {
			before, _ := cutLine([]rune(p.Before), 1)
			fmt.Fprintf(b, "%s%4d |%s %s\n", look.quiet, p.Line-1, look.off, removeControls(string(before)))
		}
		fmt.Fprintf(b, "%s%4d |%s %s\n", look.quiet, p.Line, look.off, removeControls(string(source)))
		indent := strings.Map(blankUnlessTab, string(source[:min(col-1, len(source))]))
		width := max(1, min(p.Width, len(source)-col+1))
		fmt.Fprintf(b, "%s     |%s %s%s%s%s\n", look.quiet, look.off, indent, look.mark, strings.Repeat("^", width),
			look.off)
	}
	if p.Hint != "" {
		fmt.Fprintf(b, "  %s\n", removeControls(p.Hint))
	}
}

// formatPlace returns the position of the problem with a trailing ": ".
func (p Problem) formatPlace() string {
	switch {
	case p.Line > 0:
		return fmt.Sprintf("%s:%d:%d: ", removeControls(p.File), p.Line, p.Col)
	case p.File != "" && p.Path != "":
		return removeControls(p.File) + ": " + removeControls(p.Path) + ": "
	case p.File != "":
		return removeControls(p.File) + ": "
	case p.Path != "":
		return removeControls(p.Path) + ": "
	}
	return ""
}

// cutLine returns the part of a long line around a column, and the column
// within that part.
func cutLine(line []rune, col int) ([]rune, int) {
	col = max(1, col)
	if len(line) <= maxLineColumns {
		return line, col
	}
	start := min(max(0, col-1-columnsBefore), len(line)-1)
	cut := append([]rune{}, line[start:min(len(line), start+maxLineColumns)]...)
	if start > 0 {
		cut[0] = '…'
	}
	if start+maxLineColumns < len(line) {
		cut[len(cut)-1] = '…'
	}
	return cut, col - start
}

func blankUnlessTab(r rune) rune {
	if r == '\t' {
		return r
	}
	return ' '
}

// removeControls replaces control characters, so that the content of a file
// cannot control the terminal.
func removeControls(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '�'
		}
		return r
	}, s)
}
