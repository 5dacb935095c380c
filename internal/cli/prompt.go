package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/muesli/cancelreader"
	"golang.org/x/term"
)

// isInteractive reports whether the input is a terminal.
func (s *screen) isInteractive() bool {
	f, ok := s.in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks a yes-or-no question; the default answer is no. Without a terminal
// it returns an error that names -y.
func (s *screen) confirm(ctx context.Context, question string) (bool, error) {
	if !s.isInteractive() {
		return false, invalidInput("add -y to answer yes", "cannot ask %q: the input is not a terminal", question)
	}
	answer, err := s.readLine(ctx, question+" [y/N] ")
	if err != nil {
		return false, err
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

// readLine prints a prompt and reads one line. It fails when ctx ends.
func (s *screen) readLine(ctx context.Context, words string) (string, error) {
	fmt.Fprint(s.err, words)
	reader, err := cancelreader.NewReader(s.in)
	if err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	defer reader.Close()
	defer context.AfterFunc(ctx, func() { reader.Cancel() })()
	line, err := bufio.NewReader(reader).ReadString('\n')
	if ctx.Err() != nil {
		fmt.Fprintln(s.err)
		return "", context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if err != nil {
		fmt.Fprintln(s.err)
	}
	return line, nil
}

// readSecret prints a prompt and reads one line without echo. It fails when ctx ends. The echo is
// off before the prompt appears, so that what is pasted at once is not shown either.
func (s *screen) readSecret(ctx context.Context, words string) (string, error) {
	f, ok := s.in.(*os.File)
	if !ok {
		return "", errors.New("the input is not a terminal")
	}
	restore, err := hideInput(int(f.Fd()))
	if err != nil {
		return "", fmt.Errorf("switch off the echo of the terminal: %w", err)
	}
	defer restore()
	line, err := s.readLine(ctx, words)
	if err == nil && strings.HasSuffix(line, "\n") {
		fmt.Fprintln(s.err) // the one that was typed is not shown
	}
	return strings.TrimSpace(line), err
}
