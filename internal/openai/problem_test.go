package openai_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"dstack/internal/openai"
)

func TestTGIError(t *testing.T) {
	cases := []struct {
		status     int
		body       string
		want       int
		code, text string
	}{
		{422, `{"error":"Input validation error: ` + "`inputs`" + ` must have less than 1024 tokens","error_type":"validation"}`, 422, "validation", "must have less than 1024 tokens"},
		{429, `{"error":"Model is overloaded","error_type":"overloaded"}`, 429, "overloaded", "Model is overloaded"},
		{424, `{"error":"Request failed during generation: x","error_type":"generation"}`, 424, "generation", "Request failed"},
		{500, `{"error":"Incomplete generation","error_type":"incomplete_generation"}`, 500, "incomplete_generation", "Incomplete generation"},
		{422, `{"error":"Tool error","error_type":"tool_error"}`, 422, "tool_error", "Tool error"},
		{429, `{"error":"Model is overloaded"}`, 429, "overloaded", "Model is overloaded"}, // version 0.8 has no type
		{422, "Failed to deserialize the JSON body into the target type: parameters.stop: invalid length", 422, "validation", "Failed to deserialize"},
		{503, `<html><h1>503</h1>`, 503, "model_error", "status 503"},
		{503, ``, 503, "model_error", "status 503"},
		{500, `{"error":{"deep":1}}`, 500, "incomplete_generation", "status 500"},
		{413, "length limit exceeded", 413, "model_error", "length limit exceeded"},
		{404, `not found`, 502, "bad_gateway", "is it TGI?"},
		{401, `no token`, 502, "bad_gateway", "is it TGI?"},
		{302, ``, 502, "bad_gateway", "302"},
		{200, ``, 502, "bad_gateway", "200"},
		{500, `{"error":"x","error_type":"a type with <tags>"}`, 500, "incomplete_generation", "x"},
	}
	for _, c := range cases {
		p := openai.TGIError(c.status, []byte(c.body))
		if p.Status != c.want || p.Code != c.code || !strings.Contains(p.Message, c.text) {
			t.Errorf("%d %s: got %+v", c.status, c.body, p)
		}
	}
}

func TestTGIError_Text(t *testing.T) {
	for _, body := range []string{
		`{"error":"canary` + strings.Repeat("ä", 5000) + `"}`,
		"canary \x1b]0;x\x07\r\n\xff\xfe" + strings.Repeat("x\n", 3000),
	} {
		p := openai.TGIError(422, []byte(body))
		if len(p.Message) > 1100 || !utf8.ValidString(p.Message) || strings.ContainsAny(p.Message, "\x1b\x07\r\n") {
			t.Errorf("got %q", p.Message)
		}
		if !strings.Contains(p.Message, "canary") || strings.Contains(p.Error(), "canary") {
			t.Errorf("the client shall see it, and no log: %q, %q", p.Message, p.Error())
		}
	}
}

func TestProblem_Write(t *testing.T) {
	w := httptest.NewRecorder()
	if err := openai.TGIError(429, []byte(`{"error":"Model is overloaded","error_type":"overloaded"}`)).Write(w); err != nil {
		t.Fatal(err)
	}
	want := `{"error":{"message":"the model's server: Model is overloaded","type":"rate_limit_error","param":null,"code":"overloaded"}}`
	if got := strings.TrimSpace(w.Body.String()); w.Code != 429 || got != want {
		t.Errorf("got %d %s", w.Code, got)
	}
}

func TestForeignError(t *testing.T) {
	for _, c := range []struct {
		status     int
		body       string
		wantStatus int
		want       string
	}{
		{400, `{"error":{"message":"too\nlong","type":"x"}}`, 400, "the model's server: too long"},
		{400, `{"object":"error","message":"too long"}`, 400, "the model's server: too long"},
		{422, `{"error":"too long"}`, 422, "the model's server: too long"},
		{500, `{"error":{}}`, 500, "the model's server: it answered with status 500"},
		{500, `oops`, 500, "the model's server: it answered with status 500"},
		{503, ``, 503, "the model's server: it answered with status 503"},
		{204, ``, 502, "the model's server answered with status 204"},
		{302, ``, 502, "the model's server answered with status 302"},
	} {
		p := openai.ForeignError(c.status, []byte(c.body))
		if p.Status != c.wantStatus || p.Message != c.want || strings.Contains(p.Error(), "long") {
			t.Errorf("%d %s: %d %s, logged as %s", c.status, c.body, p.Status, p.Message, p.Error())
		}
	}
}

func TestProblem_WritePart(t *testing.T) {
	p := &openai.Problem{Status: 503, Code: "c", Message: "a"}
	for anthropic, want := range map[bool]string{
		false: `{"error":{"message":"a","type":"server_error","param":null,"code":"c"}`,
		true:  `{"type":"error","error":{"type":"overloaded_error","message":"a"}`,
	} {
		var b strings.Builder
		if err := p.WritePart(&b, anthropic); err != nil || b.String() != want {
			t.Errorf("%v, %s", err, b.String())
		}
	}
}

func TestProblem_WriteEvent(t *testing.T) {
	p := &openai.Problem{Status: 503, Code: "c", Message: "a <b>\nc"}
	for anthropic, want := range map[bool]string{
		false: "event: error\n" + `data: {"error":{"message":"a <b>\nc","type":"server_error","param":null,"code":"c"}}` + "\n\ndata: [DONE]\n\n",
		true:  "event: error\n" + `data: {"type":"error","error":{"type":"overloaded_error","message":"a <b>\nc"}}` + "\n\n",
	} {
		var b strings.Builder
		if err := p.WriteEvent(&b, anthropic); err != nil || b.String() != want {
			t.Errorf("%v, %s", err, b.String())
		}
	}
}
