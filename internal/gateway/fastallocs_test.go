package gateway_test

import (
	"bytes"
	"log/slog"
	"net"
	"runtime"
	"testing"

	"dstack/internal/gateway"
)

// A plain request takes no memory: with its token checked, routed, limited by nothing, and counted.
func TestFast_Allocations(t *testing.T) {
	most := 0.1
	if gateway.RaceEnabled { // memory cannot be measured
		most = 1000
	}
	replica, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	reply := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: x\r\nContent-Length: 5\r\n\r\nhello")
	go func() {
		for {
			conn, err := replica.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 4096)
				for {
					if n, err := conn.Read(buffer); err != nil || !bytes.HasSuffix(buffer[:n], []byte("\r\n\r\n")) {
						return
					}
					if _, err := conn.Write(reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	r := startGatewayWith(t, gateway.Options{Log: slog.New(slog.DiscardHandler)}, serviceRoute("web", targetAt(replica.Addr().String(), 0)))
	conn := r.dialGateway()
	request := []byte("GET /a HTTP/1.1\r\nHost: web.localhost\r\nAuthorization: Bearer " + member + "\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n")
	answer := make([]byte, 4096)
	get := func() {
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(answer)
		if err != nil || !bytes.HasSuffix(answer[:n], []byte("hello")) {
			t.Fatalf("%v %q", err, answer[:n])
		}
	}
	for range 100 {
		get()
	}
	const requests = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range requests {
		get()
	}
	runtime.ReadMemStats(&after)
	each := float64(after.Mallocs-before.Mallocs) / requests
	t.Logf("%.3f allocations a request", each)
	if each > most || r.fast.Load() < requests {
		t.Errorf("%.3f allocations a request; %d of %d are fast", each, r.fast.Load(), requests)
	}
}
