package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dstack/internal/gateway"
)

func TestForward_StreamArrivesInPieces(t *testing.T) {
	next := make(chan string)
	for _, kind := range []string{"text/event-stream", "application/octet-stream"} {
		t.Run(kind, func(t *testing.T) {
			up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", kind)
				w.WriteHeader(200)
				http.NewResponseController(w).Flush()
				for piece := range next {
					if piece == "end" {
						return
					}
					io.WriteString(w, piece)
					http.NewResponseController(w).Flush()
				}
			})
			r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
			res, err := r.client.Do(r.newRequest("GET", "http://open.localhost/", nil)) // with the headers alone
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			in := bufio.NewReader(res.Body)
			for i := range 5 {
				piece := fmt.Sprintf("data: %d\n", i)
				next <- piece // only now there is a piece
				if got, err := in.ReadString('\n'); got != piece || err != nil {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			next <- "end"
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestForward_FlushesSlowBodies(t *testing.T) {
	more := make(chan struct{})
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "a")
		http.NewResponseController(w).Flush()
		<-more
		io.WriteString(w, "b")
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	res, err := r.client.Do(r.newRequest("GET", "http://open.localhost/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var one [1]byte
	if _, err := io.ReadFull(res.Body, one[:]); err != nil || one[0] != 'a' {
		t.Fatal(err)
	}
	close(more)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "b" {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestForward_UploadArrivesInPieces(t *testing.T) {
	seen := make(chan string)
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			seen <- line
		}
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	body, out := io.Pipe()
	done := make(chan response, 1)
	go func() { done <- r.do(r.newRequest("POST", "http://open.localhost/", body)) }()
	for i := range 3 {
		line := fmt.Sprintln("line", i)
		io.WriteString(out, line)
		if got := <-seen; got != line {
			t.Fatalf("got %q", got)
		}
	}
	out.Close()
	if got := <-done; got.StatusCode != 200 {
		t.Errorf("status %d", got.StatusCode)
	}
}

func TestForward_CancelReachesTheReplica(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
		}
		close(arrived)
		<-r.Context().Done()
		close(gone)
	})
	for _, path := range []string{"/silent", "/stream"} {
		arrived, gone = make(chan struct{}), make(chan struct{})
		r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			res, err := r.client.Do(r.newRequest("GET", "http://open.localhost"+path, nil).WithContext(ctx))
			if err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}()
		<-arrived
		if n := r.gateway.Load()["run-open"].InFlight; n != 1 {
			t.Errorf("%s: %d in flight", path, n)
		}
		cancel()
		<-gone
		<-done
		waitUntil(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
	}
}

func TestForward_WebSocket(t *testing.T) {
	closed := make(chan struct{})
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		defer close(closed)
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		for {
			kind, data, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			if err := ws.Write(r.Context(), kind, append([]byte(r.URL.Path+" "), data...)); err != nil {
				return
			}
		}
	})
	r := startGateway(t, gateway.Limits{}, serviceRoute("chat", up))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	address := "ws://" + r.server.Listener.Addr().String() + "/talk"
	options := func(token string) *websocket.DialOptions {
		return &websocket.DialOptions{HTTPClient: r.client, Host: "chat.localhost", Subprotocols: []string{"echo"},
			HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}}
	}
	if _, res, err := websocket.Dial(ctx, address, options("wrong")); err == nil || res.StatusCode != 401 {
		t.Fatalf("with a wrong token: %v", err)
	}
	ws, _, err := websocket.Dial(ctx, address, options(member))
	if err != nil {
		t.Fatal(err)
	}
	if ws.Subprotocol() != "echo" {
		t.Errorf("subprotocol %q", ws.Subprotocol())
	}
	for i := range 3 {
		message := fmt.Sprint("message ", i)
		if err := ws.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != "/talk "+message {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if n := r.gateway.Load()["run-chat"].InFlight; n != 1 {
		t.Errorf("%d in flight", n)
	}
	ws.CloseNow() // the client disconnects
	<-closed
	waitUntil(t, "nothing in flight", func() bool { return r.gateway.Load()["run-chat"].InFlight == 0 })
}

func TestForward_LimitsEarlyHints(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		for range 100 {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("Link")
		io.WriteString(w, "done")
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	var early atomic.Int32
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code != http.StatusEarlyHints || h.Get("Link") == "" {
			t.Errorf("got %d %v", code, h)
		}
		early.Add(1)
		return nil
	}})
	got := r.do(r.newRequest("GET", "http://open.localhost/", nil).WithContext(ctx))
	if got.body != "done" || got.Header.Get("Link") != "" || got.Header.Get("X-Request-Id") == "" {
		t.Errorf("got %q %v", got.body, got.Header)
	}
	if n := early.Load(); n != 16 {
		t.Errorf("%d early answers came through, want 16", n)
	}
}

func TestForward_ExpectContinue(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		io.Copy(w, r.Body)
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	for path, want := range map[string]int{"/": 200, "/refuse": 417} {
		conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: open.localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", path)
		in := bufio.NewReader(conn)
		line, _ := in.ReadString('\n')
		if want == 200 {
			if line != "HTTP/1.1 100 Continue\r\n" {
				t.Errorf("first %q", line)
			}
			in.ReadString('\n')
			io.WriteString(conn, "body")
			line, _ = in.ReadString('\n')
		}
		if !strings.HasPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", want)) {
			t.Errorf("%s: %q", path, line)
		}
		conn.Close()
	}
}

func TestForward_HugeBodiesInConstantMemory(t *testing.T) {
	const size = 256 << 20
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	res, err := r.client.Do(r.newRequest("POST", "http://open.localhost/", io.LimitReader(zeroReader{}, size)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.CopyN(io.Discard, res.Body, size/2); err != nil {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&during)
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != size/2 {
		t.Fatal(n, err)
	}
	if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }
