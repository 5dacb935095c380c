package cli

import (
	"fmt"
	"time"

	"dstack/internal/human"
)

// patience is how long something may take before we say what it is.
const patience = time.Second

// working does something that may take a while. After a second it shows what,
// and for how long; words is asked anew each time.
func (s *screen) working(words func() string, do func() error) error {
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- do() }() // waited for below, always
	tick := time.NewTicker(patience)
	defer tick.Stop()
	up := block{to: s.err}
	told := false
	for {
		select {
		case err := <-done:
			up.clear()
			return err
		case <-tick.C:
			line := fmt.Sprintf(" %s %s", cleanLine(words()), s.err.paint(dim, human.Duration(time.Since(began))))
			if s.err.terminal {
				up.draw([]string{fit(line, s.err.width())})
			} else if !told {
				s.say("%s", line)
				told = true
			}
		}
	}
}
