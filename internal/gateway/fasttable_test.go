package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
	"dstack/internal/spec"
)

// fastTable says which requests take the fast path. docs/reference/data-plane.md has the same rows. A request is sent as it is,
// with Host: first line by line; the status tells that both paths answer alike.
var fastTable = []struct {
	name    string // in the document
	isFast  bool
	request string
	status  int
}{
	{"a service by its name", true, "GET /a?b=c HTTP/1.1\nHost: web.localhost\nTOKEN", 200},
	{"a service by its path", true, "GET /proxy/services/main/web/a HTTP/1.1\nHost: 127.0.0.1\nTOKEN", 200},
	{"a service that needs no token", true, "GET / HTTP/1.1\nHost: open.localhost", 200},
	{"a key for callers", true, "GET / HTTP/1.1\nHost: web.localhost\nAuthorization: Bearer dstkey_caller", 200},
	{"a body with a length", true, "POST / HTTP/1.1\nHost: web.localhost\nTOKEN\nContent-Length: 2\n\nab", 200},
	{"a body in chunks", true, "POST / HTTP/1.1\nHost: web.localhost\nTOKEN\nTransfer-Encoding: chunked\n\n2\r\nab\r\n0\r\n\r\n", 200},
	{"cookies of the application", true, "GET / HTTP/1.1\nHost: web.localhost\nTOKEN\nCookie: a=b", 200},
	{"fields of other proxies", true, "GET / HTTP/1.1\nHost: web.localhost\nTOKEN\nX-Forwarded-For: 1.2.3.4\nX-Request-Id: a", 200},
	{"more requests than a limit allows", true, "GET / HTTP/1.1\nHost: limited.localhost", 429},
	{"a run that waits for a replica", true, "GET / HTTP/1.1\nHost: waits.localhost", 503},
	{"replicas that refuse connections", true, "GET / HTTP/1.1\nHost: refuses.localhost", 502},

	{"a call to a model", true, "POST /v1/chat/completions HTTP/1.1\nHost: gateway.localhost\nTOKEN\nContent-Length: 13\n\n{\"model\":\"m\"}", 200},
	{"a call of Anthropic's clients", true, "POST /v1/messages HTTP/1.1\nHost: gateway.localhost\nX-Api-Key: " + member + "\nContent-Length: 13\n\n{\"model\":\"m\"}", 200},

	{"a model that does not exist", false, "POST /v1/chat/completions HTTP/1.1\nHost: gateway.localhost\nTOKEN\nContent-Length: 13\n\n{\"model\":\"n\"}", 404},
	{"a model whose replicas speak the API of TGI", false, "POST /v1/chat/completions HTTP/1.1\nHost: gateway.localhost\nTOKEN\nContent-Length: 15\n\n{\"model\":\"tgi\"}", 400},
	{"a form", false, "POST /v1/audio/transcriptions HTTP/1.1\nHost: gateway.localhost\nTOKEN\nContent-Type: multipart/form-data; boundary=x\nContent-Length: 63\n\n--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x--\r\n", 200},
	{"a compressed body", false, "POST /v1/embeddings HTTP/1.1\nHost: gateway.localhost\nTOKEN\nContent-Encoding: gzip\nContent-Length: 1\n\nx", 415},
	{"the list of models", false, "GET /v1/models HTTP/1.1\nHost: gateway.localhost\nTOKEN", 200},
	{"no token, or one that opens nothing", false, "GET / HTTP/1.1\nHost: web.localhost", 401},
	{"two Authorization fields", false, "GET / HTTP/1.1\nHost: web.localhost\nTOKEN\nAuthorization: x", 401},
	{"a session of a browser", false, "GET / HTTP/1.1\nHost: web.localhost\nTOKEN\nCookie: dstack-session=x", 200},
	{"the gateway's own pages", false, "GET /.dstack/sign-in HTTP/1.1\nHost: web.localhost", 200},
	{"a service or a project that does not exist", false, "GET / HTTP/1.1\nHost: none.localhost\nTOKEN", 404},
	{"the path of a service without the slash", false, "GET /proxy/services/main/web HTTP/1.1\nHost: 127.0.0.1\nTOKEN", 307},
	{"a run that never gets a replica", false, "GET / HTTP/1.1\nHost: never.localhost", 503},
	{"a replica behind a host or an API server", false, "GET / HTTP/1.1\nHost: far.localhost", 502},
	{"the API and the console", false, "GET /api HTTP/1.1\nHost: 127.0.0.1", 418},
	{"HTTP/1.0", false, "GET / HTTP/1.0\nHost: open.localhost\nConnection: keep-alive", 200},
	{"Upgrade", false, "GET / HTTP/1.1\nHost: open.localhost\nConnection: Upgrade\nUpgrade: websocket", 200},
	{"Expect", false, "POST / HTTP/1.1\nHost: open.localhost\nExpect: 100-continue\nContent-Length: 0", 200},
	{"trailers", false, "GET / HTTP/1.1\nHost: open.localhost\nTE: trailers", 200},
	{"a whole URL in the request line", false, "GET http://open.localhost/ HTTP/1.1\nHost: open.localhost", 200},
	{"a path with bytes that are to be escaped", false, "GET /\" HTTP/1.1\nHost: open.localhost", 200},
	{"TRACE and CONNECT", false, "TRACE / HTTP/1.1\nHost: open.localhost", 405},
}

func TestFastTable(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	limited, never, far := publicRoute("limited", up), publicRoute("never"), publicRoute("far", up)
	limited.Rules.Limits = []spec.RateLimit{{Prefix: "/", RPS: 0.001}}
	never.NeverServes = true
	tgi := modelRoute("tgi", "tgi", up)
	tgi.Format = "tgi"
	far.Ready[0].Endpoint.Host = "gpu1"
	waits := publicRoute("waits")
	waits.Rules.Hold = spec.Hold{Timeout: 1}
	r := startGateway(t, gateway.Limits{RefusedTimeout: 1}, serviceRoute("web", up), publicRoute("open", up), limited, never, far, waits,
		publicRoute("refuses", targetAt(closedPort(t), 0)), modelRoute("m", "m", up), tgi)
	r.plane.setKeys(route.Key{Digest: hashToken("dstkey_caller"), ID: "k", Project: "main", Name: "caller"})
	r.get("http://limited.localhost/")
	waitUntil(t, "the key", func() bool {
		return r.get("http://web.localhost/", "Authorization", "Bearer dstkey_caller").StatusCode == 200
	})
	document, err := os.ReadFile("../../docs/reference/data-plane.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range fastTable {
		t.Run(row.name, func(t *testing.T) {
			if line := fmt.Sprintf("| %s | %s |", row.name, map[bool]string{true: "fast", false: "slow"}[row.isFast]); !strings.Contains(string(document), line) {
				t.Errorf("the document lacks %q", line)
			}
			before := r.fast.Load()
			if got := r.sendLines(t, row.request); got != row.status {
				t.Errorf("status %d, want %d", got, row.status)
			}
			if isFast := r.fast.Load() != before; isFast != row.isFast {
				t.Errorf("fast: %v", isFast)
			}
		})
	}
}

// sendLines sends a request over a connection of its own, and returns the status of the response.
func (r *testGateway) sendLines(t *testing.T, request string) int {
	t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	head = strings.ReplaceAll(strings.ReplaceAll(head, "TOKEN", "Authorization: Bearer "+member), "\n", "\r\n")
	conn := r.dialGateway()
	defer conn.Close()
	if _, err := io.WriteString(conn, head+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}
