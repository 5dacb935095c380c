package dial_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"pgregory.net/rapid"

	"dstack/internal/dial"
	"dstack/internal/dstack"
)

func TestDial_EndpointWithoutHost(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer server.Close()
	conn, err := new(dial.Dialer).Dial(t.Context(), dstack.Endpoint{Address: server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestDial_UnreachableEndpointIsUnavailable(t *testing.T) {
	for _, e := range []dstack.Endpoint{{}, {Host: "gpu1"}, {Host: "gpu1", Address: "127.0.0.1:1"}} {
		if _, err := new(dial.Dialer).Dial(t.Context(), e); dstack.KindOf(err) != dstack.Unavailable {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// Two hosts have a replica at the same address. Requests to one must not use an idle
// connection to the other.
func TestTransport_SeparatesEqualAddressesOnDifferentHosts(t *testing.T) {
	var d dial.Dialer
	for _, host := range []string{"gpu1", "GPU 1"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, host+" "+r.Host) }))
		defer server.Close()
		d.AddHost(host, func(ctx context.Context, address string) (net.Conn, error) {
			if address != "10.0.0.5:8000" {
				return nil, errors.New("unexpected address " + address)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
		})
	}
	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	for range 2 {
		for _, host := range []string{"gpu1", "GPU 1"} {
			e := dstack.Endpoint{Host: host, Address: "10.0.0.5:8000"}
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+dial.URLHost(e)+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "run.example"
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := host + " run.example"; string(body) != want {
				t.Errorf("got %q, want %q", body, want)
			}
		}
	}
	d.RemoveHost("gpu1")
	if _, err := d.Dial(t.Context(), dstack.Endpoint{Host: "gpu1", Address: "10.0.0.5:8000"}); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("after RemoveHost: %v", err)
	}
}

// DialContext decodes the endpoint that URLHost encoded.
func TestURLHost_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := dstack.Endpoint{Host: rapid.StringN(1, 40, -1).Draw(t, "host"),
			Address: net.JoinHostPort(rapid.SampledFrom([]string{"10.0.0.5", "::1", "fe80::1%eth0", "pod.svc", ""}).Draw(t, "name"), "8000")}
		var d dial.Dialer
		var got dstack.Endpoint
		d.AddHost(want.Host, func(_ context.Context, address string) (net.Conn, error) {
			got = dstack.Endpoint{Host: want.Host, Address: address}
			return nil, errors.New("not dialed")
		})
		_, _ = d.DialContext(context.Background(), "tcp", dial.URLHost(want))
		if got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}
