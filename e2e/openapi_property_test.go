package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// propertyRun is one run of schemathesis: who calls the API, in which dialect, with how much.
type propertyRun struct {
	name   string
	member bool // a member without global rights calls, not the admin
	args   []string
}

// newestDialect makes the requests of the newest published client.
var newestDialect = []string{"-H", "X-API-VERSION: 0.22.5"}

// TestAPIProperties makes requests from /api/openapi.json and compares every answer with it: there is no answer that it does
// not describe, what it allows is not called invalid, and what it forbids is refused.
func TestAPIProperties(t *testing.T) {
	runParallel(t)
	program := needPiece(t, "schemathesis", "DSTACK_TEST_SCHEMATHESIS")
	if !isLongRun() {
		// The edges of the schema of every operation that does something.
		testAPIProperties(t, program, nil, []propertyRun{
			{name: "coverage", args: []string{"--phases", "coverage", "--exclude-path-regex", "/(get_offers|backends|gateways|pools|gpus|exports|imports)(/|$)"}},
		})
		return
	}
	long := []propertyRun{
		{name: "admin", args: []string{"--phases", "coverage,fuzzing,stateful", "-n", "100"}},
		{name: "member", member: true, args: []string{"--phases", "coverage,fuzzing", "-n", "30"}},
		{name: "admin 0.22", args: append([]string{"--phases", "coverage,fuzzing,stateful", "-n", "100"}, newestDialect...)},
		{name: "member 0.22", member: true, args: append([]string{"--phases", "coverage,fuzzing", "-n", "30"}, newestDialect...)},
	}
	t.Run("SQLite", func(t *testing.T) { testAPIProperties(t, program, nil, long) })
	t.Run("PostgreSQL", func(t *testing.T) {
		testAPIProperties(t, program, []string{"DSTACK_DATABASE_URL=" + createDatabase(t)}, long)
	})
}

// testAPIProperties runs schemathesis against one server. The server must not crash, leak or log failures.
func testAPIProperties(t *testing.T, program string, env []string, runs []propertyRun) {
	// Nothing that a request names is reached: the server has no network.
	h := newHarness(t, "process", append(env, "HF_ENDPOINT=http://127.0.0.1:9", "HTTPS_PROXY=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9")...)
	member := h.createPropertyFixture()
	attempt := h.fetchRun("kept").Replicas[0].SubmissionID
	before := h.countOpenFiles()
	for _, run := range runs {
		token := h.token
		if run.member {
			token = member
		}
		t.Logf("%s: %s", run.name, h.runSchemathesis(program, token, attempt, run.args))
	}
	if !h.isRunning() {
		t.Fatal("the server has ended")
	}
	if v := h.fetchRun("kept"); v.Status != api.StatusReady {
		t.Errorf("the run kept is %s", v.Status)
	}
	h.waitUntil(30*time.Second, "no connection or file stays open", func() error {
		if after := h.countOpenFiles(); after > before+20 {
			return fmt.Errorf("%d open files before, %d after", before, after)
		}
		return nil
	})
	for _, fault := range []string{"a call panicked", "a call failed", "cannot encode"} {
		if strings.Contains(h.log.String(), fault) {
			t.Errorf("the log of the server has %q", fault)
		}
	}
}

// createPropertyFixture creates objects that requests can name, and returns the token of a member of main.
func (h *harness) createPropertyFixture() string {
	member := h.createPerson("member", "--member-of", "main").token
	h.createPerson("nobody")
	h.postJSON("/api/projects/create", api.CreateProject{ProjectName: "side"}, new(any))
	h.setSecret("KEPT", "value")
	h.postJSON(api.ProjectPrefix+"/repos/init", api.InitRepo{RepoID: "kept-12345678", RepoInfo: dstack.JSON(`{"repo_type": "virtual"}`)}, new(any))
	h.applyAndWait(h.newFolder(h.workloadConfig("kept", "model: kept")))
	h.submitConfig(filepath.Join(h.home, "property"), "type: service\nname: ended\nport: auto\ncommands:\n- exit 1\n")
	return member
}

// runSchemathesis fails the test unless all checks of all requests succeed, and says how much it did. The seed is fixed.
func (h *harness) runSchemathesis(program, token string, attempt dstack.AttemptID, args []string) string {
	h.t.Helper()
	dir, err := filepath.Abs("clients/schemathesis")
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"--config-file", filepath.Join(dir, "schemathesis.toml"), "run",
		h.serverURL() + "/api/openapi.json", "--no-color", "--warnings", "off", "--seed", "1"}, args...)...)
	cmd.Dir = h.t.TempDir()
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "PYTHONDONTWRITEBYTECODE=1", "PROPERTY_TOKEN="+token, "PROPERTY_ATTEMPT="+string(attempt))
	output, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Errorf("schemathesis %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	_, rest, _ := strings.Cut(string(output), "Test cases:")
	line, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	return fmt.Sprintf("%s, in %s of processor time", line, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Round(time.Second))
}

// countOpenFiles returns how many files and connections the server has open.
func (h *harness) countOpenFiles() int {
	h.t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.cmd.Process.Pid))
	if os.IsNotExist(err) {
		return 0 // not Linux
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return len(files)
}
