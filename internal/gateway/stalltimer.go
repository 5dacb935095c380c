package gateway

import (
	"sync"
	"time"
)

// stallTimer ends one direction of an HTTP/2 stream in which a read or write makes no progress. On HTTP/1.1 a deadline
// of the connection does that. On HTTP/2 a deadline ends the stream when it passes, also while nobody reads or writes,
// and so would end streams that are silent for a while.
type stallTimer struct {
	end func(time.Time) error // SetReadDeadline or SetWriteDeadline of the stream

	mu       sync.Mutex
	timer    *time.Timer // nil: it did not run yet
	deadline time.Time   // of the read or write
	isIdle   bool
	isOver   bool
}

func newStallTimer(end func(time.Time) error) *stallTimer { return &stallTimer{end: end, isIdle: true} }

// begin starts a read or write, which is ended after limit.
func (s *stallTimer) begin(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOver {
		return
	}
	s.isIdle, s.deadline = false, time.Now().Add(limit)
	if s.timer == nil {
		s.timer = time.AfterFunc(limit, s.expire)
		return
	}
	s.timer.Reset(limit)
}

// done ends what begin started.
func (s *stallTimer) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isIdle = true; s.timer != nil {
		s.timer.Stop()
	}
}

// expire ends the stream. It may be late: then the read or write of its time has ended, and another one may have begun.
func (s *stallTimer) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isIdle && !s.isOver && !time.Now().Before(s.deadline) {
		_ = s.end(time.Now()) // HTTP/2 has deadlines
	}
}

// stop ends the use of the stream, which belongs to the server again.
func (s *stallTimer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOver = true; s.timer != nil {
		s.timer.Stop()
	}
}
