package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"dstack/internal/api"
)

// logStyle is how lines of output are printed.
type logStyle struct {
	timestamps  bool
	json        bool
	showReplica bool // prefix lines with the replica's number
}

// logPrinter prints the output of replicas: sanitized to a terminal, byte for
// byte to a pipe.
type logPrinter struct {
	*screen
	style logStyle
}

func newLogPrinter(s *screen, style logStyle) *logPrinter { return &logPrinter{s, style} }

// logLine is the JSON form of a line.
type logLine struct {
	Timestamp time.Time `json:"timestamp"`
	Replica   int       `json:"replica"`
	Attempt   string    `json:"attempt"`
	Stream    string    `json:"stream"`
	Message   string    `json:"message"`
	Error     string    `json:"error,omitempty"`
}

// printEntry prints a line of output, or the error of a replica's log.
func (p *logPrinter) printEntry(e api.LogEntry) error {
	if p.style.json {
		line, err := json.Marshal(logLine{e.Timestamp, e.Replica, string(e.Attempt), e.Stream, string(e.Message), e.Error})
		if err != nil {
			return fmt.Errorf("write a line: %w", err)
		}
		return p.writeLine(line)
	}
	if e.Error != "" {
		p.printInfo(" replica %d: %s", e.Replica, cleanLine(e.Error))
		if len(e.Message) == 0 {
			return nil
		}
	}
	before := ""
	if p.style.timestamps {
		before = e.Timestamp.Local().Format("2006-01-02T15:04:05.000Z07:00") + " "
	}
	if p.style.showReplica {
		before += fmt.Sprintf("%d | ", e.Replica)
	}
	if !p.out.terminal {
		return p.writeLine(append([]byte(before), e.Message...))
	}
	return p.writeLine([]byte(p.out.paint(dim, before) + cleanOutput(e.Message)))
}

// writeLine writes a line. It fails if the reader of a pipe has ended.
func (p *logPrinter) writeLine(line []byte) error {
	if _, err := p.out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}
