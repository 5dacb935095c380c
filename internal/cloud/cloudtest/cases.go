package cloudtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

var machineCases = []contractCase{
	{"a good configuration is accepted", func(h *harness) {
		h.check(h.CheckAccess(h.ctx()))
		h.expectCount(0)
	}},
	{"a launched machine runs in the end", func(h *harness) {
		before := time.Now()
		l := h.newLaunch()
		answer, err := h.Launch(h.ctx(), l)
		h.check(err)
		m := h.waitUntilRunning(l.Instance)
		o := l.Offer
		if m.Instance != l.Instance || m.Ref == "" || m.Ref != answer.Ref || m.Region != o.Region || m.Zone != o.Zone || m.Type != o.Type || m.Spot || m.Failure != nil {
			h.t.Errorf("machine %+v of launch %+v, answered with %+v", m, l, answer)
		}
		if answer.Instance != l.Instance || answer.Region != o.Region || answer.Zone != o.Zone || answer.State == cloud.MachineEnded {
			h.t.Errorf("the answer is %+v", answer)
		}
		h.waitFor("reachable", func() bool {
			m, _ = h.find(l.Instance)
			return m.Address != ""
		})
		if m.LaunchedAt.Before(before.Add(-time.Hour)) || m.LaunchedAt.IsZero() {
			h.t.Errorf("launched at %s", m.LaunchedAt)
		}
		h.expectCount(1)
	}},
	{"a machine gets its user data", func(h *harness) {
		h.require(UserData, h.f.UserData != nil)
		l, m := h.launch()
		if got := string(h.f.UserData(h.t, m.Ref)); got != l.UserData {
			h.t.Errorf("user data %q, want %q", got, l.UserData)
		}
	}},
	{"a launch that is repeated makes one machine", func(h *harness) {
		l := h.newLaunch()
		var ref string
		for range 3 {
			m, err := h.Launch(h.ctx(), l)
			h.check(err)
			if ref == "" {
				ref = m.Ref
			}
			if m.Ref != ref || m.Instance != l.Instance {
				h.t.Errorf("machine %+v, want %s", m, ref)
			}
		}
		h.waitUntilRunning(l.Instance)
		if m, err := h.Launch(h.ctx(), l); err != nil || m.Ref != ref {
			h.t.Errorf("machine %+v, %v, want %s", m, err, ref)
		}
		h.expectCount(1)
	}},
	{"launches at the same time make one machine", func(h *harness) {
		l := h.newLaunch()
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if _, err := h.Launch(h.ctx(), l); err != nil && dstack.KindOf(err) != dstack.Unavailable {
					h.t.Error(err)
				}
			})
		}
		calls.Wait()
		h.waitUntilRunning(l.Instance)
		h.expectCount(1)
	}},
	{"a restarted server finds its machines, and repeats a launch", func(h *harness) {
		l, m := h.launch()
		h.Provider = h.f.Open(h.t, "suite")
		if got, _ := h.find(l.Instance); got.Ref != m.Ref || got.State != cloud.MachineRunning {
			h.t.Errorf("machine %+v, want %+v", got, m)
		}
		if again, err := h.Launch(h.ctx(), l); err != nil || again.Ref != m.Ref {
			h.t.Errorf("machine %+v, %v, want %s", again, err, m.Ref)
		}
		h.expectCount(1)
	}},
	{"a token with another launch is a conflict", func(h *harness) {
		l, m := h.launch()
		other := h.newLaunchOf(h.f.Another)
		other.Token = l.Token
		_, err := h.Launch(h.ctx(), other)
		h.expectKind(err, dstack.Conflict)
		if got, _ := h.find(l.Instance); got.Ref != m.Ref {
			h.t.Errorf("machine %+v", got)
		}
		h.expectCount(1)
	}},
	{"the token of a machine that has ended is a conflict", func(h *harness) {
		l, m := h.launch()
		h.check(h.Terminate(h.ctx(), []cloud.Machine{m}))
		h.waitUntilEnded(l.Instance)
		_, err := h.Launch(h.ctx(), l)
		h.expectKind(err, dstack.Conflict)
		h.expectCount(0)
	}},
	{"a terminated machine ends and stays so", func(h *harness) {
		l, m := h.launch()
		h.check(h.Terminate(h.ctx(), []cloud.Machine{m}))
		h.check(h.Terminate(h.ctx(), []cloud.Machine{m}))
		if ended := h.waitUntilEnded(l.Instance); ended.Failure != nil || ended.Address != "" {
			h.t.Errorf("it ended with %+v", ended)
		}
		h.check(h.Terminate(h.ctx(), []cloud.Machine{m}))
		h.waitUntilEnded(l.Instance)
		h.expectCount(0)
	}},
	{"a machine can be terminated before it runs", func(h *harness) {
		l := h.newLaunch()
		m, err := h.Launch(h.ctx(), l)
		h.check(err)
		h.check(h.Terminate(h.ctx(), []cloud.Machine{m}))
		h.launch() // by then a machine that was made before is listed
		h.waitUntilEnded(l.Instance)
		h.expectCount(1)
	}},
	{"several machines end in one call, some of them unknown", func(h *harness) {
		_, first := h.launch()
		_, second := h.launch()
		third, kept := h.launch()
		ghost := second
		ghost.Ref, ghost.Instance = unknownRef(second.Ref), "nobody"
		h.check(h.Terminate(h.ctx(), []cloud.Machine{ghost, first, second}))
		h.waitUntilEnded(first.Instance)
		h.waitUntilEnded(second.Instance)
		if got, _ := h.find(third.Instance); got.Ref != kept.Ref || got.State != cloud.MachineRunning {
			h.t.Errorf("machine %+v", got)
		}
		h.check(h.Terminate(h.ctx(), nil))
		h.expectCount(1)
	}},
	{"two installations do not see each other's machines", func(h *harness) {
		l, m := h.launch()
		other := h.f.Open(h.t, "other")
		list, err := other.ListMachines(h.ctx())
		h.check(err)
		if len(list) > 0 {
			h.t.Errorf("the other installation sees %+v", list)
		}
		same := h.newLaunch() // the same instance, in the other installation
		same.Instance, same.Token = l.Instance, cloud.NewToken("other", l.Instance, l.Offer)
		second, err := other.Launch(h.ctx(), same)
		h.check(err)
		if got, _ := h.find(l.Instance); got.Ref != m.Ref || second.Ref == m.Ref {
			h.t.Errorf("machine %+v, the other one's is %s", got, second.Ref)
		}
		h.expectCount(2)
	}},
	{"a machine without marks is not listed", func(h *harness) {
		h.require(Foreigners, h.f.Foreign != nil)
		foreign := h.f.Foreign(h.t)
		h.launch()
		for _, m := range h.list() {
			if m.Ref == foreign.Ref {
				h.t.Errorf("a machine of the user is listed: %+v", m)
			}
		}
	}},
	{"machines of two regions are listed", func(h *harness) {
		l, _ := h.launch()
		second := h.newLaunchOf(h.f.Secondary(h.t).Offer)
		_, err := h.Launch(h.ctx(), second)
		h.check(err)
		if m := h.waitUntilRunning(second.Instance); m.Region == l.Offer.Region || m.Region != second.Offer.Region {
			h.t.Errorf("machine %+v", m)
		}
		h.waitUntilRunning(l.Instance)
	}},
}

// unknownRef returns an identifier of the same form that no machine has.
func unknownRef(ref string) string {
	last := ref[len(ref)-1]
	other := byte('a')
	if last == other {
		other = 'b'
	}
	return ref[:len(ref)-3] + "0" + string(other) + string(other)
}

var failureCases = []contractCase{
	{"a refused launch says why and may be repeated", func(h *harness) {
		h.require(Refusals, h.f.Refuse != nil)
		l := h.newLaunch()
		for _, c := range []struct {
			refusal Refusal
			kind    dstack.Kind
			cause   dstack.FailureCause
			scope   dstack.FailureScope
		}{
			{NoCapacity, dstack.NoCapacity, dstack.FailureNoCapacity, dstack.ScopeZone},
			{NoQuota, dstack.NoCapacity, dstack.FailureQuota, dstack.ScopeTypes},
			{NotAuthorized, dstack.Unauthorized, dstack.FailureMisconfigured, dstack.ScopeBackend},
			{NotAllowed, dstack.Forbidden, dstack.FailureMisconfigured, dstack.ScopeBackend},
			{TooManyLaunches, dstack.Unavailable, "", ""},
		} {
			h.f.Refuse(h.t, c.refusal)
			_, err := h.Launch(h.ctx(), l)
			h.expectKind(err, c.kind)
			h.expectFailure(err, c.refusal, c.cause, c.scope)
		}
		h.f.Refuse(h.t, NotRefused)
		h.expectCount(0)
		h.Provider = h.f.Open(h.t, "suite") // the one before may pause after too many requests
		_, err := h.Launch(h.ctx(), l)
		h.check(err)
		h.waitUntilRunning(l.Instance)
		h.expectCount(1)
	}},
	{"a launch whose answer is lost is repeated", func(h *harness) {
		h.require(LostAnswers, h.f.LoseAnswer != nil)
		l := h.newLaunch()
		h.f.LoseAnswer(h.t)
		if _, err := h.Launch(h.ctx(), l); err != nil {
			h.expectKind(err, dstack.Unavailable)
		}
		_, err := h.Launch(h.ctx(), l)
		h.check(err)
		h.waitUntilRunning(l.Instance)
		h.expectCount(1)
	}},
	{"a launch that fails after its answer says why", func(h *harness) {
		h.require(LateFailures, h.f.EndNext != nil)
		l := h.newLaunch()
		h.f.EndNext(h.t)
		_, err := h.Launch(h.ctx(), l)
		if err != nil { // a cloud that waits for the outcome knows it now
			h.expectFailure(err, NoCapacity, dstack.FailureNoCapacity, dstack.ScopeZone)
			return
		}
		var m cloud.Machine
		h.waitFor("listed as ended", func() bool {
			m, _ = h.find(l.Instance)
			return m.State == cloud.MachineEnded
		})
		if m.Failure == nil || m.Failure.Cause != dstack.FailureNoCapacity {
			h.t.Errorf("it ended with %+v", m.Failure)
		}
		h.expectCount(0)
	}},
	{"a spot machine that is taken back says so", func(h *harness) {
		h.require(Spot, h.f.Preempt != nil)
		o := h.f.Offer
		o.Spot = true
		l := h.newLaunchOf(o)
		_, err := h.Launch(h.ctx(), l)
		h.check(err)
		m := h.waitUntilRunning(l.Instance)
		if !m.Spot {
			h.t.Errorf("not a spot machine: %+v", m)
		}
		h.f.Preempt(h.t, m)
		m = h.waitUntilEnded(l.Instance)
		if m.Failure == nil || m.Failure.Cause != dstack.FailurePreempted || m.Failure.Message == "" {
			h.t.Errorf("it ended with %+v", m)
		}
		h.expectCount(0)
	}},
	{"a region that does not answer makes the listing fail", func(h *harness) {
		h.require(RegionFaults, h.f.FailRegion != nil)
		h.launch()
		restore := h.f.FailRegion(h.t)
		if list, err := h.ListMachines(h.ctx()); err == nil {
			h.t.Errorf("no error, but %+v", list)
		} else {
			h.expectKind(err, dstack.Unavailable)
		}
		restore()
		if len(h.list()) != 1 {
			h.t.Errorf("machines %+v", h.list())
		}
	}},
	{"calls end with their context", func(h *harness) {
		h.require(Hangs, h.f.Hang != nil)
		_, m := h.launch()
		defer h.f.Hang(h.t)()
		for name, call := range map[string]func(ctx context.Context) error{
			"CheckAccess":  h.CheckAccess,
			"Launch":       func(ctx context.Context) error { _, err := h.Launch(ctx, h.newLaunch()); return err },
			"ListMachines": func(ctx context.Context) error { _, err := h.ListMachines(ctx); return err },
			"Terminate":    func(ctx context.Context) error { return h.Terminate(ctx, []cloud.Machine{m}) },
		} {
			ctx, cancel := context.WithTimeout(h.ctx(), 30*time.Millisecond)
			began := time.Now()
			err := call(ctx)
			cancel()
			if took := time.Since(began); err == nil || dstack.KindOf(err) != dstack.Unavailable || took > 5*time.Second {
				h.t.Errorf("%s took %s: %v", name, took, err)
			}
		}
	}},
}

// expectFailure checks the cause of an error.
func (h *harness) expectFailure(err error, refusal Refusal, cause dstack.FailureCause, scope dstack.FailureScope) {
	h.t.Helper()
	f, ok := errors.AsType[*dstack.MachineFailure](err)
	switch {
	case cause == "" && refusal == TooManyLaunches:
		if ok && !f.Cause.MayHelpElsewhere() {
			h.t.Errorf("%s: the failure is %+v", refusal, f)
		}
	case !ok || f.Cause != cause || f.Scope != scope || f.Message == "":
		h.t.Errorf("%s: the failure is %+v of %v, want %s for the scope %q", refusal, f, err, cause, scope)
	case scope == dstack.ScopeTypes && !slices.ContainsFunc(f.Types, func(p string) bool { return p != "" }):
		h.t.Errorf("%s: the failure names no types: %+v", refusal, f)
	}
}
