package httpwire_test

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"dstack/internal/httpwire"
)

// FuzzRequest checks that net/http reads the same request wherever both accept a head, and that it reads the same from what
// is passed on. It checks for itself that nothing ambiguous was accepted.
func FuzzRequest(f *testing.F) {
	f.Add(fiveFields)
	for _, c := range refusedRequests {
		if len(c.head) < 1000 {
			f.Add(c.head)
		}
	}
	for _, text := range []string{head("Connection: close, X-A", "X-A: b"), "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a/b?c HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", head("Transfer-Encoding: chunked", "Trailer: B")} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkRequest(t, text) })
}

// oddParts are parts of requests from which TestOddRequestsAgree makes whole ones.
var oddParts = struct{ methods, targets, versions, names, colons, values, ends []string }{
	methods:  []string{"GET", "POST", "HEAD", "get", "G T", "", "CONNECT", "PRI"},
	targets:  []string{"/", "/a?b", "/a%20b?%zz", "/a%", "//a/b", "/a b", "*", "http://a/", "http://b/c", "a:80", "/ä", "/a#b", "/\x7f"},
	versions: []string{" HTTP/1.1", " HTTP/1.1", " HTTP/1.1", " HTTP/1.0", " HTTP/1.2", " HTTP/2.0", "", "  HTTP/1.1", " HTTP/1.1 "},
	names: []string{"Host", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "X-A", "x_real_ip", "Trailer", "TE",
		"Upgrade", "Expect", "Keep-Alive", "", " Host", "Pragma", "X-A\x00", "Cookie"},
	colons: []string{": ", ": ", ": ", ":", ":\t", " : ", " ", ":: ", ":\v"},
	values: []string{"a", "5", "5", "0", "05", "+5", "-1", "5, 5", "chunked", "Chunked", "gzip, chunked", "chunked, chunked", "identity",
		"close", "keep-alive", "close, X-A", "upgrade", "", "a b", "a\rb", "a\x00", "\xff", "9223372036854775807", "no-cache", "trailers"},
	ends: []string{"\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\r\n ", "\n\r"},
}

func TestOddRequestsAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(parts []string) string { return parts[random.IntN(len(parts))] }
	accepted := 0
	for range 20_000 {
		o := &oddParts
		text := pick(o.methods[:1+random.IntN(len(o.methods))]) + " " + pick(o.targets[:1+random.IntN(len(o.targets))]) +
			pick(o.versions[:1+random.IntN(len(o.versions))]) + pick(o.ends[:1+random.IntN(len(o.ends))])
		if random.IntN(10) > 0 {
			text += "Host: a\r\n"
		}
		for range random.IntN(4) {
			text += pick(o.names) + pick(o.colons) + pick(o.values) + pick(o.ends[:1+random.IntN(len(o.ends))])
		}
		text += "\r\n"
		if checkRequest(t, text) {
			accepted++
		}
	}
	if accepted < 1000 {
		t.Fatalf("only %d were accepted", accepted)
	}
}

// checkRequest reads a head, compares it with what net/http reads, and reports whether it was accepted.
func checkRequest(t *testing.T, text string) bool {
	t.Helper()
	var h httpwire.RequestHead
	n, err := h.Parse([]byte(text))
	if err != nil || n == 0 {
		if n != 0 {
			t.Fatalf("refused, and %d bytes read", n)
		}
		return false
	}
	if !httpwire.HasHeadEnd([]byte(text), 0) || h.Size != n {
		t.Fatalf("no end in %q", text[:n])
	}
	if h.Oddities&httpwire.OddPreface != 0 {
		return true
	}
	checkLines(t, text[:n], "\r\n")
	compareRequest(t, &h, text[:n])
	comparePassed(t, &h, string(h.Append(nil, h.Target, []byte("X-Extra: 1\r\n"), h.Length)))
	return true
}

// checkLines fails for heads that two parsers could cut into different lines.
func checkLines(t *testing.T, text, lineEnd string) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSuffix(text, lineEnd+lineEnd), lineEnd) {
		name, _, ok := strings.Cut(line, ":")
		if i > 0 && (!ok || strings.TrimSpace(name) != name || name == "") {
			t.Fatalf("the line %q of %q is no field", line, text)
		}
		if strings.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("a line end in the line %q of %q", line, text)
		}
	}
}

// compareRequest compares a head with what net/http reads.
func compareRequest(t *testing.T, h *httpwire.RequestHead, text string) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		// net/url refuses targets that go to net/http in any case. ReadRequest refuses nothing else that the parser accepts.
		if h.Oddities&httpwire.OddTarget == 0 {
			t.Fatalf("accepted %q; net/http: %v", text, err)
		}
		return
	}
	if r.Method != string(h.Method) || r.RequestURI != string(h.Target) {
		t.Fatalf("%s %s; net/http: %s %s", h.Method, h.Target, r.Method, r.RequestURI)
	}
	if h.Oddities&httpwire.OddTarget == 0 && (r.Host != string(h.Host) || r.URL.RequestURI() != string(h.Target)) {
		t.Fatalf("host %q, target %q; net/http: %q, %q", h.Host, h.Target, r.Host, r.URL.RequestURI())
	}
	if length := r.ContentLength; length != h.Length {
		t.Fatalf("length %d; net/http: %d", h.Length, length)
	}
	if isChunked := slices.Equal(r.TransferEncoding, []string{"chunked"}); isChunked != (h.Length == httpwire.Chunked) {
		t.Fatalf("length %d; net/http: %q", h.Length, r.TransferEncoding)
	}
	if r.Close != h.CloseAfter {
		t.Fatalf("closes %v; net/http: %v: %q", h.CloseAfter, r.Close, text)
	}
	if isOld := r.ProtoMinor == 0; r.ProtoMajor != 1 || isOld != (h.Oddities&httpwire.OddVersion != 0) {
		t.Fatalf("oddities %b; net/http: %s", h.Oddities, r.Proto)
	}
	compareFields(t, h.Fields, r.Header)
}

// compareFields compares fields with what net/http keeps of them.
func compareFields(t *testing.T, fields []httpwire.Field, want http.Header) {
	t.Helper()
	got := http.Header{}
	for _, f := range fields {
		switch f.Kind {
		case httpwire.Host, httpwire.TransferEncoding, httpwire.Trailer:
			continue // net/http keeps them elsewhere
		case httpwire.ContentLength:
			got.Set("Content-Length", string(f.Value)) // once
		default:
			got.Add(string(f.Name), string(f.Value))
		}
	}
	if got["Pragma"] != nil && got.Get("Pragma") == "no-cache" && got["Cache-Control"] == nil {
		got.Set("Cache-Control", "no-cache") // net/http adds it
	}
	delete(want, "Trailer")
	if len(got) != len(want) {
		t.Fatalf("fields %q; net/http: %q", got, want)
	}
	for name := range want {
		if !slices.Equal(got[name], want[name]) {
			t.Fatalf("field %s: %q; net/http: %q", name, got[name], want[name])
		}
	}
}

// comparePassed reads what is passed on by net/http, as a replica would.
func comparePassed(t *testing.T, h *httpwire.RequestHead, passed string) {
	t.Helper()
	body := ""
	switch {
	case h.Length == httpwire.Chunked:
		body = httpwire.LastChunk
	case h.Length > 100:
		return
	case h.Length > 0:
		body = strings.Repeat("b", int(h.Length))
	}
	in := bufio.NewReader(strings.NewReader(passed + body + "GET /next HTTP/1.1\r\nHost: b\r\n\r\n"))
	r, err := http.ReadRequest(in)
	if err != nil {
		if h.Oddities&httpwire.OddTarget == 0 {
			t.Fatalf("passed on as %q; net/http: %v", passed, err)
		}
		return
	}
	if read, err := io.ReadAll(r.Body); err != nil || h.Length >= 0 && string(read) != body {
		t.Fatalf("passed on as %q: body %q, %v", passed, read, err)
	}
	if second, err := http.ReadRequest(in); err != nil || second.URL.Path != "/next" {
		t.Fatalf("passed on as %q: then %v, %v", passed, second, err)
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te",
		"Trailer", "Upgrade", "Http2-Settings"} {
		if r.Header[name] != nil {
			t.Fatalf("passed on with %s: %q", name, passed)
		}
	}
	if r.Header.Get("X-Extra") != "1" && !bytes.Contains([]byte(strings.ToLower(passed)), []byte("x-extra: ")) {
		t.Fatalf("passed on without the extra field: %q", passed)
	}
}

// FuzzResponse does the same for responses.
func FuzzResponse(f *testing.F) {
	for _, c := range acceptedResponses {
		f.Add(c.in, c.method == "HEAD")
	}
	for _, text := range []string{status("Content-Length: 5", "Transfer-Encoding: chunked"), "HTTP/1.1 200 OK\nA: b\r\n\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status("A: b", " c: d"), status("Connection: a", "A: b")} {
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, isHead bool) {
		method := "GET"
		if isHead {
			method = "HEAD"
		}
		var h httpwire.ResponseHead
		n, err := h.Parse([]byte(text), []byte(method))
		if err != nil || n == 0 {
			if n != 0 {
				t.Fatalf("refused, and %d bytes read", n)
			}
			return
		}
		if !httpwire.HasHeadEnd([]byte(text), 0) || h.Size != n {
			t.Fatalf("no end in %q", text[:n])
		}
		r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text[:n])), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("accepted %q; net/http: %v", text[:n], err)
		}
		if r.StatusCode != h.Status {
			t.Fatalf("status %d; net/http: %d", h.Status, r.StatusCode)
		}
		compareResponseLength(t, &h, r, text[:n])
		if r.Close && !h.CloseAfter {
			t.Fatalf("net/http closes: %q", text[:n])
		}
		passed := string(h.Append(nil, []byte("X-Extra: 1\r\n"), h.Length))
		checkLines(t, passed, "\r\n")
		if n, err := h.Parse([]byte(passed), []byte(method)); n != len(passed) || err != nil {
			t.Fatalf("passed on as %q: %d, %v", passed, n, err)
		}
	})
}

func compareResponseLength(t *testing.T, h *httpwire.ResponseHead, r *http.Response, text string) {
	t.Helper()
	switch {
	case h.IsBodiless:
		if body, err := io.ReadAll(r.Body); err != nil || len(body) > 0 {
			t.Fatalf("no body; net/http: %q, %v: %q", body, err, text)
		}
	case h.Length == httpwire.UntilClose:
		if r.ContentLength != -1 || len(r.TransferEncoding) > 0 || !h.CloseAfter {
			t.Fatalf("until the end; net/http: %d, %q: %q", r.ContentLength, r.TransferEncoding, text)
		}
	case h.Length == httpwire.Chunked:
		if !slices.Equal(r.TransferEncoding, []string{"chunked"}) {
			t.Fatalf("in chunks; net/http: %d, %q: %q", r.ContentLength, r.TransferEncoding, text)
		}
	case r.ContentLength != h.Length:
		t.Fatalf("length %d; net/http: %d: %q", h.Length, r.ContentLength, text)
	}
}
