package httpwire_test

import (
	"errors"
	"fmt"
	"strings"
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
		if httpwire.HasHeadEnd([]byte(fiveFields[:cut]), max(cut-1, 0)) {
			t.Fatalf("the end of a head at %d", cut)
		}
	}
	for from := range len(fiveFields) {
		if !httpwire.HasHeadEnd([]byte(fiveFields), from) {
			t.Fatalf("no end, after %d bytes", from)
		}
	}
	n, err := h.Parse([]byte(fiveFields + "next"))
	if n != len(fiveFields) || err != nil || h.Size != n {
		t.Fatalf("Parse: %d, %v", n, err)
	}
	got := string(h.Append(nil, []byte("/things"), []byte("X-Real-Ip: 1.2.3.4\r\n"), h.Length))
	want := "GET /things HTTP/1.1\r\nHost: svc.main.example.com\r\nUser-Agent: wrk/4.1.0\r\nAccept: */*\r\n" +
		"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\nX-Real-Ip: 1.2.3.4\r\n\r\n"
	if got != want {
		t.Fatalf("Append: %q", got)
	}
}

// head returns a request with a Host field and more lines.
func head(lines ...string) string {
	return "POST / HTTP/1.1\r\nHost: a\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// refusedRequests are requests that two parsers could read differently, or that nobody may send.
var refusedRequests = []struct {
	name, head string
	status     int
	message    string // a part of it
}{
	{"both lengths", head("Content-Length: 5", "Transfer-Encoding: chunked"), 400, "both Content-Length and Transfer-Encoding"},
	{"both lengths, the other way", head("Transfer-Encoding: chunked", "Content-Length: 0"), 400, "both"},
	{"two lengths", head("Content-Length: 5", "Content-Length: 6"), 400, "two different"},
	{"two spellings of a length", head("Content-Length: 5", "Content-Length: 05"), 400, "two different"},
	{"a signed length", head("Content-Length: +5"), 400, "not a number"},
	{"a negative length", head("Content-Length: -5"), 400, "not a number"},
	{"an empty length", head("Content-Length:"), 400, "not a number"},
	{"a list of lengths", head("Content-Length: 5, 5"), 400, "not a number"},
	{"a blank in a length", head("Content-Length: 5 5"), 400, "not a number"},
	{"a hexadecimal length", head("Content-Length: 0x5"), 400, "not a number"},
	{"a fraction as length", head("Content-Length: 5.0"), 400, "not a number"},
	{"a length with too many digits", head("Content-Length: 9223372036854775808"), 400, "not a number"},
	{"a very long length", head("Content-Length: 18446744073709551621"), 400, "not a number"},
	{"a folded field", head("A: b", " c: d"), 400, "continued"},
	{"a field folded with a tab", head("A: b", "\tc"), 400, "continued"},
	{"a folded first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "continued"},
	{"a bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", 400, "LF instead of CRLF"},
	{"a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "LF instead of CRLF"},
	{"a bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "LF instead of CRLF"},
	{"LF only", "GET / HTTP/1.1\nHost: a\n\n", 400, "LF instead of CRLF"},
	{"a bare CR in a value", head("A: b\rc: d"), 400, "control byte"},
	{"a bare CR at the end of a value", head("A: b\r"), 400, "control byte"},
	{"a bare CR in a name", head("A\rB: c"), 400, "name of a field"},
	{"a bare CR in the target", "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
	{"NUL in a value", head("A: b\x00c"), 400, "control byte"},
	{"NUL in a name", head("A\x00: c"), 400, "name of a field"},
	{"NUL in the target", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
	{"DEL in a value", head("A: some longer value \x7f and more"), 400, "control byte"},
	{"ESC in a value", head("A: 1234567\x1b"), 400, "control byte"},
	{"white space before the colon", head("Content-Length : 5"), 400, "before the colon"},
	{"a tab before the colon", head("Content-Length\t: 5"), 400, "before the colon"},
	{"white space in a name", head("Content Length: 5"), 400, "before the colon"},
	{"no name", head(": 5"), 400, "name of a field"},
	{"no colon", head("Content-Length"), 400, "name of a field"},
	{"a name that is not ASCII", head("Höst: b"), 400, "name of a field"},
	{"a name in brackets", head("(a): b"), 400, "name of a field"},
	{"two Hosts", head("Host: a"), 400, "more than one Host"},
	{"two different Hosts", head("host: b"), 400, "more than one Host"},
	{"no Host", "GET / HTTP/1.1\r\nA: b\r\n\r\n", 400, "Host field is missing"},
	{"no field at all", "GET / HTTP/1.1\r\n\r\n", 400, "Host field is missing"},
	{"a path as Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "not a host"},
	{"a user in Host", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "not a host"},
	{"a blank in Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "not a host"},
	{"a Host that is not ASCII", "GET / HTTP/1.1\r\nHost: ä\r\n\r\n", 400, "not a host"},
	{"chunked is not last", head("Transfer-Encoding: chunked, gzip"), 400, "not the last"},
	{"chunked twice", head("Transfer-Encoding: chunked, chunked"), 400, "not the last"},
	{"chunked twice in two fields", head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400, "more than one"},
	{"an encoding in two fields", head("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), 501, "not chunked"},
	{"an encoding before chunked", head("Transfer-Encoding: gzip, chunked"), 501, "not chunked"},
	{"the encoding identity", head("Transfer-Encoding: identity"), 501, "not chunked"},
	{"an empty encoding", head("Transfer-Encoding:"), 501, "not chunked"},
	{"quoted chunked", head(`Transfer-Encoding: "chunked"`), 501, "not chunked"},
	{"chunked with a parameter", head("Transfer-Encoding: chunked;a=b"), 501, "not chunked"},
	{"chunked with a control byte", head("Transfer-Encoding: \x0bchunked"), 400, "control byte"},
	{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0 has no"},
	{"HTTP/0.9", "GET /\r\nHost: a\r\n\r\n", 400, "request line"},
	{"HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version"},
	{"HTTP/3.0", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "version"},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "version"},
	{"a version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400, "request line"},
	{"a long version", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "request line"},
	{"an empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"},
	{"a method in brackets", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"},
	{"no method", " / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"},
	{"a long method", strings.Repeat("G", 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"},
	{"the beginning of TLS", "\x16\x03\x01\x02", 400, "method"},
	{"no target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request line"},
	{"two blanks before the target", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
	{"two blanks after the target", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
	{"a blank in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
	{"a blank in the query", "GET /?a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
	{"a tab in the target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
	{"another host in the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "different hosts"},
	{"another port in the target", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "different hosts"},
	{"a user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "different hosts"},
	{"a long target", "GET /" + strings.Repeat("a", httpwire.MaxTarget) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414, "longer"},
	{"a long target without end", "GET /" + strings.Repeat("a", httpwire.MaxTarget+100), 414, "longer"},
	{"too many fields", head(strings.Repeat("A: b\r\n", 99) + "A: b"), 431, "too many"},
	{"a long head", head("A: " + strings.Repeat("b", httpwire.MaxHead)), 431, "longer"},
	{"a long head without end", "GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("b", httpwire.MaxHead), 431, "longer"},
	{"too many names in Connection", head("Connection: " + strings.Repeat("a,", 200)), 400, "too many"},
}

func TestParseRefusesRequests(t *testing.T) {
	for _, c := range refusedRequests {
		t.Run(c.name, func(t *testing.T) {
			var h httpwire.RequestHead
			n, err := h.Parse([]byte(c.head))
			refusal, ok := errors.AsType[*httpwire.Refusal](err)
			if !ok || n != 0 {
				t.Fatalf("accepted: %d, %v: %.200q", n, err, c.head)
			}
			if refusal.Status != c.status || !strings.Contains(refusal.Error(), c.message) {
				t.Fatalf("refused with %d, %s", refusal.Status, refusal.Message)
			}
		})
	}
}

func TestParseAcceptsRequests(t *testing.T) {
	for name, text := range map[string]string{
		"a length twice":                 head("Content-Length: 5", "Content-Length: 5"),
		"the longest length":             head("Content-Length: 9223372036854775799"),
		"blanks around a value":          head("A: \t b \t "),
		"an empty value":                 head("A:"),
		"a value that is not ASCII":      head("A: ä\xff"),
		"a tab in a value":               head("A: 1234\t567", "B: 1\t2"),
		"every byte of a token":          head("!#$%&'*+-.^_`|~09azAZ: b"),
		"100 fields":                     head(strings.Repeat("A: b\r\n", 98) + "A: b"),
		"chunked in capitals":            head("Transfer-Encoding: Chunked"),
		"an IPv6 address as Host":        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
		"the same host in the target":    "GET http://A:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"the same with https":            "GET https://a/?b HTTP/1.1\r\nHost: A:443\r\n\r\n",
		"an authority as target":         "CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n",
		"a URL in the query":             "GET /to?http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"a URL in the path":              "GET /http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"an odd query":                   "GET /?%zz\"<>{}|\\^`# HTTP/1.1\r\nHost: a\r\n\r\n",
		"the longest target":             "GET /" + strings.Repeat("a", httpwire.MaxTarget-1) + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"a method that nobody has heard": "BREW-IT / HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		var h httpwire.RequestHead
		if n, err := h.Parse([]byte(text)); n != len(text) || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

func TestParseFindsOddities(t *testing.T) {
	for _, c := range []struct {
		head string
		want httpwire.Oddity
	}{
		{head("Connection: upgrade", "TE: gzip", "A: b"), 0},
		{"GET / HTTP/1.0\r\nHost: a\r\n\r\n", httpwire.OddVersion},
		{"GET / HTTP/1.0\r\n\r\n", httpwire.OddVersion | httpwire.OddHost},
		{"GET / HTTP/1.1\r\nHost: \r\n\r\n", httpwire.OddHost},
		{head("Upgrade: websocket", "Connection: Upgrade"), httpwire.OddUpgrade},
		{head("Upgrade: h2c"), httpwire.OddUpgrade},
		{head("Expect: 100-continue"), httpwire.OddExpect},
		{head("Trailer: X-A"), httpwire.OddTrailer},
		{head("TE: gzip;q=1, trailers"), httpwire.OddTrailer},
		{"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", httpwire.OddTarget},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", httpwire.OddTarget},
		{"GET /ä HTTP/1.1\r\nHost: a\r\n\r\n", httpwire.OddTarget},
		{"GET /a\"b HTTP/1.1\r\nHost: a\r\n\r\n", httpwire.OddTarget},
		{"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", httpwire.OddTarget},
		{"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", httpwire.OddTarget},
		{"GET /%2 HTTP/1.1\r\nHost: a\r\n\r\n", httpwire.OddTarget},
		{"GET /%2f?ä HTTP/1.1\r\nHost: a\r\n\r\n", 0},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", httpwire.OddPreface | httpwire.OddTarget | httpwire.OddHost},
	} {
		var h httpwire.RequestHead
		n, err := h.Parse([]byte(c.head))
		if n == 0 || n != h.Size || err != nil || h.Oddities != c.want {
			t.Errorf("%q: %d, %v, oddities %b, want %b", c.head, n, err, h.Oddities, c.want)
		}
	}
	for cut := range "PRI * HTTP/2.0\r\n\r\n" {
		var h httpwire.RequestHead
		if n, err := h.Parse([]byte("PRI * HTTP/2.0\r\n\r\n"[:cut])); n != 0 || err != nil {
			t.Errorf("the preface cut at %d: %d, %v", cut, n, err)
		}
	}
}

func TestParseFindsTheEndOfConnections(t *testing.T) {
	for _, c := range []struct {
		version, connection string
		closes              bool
	}{
		{"1.1", "keep-alive", false},
		{"1.1", "", false},
		{"1.1", "Close", true},
		{"1.1", "keep-alive, close", true},
		{"1.1", "x-closed", false},
		{"1.0", "", true},
		{"1.0", "Keep-Alive", false},
		{"1.0", "keep-alive ,close", true},
	} {
		var h httpwire.RequestHead
		text := fmt.Sprintf("GET / HTTP/%s\r\nHost: a\r\nConnection: %s\r\n\r\n", c.version, c.connection)
		if n, err := h.Parse([]byte(text)); n == 0 || err != nil || h.CloseAfter != c.closes {
			t.Errorf("HTTP/%s, Connection: %s: closes %v, %v", c.version, c.connection, h.CloseAfter, err)
		}
	}
}

func TestRequestsPassOnWithoutFieldsOfTheConnection(t *testing.T) {
	in := head("Connection: close, X-Named, TE", "Keep-Alive: 5", "proxy-connection: close", "Proxy-Authenticate: a",
		"Proxy-Authorization: b", "te: gzip", "Trailer: X-T", "Upgrade: h2c", "http2-settings: c", "x-named: d", "Content-Length: 5",
		"Expect: 100-continue", "Cookie:  e=f ")
	var h httpwire.RequestHead
	if _, err := h.Parse([]byte(in)); err != nil {
		t.Fatal(err)
	}
	got := string(h.Append(nil, h.Target, nil, h.Length))
	if want := "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nCookie: e=f\r\nContent-Length: 5\r\n\r\n"; got != want {
		t.Fatalf("got %q", got)
	}
}

func TestRequestsSayTheirLength(t *testing.T) {
	for _, c := range []struct {
		method, framing, want string
	}{
		{"GET", "A: b", ""},
		{"DELETE", "Content-Length: 0", ""},
		{"POST", "A: b", "Content-Length: 0\r\n"},
		{"PUT", "A: b", "Content-Length: 0\r\n"},
		{"PATCH", "Content-Length: 00", "Content-Length: 0\r\n"},
		{"GET", "Content-Length: 007", "Content-Length: 7\r\n"},
		{"GET", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\n"},
	} {
		var h httpwire.RequestHead
		if _, err := h.Parse([]byte(c.method + " / HTTP/1.1\r\nHost: a\r\n" + c.framing + "\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		got := string(h.Append(nil, h.Target, nil, h.Length))
		_, rest, _ := strings.Cut(strings.Replace(got, "A: b\r\n", "", 1), "Host: a\r\n")
		if rest != c.want+"\r\n" {
			t.Errorf("%s with %s: %q", c.method, c.framing, rest)
		}
	}
}

func TestRelocateMovesAHead(t *testing.T) {
	from := []byte(fiveFields)
	var h httpwire.RequestHead
	if _, err := h.Parse(from); err != nil {
		t.Fatal(err)
	}
	h.Fields[1].Drop = true
	want := string(h.Append(nil, h.Target, nil, 0))
	h.Relocate(from, append([]byte(nil), from...))
	clear(from)
	if got := string(h.Append(nil, h.Target, nil, 0)); got != want || strings.Contains(got, "wrk") {
		t.Fatalf("after Relocate: %q", got)
	}
}

func TestParseAndAppendAllocateNothing(t *testing.T) {
	var h httpwire.RequestHead
	in, out := []byte(fiveFields), make([]byte, 0, 1024)
	refused := []byte(head("Content-Length: 5", "Transfer-Encoding: chunked"))
	if n := testing.AllocsPerRun(100, func() {
		_, _ = h.Parse(refused)
		_, _ = h.Parse(in)
		out = h.Append(out[:0], h.Target, nil, h.Length)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
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
