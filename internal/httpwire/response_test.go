package httpwire_test

import (
	"strings"
	"testing"

	"dstack/internal/httpwire"
)

// status returns a response with more lines.
func status(lines ...string) string {
	return "HTTP/1.1 200 OK\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
}

func TestParseRefusesResponses(t *testing.T) {
	for name, text := range map[string]string{
		"both lengths":                   status("Content-Length: 5", "Transfer-Encoding: chunked"),
		"two lengths":                    status("Content-Length: 5", "Content-Length: 6"),
		"a signed length":                status("Content-Length: +5"),
		"a negative length":              status("Content-Length: -5"),
		"an empty length":                status("Content-Length:"),
		"a list of lengths":              status("Content-Length: 5, 5"),
		"a length with too many digits":  status("Content-Length: 9223372036854775808"),
		"a folded field":                 status("A: b", " c: d"),
		"a bare CR in a value":           status("A: b\rc: d"),
		"a bare CR in a name":            status("A\rB: c"),
		"NUL in a value":                 status("A: b\x00c"),
		"NUL in the reason":              "HTTP/1.1 200 O\x00K\r\n\r\n",
		"a bare CR in the reason":        "HTTP/1.1 200 O\rK\r\n\r\n",
		"white space before the colon":   status("Content-Length : 5"),
		"white space in a name":          status("Content Length: 5"),
		"no name":                        status(": 5"),
		"no colon":                       status("Content-Length"),
		"chunked is not last":            status("Transfer-Encoding: chunked, gzip"),
		"chunked twice":                  status("Transfer-Encoding: chunked, chunked"),
		"chunked in two fields":          status("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
		"an encoding before chunked":     status("Transfer-Encoding: gzip, chunked"),
		"chunked in HTTP/1.0":            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"no status line (HTTP/0.9)":      "<html>",
		"HTTP/2":                         "HTTP/2 200\r\n\r\n",
		"HTTP/2.0":                       "HTTP/2.0 200 OK\r\n\r\n",
		"HTTP/1.2":                       "HTTP/1.2 200 OK\r\n\r\n",
		"another protocol":               "SSH-2.0-OpenSSH_9\r\n",
		"a version in lower case":        "http/1.1 200 OK\r\n\r\n",
		"two digits":                     "HTTP/1.1 20 OK\r\n\r\n",
		"four digits":                    "HTTP/1.1 2000 OK\r\n\r\n",
		"a status below 100":             "HTTP/1.1 099 OK\r\n\r\n",
		"a signed status":                "HTTP/1.1 +20 OK\r\n\r\n",
		"two blanks before the status":   "HTTP/1.1  200 OK\r\n\r\n",
		"an empty line first":            "\r\nHTTP/1.1 200 OK\r\n\r\n",
		"too many fields":                status(strings.Repeat("A: b\r\n", 256) + "A: b"),
		"a long head":                    status("A: " + strings.Repeat("b", httpwire.MaxHead)),
		"a long head without end":        "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", httpwire.MaxHead),
		"a long status line without end": "HTTP/1.1 200 " + strings.Repeat("b", httpwire.MaxHead),
	} {
		var h httpwire.ResponseHead
		if n, err := h.Parse([]byte(text), []byte("GET")); err == nil || n != 0 {
			t.Errorf("%s: accepted: %d, %v: %.200q", name, n, err, text)
		}
	}
}

// acceptedResponses are heads of responses to a method, and how they are passed on: real servers among them.
var acceptedResponses = []struct {
	name, method, in string
	length           int64
	out              string
	closes, bodiless bool
}{
	{"Go", "GET", "HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 17:00:00 GMT\r\nContent-Length: 2\r\n\r\n", 2,
		"HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 17:00:00 GMT\r\nContent-Length: 2\r\n\r\n", false, false},
	{"python http.server", "GET", "HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11.2\r\nContent-Length: 7\r\n\r\n", 7,
		"HTTP/1.1 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11.2\r\nContent-Length: 7\r\n\r\n", true, false},
	{"uvicorn", "POST", "HTTP/1.1 200 OK\r\ndate: a\r\nserver: uvicorn\r\nTransfer-Encoding: chunked\r\n\r\n", httpwire.Chunked,
		"HTTP/1.1 200 OK\r\ndate: a\r\nserver: uvicorn\r\nTransfer-Encoding: chunked\r\n\r\n", false, false},
	{"node", "GET", status("Connection: keep-alive", "Keep-Alive: timeout=5", "Transfer-Encoding: chunked"), httpwire.Chunked,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, false},
	{"llama.cpp", "POST", status("Keep-Alive: timeout=5, max=100", "Access-Control-Allow-Origin: ", "Content-Length: 3"), 3,
		"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: \r\nContent-Length: 3\r\n\r\n", false, false},
	{"until the end", "GET", status("A: b"), httpwire.UntilClose, "HTTP/1.1 200 OK\r\nA: b\r\n\r\n", true, false},
	{"no reason", "GET", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 0,
		"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", false, false},
	{"an empty reason", "GET", "HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n", 0,
		"HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n", false, false},
	{"LF only", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\nA: b\n\n", 0,
		"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n", false, false},
	{"fields of the connection", "GET", status("Connection: close, A", "A: b", "Trailer: c", "Proxy-Connection: d", "Upgrade: h2c",
		"Content-Length: 0", "Content-Length: 0"), 0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, false},
	{"HEAD", "HEAD", status("Content-Length: 5", "A: b"), 0,
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n", true, true},
	{"HEAD with the length twice", "HEAD", status("Content-Length: 5", "A: b", "Content-Length: 5"), 0,
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n", true, true},
	{"HEAD without a length", "HEAD", status("A: b"), 0, "HTTP/1.1 200 OK\r\nA: b\r\n\r\n", false, true},
	{"HEAD of nothing", "HEAD", status("Content-Length: 0"), 0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, true},
	{"HEAD in chunks", "HEAD", status("Transfer-Encoding: chunked"), 0, "HTTP/1.1 200 OK\r\n\r\n", true, true},
	{"304", "GET", "HTTP/1.1 304 Not Modified\r\nETag: a\r\nContent-Type: b\r\nContent-Length: 5\r\n\r\n", 0,
		"HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n", true, true},
	{"304 without a length", "GET", "HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n", 0, "HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n", false, true},
	{"304 to HEAD", "HEAD", "HTTP/1.1 304 Not Modified\r\nETag: a\r\nContent-Length: 5\r\n\r\n", 0,
		"HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n", true, true},
	{"204", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 0, "HTTP/1.1 204 No Content\r\n\r\n", false, true},
	{"204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 0,
		"HTTP/1.1 204 No Content\r\n\r\n", true, true},
	{"204 in chunks", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 0,
		"HTTP/1.1 204 No Content\r\n\r\n", true, true},
	{"103", "GET", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", 0, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", false, true},
	{"101", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\n", 0,
		"HTTP/1.1 101 Switching Protocols\r\n\r\n", false, true},
}

func TestParseReadsResponses(t *testing.T) {
	for _, c := range acceptedResponses {
		t.Run(c.name, func(t *testing.T) {
			var h httpwire.ResponseHead
			for cut := range c.in {
				if n, err := h.Parse([]byte(c.in[:cut]), []byte(c.method)); n != 0 || err != nil {
					t.Fatalf("cut at %d: %d, %v", cut, n, err)
				}
				if httpwire.HasHeadEnd([]byte(c.in[:cut]), max(cut-1, 0)) {
					t.Fatalf("an end at %d", cut)
				}
			}
			n, err := h.Parse([]byte(c.in+"body"), []byte(c.method))
			if err != nil || n != len(c.in) || h.Size != n || h.Length != c.length {
				t.Fatalf("Parse: %d, %v, length %d", n, err, h.Length)
			}
			if h.CloseAfter != c.closes || h.IsBodiless != c.bodiless {
				t.Fatalf("closes %v, bodiless %v", h.CloseAfter, h.IsBodiless)
			}
			if got := string(h.Append(nil, nil, h.Length)); got != c.out {
				t.Fatalf("passed on as %q", got)
			}
		})
	}
}

func TestParseFindsOdditiesOfResponses(t *testing.T) {
	for in, want := range map[string]httpwire.Oddity{
		status("Expect: a", "Upgrade: h2c"):            0,
		status("Trailer: a"):                           httpwire.OddTrailer,
		"HTTP/1.0 200 OK\r\n\r\n":                      httpwire.OddVersion,
		"HTTP/1.1 101 Switching Protocols\r\n\r\n":     httpwire.OddUpgrade,
		"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n": httpwire.OddVersion,
	} {
		var h httpwire.ResponseHead
		if n, err := h.Parse([]byte(in), []byte("GET")); n == 0 || err != nil || h.Oddities != want {
			t.Errorf("%q: %d, %v, oddities %b, want %b", in, n, err, h.Oddities, want)
		}
	}
}

func TestResponsesAllocateNothing(t *testing.T) {
	var h httpwire.ResponseHead
	in, method, out := []byte(acceptedResponses[3].in), []byte("GET"), make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = h.Parse(in, method)
		out = h.Append(out[:0], nil, h.Length)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
