package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// A process in a pod of a cluster reaches the pods of this cluster itself, also while the server does not. A process elsewhere reaches
// them through the server, whatever has their address there.
func TestGatewayProcess_PodsOfACluster(t *testing.T) {
	var dialed atomic.Int64
	toPod := ""
	h, _ := newLinkServer(t, func(o *Options) {
		o.Links.Clusters = func() map[string][]string {
			return map[string][]string{"kubernetes": {"old authority", "authority"}, "kubernetes-b": {"another"}}
		}
		o.Links.Dial = func(ctx context.Context, e dstack.Endpoint) (net.Conn, error) {
			dialed.Add(1)
			if e.Host != "kubernetes" {
				return nil, errors.New("no way to " + e.Host)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", toPod)
		}
	})
	pod := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "pod") }))
	t.Cleanup(pod.Close)
	toPod = pod.Listener.Addr().String()
	h.makeReadyAt("web", dstack.Endpoint{Host: "kubernetes", Address: toPod})
	for _, c := range []struct {
		name        string
		authorities []string
		isDirect    bool
	}{
		{"in the cluster", []string{"authority"}, true},
		{"in another cluster", []string{"another"}, false},
		{"in no cluster", nil, false},
	} {
		process := h.startProcess(c.authorities...)
		table := process.waitTable(t, "a ready replica", func(table route.Table) bool {
			r := routeNamed(table, "web")
			return r != nil && len(r.Ready) == 1
		})
		before := dialed.Load()
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return process.dialer.Dial(ctx, table.Routes[0].Ready[0].Endpoint)
		}}}
		response, err := client.Get("http://replica/")
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || string(text) != "pod" || dialed.Load()-before == 0 != c.isDirect {
			t.Errorf("%s: %q, %v, through the server %d times", c.name, text, err, dialed.Load()-before)
		}
		client.CloseIdleConnections()
		process.stop()
	}
}
