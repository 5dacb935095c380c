package cli

import (
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// The list names the first ready replica with a warning, and counts the others.
func TestProblemLines_WarnOfReadyReplicas(t *testing.T) {
	open := api.ReplicaView{Num: 1, Status: dstack.ReplicaReady, Reason: "listens on 0.0.0.0:20001, open to the network"}
	other := open
	other.Num = 2
	for _, c := range []struct {
		name     string
		replicas []api.ReplicaView
		want     string
	}{
		{"none", []api.ReplicaView{{Status: dstack.ReplicaReady}}, ""},
		{"one", []api.ReplicaView{{Status: dstack.ReplicaReady}, open}, "replica 1 listens on 0.0.0.0:20001, open to the network"},
		{"two", []api.ReplicaView{open, other}, "replica 1 listens on 0.0.0.0:20001, open to the network; 1 more replica does"},
	} {
		lines := problemLines(api.RunView{Status: api.StatusReady, Replicas: c.replicas}, false, time.Now())
		got := ""
		if len(lines) == 1 {
			got = lines[0]
		}
		if len(lines) > 1 || got != c.want {
			t.Errorf("%s: %q", c.name, lines)
		}
	}
}
