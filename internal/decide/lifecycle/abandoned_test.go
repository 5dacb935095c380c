package lifecycle_test

import (
	"strings"
	"testing"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// A replica whose engine cannot be asked any more ends for the server, and its reason says
// that it may go on for the machine. A rented machine ends with what runs there.
func TestReplica_SaysThatItMayStillRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		status dstack.InstanceStatus
		owned  dstack.InstanceID
		state  dstack.AttemptState
		want   bool
	}{
		{"an owned machine was given up", dstack.InstanceDeleted, "i", dstack.AttemptRunning, true},
		{"it was given up after the attempt had ended", dstack.InstanceDeleted, "i", dstack.AttemptExited, false},
		{"a rented machine was deleted", dstack.InstanceDeleted, "", dstack.AttemptRunning, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			machine := &dstack.Instance{ID: "i", Status: c.status, Offer: dstack.Offer{OwnedInstance: c.owned}}
			step, err := lifecycle.DecideReplica(facts(dstack.ReplicaTerminating, func(f *lifecycle.ReplicaFacts) {
				f.Instance, f.Report, f.Replica.Reason = machine, &dstack.Report{State: c.state}, "stopped by its user"
			}), now)
			got := string(step.Reason)
			if err != nil || step.To != dstack.ReplicaTerminated || !strings.HasPrefix(got, "stopped by its user") ||
				strings.Contains(got, "may still run") != c.want {
				t.Errorf("%s %q, %v", step.To, got, err)
			}
		})
	}
}
