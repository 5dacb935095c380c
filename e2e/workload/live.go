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

// What the environment may ask of the workload. Those of misbehaviour are only
// for the replica that ONLY names, if it names one.
//
//	VERSION       what it says that it is
//	LISTEN_AFTER  milliseconds until it listens
//	SICK          its /health fails from the start
//	CRASH_AFTER   milliseconds until it exits with status 7
//	IGNORE_TERM   it does not mind SIGTERM
//	ONLY          the number of the replica that misbehaves
type conduct struct {
	crashAfter, listenAfter time.Duration
	sick, stubborn          bool
}

func conductOf() conduct {
	c := conduct{listenAfter: millis("LISTEN_AFTER")}
	if only := os.Getenv("ONLY"); only != "" && only != os.Getenv("DSTACK_REPLICA_NUM") {
		return c
	}
	c.crashAfter = millis("CRASH_AFTER")
	c.sick, c.stubborn = os.Getenv("SICK") != "", os.Getenv("IGNORE_TERM") != ""
	return c
}

func millis(name string) time.Duration {
	n, _ := strconv.Atoi(os.Getenv(name))
	return time.Duration(n) * time.Millisecond
}

// begin does what does not wait for requests. It returns when it is time to
// listen.
func (c conduct) begin() {
	sick.Store(c.sick)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for range signals {
			fmt.Println("workload: asked to stop")
			if !c.stubborn {
				os.Exit(0) // at once: what was in flight is cut, and its client sees it
			}
		}
	}()
	if c.crashAfter > 0 {
		time.AfterFunc(c.crashAfter, func() { crash("crashing, as it was told") })
	}
	time.Sleep(c.listenAfter)
}

func crash(why string) {
	fmt.Println("workload: " + why)
	os.Exit(7)
}

var (
	sick   atomic.Bool // /health fails
	frozen atomic.Bool // no request is answered
	busy   atomic.Int64
	began  = time.Now() // when it began
)

// identified tells in each answer's header who gives it.
func identified(next http.Handler) http.Handler {
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
		next.ServeHTTP(w, r)
	})
}

// live are the ways to make it live well, or badly.
func live() {
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
		if sick.Load() {
			http.Error(w, "sick", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "well")
	})
	http.HandleFunc("POST /sick", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	http.HandleFunc("POST /well", func(http.ResponseWriter, *http.Request) { sick.Store(false) })
}

// who tells in few words who answers.
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

// slow answers after ?ms=.
func slow(w http.ResponseWriter, r *http.Request) {
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	select {
	case <-r.Context().Done():
	case <-time.After(time.Duration(ms) * time.Millisecond):
		fmt.Fprintln(w, "at last")
	}
}

// size answers how long the body was.
func size(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprint(w, n)
}

// sse sends ?n= numbered events, ?ms= apart, and then one that says that they
// were all.
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
