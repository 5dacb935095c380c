package server

import (
	"net/http"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/hub"
	"dstack/internal/hub/hubtest"
)

const tgiService = "type: service\nport: 8000\nimage: tgi\n"

// newTestServerWithHub returns a test server and its hub, which has some
// models.
func newTestServerWithHub(t *testing.T) (*testServer, *hubtest.Hub) {
	t.Helper()
	h := hubtest.New(t, hubtest.Options{})
	h.Put(hubtest.Repo{Name: "org/m", Files: map[string]string{"tokenizer_config.json": `{"chat_template": "{{ bos_token }}{{ messages }}", "eos_token": {"content": "</s>"}, "bos_token": "<s>", "add_bos_token": false}`}})
	h.Put(hubtest.Repo{Name: "org/plain", Files: map[string]string{"tokenizer_config.json": `{"eos_token": "</p>"}`}})
	h.Put(hubtest.Repo{Name: "org/broken", Files: map[string]string{"chat_template.jinja": "a\n{% if %}"}})
	h.Put(hubtest.Repo{Name: "org/gated", Gated: true, Readers: []string{"reader"}, Files: map[string]string{"tokenizer_config.json": `{"chat_template": "gated"}`}})
	h.Account("reader")
	h.Account("stranger")
	client, err := hub.New(hub.Options{Base: h.URL(), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return newTestServer(t, func(o *Options) { o.Hub = client }), h
}

func TestResolveTemplate(t *testing.T) {
	h, models := newTestServerWithHub(t)
	for _, c := range []struct {
		name, yaml           string
		template, from, note string
		tokens               map[string]string
		refused              string
	}{
		{name: "from the repository", yaml: "model: {type: chat, name: org/m, format: tgi}", template: "{{ bos_token }}{{ messages }}", from: "org/m at ", tokens: map[string]string{"eos_token": "</s>", "bos_token": "<s>"}},
		{name: "from the configuration", yaml: "model: {type: chat, name: nobody/s, format: tgi, chat_template: own, eos_token: E}", template: "own", from: "the configuration", tokens: map[string]string{"eos_token": "E"}},
		{name: "the configuration's template, the repository's tokens", yaml: "model: {type: chat, name: org/m, format: tgi, chat_template: '{{ bos_token }}'}", template: "{{ bos_token }}", from: "the configuration", tokens: map[string]string{"eos_token": "</s>", "bos_token": "<s>"}},
		{name: "the configuration's token wins", yaml: "model: {type: chat, name: org/m, format: tgi, eos_token: E}", template: "{{ bos_token }}{{ messages }}", from: "org/m", tokens: map[string]string{"eos_token": "E", "bos_token": "<s>"}},
		{name: "unknown tokens", yaml: "model: {type: chat, name: nobody/s, format: tgi, chat_template: own}", template: "own", note: "the special tokens of nobody/s are not known"},
		{name: "the model that the run loads", yaml: "model: {type: chat, name: my-model, format: tgi}\nenv: [MODEL_ID=org/m]", template: "{{ bos_token }}{{ messages }}", from: "org/m"},
		{name: "the repository has no template", yaml: "model: {type: chat, name: org/plain, format: tgi}", note: "its replicas will be asked"},
		{name: "no such model", yaml: "model: {type: chat, name: nobody/s, format: tgi}", note: "write model.chat_template"},
		{name: "a template of the repository that does not compile", yaml: "model: {type: chat, name: org/broken, format: tgi}", refused: "does not compile: line 2"},
		{name: "a template of the configuration that does not compile", yaml: "model: {type: chat, name: a, format: tgi, chat_template: '{{', eos_token: E}", refused: "the chat template of the configuration does not compile: line 1"},
		{name: "gated, without a token", yaml: "model: {type: chat, name: org/gated, format: tgi}", refused: "org/gated"},
		{name: "gated, with HF_TOKEN", yaml: "model: {type: chat, name: org/gated, format: tgi}\nenv: [HF_TOKEN=reader]", template: "gated"},
		{name: "gated, with the old name of the variable", yaml: "model: {type: chat, name: org/gated, format: tgi}\nenv: [HUGGING_FACE_HUB_TOKEN=reader]", template: "gated"},
		{name: "gated, with a token without access", yaml: "model: {type: chat, name: org/gated, format: tgi}\nenv: [HF_TOKEN=stranger]", refused: "org/gated"},
		{name: "another format", yaml: "model: org/m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := testSpec(t, tgiService+c.yaml+"\n").Configuration
			got, notes, err := h.server.resolveTemplate(t.Context(), conf)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) || dstack.KindOf(err) != dstack.Invalid {
					t.Errorf("got %+v, notes %v, error %v", got, notes, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(notes, "\n")
			if (c.note == "") != (all == "") || !strings.Contains(all, c.note) {
				t.Errorf("the notes are %q, want %q", all, c.note)
			}
			if got == nil {
				if c.template != "" || c.note != "" {
					t.Errorf("got no template")
				}
				return
			}
			if got.Default != c.template || !strings.HasPrefix(got.Source, c.from) {
				t.Errorf("got %q from %q", got.Default, got.Source)
			}
			for name, token := range c.tokens {
				if got.Tokens[name] != token {
					t.Errorf("the tokens are %v, want %v", got.Tokens, c.tokens)
				}
			}
		})
	}
	models.Fail(hubtest.Fault{Status: http.StatusBadGateway})
	conf := testSpec(t, tgiService+"model: {type: chat, name: org/other, format: tgi}\n").Configuration
	if _, notes, err := h.server.resolveTemplate(t.Context(), conf); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "its replicas will be asked") {
		t.Errorf("a hub that fails: %v, %v", notes, err)
	}
}

// The template is stored with the run, and is in its wire form and its route.
func TestSubmit_StoresTheTemplate(t *testing.T) {
	h, _ := newTestServerWithHub(t)
	h.initRepo()
	var plan api.Preview
	rs := h.newRunSpec("web", tgiService+"model: {type: chat, name: org/m, format: tgi}\n")
	h.mustCall("/api/project/main/runs/preview", api.RunSpecRequest{RunSpec: rs}, &plan)
	var run api.Run
	h.mustCall("/api/project/main/runs/submit", api.RunSpecRequest{RunSpec: rs}, &run)
	text := h.callAs(h.admin, "/api/project/main/runs/get", api.RunName{RunName: "web"}).text
	if !strings.Contains(text, `"options":{"openai":{"model":{"type":"chat","name":"org/m","format":"tgi","chat_template":"{{ bos_token }}{{ messages }}","eos_token":"</s>"}}}`) {
		t.Errorf("the wire has %s", text)
	}
	table, err := h.server.Table(t.Context(), 0)
	if err != nil || len(table.Routes) != 1 || table.Routes[0].Template == nil || !table.Routes[0].Template.OnlyTemplateAddsBOS {
		t.Errorf("the table is %+v, %v", table.Routes, err)
	}
	h.expectError("/api/project/main/runs/get_plan", api.RunSpecRequest{RunSpec: h.newRunSpec("web2", tgiService+"model: {type: chat, name: org/gated, format: tgi}\n")}, 400, dstack.Invalid, "org/gated")
}
