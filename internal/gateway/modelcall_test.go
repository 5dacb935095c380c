package gateway_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
)

func TestModels_PassByteForByte(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.RequestURI)
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength, r.TransferEncoding))
		w.Header().Set("Access-Control-Allow-Origin", "https://only.this")
		w.WriteHeader(http.StatusTeapot)
		w.Write(body)
	})
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m", up))
	body := "{ \"unknown\" : [1.50, {\"é\":\"\\u00e9\"}],\n\t\"model\":\"org\\/m\", \"tools\":[] }\n"
	for url, path := range map[string]string{
		"http://gateway.localhost/chat/completions":                  "/v1/chat/completions",
		"http://gateway.localhost/v1/chat/completions?x=1;y":         "/v1/chat/completions?x=1;y",
		"http://gateway.localhost/v1/completions":                    "/v1/completions",
		"http://gateway.localhost/embeddings":                        "/v1/embeddings",
		"http://gateway.main.localhost/v1/embeddings":                "/v1/embeddings",
		"http://127.0.0.1/proxy/models/main/v1/chat/completions":     "/v1/chat/completions",
		"http://127.0.0.1/proxy/models/Main/chat/completions":        "/v1/chat/completions",
		"http://gateway.localhost:3000/v1/chat/completions?api=true": "/v1/chat/completions?api=true",
		"http://127.0.0.1:3000/v1/chat/completions":                  "/v1/chat/completions",
		"http://dstack.example.com/v1/embeddings?x=1":                "/v1/embeddings?x=1",
		"http://127.0.0.1:3000/v1/chat/completions/":                 "/v1/chat/completions",
		"http://gateway.localhost/v1/completions/":                   "/v1/completions",
		"http://127.0.0.1/proxy/models/main/v1/responses/":           "/v1/responses",
		"http://127.0.0.1:3000/v1/v1/messages":                       "/v1/messages",
	} {
		for _, chunked := range []bool{false, true} {
			var in io.Reader = strings.NewReader(body)
			if chunked {
				in = io.MultiReader(in)
			}
			got := r.do(r.newRequest("POST", url, in, withToken(member)...))
			if got.StatusCode != http.StatusTeapot || got.body != body || got.Header.Get("X-Path") != path {
				t.Errorf("%s: %d %q at %s", url, got.StatusCode, got.body, got.Header.Get("X-Path"))
			}
			if want := fmt.Sprint(len(body), []string(nil)); got.Header.Get("X-Length") != want {
				t.Errorf("%s: length %s, want %s", url, got.Header.Get("X-Length"), want)
			}
			if cors := got.Header["Access-Control-Allow-Origin"]; len(cors) != 1 || cors[0] != "*" {
				t.Errorf("%s: CORS %v", url, cors)
			}
		}
	}
}

func TestModels_PrefixOfTheReplica(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
	for prefix, want := range map[string]string{"": "/embeddings", "/": "/embeddings", "/v1": "/v1/embeddings", "/a/b/": "/a/b/embeddings"} {
		m := modelRoute("m", "m", up)
		m.Prefix = prefix
		r := startGateway(t, gateway.Limits{}, m)
		if got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/embeddings", strings.NewReader(`{"model":"m"}`), withToken(member)...)); got.body != want {
			t.Errorf("prefix %q: %s", prefix, got.body)
		}
	}
}

func TestModels_Listed(t *testing.T) {
	one, two := modelRoute("one", "org/one"), modelRoute("two", "two:8b")
	one.Since, two.Since = 20, 10
	one.State, two.State = "starting: loading", "starting: loading"
	copied, theirs := modelRoute("copy", "org/one"), modelRoute("theirs", "secret")
	copied.Since, theirs.Project = 30, "team"
	r := startGateway(t, gateway.Limits{}, one, two, copied, theirs, serviceRoute("plain"))
	for _, url := range []string{"http://gateway.localhost/models", "http://gateway.localhost/v1/models", "http://x/proxy/models/main/v1/models"} {
		got := r.get(url, withToken(member)...)
		want := `{"object":"list","data":[{"id":"two:8b","object":"model","created":10,"owned_by":"main","status":"starting: loading"},{"id":"org/one","object":"model","created":20,"owned_by":"main","status":"starting: loading"}]}`
		if got.StatusCode != 200 || strings.TrimSpace(got.body) != want {
			t.Errorf("%s: %d %s", url, got.StatusCode, got.body)
		}
	}
	for _, url := range []string{"http://gateway.localhost/models/org/one", "http://gateway.localhost/v1/models/org%2Fone"} {
		got := r.get(url, withToken(member)...)
		if got.StatusCode != 200 || strings.TrimSpace(got.body) != `{"id":"org/one","object":"model","created":20,"owned_by":"main","status":"starting: loading"}` {
			t.Errorf("%s: %d %s", url, got.StatusCode, got.body)
		}
	}
	if got := r.get("http://gateway.team.localhost/models", withToken(other)...); !strings.Contains(got.body, "secret") {
		t.Errorf("theirs: %s", got.body)
	}
}

func TestModels_Errors(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	free := modelRoute("free", "free", up)
	free.Auth = false
	theirs := modelRoute("theirs", "secret", up)
	theirs.Project = "team"
	r := startGateway(t, gateway.Limits{MaxBody: 1 << 20}, free, theirs)
	good := `{"model":"free"}`
	cases := []struct {
		name, method, url, body string
		header                  []string
		status                  int
		code                    string
	}{
		{"all is well", "POST", "/v1/completions", good, withToken(member), 200, ""},
		{"no token, though the service asks for none", "POST", "/v1/completions", good, nil, 401, "invalid_api_key"},
		{"wrong token", "GET", "/v1/models", "", withToken("wrong"), 401, "invalid_api_key"},
		{"other's token", "GET", "/v1/models", "", withToken(other), 403, "forbidden"},
		{"no token, no path", "GET", "/metrics", "", nil, 401, "invalid_api_key"},
		{"no path", "GET", "/metrics", "", withToken(member), 404, "not_found"},
		{"wrong method", "GET", "/v1/completions", "", withToken(member), 405, "method_not_allowed"},
		{"wrong method", "POST", "/v1/models", good, withToken(member), 405, "method_not_allowed"},
		{"unknown model", "POST", "/v1/completions", `{"model":"x"}`, withToken(member), 404, "model_not_found"},
		{"another project's model", "POST", "/v1/completions", `{"model":"secret"}`, withToken(member), 404, "model_not_found"},
		{"unknown model shown", "GET", "/v1/models/x", "", withToken(member), 404, "model_not_found"},
		{"no model", "POST", "/v1/completions", `{"messages":[]}`, withToken(member), 400, "invalid_request"},
		{"not JSON", "POST", "/v1/completions", `model=free`, withToken(member), 400, "invalid_request"},
		{"empty", "POST", "/v1/completions", ``, withToken(member), 400, "invalid_request"},
		{"compressed", "POST", "/v1/completions", good, append(withToken(member), "Content-Encoding", "gzip"), 415, "unsupported_content_encoding"},
		{"too large", "POST", "/v1/completions", strings.Repeat(" ", 1<<20) + good, withToken(member), 413, "request_too_large"},
	}
	for _, c := range cases {
		got := r.do(r.newRequest(c.method, "http://gateway.localhost"+c.url, strings.NewReader(c.body), c.header...))
		if got.StatusCode != c.status {
			t.Errorf("%s: %d %s", c.name, got.StatusCode, got.body)
			continue
		}
		if c.status == 200 {
			continue
		}
		var answer struct {
			Error struct{ Message, Type, Code string }
		}
		if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer.Error.Code != c.code || answer.Error.Message == "" || answer.Error.Type == "" {
			t.Errorf("%s: %s", c.name, got.body)
		}
		if got.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: a page could not read this", c.name)
		}
	}
	chunked := r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions", io.LimitReader(zeroReader{}, 2<<20), withToken(member)...))
	if chunked.StatusCode != 413 {
		t.Errorf("too large, length unknown: %d", chunked.StatusCode)
	}
	if got := r.get("http://x/proxy/models/main", withToken(member)...); got.StatusCode != 404 {
		t.Errorf("the base itself: %d", got.StatusCode)
	}
}

func TestModels_Preflight(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "m"))
	got := r.do(r.newRequest("OPTIONS", "http://gateway.localhost/v1/chat/completions", nil, "Origin", "https://page",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type"))
	if got.StatusCode != 204 || got.Header.Get("Access-Control-Allow-Origin") != "*" || got.Header.Get("Access-Control-Allow-Headers") != "authorization,content-type" {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
	if got := r.do(r.newRequest("OPTIONS", "http://gateway.localhost/v1/chat/completions", nil)); got.StatusCode != 401 {
		t.Errorf("no preflight, and %d", got.StatusCode)
	}
}

func TestModels_SharedByRuns(t *testing.T) {
	var calls [2]atomic.Int32
	serve := func(n int) route.Target {
		return startReplica(t, n, func(w http.ResponseWriter, r *http.Request) {
			calls[n].Add(1)
			if want := fmt.Sprintf("/v%d/completions", n); r.URL.Path != want {
				t.Errorf("replica %d was asked for %s", n, r.URL.Path)
			}
		})
	}
	a, b := modelRoute("a", "m", serve(0)), modelRoute("b", "m", serve(1))
	a.Prefix, b.Prefix = "/v0", "/v1"
	r := startGateway(t, gateway.Limits{}, a, b)
	for range 10 {
		r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(`{"model":"m"}`), withToken(member)...))
	}
	if calls[0].Load() != 5 || calls[1].Load() != 5 {
		t.Errorf("shared %d to %d", calls[0].Load(), calls[1].Load())
	}
}

func TestModels_BodyBudget(t *testing.T) {
	r := startGateway(t, gateway.Limits{BodyBytes: 1 << 20}, modelRoute("m", "m"))
	large := `{"model":"m","x":"` + strings.Repeat("x", 600<<10) + `"}`
	first := make(chan response, 1)
	post := func() response {
		return r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(large), withToken(member)...))
	}
	go func() { first <- post() }()
	waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-m"].Held == 1 })
	if got := post(); got.StatusCode != 503 || got.Header.Get("Retry-After") == "" {
		t.Errorf("second: %d %s", got.StatusCode, got.body)
	}
	r.plane.setRoutes(modelRoute("m", "m", startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })))
	if got := <-first; got.StatusCode != 200 {
		t.Errorf("first: %d %s", got.StatusCode, got.body)
	}
	waitUntil(t, "the body budget being released", func() bool { return post().StatusCode == 200 })
}

// One project's requests in flight leave memory for the bodies of others.
func TestModels_BodyBudgetPerProject(t *testing.T) {
	block := make(chan struct{})
	sink := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-block })
	theirs := modelRoute("sink", "org/sink", sink)
	theirs.Project = "team"
	r := startGateway(t, gateway.Limits{MaxBody: 1 << 20, BodyBytes: 8 << 20}, modelRoute("m", "org/m", startReplica(t, 1, serveHello)), theirs)
	defer close(block)
	statuses := make(chan int, 7)
	for range 7 {
		go func() {
			body := `{"model":"org/sink","user":"` + strings.Repeat("x", 1<<20-100) + `"}`
			res, err := r.client.Do(r.newRequest("POST", "http://localhost/proxy/models/team/v1/chat/completions", strings.NewReader(body), withToken(other)...))
			if err != nil {
				statuses <- 0
				return
			}
			res.Body.Close()
			statuses <- res.StatusCode
		}()
	}
	waitUntil(t, "half of it is used", func() bool { return r.gateway.Load()["run-sink"].InFlight == 4 })
	for range 3 {
		if got := <-statuses; got != 503 {
			t.Errorf("one more: %d", got)
		}
	}
	for _, size := range []int{1000, 1<<20 - 100} {
		if got := r.sendChat(`{"model":"org/m","user":"` + strings.Repeat("x", size) + `"}`); got.StatusCode != 200 {
			t.Errorf("another project's %d bytes: %d %s", size, got.StatusCode, got.body)
		}
	}
	if got := r.do(r.newRequest("POST", "http://localhost/proxy/models/team/v1/chat/completions", strings.NewReader(`{"model":"org/m"}`), withToken(other)...)); got.StatusCode != 404 {
		t.Errorf("a small one of the same: %d %s", got.StatusCode, got.body)
	}
}

func TestModels_OfficialClient(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(`"stream":true`)) {
			w.Header().Set("Content-Type", "text/event-stream")
			for _, word := range []string{"hello", " world"} {
				fmt.Fprintf(w, "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", word)
				http.NewResponseController(w).Flush()
			}
			io.WriteString(w, "data: [DONE]\n\n")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}`)
	})
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m", up))
	client := func(token string) openaigo.Client {
		return openaigo.NewClient(option.WithAPIKey(token), option.WithMaxRetries(0), option.WithHTTPClient(r.client),
			option.WithBaseURL(r.server.URL+"/proxy/models/main/v1"))
	}
	good, wrong := client(member), client("wrong")
	page, err := good.Models.List(t.Context())
	if err != nil || len(page.Data) != 1 || page.Data[0].ID != "org/m" {
		t.Fatalf("list: %+v, %v", page, err)
	}
	if m, err := good.Models.Get(t.Context(), "org/m"); err != nil || m.ID != "org/m" {
		t.Errorf("get: %+v, %v", m, err)
	}
	ask := openaigo.ChatCompletionNewParams{Model: "org/m", Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage("hi")}}
	if chat, err := good.Chat.Completions.New(t.Context(), ask); err != nil || chat.Choices[0].Message.Content != "hello" {
		t.Errorf("chat: %+v, %v", chat, err)
	}
	stream, said := good.Chat.Completions.NewStreaming(t.Context(), ask), ""
	for stream.Next() {
		said += stream.Current().Choices[0].Delta.Content
	}
	if err := stream.Err(); err != nil || said != "hello world" {
		t.Errorf("stream: %q, %v", said, err)
	}
	_, err = wrong.Chat.Completions.New(t.Context(), ask)
	if e, ok := errors.AsType[*openaigo.Error](err); !ok || e.StatusCode != 401 || e.Code != "invalid_api_key" {
		t.Errorf("wrong token: %v", err)
	}
	ask.Model = "absent"
	_, err = good.Chat.Completions.New(t.Context(), ask)
	if e, ok := errors.AsType[*openaigo.Error](err); !ok || e.StatusCode != 404 || e.Code != "model_not_found" || e.Param != "model" {
		t.Errorf("absent model: %v", err)
	}
}

// The error of a body that is no JSON names no field: the model is not the matter.
func TestModelCall_ErrorsNameTheField(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "m", startReplica(t, 0, serveHello)))
	for body, want := range map[string]string{`{"model":"m",}`: `"param":null`, `{}`: `"param":"model"`, `{"model":1}`: `"param":"model"`} {
		got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(body), withToken(member)...))
		if got.StatusCode != 400 || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d %s, want %s", body, got.StatusCode, got.body, want)
		}
	}
}
