package reconcile

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/loop"
	"dstack/internal/server/store"
)

const (
	maxInstances = 32                     // steps at the same time for each backend; each mostly waits for its engine
	maxFailing   = maxInstances / 2       // of them, for instances whose engine did not answer the last call
	slotInterval = 100 * time.Millisecond // when an instance is tried again that found no free slot
)

// instancePass steps instances. It does not wait for the slowest: a step that ends makes
// room for another one. So an engine or a backend that does not answer holds up its own
// instances alone.
type instancePass struct {
	r        *Reconciler
	listings *listings

	steps   sync.WaitGroup
	changed atomic.Bool // by a step, since the last notification

	mu       sync.Mutex
	inFlight int              // steps
	slots    map[string]slots // by backend
}

// slots counts the steps in flight of a backend's instances.
type slots struct{ all, failing int }

func (r *Reconciler) newInstancePass() *instancePass {
	return &instancePass{
		r: r, listings: newListings(r.Backends, r.ActTimeout), slots: map[string]slots{},
	}
}

// task returns the task of the pass. It ends when every step has ended.
func (p *instancePass) task() loop.Task {
	repeat := loop.Repeat("instance pass", p.r.wakes[store.Instances], p.claim)
	return loop.Task{Name: repeat.Name, Run: func(ctx context.Context) error {
		defer p.steps.Wait()
		return repeat.Run(ctx)
	}}
}

// claim claims as many due instances as there are free slots, and begins their steps. It
// returns how long to wait until the next are due; the end of a step ends the wait.
func (p *instancePass) claim(ctx context.Context) (time.Duration, error) {
	if p.changed.Swap(false) {
		p.r.Broadcast.Notify()
	}
	free := p.countFree()
	if free == 0 {
		return idleInterval, nil
	}
	permit := p.r.Permit()
	leases, err := p.r.Store.Claim(ctx, store.Instances, p.r.Owner, p.r.Host, time.Now(), leaseTime, free)
	if err != nil {
		return 0, err
	}
	p.begin(ctx, leases, permit)
	return p.r.timeUntilDue(ctx, store.Instances)
}

func (p *instancePass) countFree() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(maxInstances*max(len(p.r.Backends.All()), 1)-p.inFlight, 0)
}

// begin begins the steps of claimed instances.
func (p *instancePass) begin(ctx context.Context, leases []store.Lease, permit func() error) {
	p.mu.Lock()
	p.inFlight += len(leases)
	p.mu.Unlock()
	for _, l := range leases {
		p.steps.Go(func() { p.step(ctx, l, permit) })
	}
}

func (p *instancePass) end() {
	p.mu.Lock()
	p.inFlight--
	p.mu.Unlock()
	p.r.wakes[store.Instances].Signal()
}

// step makes the next step of an instance. A failure concerns this instance alone.
func (p *instancePass) step(ctx context.Context, l store.Lease, permit func() error) {
	defer p.end()
	err := recoverPanic(func() error {
		changed, err := p.r.stepInstance(ctx, l, p, permit)
		if changed || err != nil {
			p.changed.Store(true)
		}
		return err
	})
	if err != nil {
		p.r.releaseFailed(ctx, []stepFailure{{l, err}})
	}
}

// acquire takes a slot of a backend for a step. It reports false if there is none.
// Instances that fail get only some of them, so that many machines that are silent do not
// hold up the others.
func (p *instancePass) acquire(backend string, isFailing bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.slots[backend]
	if s.all >= maxInstances || isFailing && s.failing >= maxFailing {
		return false
	}
	s.all++
	if isFailing {
		s.failing++
	}
	p.slots[backend] = s
	return true
}

func (p *instancePass) release(backend string, isFailing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.slots[backend]
	s.all--
	if isFailing {
		s.failing--
	}
	p.slots[backend] = s
}
