package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

const (
	askAgain  = 100 * time.Millisecond // the first wait while an attempt starts; each next is twice as long
	askSpread = 10                     // a wait is shorter by up to one part in so many
	keptFor   = 5 * time.Minute        // probing goes on so long without a pass over the instance
	keptLook  = time.Minute
)

// probed is a running attempt that has probes.
type probed struct {
	Attempt         dstack.AttemptID
	dstack.Endpoint // without an address it is not asked yet
	Probes          []spec.Probe
	WasReady        bool // it was in rotation when this server began with it: so it is until a probe fails
	Served          bool // it was in rotation before, so that its failures count, though it is not now
}

// probes asks running attempts what their probes ask, one goroutine a probe.
// run waits for all of them. What they say is a hint until an instance pass
// has saved it.
type probes struct {
	wake      func(context.Context, dstack.InstanceID)
	transport *http.Transport

	mu     sync.Mutex
	ctx    context.Context // nil until run, and after it ended
	wg     sync.WaitGroup
	kept   map[dstack.InstanceID]*keeping
	active map[dstack.AttemptID]*asked
}

// keeping is what the latest pass over an instance listed.
type keeping struct {
	at       time.Time
	attempts map[dstack.AttemptID]*asked
}

// newProbes returns probes that call wake, from any goroutine, when the Ready
// or Fails of an attempt of that instance has changed. It asks nothing before
// run.
func newProbes(wake func(context.Context, dstack.InstanceID), dialer *dial.Dialer) *probes {
	return &probes{
		wake:      wake,
		transport: newProbeTransport(dialer.DialContext),
		kept:      map[dstack.InstanceID]*keeping{},
		active:    map[dstack.AttemptID]*asked{},
	}
}

// run lets probing go on until ctx ends, and returns when all of it has ended.
func (p *probes) run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	clear(p.kept)
	clear(p.active)
	p.mu.Unlock()
	for pause(ctx, keptLook) {
		p.forget(time.Now().Add(-keptFor))
	}
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	p.wg.Wait()
	return ctx.Err()
}

// keep makes on the attempts of an instance that are asked: it begins with
// new ones, ends with those that are not listed any more, and begins afresh
// where the address or the probes are others. Call it in each pass: an
// instance that no pass keeps is asked no more, as another server may have it.
func (p *probes) keep(instance dstack.InstanceID, on []probed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		return
	}
	var before map[dstack.AttemptID]*asked
	if k := p.kept[instance]; k != nil {
		before = k.attempts
	}
	after := make(map[dstack.AttemptID]*asked, len(on))
	for _, one := range on {
		a := before[one.Attempt]
		switch {
		case after[one.Attempt] != nil || len(one.Probes) == 0:
			continue
		case a != nil && a.same(one):
		case one.Address == "":
			continue
		default:
			a = p.begin(instance, one)
		}
		after[one.Attempt] = a
	}
	for id, a := range before {
		if after[id] != a {
			p.end(id, a)
		}
	}
	for id, a := range after {
		p.active[id] = a
	}
	p.kept[instance] = &keeping{at: time.Now(), attempts: after}
	if len(after) == 0 {
		delete(p.kept, instance)
	}
}

// of is what the probes of an attempt say now; nil: none was answered yet, or
// it is not asked.
func (p *probes) of(attempt dstack.AttemptID) *dstack.ProbeStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.active[attempt]
	if a == nil || a.said == nil {
		return nil
	}
	said := *a.said
	return &said
}

// begin starts the questions of one attempt. Who was ready before needs no
// hurry: a server that starts does not ask all replicas in one instant.
func (p *probes) begin(instance dstack.InstanceID, one probed) *asked {
	ctx, stop := context.WithCancel(p.ctx)
	a := newAsked(one, stop)
	for i, q := range a.Probes {
		if a.done(i) {
			continue
		}
		first := time.Duration(0)
		if a.WasReady {
			first = spread(span(q.Interval))
		}
		p.wg.Go(func() { p.ask(ctx, instance, a, i, first) })
	}
	return a
}

func (p *probes) end(id dstack.AttemptID, a *asked) {
	a.stop()
	if p.active[id] == a {
		delete(p.active, id)
	}
}

// forget ends what no pass has kept since.
func (p *probes) forget(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for instance, k := range p.kept {
		if k.at.Before(since) {
			for id, a := range k.attempts {
				p.end(id, a)
			}
			delete(p.kept, instance)
		}
	}
}

// ask asks one probe of an attempt, after a first wait, for as long as it is
// to be asked. The next question is never put before the last has ended. A
// replica that stops answering is out after one interval and one timeout.
func (p *probes) ask(ctx context.Context, instance dstack.InstanceID, a *asked, i int, wait time.Duration) {
	q := a.Probes[i]
	interval := span(q.Interval)
	soon := min(askAgain, interval)
	for pause(ctx, wait) && !p.isDone(a, i) {
		fail := question(ctx, p.transport, a.Endpoint, q)
		if ctx.Err() != nil {
			return // an answer that nobody waits for says nothing of the replica
		}
		wait = interval
		news, wasReady := p.hear(a, i, fail)
		if news {
			p.wake(ctx, instance)
		}
		if !wasReady {
			wait, soon = soon, min(2*soon, interval)
		}
		wait -= spread(wait)
	}
}

func (p *probes) isDone(a *asked, i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return a.done(i)
}

// hear takes note of an answer. It says whether that is news, and whether the
// attempt has been ready.
func (p *probes) hear(a *asked, i int, fail *noAnswer) (news, wasReady bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return a.hear(i, fail), a.WasReady
}

// asked is an attempt and what it has answered. probes.mu guards it, but for
// what probed has from the start.
type asked struct {
	probed  // WasReady becomes true once it is ready as a whole
	stop    context.CancelFunc
	answers []answers // of each probe
	said    *dstack.ProbeStatus
}

// answers is what one probe has had.
type answers struct {
	in   bool   // had enough good ones in a row, and none has failed since
	good int    // in a row
	bad  int    // in a row
	why  string // of the last bad one
}

func newAsked(one probed, stop context.CancelFunc) *asked {
	one.Probes = slices.Clone(one.Probes)
	a := &asked{probed: one, stop: stop, answers: make([]answers, len(one.Probes))}
	if one.WasReady {
		a.said = &dstack.ProbeStatus{Ready: true}
		for i := range a.answers {
			a.answers[i].in = true
		}
	}
	if one.Served {
		a.WasReady = true
		for i, q := range a.Probes {
			a.answers[i].in = a.answers[i].in || q.UntilReady // it is asked no more
		}
	}
	return a
}

// same tells that nothing is to be begun afresh. An address that is not known
// at the moment is no other address.
func (a *asked) same(one probed) bool {
	return (one.Endpoint == a.Endpoint || one.Address == "") && reflect.DeepEqual(one.Probes, a.Probes)
}

// done tells that a probe is asked no more.
func (a *asked) done(i int) bool { return a.WasReady && a.Probes[i].UntilReady }

// hear says whether the answer makes Ready or Fails another.
func (a *asked) hear(i int, fail *noAnswer) bool {
	got := &a.answers[i]
	switch {
	case a.done(i):
		return false
	case fail == nil:
		got.good, got.bad = got.good+1, 0
		got.in = got.in || got.good >= a.Probes[i].ReadyAfter
	case fail.ours && a.WasReady:
		return false // a healthy replica does not suffer for it
	default:
		*got = answers{bad: got.bad + 1, why: fail.why}
	}
	before := a.said
	a.said = a.sum()
	return before == nil || before.Ready != a.said.Ready || before.ConsecutiveFailures != a.said.ConsecutiveFailures
}

// sum is what all probes say together.
func (a *asked) sum() *dstack.ProbeStatus {
	worst := -1
	for i, got := range a.answers {
		if !got.in && (worst < 0 || got.bad > a.answers[worst].bad) {
			worst = i
		}
	}
	if worst < 0 {
		a.WasReady = true
		return &dstack.ProbeStatus{Ready: true}
	}
	said, got, q := &dstack.ProbeStatus{}, a.answers[worst], a.Probes[worst]
	if a.WasReady {
		said.ConsecutiveFailures = min(got.bad, dstack.ProbeFailureThreshold)
	}
	switch {
	case got.bad > 0:
		said.Message = got.why
	case got.good == 0:
		said.Message = readable(title(q)+" has not answered yet", longestWhy)
	default:
		said.Message = readable(fmt.Sprintf("%s has answered %d of %d times", title(q), got.good, q.ReadyAfter), longestWhy)
	}
	return said
}

// span is a time that a probe has, within what can be waited for.
func span(s spec.Seconds) time.Duration {
	return time.Duration(min(max(s, 1), 1<<31)) * time.Second
}

// spread is a random part of a wait: replicas are not asked all at once.
func spread(wait time.Duration) time.Duration { return rand.N(cmp.Or(wait/askSpread, 1)) }

// pause waits, and tells whether ctx still goes on.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
