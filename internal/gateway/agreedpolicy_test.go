package gateway_test

import (
	"fmt"
	"strings"
)

// agreedCalls are requests over which both paths agree because of what the gateway does beyond HTTP: tokens, paths and models.
// AUTH stands for the host of a service that needs a token, PATH for the path of one that needs none, MODEL for a model;
// TOKEN, OTHER and BAD for tokens with and without access. A last line after an empty one is the body; its length is added.
var agreedCalls = []string{
	// Tokens.
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer TOKEN",
	"GET / HTTP/1.1\nHost: AUTH\nauthorization:bearer   TOKEN  ",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: BEARER TOKEN\nX-Api-Key: mine\nCookie: a=b",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer\tTOKEN",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer TOKEN extra",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer ",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: TOKEN",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Basic TOKEN",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer BAD",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer OTHER",
	"GET / HTTP/1.1\nHost: AUTH",
	"GET / HTTP/1.1\nHost: AUTH\nAccept: text/html",
	"GET / HTTP/1.1\nHost: AUTH\nX-Api-Key: TOKEN",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer TOKEN\nAuthorization: Bearer TOKEN",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer BAD\nAuthorization: Bearer TOKEN",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer TOKEN\nConnection: Authorization",
	"GET / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer TOKEN\nCookie: dstack-session=x; a=b",
	"GET / HTTP/1.1\nHost: AUTH\nCookie: dstack-session=TOKEN",
	"POST / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer TOKEN\n\nhello",
	"POST / HTTP/1.1\nHost: AUTH\nAuthorization: Bearer BAD\n\nhello",
	"OPTIONS / HTTP/1.1\nHost: AUTH\nOrigin: http://a\nAccess-Control-Request-Method: POST",
	"GET / HTTP/1.1\nHost: HOST\nAuthorization: Bearer TOKEN",
	"GET / HTTP/1.1\nHost: HOST\nAuthorization: Token x TOKEN",
	"GET / HTTP/1.1\nHost: HOST\nAuthorization: Bearer OTHER",
	"GET / HTTP/1.1\nHost: HOST\nAuthorization: Bearer theirs",
	"GET / HTTP/1.1\nHost: HOST\nX-Api-Key: TOKEN",
	// Paths.
	"GET PATH/ HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH/a/b?c=d HTTP/1.1\nHost: 127.0.0.1:3000",
	"GET PATH HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH?a HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH/?a HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH//a HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH/a/../b HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH/%2e%2e/b HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH/%2F%zz HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH/a%20b%41 HTTP/1.1\nHost: 127.0.0.1",
	"GET PATHx/ HTTP/1.1\nHost: 127.0.0.1",
	"GET /proxy//services/main/x HTTP/1.1\nHost: 127.0.0.1",
	"GET /proxy/services/none/x/ HTTP/1.1\nHost: 127.0.0.1",
	"GET /Proxy/services/main/x/ HTTP/1.1\nHost: 127.0.0.1",
	"GET PATH/.dstack/sign-in HTTP/1.1\nHost: 127.0.0.1",
	"GET /.dstack/sign-in HTTP/1.1\nHost: AUTH",
	"GET /.dstack/other HTTP/1.1\nHost: HOST",
	"POST PATH/ HTTP/1.1\nHost: 127.0.0.1\n\nhello",
	"GET PATH/ HTTP/1.1\nHost: HOST",
	"GET PATH/ HTTP/1.1\nHost: 127.0.0.1\nX-Forwarded-Prefix: /x\nX-Forwarded-Host: evil\nCookie: a=b",
	"GET /health HTTP/1.1\nHost: 127.0.0.1",
	"GET /api/x HTTP/1.1\nHost: 127.0.0.1",
	"GET / HTTP/1.1\nHost: 127.0.0.1",
	// Models.
	"POST /proxy/models/main/v1/chat/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n" + chatCall,
	"POST /proxy/models/main/chat/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\nContent-Type: application/json\n\n" + chatCall,
	"POST /proxy/models/main/v1/chat/completions?a=b HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\nOrigin: http://a\n\n" + chatCall,
	"POST /proxy/models/main/v1/messages HTTP/1.1\nHost: 127.0.0.1\nX-Api-Key: TOKEN\nAnthropic-Version: 2023-06-01\n\n" + chatCall,
	"POST /proxy/models/main/v1/embeddings HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n{\"input\":\"a\",\"model\":\"MODEL\"}",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n{ \"prompt\" : \"\\\"model\\\":1\" , \"m\\u006fdel\" : \"MODEL\" }",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n{\"model\":\"none\"}",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n{\"model\":\"MODEL\",\"model\":\"MODEL\"}",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n{\"model\":1}",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n{\"model\":\"MODEL\"} trailing",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n{\"model\":\"MODEL\"",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n[]",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\nContent-Encoding: gzip\n\n{\"model\":\"MODEL\"}",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\nAccept-Encoding: gzip\n\n" + chatCall,
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN",
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer BAD\n\n" + chatCall,
	"POST /proxy/models/main/v1/completions HTTP/1.1\nHost: 127.0.0.1\n\n" + chatCall,
	"POST /proxy/models/team/v1/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n" + chatCall,
	"POST /proxy/models/main/v1/no/such HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN\n\n" + chatCall,
	"GET /proxy/models/main/v1/chat/completions HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer TOKEN",
	"OPTIONS /proxy/models/main/v1/chat/completions HTTP/1.1\nHost: 127.0.0.1\nOrigin: http://a\nAccess-Control-Request-Method: POST",
}

const chatCall = `{"model":"MODEL","messages":[{"role":"user","content":"hello"}],"stream":false}`

// callText returns what a client sends for a call of the list.
func callText(call string) string {
	head, body, hasBody := strings.Cut(call, "\n\n")
	head = strings.ReplaceAll(head, "\n", "\r\n") + "\r\n"
	if hasBody {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(strings.ReplaceAll(body, "MODEL", "modelN")))
	}
	return head + "\r\n" + body
}

// policyReplies are replies in which the gateway looks at fields or at the body.
var policyReplies = []string{
	plainReply,
	reply("302 Found", "Location: /login?a", "Content-Location: b", "Content-Length: 0"),
	reply("302 Found", "Location: http://127.0.0.1/login", "Content-Length: 0"),
	reply("302 Found", "Location: //elsewhere/login", "Content-Length: 0"),
	reply("200 OK", "Set-Cookie: a=b; Path=/", "Set-Cookie: c=d; path=/x; domain=.localhost; Secure", "Set-Cookie: dstack-session=e", "Content-Length: 0"),
	reply("200 OK", "Content-Type: application/json", "Cache-Control: max-age=5", "Access-Control-Allow-Origin: b", "Content-Length: 62") +
		`{"id":"1","usage":{"prompt_tokens":10,"completion_tokens":123}}`[:62],
	reply("200 OK", "Content-Type: text/event-stream; charset=utf-8", "Transfer-Encoding: chunked") +
		"26\r\ndata: {\"usage\":{\"prompt_tokens\":10}}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
	reply("200 OK", "Content-Type: application/json", "X-Dstack-Warning: a", "X-Accel-Redirect: b", "Server-Timing: c", "X-Request-Id: d") + `{}`,
	reply("429 Too Many Requests", "Retry-After: 5", "Content-Type: application/json", "Content-Length: 2") + "{}",
	reply("503 Service Unavailable", "Retry-After: 5", "Content-Type: application/json", "Content-Length: 2") + "{}",
	reply("400 Bad Request", "Content-Type: application/json", "Content-Length: 2") + "{}",
	reply("204 No Content", "A: b"),
}
