package cli

import (
	"fmt"
	"strings"
)

// liveRegion is lines on a terminal that are drawn over and over in one place.
// Nothing else may be written while it is up; clear takes it down.
type liveRegion struct {
	to     *stream
	height int
}

// draw replaces what is up with lines.
func (b *liveRegion) draw(lines []string) {
	var out strings.Builder
	b.appendErase(&out)
	for _, line := range lines {
		out.WriteString(line + "\n")
	}
	b.height = len(lines)
	fmt.Fprint(b.to, out.String())
}

func (b *liveRegion) clear() {
	var out strings.Builder
	b.appendErase(&out)
	b.height = 0
	fmt.Fprint(b.to, out.String())
}

// appendErase goes back to the first line and erases from there on.
func (b *liveRegion) appendErase(out *strings.Builder) {
	if b.height > 0 {
		fmt.Fprintf(out, "\x1b[%dA\r\x1b[J", b.height)
	}
}
