package cli

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
)

// liveRegion is a group of terminal lines that is redrawn in place. Other output
// must not be written before clear has removed it.
type liveRegion struct {
	to     *stream
	height int
}

// draw replaces the region by lines.
func (b *liveRegion) draw(lines []string) {
	var out strings.Builder
	b.appendErase(&out)
	for _, line := range lines {
		out.WriteString(line + "\n")
	}
	b.height = 0
	for _, line := range lines {
		b.height += b.countRows(line)
	}
	fmt.Fprint(b.to, out.String())
}

// countRows returns how many rows of the terminal a line takes: a URL may be longer than a row.
func (b *liveRegion) countRows(line string) int {
	if width := b.to.width(); width > 0 {
		return max(1, (lipgloss.Width(line)+width-1)/width)
	}
	return 1
}

// clear removes the region.
func (b *liveRegion) clear() {
	var out strings.Builder
	b.appendErase(&out)
	b.height = 0
	fmt.Fprint(b.to, out.String())
}

// appendErase appends the control sequence that erases the region.
func (b *liveRegion) appendErase(out *strings.Builder) {
	if b.height > 0 {
		fmt.Fprintf(out, "\x1b[%dA\r\x1b[J", b.height)
	}
}
