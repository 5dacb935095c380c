package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

// What llama.cpp says of a text model whose template has no tools.
const textProps = `{"modalities":{"vision":false,"audio":false},"chat_template":"{{ messages }}","chat_template_caps":{"supports_tools":false}}`

const (
	imageMessage = `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}]`
	textMessage  = `"messages":[{"role":"user","content":"hi"}]`
	oneTool      = `"tools":[{"type":"function","function":{"name":"f"}}]`
)

// llamaServer answers as llama.cpp does.
type llamaServer struct {
	props atomic.Int64 // requests for /props
	says  func(http.ResponseWriter, *http.Request)
}

func (l *llamaServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/props" {
		l.props.Add(1)
		l.says(w, r)
		return
	}
	w.Header().Set("Dstack-Warning", "of the replica")
	w.WriteHeader(http.StatusInternalServerError)
	io.WriteString(w, `{"error":{"code":500}}`)
}

// The caller is told what the model cannot do with its request; the replica's answer
// stays as it is.
func TestWarnings_OfAModelsServer(t *testing.T) {
	llama := &llamaServer{says: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, textProps) }}
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "m", startReplica(t, 0, llama.ServeHTTP)))
	send := func(path, body string) response {
		return r.do(r.newRequest("POST", "http://gateway.localhost/v1"+path, strings.NewReader(body), withToken(member)...))
	}
	if got := send("/chat/completions", `{"model":"m",`+textMessage+`}`); got.Header.Get("Dstack-Warning") != "" || llama.props.Load() != 0 {
		t.Errorf("a text: warned of %q, asked %d times", got.Header.Get("Dstack-Warning"), llama.props.Load())
	}
	for body, want := range map[string]string{
		imageMessage: "this model takes no images",
		textMessage + `,"tool_choice":"required",` + oneTool: "this model's chat template has no tools, so it does not see those of the request, and tool_choice cannot require a call",
	} {
		for range 2 {
			got := send("/chat/completions", `{"model":"m",`+body+`}`)
			if got.StatusCode != 500 || got.body != `{"error":{"code":500}}` || strings.Join(got.Header["Dstack-Warning"], "|") != want {
				t.Errorf("%s: %d %s, warned of %q", body, got.StatusCode, got.body, got.Header["Dstack-Warning"])
			}
		}
	}
	if got := send("/messages", `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{}}]}]}`); got.Header.Get("Dstack-Warning") == "" {
		t.Error("no warning in Anthropic's API")
	}
	if n := llama.props.Load(); n != 1 {
		t.Errorf("the replica was asked %d times for its properties, want once", n)
	}
}

// A server that has no /props, or does not answer, delays one request, and gives no
// warning.
func TestWarnings_OfAnotherServer(t *testing.T) {
	for name, says := range map[string]http.HandlerFunc{
		"none":    http.NotFound,
		"a page":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"loading": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"hangs":   func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			llama := &llamaServer{says: says}
			r := startGateway(t, gateway.Limits{}, modelRoute("m", "m", startReplica(t, 0, llama.ServeHTTP)))
			for range 3 {
				got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions",
					strings.NewReader(`{"model":"m",`+imageMessage+`}`), withToken(member)...))
				if got.StatusCode != 500 || got.Header.Get("Dstack-Warning") != "" {
					t.Errorf("%d, warned of %q", got.StatusCode, got.Header.Get("Dstack-Warning"))
				}
			}
			if n := llama.props.Load(); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

// The gateway itself makes the prompts of these models, so it knows their template.
func TestWarnings_OfATemplateWithoutTools(t *testing.T) {
	for source, want := range map[string]string{
		"{{ messages[0].content }}":                          "this model's chat template has no tools, so it does not see those of the request",
		"{{ messages[0].content }}{% if tools %}{% endif %}": "",
	} {
		model := &tgi{}
		template := &dstack.ChatTemplate{Default: source}
		r := startGateway(t, gateway.Limits{}, tgiRoute("m", template, startReplica(t, 0, model.ServeHTTP)))
		for body, want := range map[string]string{textMessage + "," + oneTool: want, textMessage: "", textMessage + `,"tool_choice":"none",` + oneTool: ""} {
			got := r.sendChat(`{"model":"org/m",` + body + `}`)
			if got.StatusCode != 200 || got.Header.Get("Dstack-Warning") != want {
				t.Errorf("%s, %s: %d, warned of %q", source, body, got.StatusCode, got.Header.Get("Dstack-Warning"))
			}
		}
	}
}
