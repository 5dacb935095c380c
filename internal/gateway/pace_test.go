package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/gateway"
)

// sendSlowly sends the beginning of a long body to a model, then a byte now and
// then, until there is a response or the test ends.
func (r *testGateway) sendSlowly(token, project string) <-chan *http.Response {
	conn := r.dialGateway()
	fmt.Fprintf(conn, "POST /proxy/models/%s/v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1048576\r\n\r\n%s",
		project, token, strings.Repeat(" ", 17<<10))
	done := make(chan *http.Response, 1)
	go func() {
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			res = &http.Response{}
		}
		done <- res
	}()
	go func() {
		for {
			time.Sleep(20 * time.Millisecond)
			if _, err := conn.Write([]byte(" ")); err != nil {
				return
			}
		}
	}()
	return done
}

// Nine connections of one project that send a byte now and then do not delay the
// bodies of other projects.
func TestReadBudget_SlowBodiesDelayNobody(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	theirs := modelRoute("theirs", "org/m", up)
	theirs.Project = "team"
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m", up), theirs)
	for range 9 {
		r.sendSlowly(other, "team")
	}
	time.Sleep(50 * time.Millisecond) // some of them are read; the rest wait
	began := time.Now()
	for _, size := range []int{200 << 10, 1 << 20, 2 << 20} {
		if got := r.sendChat(`{"model":"org/m","user":"` + strings.Repeat("x", size) + `"}`); got.StatusCode != 200 || time.Since(began) > 5*time.Second {
			t.Errorf("%d bytes: %d after %s: %s", size, got.StatusCode, time.Since(began), got.body)
		}
	}
}

// A body that is too slow is given up, however steadily it arrives, and its bytes
// of the budget are released.
func TestReadBudget_TooSlowBody(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	r := startGateway(t, gateway.Limits{ReadBytes: 2 << 20, MaxLag: 300 * time.Millisecond}, modelRoute("m", "org/m", up))
	began := time.Now()
	var all []<-chan *http.Response
	for range 3 {
		all = append(all, r.sendSlowly(member, "main"))
	}
	if got := r.sendChat(`{"model":"org/m","user":"` + strings.Repeat("x", 1<<20) + `"}`); got.StatusCode != 200 {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	for _, one := range all {
		got := <-one
		if got.StatusCode != 408 {
			t.Errorf("%d", got.StatusCode)
			continue
		}
		said, _ := io.ReadAll(got.Body)
		got.Body.Close()
		if !strings.Contains(string(said), `"code":"request_timeout"`) {
			t.Errorf("%s", said)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
