package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is a release of dstack that is measured beside others: its server on a database of its own, and its command line.
type peer struct {
	name    string
	wire    *wireFormat
	binary  string
	home    string
	config  string   // of the server: config.yml
	flags   []string // of the server, besides its address and its token
	addRuns func(p *peer, first, count int) error
	rival   string // the name of our peer that a published one is compared with; empty: this is ours

	port  int
	token string
	cmd   *exec.Cmd
}

// wireFormat is what a published client of one release sends.
type wireFormat struct {
	version string // in the header X-API-VERSION
	list    string // the body of runs/list, as dstack ps -a sends it
	plan    string // the body of runs/get_plan
}

// readWireFormat reads what the published client of a release sends. The body of get_plan was written by that client.
func readWireFormat(version, list string) (*wireFormat, error) {
	plan, err := os.ReadFile(filepath.Join("bench", "testdata", "plan-"+version+".json"))
	return &wireFormat{version: version, list: list, plan: string(plan)}, err
}

const (
	listPath  = "/api/runs/list"
	runsPath  = "/api/project/main/runs/"
	reposPath = "/api/project/main/repos/init"

	peerStartLimit = 5 * time.Minute
)

// start starts the server and waits until it answers. A home folder that exists is used again.
func (p *peer) start() error {
	folder := filepath.Join(p.home, ".dstack", "server")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "config.yml"), []byte(p.config), 0o600); err != nil {
		return err
	}
	var err error
	if p.port, err = freePort(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(p.home, "server.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.newCommand(append([]string{"server", "--host", "127.0.0.1", "--port", strconv.Itoa(p.port), "--token", token}, p.flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if p.token, err = p.readToken(); err == nil {
			if _, err = p.call("/api/projects/list", "{}"); err == nil {
				return nil
			}
		}
		if time.Since(began) > peerStartLimit {
			return errors.Join(fmt.Errorf("%s does not answer: %w", p.name, err), p.stop())
		}
	}
}

var tokenLine = regexp.MustCompile(`token: *(\S+)`)

// readToken returns the admin's token from the file that the server wrote for the command line. The server of 0.18.10
// makes up its own, whatever --token says.
func (p *peer) readToken() (string, error) {
	text, err := os.ReadFile(filepath.Join(p.home, ".dstack", "config.yml"))
	if err != nil {
		return "", err
	}
	found := tokenLine.FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("%s has no token yet", p.home)
	}
	return string(found[1]), nil
}

// newCommand returns a command of this release. It can reach nothing outside of this machine.
func (p *peer) newCommand(args ...string) *exec.Cmd {
	const nowhere = "http://127.0.0.1:9"
	cmd := exec.Command(p.binary, args...)
	cmd.Dir = p.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "HTTP_PROXY=" + nowhere, "HTTPS_PROXY=" + nowhere,
		"NO_PROXY=127.0.0.1,localhost", "DSTACK_DEFAULT_CREDS_DISABLED=1", "TERM=dumb", "COLUMNS=120"}
	return cmd
}

// stop ends the server.
func (p *peer) stop() error {
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait() // it was asked to end
	p.cmd = nil
	return nil
}

// call sends a request to the API and returns the response.
func (p *peer) call(path, body string) ([]byte, error) { return p.callAs(p.wire, path, body) }

// callAs is call with the version of another client.
func (p *peer) callAs(format *wireFormat, path, body string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", p.port, path), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-VERSION", format.version)
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s answers %s: %.300s", p.name, path, res.Status, text)
	}
	return text, err
}

// pathTo returns how a request reaches an operation of the server.
func (p *peer) pathTo(operation string) requestPath {
	return requestPath{name: p.name, address: fmt.Sprintf("127.0.0.1:%d", p.port), path: operation,
		pid: p.cmd.Process.Pid, token: p.token, version: p.wire.version}
}

// listedRun is what is checked of a run in a list.
type listedRun struct {
	Status string
	Jobs   []struct {
		JobSubmissions []json.RawMessage `json:"job_submissions"`
	}
}

// waitForRuns waits until the server lists this number of runs, each with three jobs that have one submission, and all
// in a status that satisfies isIn.
func (p *peer) waitForRuns(want int, limit time.Duration, isIn func(status string) bool) error {
	for began := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		text, err := p.call(listPath, p.wire.list)
		var runs []listedRun
		if err == nil {
			err = json.Unmarshal(text, &runs)
		}
		if err != nil {
			return err
		}
		ready := 0
		for _, run := range runs {
			complete := len(run.Jobs) == publishedReplicas && isIn(run.Status)
			for _, job := range run.Jobs {
				complete = complete && len(job.JobSubmissions) == 1
			}
			if complete {
				ready++
			}
		}
		if ready == want && len(runs) == want {
			return nil
		}
		if time.Since(began) > limit {
			return fmt.Errorf("%s lists %d runs, %d as expected, in place of %d", p.name, len(runs), ready, want)
		}
	}
}

func isFinishedStatus(status string) bool {
	return status == "terminated" || status == "failed" || status == "done"
}

// nameRun returns the request of a plan with another name and more settings of its profile.
func (w *wireFormat) nameRun(number int, profile map[string]any) (map[string]any, string, error) {
	var request map[string]any
	if err := json.Unmarshal([]byte(w.plan), &request); err != nil {
		return nil, "", err
	}
	spec := request["run_spec"].(map[string]any)
	name := fmt.Sprintf("bench-%d", number)
	spec["run_name"] = name
	spec["configuration"].(map[string]any)["name"] = name
	for key, value := range profile {
		spec["profile"].(map[string]any)[key] = value
	}
	return spec, name, nil
}

// registerRepo registers the repo that the runs refer to.
func (p *peer) registerRepo() error {
	_, err := p.call(reposPath, `{"repo_id":"bench","repo_info":{"repo_type":"virtual"}}`)
	return err
}

// callWith sends a request of a client, with a body that it encodes as JSON.
func (p *peer) callWith(format *wireFormat, path string, body any) error {
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(body); err != nil {
		return err
	}
	_, err := p.callAs(format, path, text.String())
	return err
}
