package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// behavior is how the workload behaves, by its environment. If ONLY is set, SICK,
// CRASH_AFTER and IGNORE_TERM apply only to the replica with that number.
//
//	VERSION       version in its responses
//	LISTEN_AFTER  milliseconds until it listens
//	LISTEN_WHEN   a file, and it listens once the file exists
//	LOAD          milliseconds from then until its model is loaded; before, it answers everything as llama.cpp does
//	SICK          /health fails from the start
//	CRASH_AFTER   milliseconds until it exits with status 7
//	IGNORE_TERM   it ignores SIGTERM
//	ONLY          the number of the replica that misbehaves
type behavior struct {
	crashAfter, listenAfter time.Duration
	load                    time.Duration
	isUnhealthy, ignoreTerm bool
}

func readBehavior() behavior {
	c := behavior{listenAfter: readMillis("LISTEN_AFTER"), load: readMillis("LOAD")}
	if only := os.Getenv("ONLY"); only != "" && only != os.Getenv("DSTACK_REPLICA_NUM") {
		return c
	}
	c.crashAfter = readMillis("CRASH_AFTER")
	c.isUnhealthy, c.ignoreTerm = os.Getenv("SICK") != "", os.Getenv("IGNORE_TERM") != ""
	return c
}

// readMillis reads an environment variable with a number of milliseconds.
func readMillis(name string) time.Duration {
	n, _ := strconv.Atoi(os.Getenv(name))
	return time.Duration(n) * time.Millisecond
}

// begin applies the behavior that does not depend on requests. It returns when
// it is time to listen.
func (c behavior) begin() {
	unhealthy.Store(c.isUnhealthy)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for range signals {
			fmt.Println("workload: asked to stop")
			if !c.ignoreTerm {
				os.Exit(0) // at once: requests in flight fail, and their clients notice
			}
		}
	}()
	if c.crashAfter > 0 {
		time.AfterFunc(c.crashAfter, func() { crash("crashing, as it was told") })
	}
	time.Sleep(c.listenAfter)
	if file := os.Getenv("LISTEN_WHEN"); file != "" {
		for _, err := os.Stat(file); err != nil; _, err = os.Stat(file) {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if c.load > 0 {
		loading.Store(true)
		time.AfterFunc(c.load, func() { loading.Store(false) })
	}
}

func crash(why string) {
	fmt.Println("workload: " + why)
	os.Exit(7)
}

var (
	unhealthy atomic.Bool // /health fails
	frozen    atomic.Bool // no request is answered
	loading   atomic.Bool // every request is answered with 503
	busy      atomic.Int64
	began     = time.Now()
)

// addIdentity adds headers to each response that identify the replica.
func addIdentity(next http.Handler) http.Handler {
	instance, _ := os.Hostname()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if frozen.Load() {
			<-r.Context().Done()
			return
		}
		busy.Add(1)
		defer busy.Add(-1)
		w.Header().Set("X-Replica", os.Getenv("DSTACK_REPLICA_NUM"))
		w.Header().Set("X-Version", os.Getenv("VERSION"))
		w.Header().Set("X-Instance", instance)
		w.Header().Set("X-Pid", strconv.Itoa(os.Getpid()))
		if loading.Load() {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// registerFaults registers the endpoints that observe the replica, or make it
// unhealthy, freeze or crash.
func registerFaults() {
	http.HandleFunc("/who", who)
	http.HandleFunc("/slow", slow)
	http.HandleFunc("/sse", sse)
	http.HandleFunc("/size", size)
	http.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	http.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { crash("crashing, as it was asked") })
	http.HandleFunc("POST /freeze", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "frozen")
		frozen.Store(true)
	})
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if unhealthy.Load() {
			http.Error(w, "sick", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "well")
	})
	http.HandleFunc("POST /sick", func(http.ResponseWriter, *http.Request) { unhealthy.Store(true) })
	http.HandleFunc("POST /well", func(http.ResponseWriter, *http.Request) { unhealthy.Store(false) })
}

// who returns a short description of the replica.
func who(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	err := json.NewEncoder(w).Encode(map[string]any{
		"replica": h.Get("X-Replica"), "version": h.Get("X-Version"), "instance": h.Get("X-Instance"),
		"pid": os.Getpid(), "busy": busy.Load(), "up": time.Since(began).Seconds(),
	})
	if err != nil {
		log.Print(err)
	}
}

// slow responds after ?ms= milliseconds.
func slow(w http.ResponseWriter, r *http.Request) {
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	select {
	case <-r.Context().Done():
	case <-time.After(time.Duration(ms) * time.Millisecond):
		fmt.Fprintln(w, "at last")
	}
}

// size returns the length of the request's body.
func size(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprint(w, n)
}

// sse sends ?n= numbered events, ?ms= apart, and then an event "end".
func sse(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	for i := 1; i <= n; i++ {
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, w.Header().Get("X-Version"))
		if control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Duration(ms) * time.Millisecond):
		}
	}
	fmt.Fprint(w, "event: end\ndata: all\n\n")
}
