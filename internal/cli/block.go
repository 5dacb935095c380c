package cli

import (
	"fmt"
	"strings"
)

// block is lines on a terminal that are drawn over and over in one place.
// Nothing else may be written while it is up; clear takes it down.
type block struct {
	to    *stream
	drawn int
}

// draw replaces what is up with lines.
func (b *block) draw(lines []string) {
	var out strings.Builder
	b.rewind(&out)
	for _, line := range lines {
		out.WriteString(line + "\n")
	}
	b.drawn = len(lines)
	fmt.Fprint(b.to, out.String())
}

func (b *block) clear() {
	var out strings.Builder
	b.rewind(&out)
	b.drawn = 0
	fmt.Fprint(b.to, out.String())
}

// rewind goes back to the first line and erases from there on.
func (b *block) rewind(out *strings.Builder) {
	if b.drawn > 0 {
		fmt.Fprintf(out, "\x1b[%dA\r\x1b[J", b.drawn)
	}
}
