package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// result is what a command said, and how it ended.
type result struct {
	t    *testing.T
	line string
	out  string
	err  string
	code int
}

// cli runs a command of dstack without a terminal and with its input closed.
func (h *house) cli(args ...string) *result { return h.cliIn(h.home, args...) }

// cliIn does so in a folder.
func (h *house) cliIn(dir string, args ...string) *result {
	h.t.Helper()
	cmd := h.command(dir, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		h.t.Fatalf("dstack %s: %v", strings.Join(args, " "), err)
	}
	return &result{t: h.t, line: "dstack " + strings.Join(args, " "), out: out.String(), err: errOut.String(), code: cmd.ProcessState.ExitCode()}
}

func (h *house) command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(dstackBinary, args...)
	cmd.Env, cmd.Dir = h.env(), dir
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// exits checks the exit status.
func (r *result) exits(code int) *result {
	r.t.Helper()
	if r.code != code {
		r.t.Fatalf("%s: exit status %d, want %d\noutput: %s\nerrors: %s", r.line, r.code, code, r.out, r.err)
	}
	return r
}

// says checks that each of the words is somewhere in what it printed.
func (r *result) says(words ...string) *result {
	r.t.Helper()
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			r.t.Errorf("%s: does not say %q\noutput: %s\nerrors: %s", r.line, w, r.out, r.err)
		}
	}
	return r
}

// saysNot checks that none of the words is.
func (r *result) saysNot(words ...string) *result {
	r.t.Helper()
	for _, w := range words {
		if strings.Contains(r.out+r.err, w) {
			r.t.Errorf("%s: says %q\noutput: %s\nerrors: %s", r.line, w, r.out, r.err)
		}
	}
	return r
}

// refuses checks an error's manners: on standard error, in one message with a
// way out, and nothing that a developer only would read.
func (r *result) refuses(code int, words ...string) *result {
	r.t.Helper()
	r.exits(code)
	r.says(words...)
	r.saysNot("goroutine ", "panic", "something went wrong", "<nil>")
	if strings.Count(r.err, "error: ") > 1 {
		r.t.Errorf("%s: more than one error:\n%s", r.line, r.err)
	}
	return r
}

// read takes the JSON from the output.
func (r *result) read(v any) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		r.t.Fatalf("%s: no JSON in the output: %v\noutput: %s\nerrors: %s", r.line, err, r.out, r.err)
	}
}

// folder makes a folder with a service's configuration and the workload.
func (h *house) folder(config string) string {
	h.t.Helper()
	dir, err := os.MkdirTemp(h.home, "code")
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(filepath.Join(dir, "service.dstack.yml"), config)
	h.copyFile(workloadBinary, filepath.Join(dir, "workload"))
	return dir
}

func (h *house) copyFile(from, to string) {
	h.t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// apply applies a folder's configuration and waits until it is ready.
func (h *house) apply(dir string, args ...string) api.RunView {
	h.t.Helper()
	return h.view(h.cliIn(dir, append([]string{"apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m", "-o", "json"}, args...)...))
}

func (h *house) view(r *result) api.RunView {
	h.t.Helper()
	r.exits(0)
	var v api.RunView
	r.read(&v)
	if v.Status != api.StatusReady {
		h.t.Fatalf("%s: status %s, want ready: revision %d, %d of %d: %s", r.line, v.Status, v.Revision, v.Ready, v.DesiredReplicas, replicasOf(v))
	}
	return v
}

// ps lists what is not finished.
func (h *house) ps() []api.RunView {
	h.t.Helper()
	var active []api.RunView
	for _, v := range h.psAll() {
		if !v.Status.IsFinished() {
			active = append(active, v)
		}
	}
	return active
}

func (h *house) psAll() []api.RunView {
	h.t.Helper()
	var all []api.RunView
	h.cli("ps", "-a", "-o", "json").exits(0).read(&all)
	return all
}

// run finds a run by name.
func (h *house) run(name string) api.RunView {
	h.t.Helper()
	for _, v := range h.psAll() {
		if v.Name == name {
			return v
		}
	}
	h.t.Fatalf("there is no run %s", name)
	return api.RunView{}
}

// stopped stops a run and waits for it.
func (h *house) stopped(name string) {
	h.t.Helper()
	h.cli("stop", name, "-y").exits(0)
	if v := h.run(name); v.Status != api.StatusStopped {
		h.t.Fatalf("%s is %s after dstack stop, want stopped: %s", name, v.Status, v.Reason)
	}
}
