package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// publishedClient is the published client of dstack 0.18.10, unmodified, as a user of
// the harness's server. It has a home of its own, outside of the server's.
type publishedClient struct {
	*harness
	bin     string // the folder of its Python
	ownHome string
}

// needPublishedClient skips the test without the published client, and returns the
// folder of its virtual environment.
func needPublishedClient(t *testing.T) string {
	t.Helper()
	return needPiece(t, "published", "DSTACK_TEST_PUBLISHED")
}

// newPublishedClient returns a client that is configured for the project main of a server
// that runs.
func newPublishedClient(h *harness) *publishedClient {
	h.t.Helper()
	p := &publishedClient{harness: h, bin: filepath.Join(needPublishedClient(h.t), "bin"), ownHome: h.t.TempDir()}
	// It looks for a newer version once a day, on the network.
	h.writeFile(filepath.Join(p.ownHome, ".cache", ".dstack", "cli", "last_check"), "")
	p.run(p.ownHome, "config", "--project", "main", "--url", h.serverURL(), "--token", h.token, "--default").expectExit(0)
	return p
}

// run runs a command of the client's command line, without a terminal.
func (p *publishedClient) run(dir string, args ...string) *result {
	p.t.Helper()
	return p.finish(p.newCommand(dir, filepath.Join(p.bin, "dstack"), args...), "")
}

// answer runs a command of the client's command line with text on standard input.
func (p *publishedClient) answer(input, dir string, args ...string) *result {
	p.t.Helper()
	return p.finish(p.newCommand(dir, filepath.Join(p.bin, "dstack"), args...), input)
}

// runPython runs a program with the client's Python API.
func (p *publishedClient) runPython(dir, program string, args ...string) *result {
	p.t.Helper()
	return p.finish(p.newCommand(dir, filepath.Join(p.bin, "python"), append([]string{program}, args...)...), "")
}

func (p *publishedClient) newCommand(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, p.buildEnv()
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// buildEnv returns the client's environment. Its tables are as wide as their content, and
// it reaches nothing but this machine.
func (p *publishedClient) buildEnv() []string {
	env := []string{"HOME=" + p.ownHome, "COLUMNS=400", "PYTHONUNBUFFERED=1", "HTTPS_PROXY=http://127.0.0.1:9"}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "DSTACK_") && !strings.HasSuffix(strings.ToUpper(name), "_PROXY") && name != "HOME" {
			env = append(env, v)
		}
	}
	return env
}

func (p *publishedClient) finish(cmd *exec.Cmd, input string) *result {
	p.t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errOut
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		p.t.Fatalf("%s: %v", cmd, err)
	}
	return &result{t: p.t, line: "published " + strings.Join(cmd.Args, " "), out: out.String(), err: errOut.String(), code: cmd.ProcessState.ExitCode()}
}

// writeService writes a service of the workload into a new folder, which is the client's
// repo from then on.
func (p *publishedClient) writeService(name string, lines ...string) string {
	p.t.Helper()
	dir := p.newFolder(p.workloadConfig(name, lines...))
	p.run(dir, "init", "--local").expectExit(0).expectText("OK")
	return dir
}

// waitForStatus waits until `ps -a` of the client shows a status in the line of a run.
func (p *publishedClient) waitForStatus(run, status string) {
	p.t.Helper()
	p.waitUntil(time.Minute, run+" is "+status, func() error {
		r := p.run(p.ownHome, "ps", "-a").expectExit(0)
		for line := range strings.Lines(r.out) {
			if fields := strings.Fields(line); len(fields) > 0 && fields[0] == run && strings.Contains(line, " "+status+" ") {
				return nil
			}
		}
		return errors.New(r.out)
	})
}
