package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"
)

// screen is the terminal or the pipes of the user: results are written to out,
// everything else to err.
type screen struct {
	in  io.Reader
	out *stream
	err *stream
}

// stream is a writer with the properties of a terminal, if it is one.
type stream struct {
	io.Writer
	terminal bool // understands control sequences
	colour   bool
	width    func() int // in columns; 0: unlimited
}

type textStyle int

const (
	bold textStyle = iota
	dim
	red
	green
	yellow
)

var textStyles = map[textStyle]lipgloss.Style{
	bold:   lipgloss.NewStyle().Bold(true),
	dim:    lipgloss.NewStyle().Faint(true),
	red:    lipgloss.NewStyle().Foreground(lipgloss.Red),
	green:  lipgloss.NewStyle().Foreground(lipgloss.Green),
	yellow: lipgloss.NewStyle().Foreground(lipgloss.Yellow),
}

func newScreen(in io.Reader, out, err io.Writer) *screen {
	if in == nil {
		in = os.Stdin
	}
	if out == nil {
		out = os.Stdout
	}
	if err == nil {
		err = os.Stderr
	}
	return &screen{in: in, out: newStream(out), err: newStream(err)}
}

func newStream(w io.Writer) *stream {
	if s, ok := w.(*stream); ok {
		return s
	}
	s := &stream{Writer: w, width: func() int { return 0 }}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.terminal, s.colour = true, true
		s.width = func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil || w < 20 {
				return 80
			}
			return w
		}
	}
	return s
}

// disableColour turns colours off.
func (s *screen) disableColour(off bool) {
	if off {
		s.out.colour, s.err.colour = false, false
	}
}

// disableTerminal stops the use of control sequences (TERM=dumb).
func (s *screen) disableTerminal() {
	s.disableColour(true)
	s.out.terminal, s.err.terminal = false, false
}

// paint styles text if the stream has colours. text must not contain line breaks.
func (s *stream) paint(p textStyle, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return textStyles[p].Render(text)
}

// printInfo prints a line to stderr. A terminal wraps it between words.
func (s *screen) printInfo(format string, args ...any) {
	s.err.printWrapped(fmt.Sprintf(format, args...))
}

// printResult prints a line to stdout. A terminal wraps it between words.
func (s *screen) printResult(format string, args ...any) {
	s.out.printWrapped(fmt.Sprintf(format, args...))
}

// printCommand prints a line to stderr that is meant to be copied, so it is never wrapped.
func (s *screen) printCommand(line string) { fmt.Fprintln(s.err, line) }

// printJSON prints an indented JSON document to stdout.
func (s *screen) printJSON(v any) error {
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// truncate cuts text to a width in columns and ends it with an ellipsis. A width
// of 0 or less is unlimited.
func truncate(text string, width int) string {
	if width <= 0 || lipgloss.Width(text) <= width {
		return text
	}
	var b strings.Builder
	left := width - 1
	for _, r := range text {
		w := lipgloss.Width(string(r))
		if left < w {
			break
		}
		left -= w
		b.WriteRune(r)
	}
	return b.String() + "…"
}

// padRight appends spaces up to a width in columns.
func padRight(text string, width int) string {
	if gap := width - lipgloss.Width(text); gap > 0 {
		return text + strings.Repeat(" ", gap)
	}
	return text
}

// orEmpty returns a list that encodes as [] instead of null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
