package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// refusedBytes are requests that two servers could read differently. HOST stands for the host of a service.
var refusedBytes = []struct {
	name, text string
	status     int
}{
	{"both lengths", "POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n", 400},
	{"two lengths", "POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
	{"a signed length", "POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: +5\r\n\r\nhello", 400},
	{"a list of lengths", "POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5, 5\r\n\r\nhello", 400},
	{"a folded field", "GET /x HTTP/1.1\r\nHost: HOST\r\nX-A: b\r\n c\r\n\r\n", 400},
	{"LF alone", "GET /x HTTP/1.1\nHost: HOST\n\n", 400},
	{"LF alone after a field", "GET /x HTTP/1.1\r\nHost: HOST\r\nX-A: b\n\r\n", 400},
	{"CR alone", "GET /x HTTP/1.1\r\nHost: HOST\r\nX-A: b\rX-C: d\r\n\r\n", 400},
	{"NUL", "GET /x HTTP/1.1\r\nHost: HOST\r\nX-A: \x00\r\n\r\n", 400},
	{"a blank before the colon", "GET /x HTTP/1.1\r\nHost: HOST\r\nContent-Length : 5\r\n\r\nhello", 400},
	{"two hosts", "GET /x HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", 400},
	{"no host", "GET /x HTTP/1.1\r\n\r\n", 400},
	{"chunked twice", "POST /echo HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400},
	{"another encoding", "POST /echo HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
	{"chunked in HTTP/1.0", "POST /echo HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"HTTP/0.9", "GET /x\r\n", 400},
	{"HTTP/3.0", "GET /x HTTP/3.0\r\nHost: HOST\r\n\r\n", 505},
	{"a blank in the target", "GET /x y HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"a method in brackets", "(GET) /x HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"another host in the target", "GET http://elsewhere/x HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"the header of the proxy protocol", "PROXY TCP4 6.6.6.6 6.6.6.6 1 2\r\nGET /x HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"a long target", "GET /" + strings.Repeat("x", 20_000) + " HTTP/1.1\r\nHost: HOST\r\n\r\n", 414},
	{"many fields", "GET /x HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat("X-A: b\r\n", 200) + "\r\n", 431},
	{"a long head", "GET /x HTTP/1.1\r\nHost: HOST\r\nX-A: " + strings.Repeat("x", 70_000) + "\r\n\r\n", 431},
}

// refusedChunks are bodies that are refused. They may be cut without a word, because the service has got a part of them.
var refusedChunks = []string{
	"5 \r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "5\r\nhelloo\r\n0\r\n\r\n",
	"5;\n\r\nhello\r\n0\r\n\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nX-A : b\r\n\r\n", "-1\r\n\r\n0\r\n\r\n",
}

// testOddBytes sends what no client library sends.
func (f *fastPathHarness) testOddBytes(t *testing.T) {
	before := f.countFast(t)
	for _, c := range refusedBytes {
		t.Run(c.name, func(t *testing.T) {
			responses, rest := f.sendBytes(t, c.text)
			if len(responses) != 1 || responses[0].status != c.status || rest != "" {
				t.Errorf("want %d and the end, got %v and %q", c.status, responses, rest)
			}
		})
	}
	if after := f.countFast(t); after != before {
		t.Errorf("%d requests of them were served", after-before)
	}
	for _, body := range refusedChunks {
		head := "POST /echo HTTP/1.1\r\nHost: HOST\r\nAuthorization: TOKEN\r\nTransfer-Encoding: chunked\r\n\r\n"
		responses, rest := f.sendBytes(t, head+body+"GET /x HTTP/1.1\r\nHost: HOST\r\nAuthorization: TOKEN\r\n\r\n")
		if len(responses) > 1 || len(responses) == 1 && responses[0].status < 400 && rest == "" {
			t.Errorf("chunks %q: %v and %q", body, responses, rest)
		}
	}
	responses, rest := f.sendBytes(t, "POST /echo HTTP/1.1\r\nHost: HOST\r\nAuthorization: TOKEN\r\nTransfer-Encoding: CHUNKED\r\n\r\n"+
		"00d;a=\"b\"\r\nGET /x HTTP/1\r\n0;c\r\nX-Trailer: d\r\n\r\n"+
		"POST /echo HTTP/1.1\r\nHost: HOST\r\nauthorization: TOKEN\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"+
		"GET /x HTTP/1.1\r\nHost: HOST\r\nAuthorization: TOKEN\r\nX_Real_Ip: 6.6.6.6\r\nConnection: close, X-Named\r\nX-Named: 6.6.6.6\r\n\r\n")
	if len(responses) != 3 || responses[0].body != "GET /x HTTP/1" || responses[1].body != "abc" || responses[2].status != 200 || rest != "" {
		t.Fatalf("three requests at once: %v and %q", responses, rest)
	}
	if strings.Contains(responses[2].body, "6.6.6.6") {
		t.Errorf("the service gets what the client says of itself: %s", responses[2].body)
	}
}

// sendBytes sends bytes over a connection, and returns the responses until its end, and what comes after the last whole one.
func (f *fastPathHarness) sendBytes(t *testing.T, text string) (responses []response, rest string) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	host := strings.TrimSuffix(strings.TrimPrefix(f.serviceURL("web", "/"), "http://"), "/")
	text = strings.NewReplacer("HOST", host, "TOKEN", "Bearer "+f.token).Replace(text)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewReader(conn); ; {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				t.Fatalf("the connection stays open after %.200q", text)
			}
			return responses, rest
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return responses, fmt.Sprintf("%d, cut: %v", res.StatusCode, err)
		}
		responses = append(responses, response{res.StatusCode, string(body), res.Header})
	}
}
