package cloud

import (
	"testing"
	"time"

	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
)

// SSH servers answer before users and keys are there: a machine that boots is tried again every few seconds, where a refused
// login to another host is not repeated soon. A machine that was ready once is treated as other hosts are.
func TestRentedHosts_TryBootingMachinesAgainSoon(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		check   dstack.HostCheck
		setup   setupState
		wantNew bool
	}{
		"not checked yet": {check: dstack.HostCheck{}},
		"login refused":   {check: dstack.HostCheck{Status: dstack.HostFailed, Step: dstack.HostStepLogin, CheckedAt: now.Add(-bootRetry)}, wantNew: true},
		"another key":     {check: dstack.HostCheck{Status: dstack.HostFailed, Step: dstack.HostStepHostKey, CheckedAt: now.Add(-bootRetry)}, wantNew: true},
		"refused a moment ago": {check: dstack.HostCheck{Status: dstack.HostFailed, Step: dstack.HostStepLogin,
			CheckedAt: now.Add(-bootRetry / 2)}},
		"no Docker while it is installed": {check: dstack.HostCheck{Status: dstack.HostFailed, Step: dstack.HostStepDocker, CheckedAt: now.Add(-time.Minute)}},
		"no Docker before it was installed": {check: dstack.HostCheck{Status: dstack.HostFailed, Step: dstack.HostStepDocker, CheckedAt: now.Add(-time.Minute)},
			setup: setupState{isDone: true, doneAt: now.Add(-time.Second)}, wantNew: true},
		"ready": {check: dstack.HostCheck{Status: dstack.HostReady, CheckedAt: now.Add(-time.Minute)}},
	} {
		t.Run(name, func(t *testing.T) {
			created := now.Add(-time.Hour)
			c.check.AppliedAt = created
			b := newBackend(Options{Key: "aws", Type: "aws"})
			b.states["one"] = &machineState{setup: c.setup}
			got := b.retryTime(dstack.RentedHost{Instance: "one", CreatedAt: created, Check: c.check}, now)
			if want := map[bool]time.Time{true: now, false: created}[c.wantNew]; !got.Equal(want) {
				t.Errorf("tried since %s, want %s", got, want)
			}
		})
	}
}

// The state that a process keeps of a machine is forgotten some time after the machine.
func TestReadHosts_ForgetsMachines(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create(newRequest("one", cloudtest.Place{Region: "north", Zone: "north-a", Type: "small"}))
		r.waitFor("one", time.Minute, isRunning)
		if err := r.Delete(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		r.waitFor("one", time.Minute, isGone)
		r.store.mu.Lock()
		r.store.gone["one"] = true
		r.store.mu.Unlock()
		time.Sleep(2 * maxListLag)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.states) != 0 || len(r.hosts) != 0 {
			t.Errorf("states %v, hosts %v", r.states, r.hosts)
		}
	})
}
