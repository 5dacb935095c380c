package spec

import (
	"fmt"
	"strings"
	"unicode"

	"dstack/internal/human"
)

// How much of a long line is shown, and how much of it before the caret.
const (
	shownColumns  = 100
	columnsBefore = 40
)

// paint is how parts of a report look; each is a terminal's escape sequence.
type paint struct{ place, mark, quiet, off string }

var coloured = paint{place: "\x1b[1m", mark: "\x1b[1;31m", quiet: "\x1b[2m", off: "\x1b[0m"}

// Render writes the problems for a person: the place, the line, a caret and
// what to do, and their number at the end.
func (p Problems) Render(colour bool) string {
	if len(p) == 0 {
		return ""
	}
	var look paint
	if colour {
		look = coloured
	}
	var b strings.Builder
	for _, problem := range p {
		problem.render(&b, look)
		b.WriteByte('\n')
	}
	where := ""
	if p[0].File != "" {
		where = " in " + p[0].File
	}
	fmt.Fprintf(&b, "%s%s\n", human.Count(len(p), "problem"), clean(where))
	return b.String()
}

func (p Problem) render(b *strings.Builder, look paint) {
	fmt.Fprintf(b, "%s%s%s%s%s%s\n", look.place, p.where(), look.off, look.mark, clean(p.Message), look.off)
	if p.Line > 0 && (p.Source != "" || p.Before != "") {
		source, col := window([]rune(p.Source), p.Col)
		if strings.TrimSpace(p.Before) != "" {
			before, _ := window([]rune(p.Before), 1)
			fmt.Fprintf(b, "%s%4d |%s %s\n", look.quiet, p.Line-1, look.off, clean(string(before)))
		}
		fmt.Fprintf(b, "%s%4d |%s %s\n", look.quiet, p.Line, look.off, clean(string(source)))
		indent := strings.Map(keepTab, string(source[:min(col-1, len(source))]))
		width := max(1, min(p.Width, len(source)-col+1))
		fmt.Fprintf(b, "%s     |%s %s%s%s%s\n", look.quiet, look.off, indent, look.mark, strings.Repeat("^", width), look.off)
	}
	if p.Hint != "" {
		fmt.Fprintf(b, "  %s\n", clean(p.Hint))
	}
}

// where is the place in a form that editors and terminals follow.
func (p Problem) where() string {
	switch {
	case p.Line > 0:
		return fmt.Sprintf("%s:%d:%d: ", clean(p.File), p.Line, p.Col)
	case p.File != "" && p.Path != "":
		return clean(p.File) + ": " + clean(p.Path) + ": "
	case p.File != "":
		return clean(p.File) + ": "
	case p.Path != "":
		return clean(p.Path) + ": "
	}
	return ""
}

// window is the part of a long line around a column, and the column in it.
func window(line []rune, col int) ([]rune, int) {
	col = max(1, col)
	if len(line) <= shownColumns {
		return line, col
	}
	start := min(max(0, col-1-columnsBefore), len(line)-1)
	cut := append([]rune{}, line[start:min(len(line), start+shownColumns)]...)
	if start > 0 {
		cut[0] = '…'
	}
	if start+shownColumns < len(line) {
		cut[len(cut)-1] = '…'
	}
	return cut, col - start
}

func keepTab(r rune) rune {
	if r == '\t' {
		return r
	}
	return ' '
}

// clean keeps what a file holds from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '�'
		}
		return r
	}, s)
}
