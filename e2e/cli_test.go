package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// result is the output of a command and its exit status.
type result struct {
	t    *testing.T
	line string
	out  string
	err  string
	code int
}

// runCLI runs a dstack command without a terminal and with closed standard input.
func (h *harness) runCLI(args ...string) *result { return h.runCLIIn(h.home, args...) }

// runCLIIn runs a dstack command in a folder.
func (h *harness) runCLIIn(dir string, args ...string) *result {
	h.t.Helper()
	return h.runCLIFor(3*time.Minute, dir, args...)
}

// runCLIFor runs a dstack command in a folder, and kills it after a time.
func (h *harness) runCLIFor(limit time.Duration, dir string, args ...string) *result {
	h.t.Helper()
	cmd := h.newCommand(dir, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		h.t.Fatalf("dstack %s: %v", strings.Join(args, " "), err)
	}
	return &result{t: h.t, line: "dstack " + strings.Join(args, " "), out: out.String(), err: errOut.String(), code: cmd.ProcessState.ExitCode()}
}

func (h *harness) newCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(dstackBinary, args...)
	cmd.Env, cmd.Dir = h.buildEnv(), dir
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// expectExit checks the exit status.
func (r *result) expectExit(code int) *result {
	r.t.Helper()
	if r.code != code {
		r.t.Fatalf("%s: exit status %d, want %d\noutput: %s\nerrors: %s", r.line, r.code, code, r.out, r.err)
	}
	return r
}

// expectText checks that the output contains each of the words.
func (r *result) expectText(words ...string) *result {
	r.t.Helper()
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			r.t.Errorf("%s: no %q in the output\noutput: %s\nerrors: %s", r.line, w, r.out, r.err)
		}
	}
	return r
}

// expectNoText checks that the output contains none of the words.
func (r *result) expectNoText(words ...string) *result {
	r.t.Helper()
	for _, w := range words {
		if strings.Contains(r.out+r.err, w) {
			r.t.Errorf("%s: %q is in the output\noutput: %s\nerrors: %s", r.line, w, r.out, r.err)
		}
	}
	return r
}

// expectError checks that the command failed with one error message that contains
// the words, and without internals such as stack traces.
func (r *result) expectError(code int, words ...string) *result {
	r.t.Helper()
	r.expectExit(code)
	r.expectText(words...)
	r.expectNoText("goroutine ", "panic", "something went wrong", "<nil>")
	if strings.Count(r.err, "error: ") > 1 {
		r.t.Errorf("%s: more than one error:\n%s", r.line, r.err)
	}
	return r
}

// decode decodes the JSON on standard output.
func (r *result) decode(v any) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		r.t.Fatalf("%s: no JSON in the output: %v\noutput: %s\nerrors: %s", r.line, err, r.out, r.err)
	}
}

// newFolder creates a folder with a service's configuration and the workload
// program.
func (h *harness) newFolder(config string) string {
	h.t.Helper()
	dir, err := os.MkdirTemp(h.home, "code")
	if err != nil {
		h.t.Fatal(err)
	}
	h.writeFile(filepath.Join(dir, "service.dstack.yml"), config)
	h.copyFile(workloadBinary, filepath.Join(dir, "workload"))
	return dir
}

func (h *harness) copyFile(from, to string) {
	h.t.Helper()
	part := to + "." + strconv.Itoa(h.port) // another test may read the file at the same time
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(part, data, 0o755)
	}
	if err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// applyAndWait applies the configuration in a folder and waits until the run is
// ready.
func (h *harness) applyAndWait(dir string, args ...string) api.RunView {
	h.t.Helper()
	return h.decodeReadyRun(h.runCLIIn(dir, append([]string{"apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m", "-o", "json"}, args...)...))
}

func (h *harness) decodeReadyRun(r *result) api.RunView {
	h.t.Helper()
	r.expectExit(0)
	var v api.RunView
	r.decode(&v)
	if v.Status != api.StatusReady {
		h.t.Fatalf("%s: status %s, want ready: revision %d, %d of %d: %s", r.line, v.Status, v.Revision, v.Ready, v.DesiredReplicas, formatReplicas(v))
	}
	return v
}

// listActiveRuns returns the runs that are not finished.
func (h *harness) listActiveRuns() []api.RunView {
	h.t.Helper()
	var active []api.RunView
	for _, v := range h.listRuns() {
		if !v.Status.IsFinished() {
			active = append(active, v)
		}
	}
	return active
}

func (h *harness) listRuns() []api.RunView {
	h.t.Helper()
	var all []api.RunView
	h.runCLI("ps", "-a", "-o", "json").expectExit(0).decode(&all)
	return all
}

// findRun returns the run of a name.
func (h *harness) findRun(name string) api.RunView {
	h.t.Helper()
	for _, v := range h.listRuns() {
		if v.Name == name {
			return v
		}
	}
	h.t.Fatalf("no run is named %s", name)
	return api.RunView{}
}

// stopRun stops a run and waits for its end.
func (h *harness) stopRun(name string) {
	h.t.Helper()
	h.runCLI("stop", name, "-y").expectExit(0)
	if v := h.findRun(name); v.Status != api.StatusStopped {
		h.t.Fatalf("%s is %s after dstack stop, want stopped: %s", name, v.Status, v.Reason)
	}
}
