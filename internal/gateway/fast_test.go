package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/relay"
)

// newFastGateway returns a gateway with a table of its own, whose Tasks do not run.
func newFastGateway(token string, routes ...route.Route) *Gateway {
	g := New(Options{Log: slog.New(slog.DiscardHandler)})
	sum := sha256.Sum256([]byte(token))
	g.applyTable(route.Table{Version: 1, Routes: routes, Tokens: map[string][]string{hex.EncodeToString(sum[:]): {"main"}}, Projects: []string{"main"}})
	return g
}

// beginExchange parses a request, and asks the director about it.
func beginExchange(t testing.TB, d relay.Director, x *relay.Exchange, head string) relay.Step {
	t.Helper()
	if n, err := x.Request.Parse([]byte(strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n")); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	x.Client, x.StartedAt = netip.MustParseAddrPort("203.0.113.9:5000"), time.Now()
	return d.Next(x, relay.HeadArrived)
}

// What a replica is sent, and what a client gets: beside the fields that are passed on.
func TestDirector_PlainRequest(t *testing.T) {
	web := routeTo("10.0.0.1:80")
	web.Auth = true
	g := newFastGateway("secret", web)
	d := g.Director(DirectorOptions{})
	var x relay.Exchange
	step := beginExchange(t, d, &x, "GET /a?b HTTP/1.1\nHost: llama.localhost\nAuthorization: Bearer secret\nX_Forwarded_For: 6.6.6.6\n"+
		"X-Real-IP: 6.6.6.6\nForwarded: for=6.6.6.6\nx-dstack-user: admin\nX-Request-Id: abc\nAccept: */*")
	want := "X-Forwarded-For: 203.0.113.9\r\nX-Real-Ip: 203.0.113.9\r\nX-Forwarded-Host: llama.localhost\r\nX-Forwarded-Proto: http\r\n" +
		"X-Forwarded-Port: 80\r\nForwarded: for=203.0.113.9;host=\"llama.localhost\";proto=http\r\nX-Request-Id: abc\r\n"
	if step != relay.Send || x.Replica != "10.0.0.1:80" || x.Target != nil || !x.IsReplayable || string(x.Extra) != want {
		t.Errorf("step %d to %s: %q", step, x.Replica, x.Extra)
	}
	for _, f := range x.Request.Fields {
		if name := string(f.Name); name != "Host" && f.Drop == (name == "Accept") {
			t.Errorf("%s: dropped %v", name, f.Drop)
		}
	}
	if load := g.Load()[web.Run]; load.InFlight != 1 || load.Accepted != 1 {
		t.Errorf("%+v", load)
	}
	if n, err := x.Response.Parse([]byte("HTTP/1.1 200 OK\r\nX-Accel-Redirect: /x\r\nX-Request-Id: own\r\nDstack-Warning: x\r\nServer: y\r\n"+
		"Set-Cookie: a=b; Domain=localhost\r\nSet-Cookie: dstack-session=x\r\nContent-Length: 0\r\n\r\n"), x.Request.Method); n == 0 || err != nil {
		t.Fatal(err)
	}
	d.Respond(&x)
	if want := "X-Request-Id: abc\r\nSet-Cookie: a=b\r\n"; string(x.ResponseExtra) != want {
		t.Errorf("%q", x.ResponseExtra)
	}
	for _, f := range x.Response.Fields {
		if name := string(f.Name); name != "Content-Length" && f.Drop == (name == "Server") {
			t.Errorf("%s: dropped %v", name, f.Drop)
		}
	}
	x.Status = 200
	d.End(&x)
	if load := g.Load()[web.Run]; load.InFlight != 0 || x.State != nil {
		t.Errorf("%+v", load)
	}
}

// What a director does for one plain request: its token is checked, it is routed, counted, and its response rewritten.
func BenchmarkDirector(b *testing.B) {
	web := routeTo("10.0.0.1:80")
	web.Auth = true
	d := newFastGateway("secret", web).Director(DirectorOptions{})
	var x relay.Exchange
	request := []byte("GET /a HTTP/1.1\r\nHost: llama.localhost\r\nAuthorization: Bearer secret\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n")
	response := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: x\r\nDate: x\r\nContent-Length: 5\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Request.Parse(request); err != nil {
			b.Fatal(err)
		}
		if _, err := x.Response.Parse(response, x.Request.Method); err != nil {
			b.Fatal(err)
		}
		x.Client, x.StartedAt, x.Status = netip.AddrPort{}, time.Now(), 0
		if d.Next(&x, relay.HeadArrived) != relay.Send {
			b.Fatal("not sent")
		}
		d.Respond(&x)
		x.Status = 200
		d.End(&x)
	}
}
