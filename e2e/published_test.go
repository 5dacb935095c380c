package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// publishedClient is a published client of dstack, unmodified, as a user of the harness's
// server. It has a home of its own, outside of the server's.
type publishedClient struct {
	*harness
	bin     string // the folder of its Python
	ownHome string

	requests  io.WriteCloser // of clients/published_cli.py, which loads the client only once
	responses *bufio.Scanner
}

// needPublishedClient skips the test without the published client, and returns the
// folder of its virtual environment.
func needPublishedClient(t *testing.T) string {
	t.Helper()
	return needPiece(t, "published", "DSTACK_TEST_PUBLISHED")
}

// newPublishedClient returns a client 0.18.10 that is configured for the project main of a
// server that runs.
func newPublishedClient(h *harness) *publishedClient {
	h.t.Helper()
	p := startPublishedClient(h, needPublishedClient(h.t))
	p.run(p.ownHome, "config", "--project", "main", "--url", h.serverURL(), "--token", h.token, "--default").expectExit(0)
	return p
}

// startPublishedClient returns a client that is not configured, from the folder of its
// virtual environment.
func startPublishedClient(h *harness, folder string) *publishedClient {
	h.t.Helper()
	p := &publishedClient{harness: h, bin: filepath.Join(folder, "bin"), ownHome: h.t.TempDir()}
	// It looks for a newer version once a day, on the network.
	h.writeFile(filepath.Join(p.ownHome, ".cache", ".dstack", "cli", "last_check"), "")
	p.startCLI()
	return p
}

// startCLI starts the process that runs commands until the end of the test.
func (p *publishedClient) startCLI() {
	p.t.Helper()
	program, err := filepath.Abs("clients/published_cli.py")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := p.newCommand(p.ownHome, filepath.Join(p.bin, "python"), program)
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.requests, err = cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.responses = bufio.NewScanner(out)
	p.responses.Buffer(nil, 64<<20)
	p.t.Cleanup(func() {
		_ = p.requests.Close()
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait()
	})
}

// run runs a command of the client's command line, without a terminal.
func (p *publishedClient) run(dir string, args ...string) *result {
	p.t.Helper()
	return p.answer("", dir, args...)
}

// answer runs a command of the client's command line with text on standard input.
func (p *publishedClient) answer(input, dir string, args ...string) *result {
	p.t.Helper()
	request := map[string]any{"dir": dir, "args": args, "input": input}
	if _, err := fmt.Fprintln(p.requests, encodeJSON(p.t, request)); err != nil {
		p.t.Fatal(err)
	}
	if !p.responses.Scan() {
		p.t.Fatalf("published dstack %s: no result: %v", strings.Join(args, " "), p.responses.Err())
	}
	var got struct {
		Code     int
		Out, Err string
	}
	if err := json.Unmarshal(p.responses.Bytes(), &got); err != nil {
		p.t.Fatal(err)
	}
	return &result{t: p.t, line: "published dstack " + strings.Join(args, " "), out: got.Out, err: got.Err, code: got.Code}
}

// runPython runs a program with the client's Python API.
func (p *publishedClient) runPython(dir, program string, args ...string) *result {
	p.t.Helper()
	return p.finish(p.newCommand(dir, filepath.Join(p.bin, "python"), append([]string{program}, args...)...))
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

// finish runs a program to its end.
func (p *publishedClient) finish(cmd *exec.Cmd) *result {
	p.t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
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
