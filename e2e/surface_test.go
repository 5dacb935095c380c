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

// outcome is what one question of a program of e2e/clients gave.
type outcome struct {
	Error     string
	Status    int
	Param     string
	Texts     []string
	Ends      []string
	Prompt    int // tokens, as the answer counts them
	Tokens    int
	Pieces    int  // of a stream
	UsageLast bool `json:"usage_last"`
	Scored    []string
	Top       []int
	BelowZero bool `json:"below_zero"`
	Seconds   float64
}

// The models of the house, by the formats of their servers.
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

// TestModelSurface: official clients ask all that they can of one model, by
// its own API of OpenAI, by TGI with the template of a hub, and by an older
// TGI with a template of the configuration. What the model's server answers
// directly is what every way must give.
func TestModelSurface(t *testing.T) {
	m := newModels(t)
	t.Run("counted", m.counted)
	t.Run("unsaid", m.unsaid)
	direct := m.ask(t, "surface.py", m.direct, openaiModel)
	t.Run("openai", func(t *testing.T) {
		t.Parallel()
		m.openai(t, direct)
	})
	t.Run("tgi", func(t *testing.T) {
		t.Parallel()
		m.tgi(t, "surface.py", hubModel, direct)
	})
	t.Run("tgi 1", func(t *testing.T) {
		t.Parallel()
		m.tgi(t, "surface.mjs", ownModel, direct)
	})
}

// models is a house with the services of TestModelSurface.
type models struct {
	*house
	python string
	meters int    // the port of /metrics
	direct string // the model's own endpoint
	tgi3   string // and its TGI's
}

func newModels(t *testing.T) *models {
	m := &models{python: need(t, "python", "DSTACK_TEST_PYTHON"), meters: freePort(t)}
	hub := hubtest.New(t, hubtest.Options{})
	hub.Put(hubtest.Repo{Name: hubModel, Files: map[string]string{"tokenizer_config.json": tokenizerConfig(t)}})
	m.house = newHouse(t, "process", "HF_ENDPOINT="+hub.URL(), "DSTACK_SERVER_LOG_LEVEL=DEBUG",
		fmt.Sprintf("DSTACK_SERVER_METRICS=127.0.0.1:%d", m.meters))
	m.direct = m.serve("llama", "../examples/smollm2", "", "model:\n  type: chat\n  name: "+openaiModel+"\n  format: openai\n") + "/v1"
	m.tgi3 = m.serve("tgi3", "tgi", "3", "model:\n  type: chat\n  name: "+hubModel+"\n  format: tgi\n")
	m.serve("tgi1", "tgi", "1", "model:\n  type: chat\n  name: "+ownModel+"\n  format: tgi\n  eos_token: <|im_end|>\n  chat_template: "+jsonOf(t, smolTemplate)+"\n")
	if n := len(hub.Requests()); n == 0 {
		t.Error("the hub was not asked for the template")
	}
	return m
}

// serve applies a service of a folder with a serve.py, and returns where it
// answers without the gateway.
func (m *models) serve(name, folder, generation, model string) string {
	m.t.Helper()
	dir, port := m.copyOf(folder), freePort(m.t)
	if generation != "" {
		m.copyFile("../examples/smollm2/serve.py", filepath.Join(dir, "smollm2.py"))
	}
	m.write(filepath.Join(dir, "service.dstack.yml"), fmt.Sprintf(
		"type: service\nname: %s\nenv:\n- PORT=%d\n- LLAMA_PORT=%d\n- TGI=%s\n- PYTHON=%s\ncommands:\n- exec $PYTHON serve.py\nport: %d\n%s",
		name, port, freePort(m.t), generation, m.python, port, model))
	if v := m.apply(dir); v.Model == nil {
		m.t.Errorf("the view of %s has no model", name)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}

// tokenizerConfig is that of SmolLM2's repository, as far as we read it.
func tokenizerConfig(t *testing.T) string {
	return jsonOf(t, map[string]any{
		"add_prefix_space": false, "bos_token": "<|im_start|>", "chat_template": smolTemplate, "clean_up_tokenization_spaces": false,
		"eos_token": "<|im_end|>", "model_max_length": 8192, "pad_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer",
		"unk_token": "<|endoftext|>", "vocab_size": 49152,
	})
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// gateway is where all of the house's models answer.
func (m *models) gateway() string { return fmt.Sprintf("http://gateway.localhost:%d/v1", m.port) }

// ask runs a program of e2e/clients and returns what came of each question.
func (m *models) ask(t *testing.T, script, base, model string) map[string]outcome {
	t.Helper()
	program, path := m.python, "clients/"+script
	if strings.HasSuffix(script, ".mjs") {
		program, path = "node", filepath.Join(need(t, "node", "DSTACK_TEST_NODE"), script) // beside its node_modules
		m.in(t).copyFile("clients/"+script, path)
	}
	cmd := exec.CommandContext(t.Context(), program, path, base, m.token, model)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", script, base, err, errOut.String())
	}
	var all map[string]outcome
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return all
}

// openai: through the gateway, every answer is the one that the model's
// server gives. Only what is the gateway's own is not.
func (m *models) openai(t *testing.T, direct map[string]outcome) {
	for _, script := range []string{"surface.py", "surface.mjs"} {
		got := m.ask(t, script, m.gateway(), openaiModel)
		m.own(t, got, openaiModel)
		same(t, script, got, direct, "list", "show", "wrong token", "wrong model")
	}
	t.Run("tokens", m.openaiTokens)
	t.Run("anthropic", m.anthropic)
}

// own checks what the gateway answers by itself.
func (m *models) own(t *testing.T, got map[string]outcome, model string) {
	t.Helper()
	listed := slices.Sorted(slices.Values(got["list"].Texts))
	if want := []string{hubModel, openaiModel, ownModel}; !slices.Equal(listed, want) {
		t.Errorf("the list of models is %q, want %q", listed, want)
	}
	if !slices.Equal(got["show"].Texts, []string{model}) {
		t.Errorf("the model shown is %+v", got["show"])
	}
	fails(t, got, "wrong token", "AuthenticationError", 401)
	fails(t, got, "wrong model", "NotFoundError", 404)
	if after := got["left"]; after.Error != "" || after.Pieces != 3 || after.Seconds > 10 {
		t.Errorf("after a stream was left: %+v", after)
	}
}

func fails(t *testing.T, got map[string]outcome, question, class string, status int) {
	t.Helper()
	if o := got[question]; o.Error != class || o.Status != status {
		t.Errorf("%s: %+v, want %s with %d", question, o, class, status)
	}
}

// same compares all outcomes but some.
func same(t *testing.T, who string, got, want map[string]outcome, but ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s has %d outcomes, want %d", who, len(got), len(want))
	}
	for question, w := range want {
		g := got[question]
		g.Seconds, w.Seconds = 0, 0
		if !slices.Contains(but, question) && !reflect.DeepEqual(g, w) {
			t.Errorf("%s, %s:\ngot  %+v\nwant %+v", who, question, g, w)
		}
	}
}
