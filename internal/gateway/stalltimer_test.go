package gateway_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dstack/internal/gateway"
)

// On HTTP/2 the stall timeout ends streams whose client stands still, and not those that are silent.
func TestStallTimeout_OfHTTP2(t *testing.T) {
	const stall = 300 * time.Millisecond
	cancelled := make(chan struct{})
	replica := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(stall * 3 / 2)
			}
		case "/endless":
			for piece := []byte(strings.Repeat("x", 64<<10)); ; {
				if _, err := w.Write(piece); err != nil {
					close(cancelled)
					return
				}
			}
		default:
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, err)
		}
	})
	r := startGateway(t, gateway.Limits{StallTimeout: stall}, publicRoute("web"))
	front := httptest.NewUnstartedServer(r.gateway)
	front.EnableHTTP2 = true
	front.StartTLS()
	defer front.Close()
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	request := func(path string, body io.Reader) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", front.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "web.localhost"
		return client.Do(req)
	}
	body, send := io.Pipe()
	answered := make(chan string, 1)
	go func() {
		res, err := request("/upload", body)
		if err != nil {
			answered <- err.Error()
			return
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		answered <- fmt.Sprint(res.ProtoMajor, " ", string(text), " ", err)
	}()
	waitUntil(t, "a request waits with its body", func() bool { return r.gateway.Load()["run-web"].Held == 1 })
	time.Sleep(stall * 3 / 2) // a body that nobody reads does not stall
	r.plane.setRoutes(publicRoute("web", replica))
	fmt.Fprint(send, "12345")
	send.Close()
	if got := <-answered; got != "2 5 <nil> <nil>" && got != "2 5<nil> <nil>" {
		t.Errorf("a body that waited: %s", got)
	}
	res, err := request("/silent", nil)
	if err != nil {
		t.Fatal(err)
	}
	events := 0
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data:") {
			events++
		}
	}
	if res.Body.Close(); events != 3 {
		t.Errorf("a silent stream had %d events of 3", events)
	}
	res, err = request("/endless", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() // it is not read
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Error("a client that reads nothing holds its replica")
	}
}
