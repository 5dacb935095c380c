package process_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/enginetest"
)

// A command beside an attempt sees no more than the attempt, and the port that was chosen.
func TestExec_IsConfinedAndKnowsThePort(t *testing.T) {
	e, server := openConfined(t)
	if e == nil {
		return
	}
	spec := newSpec("sleep 60")
	spec.Port, spec.ChoosePort = 0, true
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	r := enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptRunning })
	for _, terminal := range []*engine.Terminal{nil, {}} {
		var out bytes.Buffer
		code, err := e.Exec(t.Context(), spec, engine.Command{Terminal: terminal, Stdout: &out, Stderr: &out, Argv: []string{"sh", "-c",
			"cat " + server + "/config.yml ../order.json /proc/$PPID/root" + server + "/config.yml 2>/dev/null; pwd; echo port=$PORT"}})
		if code != 0 || err != nil {
			t.Fatalf("exit code %d, %v: %s", code, err, out.String())
		}
		_, port, _ := strings.Cut(r.Address, ":")
		if n, _ := strconv.Atoi(port); n == 0 || !strings.Contains(out.String(), "port="+port) {
			t.Errorf("the address is %q, the output %q", r.Address, out.String())
		}
		if strings.Contains(out.String(), "secret") || !strings.Contains(out.String(), "/work") {
			t.Errorf("the output is %q", out.String())
		}
	}
}
