package gateway

import "sync"

const (
	aheadMost    = 1 << 20  // bytes of a body that says how long it is
	aheadUnknown = 64 << 10 // of one that does not
)

// ahead is the beginning of a body, read while its request waits for a
// replica. A client that leaves shows in no other way: net/http looks for
// that only once a body was read to its end.
type ahead struct {
	failed chan struct{} // closed when the body ends early

	mu     sync.Mutex // never held while reading
	moved  sync.Cond
	buffer []byte // its capacity is what may be read
	taken  int    // bytes of it that went on
	done   bool   // nothing more is read ahead
	err    error  // how the body ended; nil: what was read ahead is not all
}

func newAhead(most int64) *ahead {
	a := &ahead{failed: make(chan struct{}), buffer: make([]byte, 0, most)}
	a.moved.L = &a.mu
	return a
}

// fill reads until the buffer is full or the body ends.
func (a *ahead) fill(i *intake) {
	for n := 0; ; {
		more, err := i.pull(a.buffer[n:cap(a.buffer)])
		n += more
		a.mu.Lock()
		a.buffer, a.err, a.done = a.buffer[:n], err, err != nil || n == cap(a.buffer)
		done := a.done
		a.moved.Broadcast()
		a.mu.Unlock()
		if err != nil && i.broken() {
			close(a.failed)
		}
		if done {
			return
		}
	}
}

// read takes what was read ahead, in order, and waits for it while there may
// be more; the deadline of the intake ends that. Ok is false once it is the
// intake's turn.
func (a *ahead) read(p []byte) (n int, err error, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.taken == len(a.buffer) && !a.done {
		a.moved.Wait()
	}
	if n = copy(p, a.buffer[a.taken:]); n > 0 || len(p) == 0 {
		a.taken += n
		return n, nil, true
	}
	a.buffer, a.taken = nil, 0
	return 0, a.err, a.err != nil
}

// mayReadAhead takes the memory for what is read ahead of a body that streams,
// before its request waits for the first time.
func (x *exchange) mayReadAhead() error {
	if x.in == nil || x.means.Models || x.in.may > 0 {
		return nil
	}
	may := min(x.r.ContentLength, aheadMost)
	if may < 0 {
		may = aheadUnknown
	}
	if err := x.takeRoom(may); err != nil {
		return err
	}
	x.in.may = may
	return nil
}

// readAhead begins to read what may be. What it returns is closed when the
// body ends early; nil: it does not. It may be repeated.
func (x *exchange) readAhead() (failed <-chan struct{}) {
	i := x.in
	if i == nil || i.may == 0 {
		return nil
	}
	if i.ahead == nil {
		i.ahead = newAhead(i.may)
		go i.ahead.fill(i)
	}
	return i.ahead.failed
}
