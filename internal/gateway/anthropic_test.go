package gateway_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/gateway"
)

// Anthropic's clients send their token in a header of its own, which replicas
// must not see, and expect errors and lists in another form.
func TestAnthropic(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Saw", r.RequestURI+" "+r.Header.Get("X-Api-Key")+r.Header.Get("Authorization")+" "+r.Header.Get("Anthropic-Version"))
		io.Copy(w, r.Body)
	})
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "m", up))
	key := []string{"X-Api-Key", member, "Anthropic-Version", "2023-06-01"}
	body := `{"model":"m","max_tokens":1,"messages":[]}`
	for _, path := range []string{"/v1/messages", "/v1/messages/count_tokens"} {
		got := r.do(r.newRequest("POST", "http://gateway.localhost"+path, strings.NewReader(body), key...))
		if got.StatusCode != 200 || got.body != body || got.Header.Get("X-Saw") != path+"  2023-06-01" {
			t.Errorf("%s: %d %s, the replica saw %q", path, got.StatusCode, got.body, got.Header.Get("X-Saw"))
		}
	}
	for _, c := range []struct {
		name, body string
		header     []string
		status     int
		want       string
	}{
		{"no token", body, nil, 401, `{"type":"error","error":{"type":"authentication_error",`},
		{"a wrong one", body, []string{"X-Api-Key", "wrong"}, 401, `"authentication_error"`},
		{"two", body, []string{"X-Api-Key", member, "X-Api-Key", member}, 401, `"authentication_error"`},
		{"another project's", body, []string{"X-Api-Key", other}, 403, `"permission_error"`},
		{"no such model", `{"model":"x"}`, key, 404, `"not_found_error"`},
		{"no JSON", "x", key, 400, `"invalid_request_error"`},
		{"a bearer that is wrong", body, append([]string{"Authorization", "Bearer wrong"}, key...), 401, `"authentication_error"`},
	} {
		got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/messages", strings.NewReader(c.body), c.header...))
		if got.StatusCode != c.status || !strings.Contains(got.body, c.want) {
			t.Errorf("%s: %d %s", c.name, got.StatusCode, got.body)
		}
	}
	got := r.get("http://gateway.localhost/v1/models", key...)
	want := `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"main","status":"ready","type":"model","display_name":"m","created_at":"1970-01-01T00:00:01Z"}],"has_more":false,"first_id":"m","last_id":"m"}`
	if strings.TrimSpace(got.body) != want {
		t.Errorf("models: %s", got.body)
	}
	if got := r.get("http://gateway.localhost/v1/models/m", key...); !strings.Contains(got.body, `"display_name":"m"`) {
		t.Errorf("a model: %s", got.body)
	}
}

// A model of TGI has none of Anthropic's calls; the error has their form.
func TestAnthropic_ModelOfTGI(t *testing.T) {
	up := startReplica(t, 0, (&tgi{}).ServeHTTP)
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(chatml), up))
	got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/messages", strings.NewReader(`{"model":"org/m","max_tokens":1,"messages":[]}`), "X-Api-Key", member))
	if want := `{"type":"error","error":{"type":"not_found_error","message":"this model has no /messages`; got.StatusCode != 404 || !strings.HasPrefix(got.body, want) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// The key is a token for the model endpoint alone: services get it unchanged.
func TestAnthropic_KeyPassesToServices(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Api-Key")) })
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up))
	if got := r.get("http://web.localhost/", "X-Api-Key", member); got.StatusCode != 401 {
		t.Errorf("the key alone: %d", got.StatusCode)
	}
	if got := r.get("http://web.localhost/", append(withToken(member), "X-Api-Key", "own")...); got.body != "own" {
		t.Errorf("the service saw %q", got.body)
	}
}

// Calls that servers have at their root, and those with files, are forwarded.
func TestModels_EachForwardedCall(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Saw", r.RequestURI+" "+r.Header.Get("Content-Type"))
		w.Write(body)
	})
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "m", up))
	for path, want := range map[string]string{
		"/v1/responses": "/v1/responses", "/rerank": "/v1/rerank", "/v1/score": "/v1/score", "/tokenize": "/tokenize", "/v1/detokenize": "/detokenize",
		"/v1/audio/speech": "/v1/audio/speech", "/v1/images/generations": "/v1/images/generations", "/v1/moderations": "/v1/moderations", "/pooling": "/pooling",
	} {
		body := `{"zeta":1e400,"model":"m","a":"\u00e9"}`
		got := r.do(r.newRequest("POST", "http://gateway.localhost"+path, strings.NewReader(body), withToken(member)...))
		if got.StatusCode != 200 || got.body != body || strings.TrimSpace(got.Header.Get("X-Saw")) != want {
			t.Errorf("%s: %d %s at %q", path, got.StatusCode, got.body, got.Header.Get("X-Saw"))
		}
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	file, _ := w.CreateFormFile("file", "a.wav")
	file.Write(bytes.Repeat([]byte{0, '\r', '\n', '-'}, 5000))
	w.WriteField("model", "m")
	w.Close()
	body := form.String()
	got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/audio/transcriptions", strings.NewReader(body), append(withToken(member), "Content-Type", w.FormDataContentType())...))
	if got.StatusCode != 200 || got.body != body || got.Header.Get("X-Saw") != "/v1/audio/transcriptions "+w.FormDataContentType() {
		t.Errorf("a form: %d at %q", got.StatusCode, got.Header.Get("X-Saw"))
	}
	got = r.do(r.newRequest("POST", "http://gateway.localhost/v1/audio/transcriptions", strings.NewReader("x"), append(withToken(member), "Content-Type", w.FormDataContentType())...))
	if got.StatusCode != 400 || !strings.Contains(got.body, "is not the form") {
		t.Errorf("no form: %d %s", got.StatusCode, got.body)
	}
}
