package e2e

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// clientCase is a call that every client makes. The programs of e2e/clients make
// it up to Tries times, because the first call over a limit may not be refused.
type clientCase struct {
	Name    string `json:"name"`
	Call    string `json:"call"` // chat or stream
	Model   string `json:"model"`
	BaseURL string `json:"base_url"`
	Token   string `json:"token"`
	Once    bool   `json:"once"` // the client does not try again
	Tries   int    `json:"tries"`
	Says    string `json:"says"` // in an error: the gateway's message
}

// clientCases are the cases of every client, in the order of the table.
var clientCases = []clientCase{
	{Name: "chat", Call: "chat", Model: "ready"},
	{Name: "stream", Call: "stream", Model: "ready"},
	{Name: "cold start", Call: "stream", Model: coldModel},
	{Name: "error after comments", Call: "stream", Model: "never", Says: "is not ready"},
	{Name: "429", Call: "chat", Model: "limited", Once: true, Tries: 10, Says: "too many requests"},
	{Name: "401", Call: "chat", Model: "ready", Token: "wrong", Says: "token is not valid"},
	{Name: "long wait", Call: "chat", Model: slowModel},
	{Name: "error after newlines", Call: "chat", Model: brokenModel, Once: true, Says: "the model is broken"},
}

// coldModel stands for a model of its own for each program.
const coldModel = "cold"

// clientAnswer is what the workload's model answers.
const clientAnswer = "Red, green and blue."

// caseResult is the result of a client in a case.
type caseResult struct {
	Clients int // in the first line of a program: how many clients it has
	Client  string
	Version string
	Case    string
	Text    string
	Error   string // the class of the exception
	Status  int
	Says    bool // the exception has the gateway's message
}

// describe returns the result in the words of the table.
func (r caseResult) describe() string {
	switch {
	case r.Error == "" && strings.TrimSpace(r.Text) == clientAnswer:
		return "ok"
	case r.Error == "" && r.Text == "":
		return "an empty answer"
	case r.Error == "":
		return "another answer"
	}
	words := "`" + r.Error + "`"
	if r.Status != 0 {
		words += fmt.Sprintf(" %d", r.Status)
	}
	if !r.Says {
		words += ", without the message"
	}
	return words
}

// TestClients puts clients of OpenAI's and Anthropic's API through clientCases,
// and compares the results with the table of docs/reference/clients.md.
func TestClients(t *testing.T) {
	runParallel(t)
	dir := needPiece(t, "clients", "DSTACK_TEST_CLIENTS")
	c := newClientsHarness(t)
	python, node := filepath.Join(dir, "python", "bin", "python"), filepath.Join(dir, "javascript")
	t.Run("clients", func(t *testing.T) {
		c.runProgram(t, "python", exec.Command(python, "clients/python/run.py"))
		for _, script := range listFiles(t, "clients/javascript/*.mjs") {
			c.copyFile(script, filepath.Join(node, filepath.Base(script))) // beside its node_modules
		}
		c.runProgram(t, "javascript", exec.Command(filepath.Join(dir, "node"), filepath.Join(node, "run.mjs")))
		c.runProgram(t, "go", exec.Command(filepath.Join(dir, "go-clients")))
		// These take minutes to build or to run; only scripts/test.sh clients brings them.
		if classes := os.Getenv("DSTACK_TEST_JAVA"); classes != "" {
			c.runProgram(t, "java", exec.Command("java", "-cp", classes, "Run"))
		}
		if program := os.Getenv("DSTACK_TEST_RUST"); program != "" {
			c.runProgram(t, "rust", exec.Command(program))
		}
		if python := os.Getenv("DSTACK_TEST_LOAD"); python != "" {
			c.runProgram(t, "load", exec.Command(python, "clients/load/run.py"))
		}
	})
	if !t.Failed() {
		compareClientRows(t, c.buildRows())
	}
}

// clientsHarness is a server with the models of the cases.
type clientsHarness struct {
	*harness
	metricsPort int
	slowURL     string // of a gateway that sends newlines soon
	mu          sync.Mutex
	results     []caseResult
}

func newClientsHarness(t *testing.T) *clientsHarness {
	c := &clientsHarness{metricsPort: findFreePort(t), slowURL: startSlowGateway(t)}
	c.harness = newHarness(t, "process", fmt.Sprintf("DSTACK_SERVER_METRICS=127.0.0.1:%d", c.metricsPort))
	c.serveModel("ready", nil, "--wait", "ready", "--timeout", "1m")
	c.serveModel("limited", []string{"rate_limits: [{prefix: /, key: {type: header, header: Authorization}, rps: 0.2}]"},
		"--wait", "ready", "--timeout", "1m")
	c.serveModel("never", []string{"hold: {timeout: 7s}", "- LISTEN_WHEN=/nonexistent"}, "-d")
	return c
}

// serveModel applies a service with the workload's model.
func (c *clientsHarness) serveModel(name string, lines []string, args ...string) {
	c.t.Helper()
	lines = append(lines, "model: {type: chat, name: "+name+", format: openai, prefix: /model/v1}")
	dir := c.newFolder(c.workloadConfig(name, lines...))
	c.runCLIIn(dir, append([]string{"apply", "-f", "service.dstack.yml", "-y"}, args...)...).expectExit(0)
}

// runProgram runs a program of e2e/clients in a parallel subtest. Its argument is
// where it finds the models. The model of its cold start listens once all of its
// clients wait for it and have received a comment.
func (c *clientsHarness) runProgram(t *testing.T, name string, cmd *exec.Cmd) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		cold, h := "cold-"+name, c.withT(t)
		signal := filepath.Join(t.TempDir(), "listen")
		(&clientsHarness{harness: h}).serveModel(cold, []string{"hold: {timeout: 5m}", "- LISTEN_WHEN=" + signal}, "-d")
		cmd.Args = append(cmd.Args, encodeJSON(t, c.fillCases(cold)))
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "PYTHONDONTWRITEBYTECODE=1", "NO_COLOR=1")
		cmd.Env = append(cmd.Env, "LITELLM_LOCAL_MODEL_COST_MAP=True") // it would ask GitHub for prices
		var out, errOut safeBuffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		defer func() {
			if t.Failed() {
				t.Logf("the program wrote:\n%s%s", out.String(), errOut.String())
			}
		}()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timeout := time.AfterFunc(10*time.Minute, func() { _ = cmd.Process.Kill() })
		defer timeout.Stop()
		defer c.exhaustLimit(t)()
		clients := c.wakeModel(t, cold, &out, signal)
		err := cmd.Wait()
		results := readResults(t, out.String())
		if err != nil || len(results) != clients*len(clientCases) {
			t.Fatalf("%v, %d results of %d clients", err, len(results), clients)
		}
		t.Log(out.String())
		c.mu.Lock()
		defer c.mu.Unlock()
		c.results = append(c.results, results...)
	})
}

// fillCases returns the cases of a program, whose cold start uses a model.
func (c *clientsHarness) fillCases(cold string) []clientCase {
	cases := slices.Clone(clientCases)
	for i := range cases {
		one := &cases[i]
		one.BaseURL, one.Token, one.Tries = c.serverURL()+"/v1", cmp.Or(one.Token, c.token), max(1, one.Tries)
		switch one.Model {
		case coldModel:
			one.Model = cold
		case slowModel, brokenModel:
			one.BaseURL, one.Token = c.slowURL, slowGatewayToken
		}
	}
	return cases
}

// readResults returns what a program wrote, without the first line.
func readResults(t *testing.T, lines string) (results []caseResult) {
	t.Helper()
	_, lines, _ = strings.Cut(lines, "\n")
	for line := range strings.Lines(lines) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var r caseResult
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		results = append(results, r)
	}
	return results
}

// wakeModel lets a model listen once all clients of a program wait for it, and
// each has had time for a comment. It returns how many clients there are, which
// the first line of the program says.
func (c *clientsHarness) wakeModel(t *testing.T, model string, out *safeBuffer, signal string) (clients int) {
	t.Helper()
	h := c.withT(t)
	h.waitUntil(4*time.Minute, "all clients wait for "+model, func() error {
		var begin caseResult
		if err := json.NewDecoder(strings.NewReader(out.String())).Decode(&begin); err != nil {
			return err
		}
		clients = begin.Clients
		failed := 0 // without waiting
		for _, r := range readResults(t, out.String()) {
			if r.Case == "cold start" {
				failed++
			}
		}
		waiting := fmt.Sprintf(`dstack_requests_held{project="main",run="%s"} %d`, model, clients-failed)
		a, err := h.getURL(fmt.Sprintf("http://127.0.0.1:%d/metrics", c.metricsPort))
		if err == nil && !strings.Contains(a.body, waiting+"\n") {
			err = fmt.Errorf("no line %s:\n%s", waiting, filterMetrics(a.body, "dstack_requests_held"))
		}
		return err
	})
	time.Sleep(5500 * time.Millisecond) // the first comment comes after five seconds
	h.writeFile(signal, "")
	return clients
}

// exhaustLimit uses up the rate limit of the model "limited", again and again,
// until its result is called. A client then is refused sooner or later.
func (c *clientsHarness) exhaustLimit(t *testing.T) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			a, err := c.sendRequest("POST", c.serverURL()+"/v1/chat/completions", c.token, `{"model":"limited"}`)
			if err != nil || a.status != http.StatusTooManyRequests && a.status != http.StatusOK {
				t.Errorf("the limited model: %d %s, %v", a.status, a.body, err)
				return
			}
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

func listFiles(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return files
}

// buildRows returns the results as rows of the table, by client.
func (c *clientsHarness) buildRows() map[string]string {
	cells := map[string][]string{}
	for _, r := range c.results {
		row := cells[r.Client]
		if row == nil {
			row = append([]string{r.Client, r.Version}, make([]string, len(clientCases))...)
			cells[r.Client] = row
		}
		row[2+slices.Index(caseNames(), r.Case)] = r.describe()
	}
	rows := map[string]string{}
	for client, row := range cells {
		rows[client] = "| " + strings.Join(row, " | ") + " |\n"
	}
	return rows
}

func caseNames() (names []string) {
	for _, c := range clientCases {
		names = append(names, c.Name)
	}
	return names
}

// TestClients_Comments checks that a client of the cold start does receive
// comments before the answer, and after them an error with a name.
func TestClients_Comments(t *testing.T) {
	runParallel(t)
	c := &clientsHarness{harness: newHarness(t, "process")}
	c.serveModel("never", []string{"hold: {timeout: 6s}", "- LISTEN_WHEN=/nonexistent"}, "-d")
	a := c.expectResponse("POST", c.serverURL()+"/v1/chat/completions", c.token, `{"model":"never","stream":true}`, 200)
	var lines []string
	for scan := bufio.NewScanner(strings.NewReader(a.body)); scan.Scan(); {
		if scan.Text() != "" {
			lines = append(lines, scan.Text())
		}
	}
	if len(lines) != 4 || !strings.HasPrefix(lines[0], ": waiting for never") || lines[1] != "event: error" ||
		!strings.HasPrefix(lines[2], `data: {"error":{"message":"never is not ready`) || lines[3] != "data: [DONE]" {
		t.Errorf("the stream is %q", lines)
	}
	h := c.expectResponse("GET", c.serverURL()+"/health", "", "", 200)
	if h.body != `{"status":"ok"}`+"\n" {
		t.Errorf("/health answers %s", h.body)
	}
}
