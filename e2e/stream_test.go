package e2e

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestStreams checks server-sent events and WebSockets, by host and by path.
func TestStreams(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		h.applyAndWait(h.newFolder(h.workloadConfig("streams")))
		for name, at := range map[string]func(run, path string) string{"host": h.serviceURL, "path": h.servicePathURL} {
			t.Run("events by "+name, func(t *testing.T) { h.withT(t).expectSpacedEvents(at("streams", "/events?n=5&ms=200")) })
			t.Run("cancel by "+name, func(t *testing.T) { h.withT(t).expectCancel(at("streams", "/events?ms=20")) })
			t.Run("socket by "+name, func(t *testing.T) { h.withT(t).expectWebSocket(at("streams", "/socket")) })
			t.Run("large body by "+name, func(t *testing.T) {
				body := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
				if a := h.withT(t).expectResponse("POST", at("streams", "/echo"), h.token, body, 200); a.body != body {
					t.Errorf("the response to %d bytes has %d other bytes", len(body), len(a.body))
				}
			})
		}
		a := h.fetchInfo("streams")
		if got := a.Headers.Get("Authorization"); got != "" {
			t.Errorf("the replica got the user's token: Authorization: %s", got)
		}
		if got := a.Headers.Get("X-Forwarded-Host"); got != hostOf(t, h.serviceURL("streams", "")) {
			t.Errorf("X-Forwarded-Host is %q", got)
		}
		if got := a.Headers.Get("X-Forwarded-For"); got != "127.0.0.1" {
			t.Errorf("X-Forwarded-For is %q, want only the client's address", got)
		}
	})
}

func (h *harness) openResponse(ctx context.Context, address string) *http.Response {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	res, err := client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		h.t.Fatalf("GET %s: %s", address, res.Status)
	}
	return res
}

// expectSpacedEvents checks that events arrive when they are sent, and not all at
// the end.
func (h *harness) expectSpacedEvents(address string) {
	h.t.Helper()
	res := h.openResponse(h.t.Context(), address)
	defer res.Body.Close()
	var at []time.Time
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			at = append(at, time.Now())
		}
	}
	if len(at) != 5 {
		h.t.Fatalf("%d events arrived, want 5: %v", len(at), lines.Err())
	}
	if spread := at[4].Sub(at[0]); spread < 500*time.Millisecond {
		h.t.Errorf("five events, 200ms apart, arrived within %s: they were buffered", spread)
	}
}

// expectCancel checks that the replica notices when its client disconnects.
func (h *harness) expectCancel(address string) {
	h.t.Helper()
	before := h.expectStatus(h.serviceURL("streams", "/cancelled"), 200).body
	ctx, cancel := context.WithCancel(h.t.Context())
	res := h.openResponse(ctx, address)
	_, err := bufio.NewReader(res.Body).ReadString('\n')
	cancel()
	_ = res.Body.Close()
	if err != nil {
		h.t.Fatal(err)
	}
	h.waitUntil(5*time.Second, "the replica notices that its client has disconnected", func() error {
		if now := h.expectStatus(h.serviceURL("streams", "/cancelled"), 200).body; now == before {
			return context.DeadlineExceeded
		}
		return nil
	})
}

func (h *harness) expectWebSocket(address string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
	defer cancel()
	options := &websocket.DialOptions{HTTPClient: client, HTTPHeader: http.Header{"Authorization": {"Bearer " + h.token}}}
	c, _, err := websocket.Dial(ctx, address, options)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.CloseNow()
	for _, word := range []string{"one", "two", strings.Repeat("three", 5000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(word)); err != nil {
			h.t.Fatal(err)
		}
		_, back, err := c.Read(ctx)
		if err != nil || string(back) != word {
			h.t.Fatalf("the response to %.20q is %.20q: %v", word, back, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		h.t.Errorf("the WebSocket does not close cleanly: %v", err)
	}
	options.HTTPHeader = nil
	if _, res, err := websocket.Dial(ctx, address, options); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
		h.t.Errorf("a WebSocket without a token is not refused with 401: %v", err)
	}
}
