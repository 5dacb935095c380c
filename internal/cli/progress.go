package cli

import (
	"fmt"
	"time"

	"dstack/internal/human"
)

// progressDelay is how long something may take before we say what it is.
const progressDelay = time.Second

// withProgress does something that may take a while. After a second it shows what,
// and for how long; words is asked anew each time.
func (s *screen) withProgress(describe func() string, work func() error) error {
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- work() }() // waited for below, always
	tick := time.NewTicker(progressDelay)
	defer tick.Stop()
	up := liveRegion{to: s.err}
	told := false
	for {
		select {
		case err := <-done:
			up.clear()
			return err
		case <-tick.C:
			line := fmt.Sprintf(" %s %s", cleanLine(describe()), s.err.paint(dim, human.Duration(time.Since(began))))
			if s.err.terminal {
				up.draw([]string{truncate(line, s.err.width())})
			} else if !told {
				s.printInfo("%s", line)
				told = true
			}
		}
	}
}
