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

// screen is where people look: results go out, everything else goes err.
type screen struct {
	in  io.Reader
	out *stream
	err *stream
}

// stream is a writer that knows whether a person sees it.
type stream struct {
	io.Writer
	terminal bool // lines may be redrawn
	colour   bool
	width    func() int // in columns; 0: no end
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

// disableColour turns colour off.
func (s *screen) disableColour(off bool) {
	if off {
		s.out.colour, s.err.colour = false, false
	}
}

// disableTerminal is for terminals that understand no control sequences.
func (s *screen) disableTerminal() {
	s.disableColour(true)
	s.out.terminal, s.err.terminal = false, false
}

// paint colours text where there is colour. It must not hold line breaks.
func (s *stream) paint(p textStyle, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return textStyles[p].Render(text)
}

// printInfo writes one line that is not a result.
func (s *screen) printInfo(format string, args ...any) { fmt.Fprintf(s.err, format+"\n", args...) }

// printResult writes one line of a result.
func (s *screen) printResult(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// printJSON writes a result for programs.
func (s *screen) printJSON(v any) error {
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// truncate cuts text to a width in columns, with an ellipsis.
func truncate(text string, width int) string {
	if width <= 0 || lipgloss.Width(text) <= width {
		return text
	}
	var b strings.Builder
	room := width - 1
	for _, r := range text {
		w := lipgloss.Width(string(r))
		if room < w {
			break
		}
		room -= w
		b.WriteRune(r)
	}
	return b.String() + "…"
}

func padRight(text string, width int) string {
	if gap := width - lipgloss.Width(text); gap > 0 {
		return text + strings.Repeat(" ", gap)
	}
	return text
}

// orEmpty is a result that JSON shows as [] where there is nothing.
func orEmpty[T any](found []T) []T {
	if found == nil {
		return []T{}
	}
	return found
}
