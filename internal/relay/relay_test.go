package relay

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

func TestRelay_Plain(t *testing.T) {
	r := newRig(t, echo(t), Options{})
	for i := range 5 {
		res, err := http.Post("http://"+r.address+"/p?q=1", "text/plain", strings.NewReader(fmt.Sprint("hello", i)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if want := fmt.Sprint("POST /p?q=1 hello", i); err != nil || string(body) != want {
			t.Fatalf("got %q (%v), want %q", body, err, want)
		}
		r.expectEnd(Complete, 200)
	}
	if c := r.relay.Counts(); c.Connections != 1 || c.Exchanges != 0 || c.Kept != 1 {
		t.Fatalf("counts %+v, want one connection of a client and one kept", c)
	}
}

func TestRelay_KeepsAlive(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	c := r.dial()
	c.send("GET /1 HTTP/1.1\r\nHost: a\r\nAccept: x\r\nConnection: keep-alive\r\n\r\n")
	p := s.accept()
	p.expect("GET /1 HTTP/1.1\r\nHost: a\r\nAccept: x\r\n\r\n")
	p.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: d\r\n\r\nhi")
	c.expect("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nhi")
	c.send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
	p.expect("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
	p.send("HTTP/1.1 404 Nope\r\nContent-Length: 0\r\nDate: d\r\n\r\n")
	c.expect("HTTP/1.1 404 Nope\r\nDate: d\r\nContent-Length: 0\r\n\r\n")
	r.expectEnd(Complete, 200)
	r.expectEnd(Complete, 404)
	_ = c.Close()
	eventually(t, "no connection is counted", func() bool { return r.relay.Counts().Connections == 0 })
}

func TestRelay_ManyClients(t *testing.T) {
	r := newRig(t, echo(t), Options{Loops: 2})
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for i := range 50 {
				res, err := client.Post("http://"+r.address+"/", "text/plain", strings.NewReader(strings.Repeat("x", i*1000)))
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || len(body) != len("POST / ")+i*1000 {
					t.Errorf("got %d bytes (%v)", len(body), err)
				}
			}
		})
	}
	all.Wait()
}
