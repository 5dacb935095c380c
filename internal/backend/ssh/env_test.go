package ssh

import (
	"maps"
	"testing"
)

func TestAddFleetEnv(t *testing.T) {
	run, fleet := map[string]string{"A": "run"}, map[string]string{"A": "fleet", "B": "fleet"}
	if got := addFleetEnv(run, fleet); !maps.Equal(got, map[string]string{"A": "run", "B": "fleet"}) || len(run) != 1 || len(fleet) != 2 {
		t.Errorf("%v, from %v and %v", got, run, fleet)
	}
	if got := addFleetEnv(nil, nil); got == nil {
		t.Error("no map")
	}
}
