package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"

	"dstack/internal/gateway"
)

// Fields after a body in chunks reach the replica, whether they were announced or
// not. Those that the gateway checks or sets before the body do not.
func TestForward_RequestTrailer(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s|%v|%d", body, r.Trailer, len(r.Trailer))
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("web", up))
	const fields = "X-Checksum: abc\r\nX-Forwarded-For: 10.0.0.1\r\nAuthorization: Bearer x\r\nX_Real_IP: 10.0.0.1\r\n"
	for announced, want := range map[string]string{
		"":                        "hello|map[X-Checksum:[abc]]|1",
		"Trailer: X-Checksum\r\n": "hello|map[X-Checksum:[abc]]|1",
		"Trailer: X-Checksum, X-Forwarded-For\r\n": "hello|map[X-Checksum:[abc]]|1",
	} {
		conn := r.dialGateway()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: web.localhost\r\n%sTransfer-Encoding: chunked\r\n\r\n"+
			"5\r\nhello\r\n0\r\n%s\r\n", announced, fields)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != want {
			t.Errorf("%q: %s, want %s", announced, body, want)
		}
	}
}

func TestForward_ResponseTrailer(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Checksum")
		io.WriteString(w, "hello")
		w.Header().Set("X-Checksum", "abc")
		w.Header().Set(http.TrailerPrefix+"X-Late", "def")
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("web", up))
	res := r.get("http://web.localhost/")
	if res.body != "hello" || res.Trailer.Get("X-Checksum") != "abc" || res.Trailer.Get("X-Late") != "def" {
		t.Errorf("%q %v", res.body, res.Trailer)
	}
}
