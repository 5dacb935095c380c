package cli

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"dstack/internal/dstack"
)

// withTemplates writes templates and messages into the current folder.
func (u *testUser) withTemplates() *testUser {
	u.writeFile("t.jinja", "{%- for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}")
	u.writeFile("vars.jinja", "{{ bos_token }}|{{ eos_token }}|{{ tools | tojson }}|{{ x }}|{{ add_generation_prompt }}|{{ strftime_now('%Y-%m-%d %H') }}")
	u.writeFile("wrong.jinja", "a\nb\n{{ messages + 1 }}")
	u.writeFile("broken.jinja", "a\n{% for %}")
	u.writeFile("raises.jinja", "{% if messages | length > 1 %}\n{{ raise_exception('only one message') }}{% endif %}fine")
	u.writeFile("bomb.jinja", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
	u.writeFile("one.json", `[{"role": "user", "content": "Hi <b>"}]`)
	u.writeFile("two.json", `[{"role": "user", "content": "1"}, {"role": "user", "content": "2"}]`)
	u.writeFile("whole.json", `{"messages": [{"role": "user", "content": "Hi"}], "bos_token": "<s>", "eos_token": "</s>", "x": {"b": 1, "a": 2.0}, "add_generation_prompt": false, "tools": null}`)
	u.writeFile("defined.jinja", "{{ tools is defined }} {{ tools is none or tools is iterable }} {{ documents is none }} {{ missing is defined }}")
	u.writeFile("reasoning.jinja", "{% for m in messages %}{{ m.reasoning_content | default('-') }}/{{ m.thinking | default('-') }},{% endfor %}")
	u.writeFile("reasons.json", `{"messages": [{"role": "assistant", "content": "b", "reasoning": "R"}, {"role": "assistant", "reasoning_content": "S"},
		{"role": "assistant", "thinking": "T"}, {"role": "assistant", "thinking": "V", "reasoning_content": "U", "reasoning": "W"},
		{"role": "assistant", "content": "b"}]}`)
	u.writeFile("tools.json", `[{"type": "function", "b": 1, "a": 2.0}]`)
	u.writeFile("text.json", `"Hi"`)
	u.writeFile("cut.json", `[{"role"`)
	return u
}

func TestTemplateRender(t *testing.T) {
	now := " --now 2024-07-26T12:34:56"
	for _, c := range []struct{ name, typed, out string }{
		{"a list, byte for byte, without a newline", "--chat-template t.jinja --messages one.json", "[user]Hi <b>\n[assistant]"},
		{"the answer is not begun", "--chat-template t.jinja --messages one.json --no-generation-prompt", "[user]Hi <b>\n"},
		{"several, one after the other", "--chat-template t.jinja --messages one.json --messages whole.json", "[user]Hi <b>\n[assistant][user]Hi\n"},
		{"what a list leaves out", "--chat-template vars.jinja --messages one.json" + now, "||null||True|2024-07-26 12"},
		{"a whole context", "--chat-template vars.jinja --messages whole.json" + now, "<s>|</s>|null|{'b': 1, 'a': 2.0}|False|2024-07-26 12"},
		{"what an object leaves out", "--chat-template defined.jinja --messages whole.json", "True True True False"},
		{"reasoning by any of its names", "--chat-template reasoning.jinja --messages reasons.json", "R/R,S/S,T/T,U/V,-/-,"},
		{"flags win", "--chat-template vars.jinja --messages whole.json --bos-token B --eos-token= --tools tools.json --kwargs {\"x\":true}" + now,
			`B||[{"type": "function", "b": 1, "a": 2.0}]|True|False|2024-07-26 12`},
	} {
		u := newTestUser(t, nil).withTemplates()
		got := u.run(append([]string{"template", "render"}, strings.Fields(c.typed)...)...)
		if got.code != ExitDone || got.out != c.out || got.err != "" {
			t.Errorf("%s: exit status %d, %s\n%q, want\n%q", c.name, got.code, got.err, got.out, c.out)
		}
	}
}

func TestTemplateRender_ReportsErrors(t *testing.T) {
	for _, c := range []struct{ typed, says string }{
		{"--chat-template wrong.jinja --messages one.json", "error: wrong.jinja, line 3: TypeError: can only concatenate list (not \"int\") to list\n"},
		{"--chat-template broken.jinja --messages one.json", "error: broken.jinja, line 2: Expected an expression"},
		{"--chat-template raises.jinja --messages two.json", "error: raises.jinja, line 2: only one message\n"},
		{"--chat-template bomb.jinja --messages one.json", "error: bomb.jinja, line 1: "},
		{"--chat-template t.jinja", "give --messages FILE"},
		{"--messages one.json", "either --chat-template FILE or --model NAME"},
		{"--messages one.json --model a/b --chat-template t.jinja", "either --chat-template FILE or --model NAME"},
		{"--chat-template t.jinja --messages none.json", "cannot read none.json: no such file"},
		{"--chat-template none.jinja --messages one.json", "cannot read none.jinja: no such file"},
		{"--chat-template t.jinja --messages cut.json", "--messages: cut.json is not JSON"},
		{"--chat-template t.jinja --messages text.json", "text.json is neither a list of messages nor an object"},
		{"--chat-template t.jinja --messages one.json --tools whole.json", "--tools: whole.json is not a list"},
		{"--chat-template t.jinja --messages one.json --kwargs [1]", "--kwargs: [1] is not a JSON object"},
		{"--chat-template t.jinja --messages one.json --now today", "--now: today is not a time"},
		{"--chat-template t.jinja one.json", "unexpected argument `one.json`"},
		{"--chat-template t.jinja --mesages one.json", "did you mean `--messages`?"},
		{"--model a/b --messages one.json", "this dstack has no hub"},
	} {
		got := newTestUser(t, nil).withTemplates().run(append([]string{"template", "render"}, strings.Fields(c.typed)...)...)
		if got.code != ExitInvalid || got.out != "" || !strings.Contains(got.err, c.says) {
			t.Errorf("%s: exit status %d\n%s%s\nwant %s", c.typed, got.code, got.out, got.err, c.says)
		}
	}
}

func TestTemplateRender_PrintsAnObjectPerFileAsJSON(t *testing.T) {
	u := newTestUser(t, nil).withTemplates()
	got := u.run("template", "render", "--chat-template", "raises.jinja", "-o", "json",
		"--messages", "one.json", "--messages", "two.json", "--messages", "whole.json")
	var results []renderResult
	if err := json.Unmarshal([]byte(got.out), &results); err != nil || len(results) != 3 {
		t.Fatalf("%v: %s", err, got.out)
	}
	if got.code != ExitInvalid || got.err != "" {
		t.Errorf("exit status %d, stderr %q; one file failed and the JSON has its error", got.code, got.err)
	}
	for _, i := range []int{0, 2} {
		if results[i].Output == nil || *results[i].Output != "fine" || results[i].Error != nil {
			t.Errorf("file %d gives %+v", i, results[i])
		}
	}
	if want := (renderError{"raise", "only one message", 2}); results[1].Output != nil || *results[1].Error != want {
		t.Errorf("the second gives %+v, want %+v", results[1].Error, want)
	}
	for file, kind := range map[string]string{"broken.jinja": "syntax", "wrong.jinja": "runtime", "bomb.jinja": "limit"} {
		got := u.run("template", "render", "--chat-template", file, "-o", "json", "--messages", "one.json")
		if !strings.Contains(got.out, `"kind": "`+kind+`"`) || got.code != ExitInvalid {
			t.Errorf("%s gives %d: %s, want an error of kind %s", file, got.code, got.out, kind)
		}
	}
}

func TestTemplateRender_UsesTheTemplateOfAModel(t *testing.T) {
	u := newTestUser(t, nil).withTemplates()
	u.env["HF_TOKEN"] = "secret"
	asked := func(_ context.Context, model string, tokens []string) (dstack.ChatTemplate, error) {
		if !slices.Equal(tokens, []string{"secret"}) {
			t.Errorf("the hub is asked with the tokens %q", tokens)
		}
		if model != "org/model" {
			return dstack.ChatTemplate{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no " + model}
		}
		return dstack.ChatTemplate{Default: "{{ bos_token }}{{ messages[0].content }}", Tokens: map[string]string{"bos_token": "<s>"},
			Named: []dstack.NamedTemplate{{Name: "tool_use", Source: "{{ tools | length }} tools"}}}, nil
	}
	u.hub = asked
	for _, c := range []struct{ more, out string }{{"", "<s>Hi <b>"}, {"--bos-token=B", "BHi <b>"}, {"--tools=tools.json", "1 tools"}} {
		args := append([]string{"template", "render", "--model", "org/model", "--messages", "one.json"}, strings.Fields(c.more)...)
		if got := u.run(args...); got.out != c.out || got.code != ExitDone {
			t.Errorf("%s: %+v, want %s", c.more, got, c.out)
		}
	}
	u.hub = func(context.Context, string, []string) (dstack.ChatTemplate, error) {
		return dstack.ChatTemplate{Named: []dstack.NamedTemplate{{Name: "rag", Source: "a"}}}, nil
	}
	if got := u.run("template", "render", "--model", "org/model", "--messages", "one.json", "-o", "json"); got.code != ExitInvalid || !strings.Contains(got.out, "none of them is the default") {
		t.Errorf("only a template with a name: %+v", got)
	}
	u.hub = asked
	u.run("template", "render", "--model", "no/model", "--messages", "one.json").check(t, exitCode(&dstack.Error{Kind: dstack.NotFound}), nil, []string{"there is no no/model"})
	u.hub = func(context.Context, string, []string) (dstack.ChatTemplate, error) {
		return dstack.ChatTemplate{}, errors.New("broken")
	}
	u.run("template", "render", "--model", "no/model", "--messages", "one.json").check(t, ExitFailed, nil, []string{"broken"})
}
