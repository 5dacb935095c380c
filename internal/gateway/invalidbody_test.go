package gateway_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/gateway"
)

// A body whose chunks are wrong is not said to have come late.
func TestInvalidBody_Message(t *testing.T) {
	up := startReplica(t, 0, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	for _, more := range []string{"", "Expect: 100-continue\r\n"} { // the fast path, and the slow one
		conn := r.dialGateway()
		_, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: open.localhost\r\n"+more+"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err == nil && res.StatusCode == http.StatusContinue {
			res, err = http.ReadResponse(in, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "not valid HTTP") {
			t.Errorf("%q: %d %s, %v", more, res.StatusCode, body, err)
		}
		_ = conn.Close() // it is over
	}
}
