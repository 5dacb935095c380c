package eventloop

import (
	"golang.org/x/sys/unix"
)

// armClock makes the timerfd fire at the time of the first timer, if it would fire later or not at all. Firing too early
// costs one round.
func (l *Loop) armClock() {
	if len(l.timers) == 0 {
		return
	}
	first := l.timers[0].key
	if l.armed != 0 && l.armed <= first {
		return
	}
	l.armed = first
	wait := max(1, first-l.sinceBase())
	setting := unix.ItimerSpec{Value: unix.NsecToTimespec(wait)}
	_ = unix.TimerfdSettime(l.clock, 0, &setting, nil) // cannot fail with a valid setting
}
