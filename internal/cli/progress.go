package cli

import (
	"fmt"
	"time"

	"dstack/internal/human"
)

// progressDelay is the time after which a step shows its progress.
const progressDelay = time.Second

// progressPause is the least time between two lines of progress that are not on a terminal.
const progressPause = 5 * time.Second

// withProgress runs work. After progressDelay it shows what describe returns, and
// the time that has passed; on a terminal it updates both each second.
func (s *screen) withProgress(describe func() string, work func() error) error {
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- work() }() // the loop below always waits for it
	ticker := time.NewTicker(progressDelay)
	defer ticker.Stop()
	region := liveRegion{to: s.err}
	printed, printedAt := "", time.Time{}
	for {
		select {
		case err := <-done:
			region.clear()
			return err
		case <-ticker.C:
			text := cleanLine(describe())
			line := fmt.Sprintf(" %s %s", text, s.err.paint(dim, human.Duration(time.Since(began))))
			if s.err.terminal {
				region.draw([]string{truncate(line, s.err.width())})
			} else if text != printed && time.Since(printedAt) >= progressPause {
				s.printInfo("%s", line)
				printed, printedAt = text, time.Now()
			}
		}
	}
}
