package cli

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
)

// table is a header and rows of cells. A row with a single cell is a note below
// the row before it; notes continue on further lines where they are too long.
// Nothing is lost on a narrow terminal: what a column has no space for is written
// as a note. Cells are sanitized and without colours.
type table struct {
	head       []string
	rows       [][]string
	style      func(row, column int) (textStyle, bool) // nil: none
	minWidths  []int                                   // minimal widths of the first columns
	movable    []int                                   // columns that are written as notes if the table is too wide, in this order
	shrinkable []int                                   // columns that may be cut if it is still too wide, in this order; a note has the whole cell
	wrapsLast  bool                                    // the last column continues on further lines instead of being cut
}

// minWrapWidth is the width below which the text of the last column is written as
// a note instead.
const minWrapWidth = 24

// tableLayout is how a table fits a width.
type tableLayout struct {
	widths []int
	moved  []int // columns that are written as notes
	width  int   // of the stream; 0: unlimited
	indent int   // of notes
}

// writeTo prints the table in the width of the stream.
func (t *table) writeTo(s *stream) {
	for _, line := range t.lines(s) {
		fmt.Fprintln(s, line)
	}
}

func (t *table) lines(s *stream) []string {
	layout := t.layout(s.width())
	lines := make([]string, 0, len(t.rows)+1)
	lines = append(lines, s.paint(bold, layout.rowLines(t.head, nil)[0]))
	for i, row := range t.rows {
		if len(row) == 1 {
			lines = append(lines, layout.noteLines(s, row[0])...)
			continue
		}
		paint := func(column int, text string) string {
			if t.style == nil {
				return text
			}
			if p, ok := t.style(i, column); ok {
				return s.paint(p, text)
			}
			return text
		}
		if layout.isCut(row, 0) { // a name is shown whole, so that it can be copied
			lines = append(lines, " "+paint(0, row[0]))
			row = append([]string{""}, row[1:]...)
		}
		lines = append(lines, layout.rowLines(row, paint)...)
		for column, cell := range row {
			isMoved := slices.Contains(layout.moved, column) && cell != "" && cell != "-"
			isShrunk := slices.Contains(t.shrinkable, column) && layout.isCut(row, column) && column != layout.lastColumn()
			if isMoved || isShrunk {
				lines = append(lines, layout.noteLines(s, cell)...)
			}
		}
	}
	return lines
}

// isCut reports whether a cell does not fit into its column.
func (l tableLayout) isCut(row []string, column int) bool {
	return !slices.Contains(l.moved, column) && lipgloss.Width(row[column]) > l.widths[column]
}

// lastColumn returns the last column that is not moved. Its cells are wrapped, not cut.
func (l tableLayout) lastColumn() int {
	last := len(l.widths) - 1
	for slices.Contains(l.moved, last) {
		last--
	}
	return last
}

// noteLines returns the lines of a note.
func (l tableLayout) noteLines(s *stream, note string) []string {
	lines := wrapText(note, l.width-l.indent)
	for i, line := range lines {
		lines[i] = s.paint(dim, indentLine(strings.Repeat(" ", l.indent), line, l.width))
	}
	return lines
}

// rowLines returns the lines of a row: one, and one more for each further line of
// the last column.
func (l tableLayout) rowLines(cells []string, paint func(int, string) string) []string {
	var b strings.Builder
	var rest []string
	last := l.lastColumn()
	start := 0 // where the last column begins
	for i, cell := range cells[:last+1] {
		if slices.Contains(l.moved, i) {
			continue
		}
		text := cell
		if i == last && lipgloss.Width(cell) > l.widths[i] {
			lines := wrapText(cell, l.widths[i])
			text, rest = lines[0], lines[1:]
		}
		text = truncate(text, l.widths[i])
		gap := l.widths[i] - lipgloss.Width(text)
		if paint != nil {
			text = paint(i, text)
		}
		b.WriteString(" " + text)
		start++
		if i < last {
			b.WriteString(strings.Repeat(" ", gap+1))
			start += l.widths[i] + 1
		}
	}
	lines := []string{strings.TrimRight(b.String(), " ")}
	for _, text := range rest {
		if paint != nil {
			text = paint(last, text)
		}
		lines = append(lines, strings.Repeat(" ", start)+text)
	}
	return lines
}

// layout fits the table into a width; 0 is unlimited. If the table is too wide,
// movable columns become notes, the last column wraps, and shrinkable columns are
// cut, in this order.
func (t *table) layout(width int) tableLayout {
	l := tableLayout{widths: t.naturalWidths(), width: width}
	excess := func() int {
		total := -1
		for i, w := range l.widths {
			if !slices.Contains(l.moved, i) {
				total += w + 2
			}
		}
		return total - width
	}
	if width > 0 {
		for _, i := range t.movable {
			if excess() > 0 {
				l.moved = append(l.moved, i)
			}
		}
		if last := len(t.head) - 1; t.wrapsLast && excess() > 0 {
			if left := l.widths[last] - excess(); left >= minWrapWidth {
				l.widths[last] = left
			} else {
				l.moved = append(l.moved, last)
			}
		}
		for _, i := range t.shrinkable {
			if more := excess(); more > 0 {
				l.widths[i] -= min(more, max(0, l.widths[i]-12))
			}
		}
	}
	l.indent = 3 + l.widths[0]
	if width > 0 {
		l.indent = min(l.indent, max(3, width-minNoteWidth))
	}
	return l
}

// minNoteWidth is the width that notes have at least, where there is so much.
const minNoteWidth = 50

// naturalWidths returns the widths of the columns where nothing is cut.
func (t *table) naturalWidths() []int {
	widths := make([]int, len(t.head))
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
	}
	return widths
}
