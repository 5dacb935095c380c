package reconcile_test

import (
	"testing"

	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// A cloud that cannot be asked, because its credentials have expired, concerns nothing that runs: the engines of its machines
// are asked as before, no failure of them is recorded or logged, and what ends there is noticed.
func TestInstancePass_MachinesGoOnWhileTheirCloudCannotBeAsked(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	run := r.submitLarge(1)
	instance := r.until(run, "ready", ready(1)).Replicas[0].Instance
	expired := &dstack.Error{Kind: dstack.Unauthorized, Message: "the credentials have expired"}
	c.SetFaults(backendtest.Faults{List: expired})
	var calls int
	r.waitFor("asked often without success", func() bool {
		n := c.Calls().Machines
		if calls == 0 {
			calls = n
		}
		return n >= calls+4
	})
	facts, err := r.store.InstanceFacts(t.Context(), instance)
	if err != nil {
		t.Fatal(err)
	}
	if i := facts.Instance; i.ConsecutiveFailures != 0 || i.LastError != "" || i.Status != dstack.InstanceUp {
		t.Errorf("the instance is %s after %d failures: %s", i.Status, i.ConsecutiveFailures, i.LastError)
	}
	c.mu.Lock()
	engine := c.engines[instance]
	c.mu.Unlock()
	engine.crash(3)
	r.until(run, "restarted", func(d store.RunDetails) bool { return len(d.Replicas[0].PastAttempts) > 0 })
	r.until(run, "ready again", ready(1))
}
