// Workload is the service that tests and measurements run: small, static, with
// an endpoint for each kind of traffic that a gateway forwards. Its first
// argument is the port to listen on.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

var cancelled atomic.Int64

func main() {
	port := "8000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	readBehavior().begin()
	registerFaults()
	registerModel()
	http.HandleFunc("/", about)
	http.HandleFunc("/echo", echo)
	http.HandleFunc("/digest", digest)
	http.HandleFunc("/events", events)
	http.HandleFunc("/socket", socket)
	http.HandleFunc("/v1/chat/completions", chat)
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	http.HandleFunc("/cancelled", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, cancelled.Load()) })
	fmt.Println("workload: listening on", port)
	// By default it listens on all addresses, because the gateway connects from
	// outside of the container. Tests that run it as a process set HOST.
	log.Fatal(http.ListenAndServe(net.JoinHostPort(os.Getenv("HOST"), port), addIdentity(http.DefaultServeMux)))
}

// about returns the request and the environment of this process.
func about(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	err := json.NewEncoder(w).Encode(map[string]any{
		"pid": os.Getpid(), "path": r.URL.Path, "host": r.Host, "headers": r.Header, "env": os.Environ(),
	})
	if err != nil {
		log.Print(err)
	}
}

// echo returns the body of the request.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, err := io.Copy(w, r.Body)
	if err != nil {
		log.Print(err)
	}
}

// digest reads the whole body, and responds with its SHA-256. Go's server drops a part of a chunked body that is read after the
// response has begun, as echo does.
func digest(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r.Body); err != nil {
		log.Print(err)
	}
	fmt.Fprintf(w, "%x", sum.Sum(nil))
}

// events sends ?n= events, ?ms= apart; without end if n is 0.
func events(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(time.Duration(max(ms, 1)) * time.Millisecond)
	defer tick.Stop()
	for i := 1; n == 0 || i <= n; i++ {
		fmt.Fprintf(w, "data: %d\n\n", i)
		if err := http.NewResponseController(w).Flush(); err != nil {
			break
		}
		select {
		case <-r.Context().Done():
			cancelled.Add(1)
			return
		case <-tick.C:
		}
	}
}

// socket accepts a WebSocket and returns every message that it receives.
func socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		log.Print(err)
		return
	}
	defer c.CloseNow()
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			if s := websocket.CloseStatus(err); s == -1 && !errors.Is(err, io.EOF) {
				cancelled.Add(1)
			}
			return
		}
		if err := c.Write(r.Context(), kind, data); err != nil {
			return
		}
	}
}
