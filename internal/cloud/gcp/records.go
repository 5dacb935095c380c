package gcp

import (
	"maps"
	"slices"
	"sync"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// endedAge is how long a machine is listed after its end.
const endedAge = time.Hour

// maxFailed limits the memory for failed launches.
const maxFailed = 10_000

// records are what this process knows of machines beside the listings. A restart forgets them: nothing that costs money
// depends on them, only the reasons why machines ended.
type records struct {
	mu         sync.Mutex
	expected   map[string]expectedMachine // by Ref: launched here, and not listed yet
	seen       map[string]cloud.Machine   // by Ref: the latest listing
	ended      map[string]endedMachine    // by Ref: ended lately, with a reason
	reasons    map[string]*dstack.MachineFailure
	terminated map[string]time.Time // by Ref: machines that dstack ended
	failed     map[string]int       // by name and zone: launches that failed, whose requests are not repeated under the same ID
	isReviewed bool                 // the time before this process was looked at
}

// expectedMachine is a machine that was requested.
type expectedMachine struct {
	machine   cloud.Machine
	operation string // its name
	asked     place
}

type endedMachine struct {
	machine cloud.Machine
	at      time.Time
}

func newRecords() *records {
	return &records{expected: map[string]expectedMachine{}, seen: map[string]cloud.Machine{}, ended: map[string]endedMachine{},
		reasons: map[string]*dstack.MachineFailure{}, terminated: map[string]time.Time{}, failed: map[string]int{}}
}

// openQuestions are what a listing leaves open.
type openQuestions struct {
	launches    []expectedMachine // not listed
	unexplained []cloud.Machine   // end or have ended, and dstack did not ask for it
	isFirst     bool
}

// expect notes a launch.
func (r *records) expect(m cloud.Machine, o operation, asked place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expected[m.Ref] = expectedMachine{m, o.Name, asked}
	delete(r.ended, m.Ref)
}

// forget drops a launch whose caller knows that it failed.
func (r *records) forget(ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.expected, ref)
}

// countFailures returns how often the operation of a launch failed.
func (r *records) countFailures(ref, zone string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed[ref+" "+zone]
}

// addFailure notes that the operation of a launch failed.
func (r *records) addFailure(ref, zone string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) > maxFailed {
		clear(r.failed)
	}
	r.failed[ref+" "+zone]++
}

// settle notes that the operation of a launch is done, so that its machine has been there.
func (r *records) settle(ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, ok := r.expected[ref]; ok {
		delete(r.expected, ref)
		r.seen[ref] = l.machine
	}
}

// terminate notes that dstack ends a machine.
func (r *records) terminate(ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.terminated[ref] = time.Now()
}

// end notes that a machine has ended.
func (r *records) end(m cloud.Machine, why *dstack.MachineFailure, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(m, why, at)
}

func (r *records) endLocked(m cloud.Machine, why *dstack.MachineFailure, at time.Time) {
	delete(r.expected, m.Ref)
	if at.IsZero() {
		at = time.Now()
	}
	m.State, m.Failure, m.Address, m.Private = cloud.MachineEnded, why, "", ""
	r.ended[m.Ref] = endedMachine{m, at}
}

// explain notes why a machine ends or has ended.
func (r *records) explain(m cloud.Machine, why *dstack.MachineFailure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, isListed := r.seen[m.Ref]; isListed {
		r.reasons[m.Ref] = why
	} else if why != nil {
		r.endLocked(m, why, time.Now())
	}
}

// setReviewed notes that the time before this process was looked at.
func (r *records) setReviewed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isReviewed = true
}

// update notes a listing that was asked for at a time, and returns what it leaves open.
func (r *records) update(machines []cloud.Machine, asked time.Time) openQuestions {
	r.mu.Lock()
	defer r.mu.Unlock()
	open := openQuestions{isFirst: !r.isReviewed}
	listed := map[string]cloud.Machine{}
	for _, m := range machines {
		listed[m.Ref] = m
		if m.State == cloud.MachineRunning {
			delete(r.expected, m.Ref)
		}
		_, isKnown := r.reasons[m.Ref]
		if m.State == cloud.MachineEnding && !isKnown && r.terminated[m.Ref].IsZero() {
			open.unexplained = append(open.unexplained, m)
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(r.expected)) {
		if _, ok := listed[ref]; !ok && r.expected[ref].machine.LaunchedAt.Before(asked) {
			open.launches = append(open.launches, r.expected[ref])
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(r.seen)) {
		_, isListed := listed[ref]
		_, isExpected := r.expected[ref]
		if isListed || isExpected {
			continue
		}
		m := r.seen[ref]
		reason, isKnown := r.reasons[ref]
		delete(r.reasons, ref)
		switch {
		case !r.terminated[ref].IsZero():
		case isKnown && reason != nil:
			r.endLocked(m, reason, asked)
		case !isKnown:
			m.State = cloud.MachineEnded
			open.unexplained = append(open.unexplained, m)
		}
	}
	r.seen = listed
	return open
}

// complete returns a listing with the reasons of ends, and with the machines that ended lately.
func (r *records) complete(machines []cloud.Machine, now time.Time) []cloud.Machine {
	r.mu.Lock()
	defer r.mu.Unlock()
	listed := map[string]bool{}
	for i, m := range machines {
		listed[m.Ref] = true
		if m.State == cloud.MachineEnding {
			machines[i].Failure = r.reasons[m.Ref]
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(r.ended)) {
		switch e := r.ended[ref]; {
		case now.Sub(e.at) >= endedAge || listed[ref]:
			delete(r.ended, ref)
		default:
			machines = append(machines, e.machine)
		}
	}
	for ref, at := range r.terminated {
		if !listed[ref] && now.Sub(at) >= endedAge {
			delete(r.terminated, ref)
		}
	}
	return machines
}
