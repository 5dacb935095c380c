package gateway_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// agreedRequests are requests over which both paths agree, with \n for line ends. HOST stands for the host of a service.
var agreedRequests = []string{
	"GET / HTTP/1.1\nHost: HOST\n\n",
	"GET / HTTP/1.1\nhost: HOST\n\n",
	"GET /a/b?c=d&e HTTP/1.1\nHost: HOST:3000\n\n",
	"HEAD / HTTP/1.1\nHost: HOST\n\n",
	"OPTIONS / HTTP/1.1\nHost: HOST\nOrigin: http://example.com\nAccess-Control-Request-Method: POST\n\n",
	"OPTIONS * HTTP/1.1\nHost: HOST\n\n",
	"DELETE /x HTTP/1.1\nHost: HOST\n\n",
	"PROPFIND /x HTTP/1.1\nHost: HOST\nDepth: 1\n\n",
	"get / HTTP/1.1\nHost: HOST\n\n",
	"TRACE / HTTP/1.1\nHost: HOST\n\n",
	"CONNECT HOST:443 HTTP/1.1\nHost: HOST\n\n",
	// Targets.
	"GET //a//b/../c/./d HTTP/1.1\nHost: HOST\n\n",
	"GET /%2F%2e%2E/%41%c3%a4 HTTP/1.1\nHost: HOST\n\n",
	"GET /a%zz HTTP/1.1\nHost: HOST\n\n",
	"GET /ä HTTP/1.1\nHost: HOST\n\n",
	"GET /a|b\"<>^`{}\\ HTTP/1.1\nHost: HOST\n\n",
	"GET /a#b HTTP/1.1\nHost: HOST\n\n",
	"GET /?a=%zz&b=ä;c#d\"<>|{}\\^` HTTP/1.1\nHost: HOST\n\n",
	"GET /? HTTP/1.1\nHost: HOST\n\n",
	"GET /a;b=c,d:e@f!$&'()*+=~[] HTTP/1.1\nHost: HOST\n\n",
	"GET http://HOST/a?b HTTP/1.1\nHost: HOST\n\n",
	"GET http://HOST HTTP/1.1\nHost: HOST\n\n",
	"GET relative HTTP/1.1\nHost: HOST\n\n",
	"GET /health HTTP/1.1\nHost: HOST\n\n",
	"GET /?" + strings.Repeat("a", 8000) + " HTTP/1.1\nHost: HOST\n\n",
	// Hosts.
	"GET / HTTP/1.1\nHost: HOST.\n\n",
	"GET / HTTP/1.1\nHost: nobody.localhost\n\n",
	"GET / HTTP/1.1\nHost:\n\n",
	"GET / HTTP/1.1\nHost: [::1]\n\n",
	"GET /proxy/services/main/nobody/ HTTP/1.1\nHost: localhost\n\n",
	// Bodies.
	"POST / HTTP/1.1\nHost: HOST\nContent-Length: 5\n\nhello",
	"POST / HTTP/1.1\nHost: HOST\nContent-Length: 5\nContent-Length: 5\n\nhello",
	"POST / HTTP/1.1\nHost: HOST\nContent-Length: 0\n\n",
	"POST / HTTP/1.1\nHost: HOST\n\n",
	"PUT / HTTP/1.1\nHost: HOST\nContent-Length: 0\n\n",
	"DELETE / HTTP/1.1\nHost: HOST\nContent-Length: 0\n\n",
	"GET / HTTP/1.1\nHost: HOST\nContent-Length: 5\n\nhello",
	"GET / HTTP/1.1\nHost: HOST\nContent-Length: 0\n\n",
	"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
	"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: Chunked\n\n00005;a=\"b\"\nhello\n3\n, w\n000\n\n",
	"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n0\n\n",
	"GET / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
	"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\nTrailer: X-A\n\n5\nhello\n0\nX-A: b\n\n",
	"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n5\nhello\n0\nX-A: b\nX-Forwarded-For: 6.6.6.6\nx.real~ip: 6\nAuthorization: c\n\n",
	"POST / HTTP/1.1\nHost: HOST\nExpect: 100-continue\nContent-Length: 5\n\nhello",
	"POST / HTTP/1.1\nHost: HOST\nExpect: more\nContent-Length: 5\n\nhello",
	"POST / HTTP/1.1\nHost: HOST\nContent-Length: 100000\n\n" + strings.Repeat("0123456789", 10_000),
	// Connections.
	"GET / HTTP/1.0\nHost: HOST\nConnection: keep-alive\n\n",
	"POST / HTTP/1.0\nHost: HOST\nConnection: keep-alive\nContent-Length: 5\n\nhello",
	"GET / HTTP/1.1\nHost: HOST\nConnection: keep-alive\nKeep-Alive: timeout=5\nProxy-Connection: keep-alive\n\n",
	"GET / HTTP/1.1\nHost: HOST\nConnection: X-A, x-b\nX-A: 1\nX-B: 2\nX-C: 3\n\n",
	"GET / HTTP/1.1\nHost: HOST\nConnection: Authorization, Cookie, Host, Content-Length\nAuthorization: Bearer x\nCookie: a=b\n\n",
	"GET / HTTP/1.1\nHost: HOST\nConnection: X-Forwarded-For, X-Request-Id, Forwarded\n\n",
	"GET / HTTP/1.1\nHost: HOST\nTE: gzip\n\n",
	"GET / HTTP/1.1\nHost: HOST\nTE: trailers\nConnection: TE\n\n",
	"GET / HTTP/1.1\nHost: HOST\nUpgrade: h2c\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n",
	"GET / HTTP/1.1\nHost: HOST\nUpgrade: foo\n\n",
	"GET / HTTP/1.1\nHost: HOST\nConnection: upgrade\n\n",
	"GET / HTTP/1.1\nHost: HOST\nProxy-Authorization: a\nProxy-Authenticate: b\n\n",
	// What only the gateway may say.
	"GET / HTTP/1.1\nHost: HOST\nX-Forwarded-For: 6.6.6.6\nX_Forwarded_For: 6.6.6.6\nX-Real-IP: 6.6.6.6\nx.real~ip: 6\n\n",
	"GET / HTTP/1.1\nHost: HOST\nForwarded: for=6.6.6.6\nX-Forwarded-Proto: https\nX-Forwarded-Prefix: /a\nX-Forwardedfoo: b\n\n",
	"GET / HTTP/1.1\nHost: HOST\nX-Dstack-A: 1\nx_dstack_b: 2\nX-DstackC: 3\n\n",
	"GET / HTTP/1.1\nHost: HOST\nX-Request-Id: mine-1\n\n",
	"GET / HTTP/1.1\nHost: HOST\nX-Request-Id: mine-1\nX-Request-Id: mine-2\n\n",
	"GET / HTTP/1.1\nHost: HOST\nX_Request_Id: mine-1\n\n",
	"GET / HTTP/1.1\nHost: HOST\nX-Request-Id: a b\n\n",
	// Fields.
	"GET / HTTP/1.1\nHost: HOST\nX-A: 1\nX-B: 2\nx-a: 3\n\n",
	"GET / HTTP/1.1\nHost: HOST\nX-Empty:\nX-Blank:   \nX-Around: \t a \t \n\n",
	"GET / HTTP/1.1\nHost: HOST\nX-Bytes: ä\xff\nX-Tab: a\tb\n\n",
	"GET / HTTP/1.1\nHost: HOST\n!#$%&'*+-.^_`|~1: odd\n\n",
	"GET / HTTP/1.1\nHost: HOST\nCookie: a=b; c=d\nCookie: e=f\n\n",
	"GET / HTTP/1.1\nHost: HOST\nCookie: dstack-session=abc; a=b\n\n",
	"GET / HTTP/1.1\nHost: HOST\nAuthorization: Bearer token-of-a-member-of-main\n\n",
	"GET / HTTP/1.1\nHost: HOST\nAuthorization: bearer   token-of-a-member-of-main \nX-A: b\n\n",
	"GET / HTTP/1.1\nHost: HOST\nAuthorization: Basic YTpi\n\n",
	"GET / HTTP/1.1\nHost: HOST\nAuthorization: Bearer a\nAuthorization: Bearer b\n\n",
	"GET / HTTP/1.1\nHost: HOST\nX-Api-Key: a\nX-Accel-Redirect: b\n\n",
	"GET / HTTP/1.1\nHost: HOST\nAccept-Encoding: gzip, br\nAccept: */*\nUser-Agent: a\n\n",
	"GET / HTTP/1.1\nHost: HOST\nPragma: no-cache\n\n",
	"GET / HTTP/1.1\nHost: HOST\nRange: bytes=0-1\nIf-None-Match: \"a\"\n\n",
	"GET / HTTP/1.1\nHost: HOST\n" + strings.Repeat("X-A: b\n", 98) + "\n",
	"GET / HTTP/1.1\nHost: HOST\nX-Long: " + strings.Repeat("a", 60_000) + "\n\n",
	// Several on one connection.
	"GET /1 HTTP/1.1\nHost: HOST\n\nGET /2 HTTP/1.1\nHost: HOST\n\nHEAD /3 HTTP/1.1\nHost: HOST\n\n",
	"POST /1 HTTP/1.1\nHost: HOST\nContent-Length: 2\n\nabPOST /2 HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n1\na\n0\n\n",
	"GET /1 HTTP/1.1\nHost: HOST\n\nGET /2 HTTP/1.1\nHost: nobody.localhost\n\nGET /3 HTTP/1.1\nHost: HOST\n\n",
	"GET /1 HTTP/1.1\nHost: HOST\n\nGET http://HOST/2 HTTP/1.1\nHost: HOST\n\nGET /3 HTTP/1.1\nHost: HOST\n\n",
}

// agreedReplies are what a replica replies, and whether it then closes the connection.
var agreedReplies = []struct {
	text   string
	closes bool
}{
	{reply("200 OK", "Content-Length: 2") + "ok", false},
	{reply("200 OK", "Content-Length: 2", "Content-Length: 2") + "ok", false},
	{reply("200 OK", "Content-Length: 2", "Connection: close") + "ok", true},
	{reply("200 OK", "Content-Length: 2", "Connection: keep-alive", "Keep-Alive: timeout=5") + "ok", false},
	{reply("200 OK", "Content-Length: 0"), false},
	{reply("200 OK", "A: b") + "until the end", true},
	{"HTTP/1.0 200 OK\r\nServer: a\r\n\r\nuntil the end", true},
	{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", true},
	{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", false},
	{reply("200 OK", "Transfer-Encoding: chunked") + "2\r\nok\r\n0\r\n\r\n", false},
	{reply("200 OK", "Transfer-Encoding: chunked") + "002;a=b\r\nok\r\n3\r\n123\r\n0\r\n\r\n", false},
	{reply("200 OK", "Transfer-Encoding: chunked", "Trailer: X-T") + "2\r\nok\r\n0\r\nX-T: u\r\n\r\n", false},
	{reply("200 OK", "Transfer-Encoding: chunked") + "2\r\nok\r\n0\r\nX-T: u\r\n\r\n", false},
	{reply("200 OK", "Transfer-Encoding: chunked") + "0\r\n\r\n", false},
	{reply("200 OK", "Content-Length: 5") + "cut", true},
	{reply("200 OK", "Transfer-Encoding: chunked") + "5\r\ncut", true},
	{reply("200 OK", "Transfer-Encoding: chunked") + "3\r\ncut\r\n", true},
	{reply("204 No Content", "A: b"), false},
	{reply("204 No Content", "Content-Length: 0"), false},
	{reply("304 Not Modified", "ETag: \"a\"", "Content-Type: text/plain", "Content-Length: 5"), false},
	{reply("302 Found", "Location: /a", "Content-Length: 0"), false},
	{reply("404 Not Found", "Content-Length: 2", "Content-Type: text/html") + "no", false},
	{reply("418 I'm a teapot", "Content-Length: 0"), false},
	{reply("599 Odd", "Content-Length: 0"), false},
	{reply("200", "Content-Length: 0"), false},
	{"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false},
	{reply("500 Internal Server Error", "Content-Length: 2") + "no", false},
	{reply("100 Continue") + reply("200 OK", "Content-Length: 2") + "ok", false},
	{reply("103 Early Hints", "Link: </a>") + reply("200 OK", "Content-Length: 2") + "ok", false},
	{strings.Repeat(reply("103 Early Hints", "Link: </a>"), 20) + reply("200 OK", "Content-Length: 2") + "ok", false},
	{reply("200 OK", "Content-Length: 2", "Date: Sun, 29 Nov 2020 17:00:00 GMT") + "ok", false},
	{reply("200 OK", "Content-Length: 2", "X-Request-Id: theirs", "X-Accel-Redirect: /a", "X-Accel-Buffering: no") + "ok", false},
	{reply("200 OK", "Content-Length: 2", "Set-Cookie: a=b", "Set-Cookie: c=d; Path=/; Domain=localhost", "Set-Cookie: dstack-session=e") + "ok", false},
	{reply("200 OK", "Content-Length: 2", "Connection: X-A", "X-A: b", "Upgrade: h2c", "Proxy-Connection: c", "TE: d") + "ok", false},
	{reply("200 OK", "Content-Length: 2", "X-A: 1", "X-B:", "x-a: 2", "X-C: ä\xff") + "ok", false},
	{reply("200 OK", "Content-Length: 2", "Content-Encoding: gzip") + "ok", false},
	{reply("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked") + "9\r\ndata: 1\n\n\r\n0\r\n\r\n", false},
	{strings.ReplaceAll(reply("200 OK", "Content-Length: 2", "A: b"), "\r\n", "\n") + "ok", false},
	{reply("200 OK", "Content-Length: 100000") + strings.Repeat("0123456789", 10_000), false},
	{"", true},
	{"HTTP/1.1 200 OK\r\nConte", true},
	{reply("101 Switching Protocols", "Upgrade: a", "Connection: Upgrade"), true},
	// These are refused.
	{"no HTTP", true},
	{reply("200 OK", "Content-Length: 2", "Content-Length: 3") + "ok", true},
	{reply("200 OK", "Content-Length: -2") + "ok", true},
	{reply("200 OK", "Content-Length: 2", "Transfer-Encoding: chunked") + "2\r\nok\r\n0\r\n\r\n", true},
	{reply("200 OK", "Transfer-Encoding: gzip, chunked") + "2\r\nok\r\n0\r\n\r\n", true},
	{reply("200 OK", "A: b", " c: d", "Content-Length: 2") + "ok", true},
	{reply("200 OK", "Content-Length : 2") + "ok", true},
	{reply("200 OK", "Transfer-Encoding: chunked") + "2\nok\n0\n\n", true},
	{reply("200 OK", "Transfer-Encoding: chunked") + "+2\r\nok\r\n0\r\n\r\n", true},
	{reply("200 OK", "Transfer-Encoding: chunked") + "2\r\nok0\r\n\r\n", true},
}

// reply returns the head of a response.
func reply(status string, lines ...string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "HTTP/1.1 %s\r\n", status)
	for _, line := range lines {
		out.WriteString(line + "\r\n")
	}
	return out.String() + "\r\n"
}

// oddities are parts of messages from which randomConversation makes whole ones. The first parts of a list are the usual ones.
var oddities = struct{ methods, targets, versions, names, colons, values, ends, bodies []string }{
	methods:  []string{"GET", "POST", "HEAD", "PUT", "get", "G T"},
	targets:  []string{"/", "/a?b", "/a%20b?%zz", "//a/b", "/a b", "*", "http://HOST/", "http://b/c", "/ä", "/a#b", "/a%"},
	versions: []string{" HTTP/1.1", " HTTP/1.1", " HTTP/1.1", " HTTP/1.1", " HTTP/1.0", " HTTP/1.2", ""},
	names: []string{"X-A", "Connection", "x_real_ip", "Content-Length", "Cookie", "Transfer-Encoding", "TE", "Keep-Alive", "Accept",
		"X-Request-Id", "Upgrade", "Expect", "Trailer", "Host", "", " X", "Pragma", "X\x00"},
	colons: []string{": ", ": ", ": ", ":", ":\t", " : ", " "},
	values: []string{"a", "close", "keep-alive", "0", "5", "05", "+5", "chunked", "gzip, chunked", "close, X-A", "", "a\rb", "\xff",
		"trailers", "a=b; c=d"},
	ends: []string{"\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\r\n"},
	bodies: []string{"Content-Length: 5\r\n\r\nhello", "Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX-T: u\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"},
}

func randomConversation(random *rand.Rand) conversation {
	pick := func(parts []string) string { return parts[random.IntN(1+random.IntN(len(parts)))] }
	var text strings.Builder
	for range 1 + random.IntN(3) {
		o := &oddities
		text.WriteString(pick(o.methods) + " " + pick(o.targets) + pick(o.versions) + pick(o.ends) + "Host: HOST\r\n")
		for range random.IntN(4) {
			text.WriteString(pick(o.names) + pick(o.colons) + pick(o.values) + pick(o.ends))
		}
		if random.IntN(2) == 0 {
			text.WriteString(pick(o.bodies))
		} else {
			text.WriteString("\r\n")
		}
	}
	if random.IntN(3) == 0 {
		return conversation{requests: changeBytes(random, text.String()) + last, reply: plainReply}
	}
	reply := agreedReplies[random.IntN(1+random.IntN(len(agreedReplies)))]
	return conversation{text.String() + last, reply.text, reply.closes}
}

// changeBytes changes, adds or removes a few bytes.
func changeBytes(random *rand.Rand, text string) string {
	const odd = "\r\n\t :;,=/?%#\x00\x7f\xff\"0a+-"
	for range 1 + random.IntN(3) {
		at, with := random.IntN(len(text)), string(odd[random.IntN(len(odd))])
		switch random.IntN(3) {
		case 0:
			text = text[:at] + with + text[at:]
		case 1:
			text = text[:at] + text[at+1:]
		default:
			text = text[:at] + with + text[at+1:]
		}
	}
	return text
}
