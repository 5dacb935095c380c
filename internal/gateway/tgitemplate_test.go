package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

// The BOS token of the replica's template is left to the replica as well.
func TestTGI_TokensOfTheReplica(t *testing.T) {
	said := &tgi{info: `{"chat_template":"{{ bos_token }}<{{ messages[0].content }}>","eos_token":"</s>","bos_token":"<s>"}`}
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", nil, startReplica(t, 0, said.ServeHTTP)))
	for range 2 {
		if got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`); got.StatusCode != 200 {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
		if asked := said.last.Load().(string); !strings.Contains(asked, `"inputs":"<hi>"`) || !strings.Contains(asked, `"stop":["</s>"]`) {
			t.Errorf("the replica was asked %s", asked)
		}
	}
}

// The template of a replica is not used for another run or replica.
func TestTGI_TemplateOfTheReplicaChanges(t *testing.T) {
	first := &tgi{info: `{"chat_template":"first {{ loud }} {{ messages[0].content }}"}`}
	second := &tgi{info: `{"chat_template":"second {{ loud }} {{ messages[0].content }}"}`}
	loud := &dstack.ChatTemplate{Kwargs: json.RawMessage(`{"loud":"LOUD"}`)}
	one, two := startReplica(t, 0, first.ServeHTTP), startReplica(t, 1, second.ServeHTTP)
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", nil, one))
	for _, c := range []struct {
		route route.Route
		asked *tgi
		want  string
	}{
		{tgiRoute("m", nil, one), first, "first  hi"},
		{tgiRoute("m", loud, one), first, "first LOUD hi"},
		{tgiRoute("m", loud, two), second, "second LOUD hi"},
	} {
		r.plane.setRoutes(c.route)
		c.asked.last.Store("")
		waitUntil(t, c.want, func() bool {
			r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`)
			return strings.Contains(c.asked.last.Load().(string), c.want)
		})
	}
}

// A replica without a template is not asked again for every request.
func TestTGI_NoTemplate(t *testing.T) {
	var infos atomic.Int64
	mute := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		infos.Add(1)
		io.WriteString(w, `{"model_id":"org/m"}`)
	})
	for _, c := range []struct {
		up   route.Target
		says string
	}{{mute, "its replica reports none"}, {targetAt("127.0.0.1:1", 0), "its replica is unreachable"}} {
		r := startGateway(t, gateway.Limits{}, tgiRoute("m", nil, c.up))
		for range 3 {
			got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`)
			if got.StatusCode != 502 || !strings.Contains(got.body, "no_chat_template") || !strings.Contains(got.body, c.says) || !strings.Contains(got.body, "write model.chat_template") {
				t.Errorf("%d %s, want: %s", got.StatusCode, got.body, c.says)
			}
		}
	}
	if n := infos.Load(); n != 1 {
		t.Errorf("the replica was asked %d times, want once", n)
	}
}

// A broken template is not reported as an error of the request.
func TestTGI_BrokenTemplate(t *testing.T) {
	said := &tgi{}
	for name, wrong := range map[string]*dstack.ChatTemplate{
		"it does not compile":  chatTemplate("{% for %}"),
		"only one with a name": {Named: []dstack.NamedTemplate{{Name: "rag", Source: "a"}}},
	} {
		r := startGateway(t, gateway.Limits{}, tgiRoute("m", wrong, startReplica(t, 0, said.ServeHTTP)))
		got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`)
		if got.StatusCode != 502 || !strings.Contains(got.body, "invalid_chat_template") {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
}

// A prompt is not sent to another run of the model that has another template.
func TestTGI_AnotherRunsTemplate(t *testing.T) {
	other := &tgi{}
	dead := tgiRoute("a", chatTemplate("first {{ messages[0].content }}"), targetAt("127.0.0.1:1", 0))
	r := startGateway(t, gateway.Limits{}, dead, tgiRoute("b", chatTemplate("second {{ messages[0].content }}"), startReplica(t, 0, other.ServeHTTP)))
	for range 8 {
		got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`)
		if asked, _ := other.last.Load().(string); strings.Contains(asked, "first") {
			t.Fatalf("the other run was asked %s", asked)
		}
		if got.StatusCode != 200 && got.StatusCode != 503 {
			t.Errorf("%d %s", got.StatusCode, got.body)
		}
	}
}

// A conversation goes on after a tool call without arguments, and the reasoning
// of an answer reaches the template under the name that it reads.
func TestTGI_ConversationAfterAToolCall(t *testing.T) {
	const source = "{% for m in messages %}{{ m.reasoning_content }}{% for c in m.tool_calls or [] %}" +
		"[{% for k, v in c.function.arguments | items %}{{ k }}={{ v }}{% endfor %}]{% endfor %}{% endfor %}"
	asked := &tgi{}
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(source), startReplica(t, 0, asked.ServeHTTP)))
	chat := func(arguments string) response {
		return r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,"reasoning":"R",` +
			`"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":` + arguments + `}}]}]}`)
	}
	for arguments, want := range map[string]string{`""`: "R[]", `"{\"a\": 1}"`: "R[a=1]"} {
		if got := chat(arguments); got.StatusCode != 200 || !strings.Contains(asked.last.Load().(string), `"inputs":"`+want+`"`) {
			t.Errorf("%s: %d %s; the replica was asked %v", arguments, got.StatusCode, got.body, asked.last.Load())
		}
	}
	if got := chat(`"nothing"`); got.StatusCode != 400 || !strings.Contains(got.body, `"param":"messages[1].tool_calls[0].function.arguments"`) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// The failure of a replica is not called the caller's.
func TestTGI_FailureOfTheReplica(t *testing.T) {
	up := startReplica(t, 0, serveStatus(424, "application/json", `{"error":"CUDA out of memory","error_type":"generation"}`))
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(chatml), up))
	got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`)
	if got.StatusCode != 424 || !strings.Contains(got.body, `"type":"server_error"`) || !strings.Contains(got.body, "CUDA out of memory") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// Clients send back an answer with null for what it did not have. As in transformers,
// the template does not see that.
func TestTGI_NullFields(t *testing.T) {
	model := &tgi{}
	template := &dstack.ChatTemplate{Default: `{% for m in messages %}{% if 'tool_calls' in m and m.tool_calls|length > 0 %}CALL{% endif %}{{ m.content }}{% endfor %}`}
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", template, startReplica(t, 0, model.ServeHTTP)))
	got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"X"},{"role":"assistant","content":"Y","tool_calls":null,` +
		`"function_call":null,"audio":null,"annotations":null,"refusal":null},{"role":"user","content":"Z"}]}`)
	if asked, _ := model.last.Load().(string); got.StatusCode != 200 || !strings.Contains(asked, `"inputs":"XYZ"`) {
		t.Errorf("%d %s; the replica was asked %s", got.StatusCode, got.body, asked)
	}
}
