package loop

import "sync"

// Broadcast tells any number of waiters that something changed. The zero value
// is ready to use.
type Broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// Changed returns a channel that the next Notify closes. Call it before reading
// the state that may change, so that a change between reading and waiting is not
// missed.
func (b *Broadcast) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// Notify wakes all waiters.
func (b *Broadcast) Notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
