package process_test

import (
	"net"
	"os"
	"strconv"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
)

// newServer returns an attempt that serves on the port that the engine chooses.
func newServer(t *testing.T) dstack.AttemptSpec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec := newSpec("exec " + self + " serve")
	spec.ChoosePort, spec.Port = true, 8000
	spec.Env["PORT"] = "8000"
	return spec
}

func isReady(r dstack.Report) bool { return r.State == dstack.AttemptRunning && r.Ready }

// Attempts that start at the same time get different ports, and each listens on its own.
func TestChoosePort_EachAttemptHasItsOwn(t *testing.T) {
	e := openClean(t, t.TempDir())
	const count = 8
	var specs []dstack.AttemptSpec
	for range count {
		specs = append(specs, newServer(t))
		if err := e.Start(t.Context(), specs[len(specs)-1]); err != nil {
			t.Fatal(err)
		}
	}
	ports := map[int]bool{}
	for _, spec := range specs {
		r := enginetest.WaitForReport(t, e, spec.Attempt, isReady)
		if _, port, _ := net.SplitHostPort(r.Address); port != strconv.Itoa(r.Port) {
			t.Errorf("the address is %s, the port %d", r.Address, r.Port)
		}
		ports[r.Port] = true
	}
	if len(ports) != count || ports[8000] {
		t.Errorf("%d attempts have the ports %v", count, ports)
	}
}

// A restarted server finds an attempt at the port that the earlier one chose, and does
// not give that port to another attempt.
func TestChoosePort_SurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	first := openClean(t, dir)
	spec := newServer(t)
	if err := first.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	before := enginetest.WaitForReport(t, first, spec.Attempt, isReady)
	second := openClean(t, dir)
	after := enginetest.WaitForReport(t, second, spec.Attempt, isReady)
	if after.Port == 0 || after.Port != before.Port || after.Address != before.Address {
		t.Errorf("before the restart %+v, after it %+v", before, after)
	}
	other := newServer(t)
	if err := second.Start(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if r := enginetest.WaitForReport(t, second, other.Attempt, isReady); r.Port == before.Port {
		t.Errorf("both attempts have port %d", r.Port)
	}
}
