package loop

import "sync"

// Bell tells any number of listeners that something changed. The zero value
// works.
type Bell struct {
	mu sync.Mutex
	ch chan struct{}
}

// Next returns a channel that the next Ring closes. Take it before looking at
// what may change, so that no ring falls between the look and the wait.
func (b *Bell) Next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// Ring wakes all who wait.
func (b *Bell) Ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
