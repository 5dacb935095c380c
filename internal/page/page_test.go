package page

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	w := httptest.NewRecorder()
	p := Page{Title: `<T> & "t"`, Refresh: 2, Data: "<script>alert(1)</script>",
		Body: template.Must(template.New("").Parse(`<p>{{.}}</p>`))}
	if err := p.Write(w, 401); err != nil {
		t.Fatal(err)
	}
	body := w.Body.String()
	for _, want := range []string{"&lt;T&gt; &amp;", "<p>&lt;script&gt;", `<meta http-equiv="refresh" content="2">`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if strings.Contains(body, "<script") || w.Code != 401 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("%d %v\n%s", w.Code, w.Header(), body)
	}
	_, rest, _ := strings.Cut(body, "<style>")
	css, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(css))
	if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") ||
		!strings.HasPrefix(got, "default-src 'none';") || !strings.Contains(got, "frame-ancestors 'none'") {
		t.Errorf("the policy %s does not fit the style", got)
	}
}

func TestRender_FailsWithTheBody(t *testing.T) {
	broken := Page{Body: template.Must(template.New("").Parse(`{{.Missing}}`)), Data: 1}
	if err := broken.Write(httptest.NewRecorder(), 200); err == nil {
		t.Error("no error")
	}
}
