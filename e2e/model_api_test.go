package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"dstack/internal/hub/hubtest"
)

// clientResult is the result of one question of a program in e2e/clients.
type clientResult struct {
	Error     string
	Status    int
	Param     string
	Texts     []string
	Ends      []string
	Prompt    int // tokens, as the response reports them
	Tokens    int
	Pieces    int  // of a stream
	UsageLast bool `json:"usage_last"`
	Scored    []string
	Top       []int
	BelowZero bool `json:"below_zero"`
	Seconds   float64
}

// The models of TestModelAPI.
const (
	openaiModel = "smollm2"
	hubModel    = "HuggingFaceTB/SmolLM2-135M-Instruct"
	ownModel    = "smollm2-tgi"
)

// smolTemplate is the chat template of SmolLM2's repository.
const smolTemplate = `{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}`

// TestModelAPI asks one model with official clients in three ways: by its own OpenAI
// API, by TGI with the chat template of a hub, and by an older TGI with a chat
// template in the configuration. All ways must give the results of the model's
// server.
func TestModelAPI(t *testing.T) {
	runParallel(t)
	m := newModelHarness(t)
	t.Run("counted", m.testMetrics)
	t.Run("counted for llama.cpp", m.testLlamaTokens)
	t.Run("warned", m.testLlamaWarnings)
	t.Run("unsaid", m.testLogPrivacy)
	direct := m.runClient(t, "surface.py", m.directURL, openaiModel)
	t.Run("openai", func(t *testing.T) {
		t.Parallel()
		m.testOpenAI(t, direct)
	})
	t.Run("tgi", func(t *testing.T) {
		t.Parallel()
		m.testTGI(t, "surface.py", hubModel, direct)
	})
	t.Run("tgi 1", func(t *testing.T) {
		t.Parallel()
		m.testTGI(t, "surface.mjs", ownModel, direct)
	})
}

// modelHarness is a harness with the services of TestModelAPI.
type modelHarness struct {
	*harness
	python      string
	metricsPort int    // the port of /metrics
	directURL   string // the endpoint of the model's server
	tgiURL      string // the endpoint of TGI
}

func newModelHarness(t *testing.T) *modelHarness {
	m := &modelHarness{python: needPiece(t, "python", "DSTACK_TEST_PYTHON"), metricsPort: findFreePort(t)}
	hub := hubtest.New(t, hubtest.Options{})
	hub.Put(hubtest.Repo{Name: hubModel, Files: map[string]string{"tokenizer_config.json": tokenizerConfig(t)}})
	m.harness = newHarness(t, "process", "HF_ENDPOINT="+hub.URL(), "DSTACK_SERVER_LOG_LEVEL=DEBUG",
		fmt.Sprintf("DSTACK_SERVER_METRICS=127.0.0.1:%d", m.metricsPort))
	m.directURL = m.serveModel("llama", "../examples/smollm2", "", "model:\n  type: chat\n  name: "+openaiModel+"\n  format: openai\n") + "/v1"
	m.tgiURL = m.serveModel("tgi3", "tgi", "3", "model:\n  type: chat\n  name: "+hubModel+"\n  format: tgi\n")
	m.serveModel("tgi1", "tgi", "1", "model:\n  type: chat\n  name: "+ownModel+"\n  format: tgi\n  eos_token: <|im_end|>\n  chat_template: "+encodeJSON(t, smolTemplate)+"\n")
	if n := len(hub.Requests()); n == 0 {
		t.Error("the gateway did not request the template from the hub")
	}
	return m
}

// serveModel applies a service of a folder with a serve.py, and returns its address
// without the gateway.
func (m *modelHarness) serveModel(name, folder, generation, model string) string {
	m.t.Helper()
	dir, port := m.copyFolder(folder), findFreePort(m.t)
	if generation != "" {
		m.copyFile("../examples/smollm2/serve.py", filepath.Join(dir, "smollm2.py"))
	}
	m.writeFile(filepath.Join(dir, "service.dstack.yml"), fmt.Sprintf(
		"type: service\nname: %s\nenv:\n- PORT=%d\n- LLAMA_PORT=%d\n- TGI=%s\n- PYTHON=%s\ncommands:\n- exec $PYTHON serve.py\nport: %d\n%s",
		name, port, findFreePort(m.t), generation, m.python, port, model))
	if v := m.applyAndWait(dir); v.Model == nil {
		m.t.Errorf("the view of %s has no model", name)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}

// tokenizerConfig returns those fields of SmolLM2's tokenizer_config.json that the
// gateway reads.
func tokenizerConfig(t *testing.T) string {
	return encodeJSON(t, map[string]any{
		"add_prefix_space": false, "bos_token": "<|im_start|>", "chat_template": smolTemplate, "clean_up_tokenization_spaces": false,
		"eos_token": "<|im_end|>", "model_max_length": 8192, "pad_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer",
		"unk_token": "<|endoftext|>", "vocab_size": 49152,
	})
}

func encodeJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// gatewayURL returns the base URL of all models.
func (m *modelHarness) gatewayURL() string {
	return fmt.Sprintf("http://gateway.localhost:%d/v1", m.port)
}

// runClient runs a program of e2e/clients and returns its results by question.
func (m *modelHarness) runClient(t *testing.T, script, base, model string) map[string]clientResult {
	t.Helper()
	program, path := m.python, "clients/"+script
	if strings.HasSuffix(script, ".mjs") {
		program, path = "node", filepath.Join(needPiece(t, "node", "DSTACK_TEST_NODE"), script) // beside its node_modules
		m.withT(t).copyFile("clients/"+script, path)
	}
	cmd := exec.CommandContext(t.Context(), program, path, base, m.token, model)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", script, base, err, errOut.String())
	}
	var all map[string]clientResult
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return all
}

// testOpenAI checks that the gateway forwards the responses of the model's server
// unchanged, except for responses that the gateway makes itself.
func (m *modelHarness) testOpenAI(t *testing.T, direct map[string]clientResult) {
	for _, script := range []string{"surface.py", "surface.mjs"} {
		got := m.runClient(t, script, m.gatewayURL(), openaiModel)
		m.expectGatewayResults(t, got, openaiModel)
		expectSameResults(t, script, got, direct, "list", "show", "wrong token", "wrong model")
	}
	t.Run("tokens", m.testOpenAITokens)
	t.Run("anthropic", m.testAnthropic)
}

// expectGatewayResults checks the results that the gateway makes itself.
func (m *modelHarness) expectGatewayResults(t *testing.T, got map[string]clientResult, model string) {
	t.Helper()
	listed := slices.Sorted(slices.Values(got["list"].Texts))
	if want := []string{hubModel, openaiModel, ownModel}; !slices.Equal(listed, want) {
		t.Errorf("the list of models is %q, want %q", listed, want)
	}
	if !slices.Equal(got["show"].Texts, []string{model}) {
		t.Errorf("the model shown is %+v", got["show"])
	}
	expectFailure(t, got, "wrong token", "AuthenticationError", 401)
	expectFailure(t, got, "wrong model", "NotFoundError", 404)
	if after := got["left"]; after.Error != "" || after.Pieces != 3 || after.Seconds > 10 {
		t.Errorf("after a canceled stream: %+v", after)
	}
}

func expectFailure(t *testing.T, got map[string]clientResult, question, class string, status int) {
	t.Helper()
	if o := got[question]; o.Error != class || o.Status != status {
		t.Errorf("%s: %+v, want %s with %d", question, o, class, status)
	}
}

// expectSameResults compares all results except those of some questions.
func expectSameResults(t *testing.T, program string, got, want map[string]clientResult, except ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s has %d results, want %d", program, len(got), len(want))
	}
	for question, w := range want {
		g := got[question]
		g.Seconds, w.Seconds = 0, 0
		if !slices.Contains(except, question) && !reflect.DeepEqual(g, w) {
			t.Errorf("%s, %s:\ngot  %+v\nwant %+v", program, question, g, w)
		}
	}
}
