package openai_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dstack/internal/openai"
)

func TestParseCall(t *testing.T) {
	cases := map[string]openai.Call{
		"/models":                         {Operation: openai.List},
		"/v1/models":                      {Operation: openai.List},
		"/models/":                        {Operation: openai.List},
		"/models/org/m":                   {Operation: openai.Show, Rest: "org/m"},
		"/v1/models/org%2Fm":              {Operation: openai.Show, Rest: "org%2Fm"},
		"/chat/completions":               {Operation: openai.Forward, Path: "/chat/completions"},
		"/v1/chat/completions":            {Operation: openai.Forward, Path: "/chat/completions"},
		"/completions":                    {Operation: openai.Forward, Path: "/completions"},
		"/v1/embeddings":                  {Operation: openai.Forward, Path: "/embeddings"},
		"/v1/audio/transcriptions":        {Operation: openai.Forward, Path: "/audio/transcriptions"},
		"/tokenize":                       {Operation: openai.Forward, Path: "/tokenize", Root: true},
		"/v1/tokenize":                    {Operation: openai.Forward, Path: "/tokenize", Root: true},
		"/v1/messages":                    {Operation: openai.Forward, Path: "/messages", Anthropic: true},
		"/v1/messages/count_tokens":       {Operation: openai.Forward, Path: "/messages/count_tokens", Anthropic: true},
		"/v1/responses/resp_1":            {},
		"/v1/v1/messages":                 {Operation: openai.Forward, Path: "/messages", Anthropic: true},
		"/v1/v1/v1/embeddings":            {},
		"/v2/embeddings":                  {},
		"/v1":                             {},
		"/":                               {},
		"":                                {},
		"/metrics":                        {},
		"/health":                         {Operation: openai.Health},
		"/health/":                        {Operation: openai.Health},
		"/v1/health":                      {Operation: openai.Health},
		"/health/x":                       {},
		"/chat/completions/":              {Operation: openai.Forward, Path: "/chat/completions"},
		"/v1/messages/count_tokens/":      {Operation: openai.Forward, Path: "/messages/count_tokens", Anthropic: true},
		"/v1/classify/":                   {Operation: openai.Forward, Path: "/classify", Root: true},
		"/v1/models/":                     {Operation: openai.List},
		"/v1/models/org/m/":               {Operation: openai.Show, Rest: "org/m"},
		"/models//":                       {},
		"/v1/":                            {},
		"/chat/completions//":             {},
		"/chat/completions/../../metrics": {},
		"/chat%2Fcompletions":             {},
		"//chat/completions":              {},
	}
	for path, want := range cases {
		if got := openai.ParseCall(path); got != want {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
}

func TestCall_WantsJSON(t *testing.T) {
	cases := []struct {
		path, body string
		want       bool
	}{
		{"/v1/chat/completions", `{"messages":[]}`, true},
		{"/v1/chat/completions", `{"stream":false}`, true},
		{"/v1/chat/completions", `{"stream":true}`, false},
		{"/v1/messages", `{"stream":true}`, false},
		{"/v1/embeddings", `{"encoding_format":"base64"}`, true},
		{"/v1/embeddings", `{"encoding_format":"bytes"}`, false},
		{"/v1/pooling", `{"encoding_format":"bytes_only"}`, false},
		{"/v1/images/generations", `{"stream":true}`, false},
		{"/v1/images/generations", `{}`, true},
		{"/v1/images/generations", "--a\r\n", false},
		{"/v1/images/edits", `{}`, false},
		{"/v1/audio/speech", `{}`, false},
		{"/v1/audio/transcriptions", `{}`, false},
		{"/v1/models", `{}`, false},
	}
	for _, c := range cases {
		if got := openai.ParseCall(c.path).WantsJSON(newBodyScanner("", []byte(c.body), 5)); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.path, c.body, got, c.want)
		}
	}
}

func TestWriteError(t *testing.T) {
	cases := []struct {
		status      int
		code, param string
		want        string
	}{
		{401, "invalid_api_key", "", `{"error":{"message":"why","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`},
		{403, "forbidden", "", `{"error":{"message":"why","type":"permission_error","param":null,"code":"forbidden"}}`},
		{404, "model_not_found", "model", `{"error":{"message":"why","type":"invalid_request_error","param":"model","code":"model_not_found"}}`},
		{422, "validation", "", `{"error":{"message":"why","type":"invalid_request_error","param":null,"code":"validation"}}`},
		{424, "generation", "", `{"error":{"message":"why","type":"server_error","param":null,"code":"generation"}}`},
		{425, "", "", `{"error":{"message":"why","type":"server_error","param":null,"code":null}}`},
		{503, "", "", `{"error":{"message":"why","type":"server_error","param":null,"code":null}}`},
	}
	for _, c := range cases {
		w := httptest.NewRecorder()
		if err := openai.WriteError(w, c.status, c.code, c.param, "why"); err != nil {
			t.Fatal(err)
		}
		if w.Code != c.status || strings.TrimSpace(w.Body.String()) != c.want {
			t.Errorf("got %d %s, want %d %s", w.Code, w.Body, c.status, c.want)
		}
		if ct := w.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("content type %q", ct)
		}
	}
}

func TestWriteModels(t *testing.T) {
	w := httptest.NewRecorder()
	if err := openai.WriteModels(w, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(w.Body.String()); got != `{"object":"list","data":[]}` {
		t.Errorf("no models: %s", got)
	}
	w = httptest.NewRecorder()
	if err := openai.WriteModels(w, []openai.Model{openai.NewModel("org/m", 17, "main", "ready")}); err != nil {
		t.Fatal(err)
	}
	want := `{"object":"list","data":[{"id":"org/m","object":"model","created":17,"owned_by":"main","status":"ready"}]}`
	if got := strings.TrimSpace(w.Body.String()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPreflight(t *testing.T) {
	ask := func(method string, headers ...string) *http.Request {
		r := httptest.NewRequest(method, "http://gateway.localhost/v1/models", nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return r
	}
	if openai.IsPreflight(ask("OPTIONS", "Origin", "https://page")) || openai.IsPreflight(ask("GET", "Origin", "https://page", "Access-Control-Request-Method", "GET")) {
		t.Error("something else was taken for a preflight")
	}
	r := ask("OPTIONS", "Origin", "https://page", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type,x-stainless-os")
	if !openai.IsPreflight(r) {
		t.Fatal("a preflight was not seen")
	}
	w := httptest.NewRecorder()
	openai.WritePreflight(w, r)
	if w.Code != http.StatusNoContent || w.Header().Get("Access-Control-Allow-Origin") != "*" ||
		w.Header().Get("Access-Control-Allow-Headers") != "authorization,content-type,x-stainless-os" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
	for _, bad := range []string{"x\"y", "ä", "a:b", strings.Repeat("x", 4000)} {
		w := httptest.NewRecorder()
		openai.WritePreflight(w, ask("OPTIONS", "Access-Control-Request-Headers", bad))
		if got := w.Header().Get("Access-Control-Allow-Headers"); got != "" {
			t.Errorf("%.20q was given back: %q", bad, got)
		}
	}
}

func TestAllowOrigin_ReplacesHeaders(t *testing.T) {
	h := http.Header{"Access-Control-Allow-Origin": {"https://one"}, "Access-Control-Allow-Credentials": {"true"}, "X-Other": {"1"}}
	openai.AllowOrigin(h)
	if got := h.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "*" {
		t.Errorf("origin: %v", got)
	}
	if h.Get("Access-Control-Allow-Credentials") != "" || h.Get("X-Other") != "1" {
		t.Errorf("got %v", h)
	}
}
