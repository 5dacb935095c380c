package cli

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
)

// table is a header and rows of cells. A row with a single cell is a note below
// the row before it. Cells are sanitized and without colours.
type table struct {
	head       []string
	rows       [][]string
	style      func(row, column int) (textStyle, bool) // nil: none
	minWidths  []int                                   // minimal widths of the first columns
	shrinkable []int                                   // columns that may be cut, in this order
}

// writeTo prints the table, cut to the width of the stream.
func (t *table) writeTo(s *stream) {
	for _, line := range t.lines(s) {
		fmt.Fprintln(s, line)
	}
}

func (t *table) lines(s *stream) []string {
	widths := t.widths(s.width())
	lines := make([]string, 0, len(t.rows)+1)
	lines = append(lines, s.paint(bold, t.line(widths, t.head, nil)))
	for i, row := range t.rows {
		if len(row) == 1 {
			note := strings.Repeat(" ", 3+widths[0]) + row[0]
			lines = append(lines, s.paint(dim, truncate(note, s.width())))
			continue
		}
		lines = append(lines, t.line(widths, row, func(column int, text string) string {
			if t.style == nil {
				return text
			}
			if p, ok := t.style(i, column); ok {
				return s.paint(p, text)
			}
			return text
		}))
	}
	return lines
}

func (t *table) line(widths []int, cells []string, tinted func(int, string) string) string {
	var b strings.Builder
	for i, cell := range cells {
		text := truncate(cell, widths[i])
		gap := widths[i] - lipgloss.Width(text)
		if tinted != nil {
			text = tinted(i, text)
		}
		b.WriteString(" " + text)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", gap+1))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// widths returns the widths of the columns. If a line is too long, the shrinkable
// columns become narrower.
func (t *table) widths(width int) []int {
	widths := make([]int, len(t.head))
	total := 0
	for i := range t.head {
		widths[i] = lipgloss.Width(t.head[i])
		if i < len(t.minWidths) {
			widths[i] = max(widths[i], t.minWidths[i])
		}
		for _, row := range t.rows {
			if len(row) > 1 {
				widths[i] = max(widths[i], lipgloss.Width(row[i]))
			}
		}
		total += widths[i] + 2
	}
	if width <= 0 {
		return widths
	}
	for _, i := range t.shrinkable {
		excess := total - 1 - width
		if excess <= 0 {
			break
		}
		cut := min(excess, max(0, widths[i]-12))
		widths[i] -= cut
		total -= cut
	}
	return widths
}
