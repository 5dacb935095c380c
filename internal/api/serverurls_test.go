package api

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// countingServer answers every call, and counts those of the API.
func countingServer(t *testing.T) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	calls := &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			calls.Add(1)
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"username": "ann"})
	}))
	t.Cleanup(s.Close)
	return s, calls
}

// frozenServer accepts connections and says nothing.
func frozenServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String()
}

// A client with several servers stays with one that answers, and goes on with the next when it does not.
func TestClient_GoesOnWithAnotherServer(t *testing.T) {
	first, firstCalls := countingServer(t)
	second, secondCalls := countingServer(t)
	c, err := NewClient(JoinURLs(first.URL, second.URL), "token")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	call := func() error {
		_, err := c.CurrentUser(t.Context())
		return err
	}
	for range 3 {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	if firstCalls.Load() != 3 || secondCalls.Load() != 0 || c.URL() != first.URL {
		t.Errorf("%d and %d calls", firstCalls.Load(), secondCalls.Load())
	}
	first.Close()
	if err := call(); err != nil || secondCalls.Load() != 1 || c.URL() != second.URL {
		t.Errorf("after the first has ended: %v, %d calls of the second", err, secondCalls.Load())
	}
	if err := c.DeleteUsers(t.Context(), DeleteUsers{}); err != nil || secondCalls.Load() != 2 {
		t.Errorf("a change: %v, %d calls", err, secondCalls.Load())
	}
	second.Close()
	err = c.DeleteUsers(t.Context(), DeleteUsers{})
	if dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "any of the dstack servers at "+first.URL+", "+second.URL) {
		t.Errorf("without any: %v", err)
	}
}

// A call that changes something is sent once, and not to a server that is frozen.
func TestClient_AsksAFrozenServerNothing(t *testing.T) {
	second, calls := countingServer(t)
	c, err := NewClient(frozenServer(t)+", "+second.URL, "token")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if err := c.DeleteUsers(t.Context(), DeleteUsers{}); err != nil || calls.Load() != 1 {
		t.Errorf("%v, %d calls", err, calls.Load())
	}
	if took := time.Since(began); took > checkTimeout+2*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestNewClient_SeveralURLs(t *testing.T) {
	if _, err := NewClient("http://a:3000,b", "token"); dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), `"b" is not the URL`) {
		t.Errorf("%v", err)
	}
	if _, err := NewClient("", "token"); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("%v", err)
	}
}
