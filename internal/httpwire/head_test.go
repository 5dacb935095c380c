package httpwire_test

import (
	"testing"

	"dstack/internal/httpwire"
)

const fiveFields = "GET /v1/things?x=1 HTTP/1.1\r\nHost: svc.main.example.com\r\nUser-Agent: wrk/4.1.0\r\nAccept: */*\r\n" +
	"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n\r\n"

func TestParseReadsARequest(t *testing.T) {
	var h httpwire.RequestHead
	for cut := range fiveFields {
		if n, err := h.Parse([]byte(fiveFields[:cut])); n != 0 || err != nil {
			t.Fatalf("a head cut at %d: %d, %v", cut, n, err)
		}
	}
	b := []byte(fiveFields + "next")
	n, err := h.Parse(b)
	if n != len(fiveFields) || err != nil || h.Size != n {
		t.Fatalf("Parse: %d, %v", n, err)
	}
	out := string(h.Append(nil, h.Target, []byte("X-Real-Ip: 1.2.3.4\r\n"), h.Length))
	want := "GET /v1/things?x=1 HTTP/1.1\r\nHost: svc.main.example.com\r\nUser-Agent: wrk/4.1.0\r\nAccept: */*\r\n" +
		"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\nX-Real-Ip: 1.2.3.4\r\n\r\n"
	if out != want {
		t.Fatalf("Append: %q", out)
	}
}

func BenchmarkParseAndAppend(b *testing.B) {
	var h httpwire.RequestHead
	in, extra, out := []byte(fiveFields), []byte("X-Real-Ip: 1.2.3.4\r\n"), []byte(nil)
	b.ReportAllocs()
	for b.Loop() {
		if n, _ := h.Parse(in); n == 0 {
			b.Fatal("not read")
		}
		out = h.Append(out[:0], h.Target, extra, h.Length)
	}
}
