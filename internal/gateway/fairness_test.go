package gateway_test

import (
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/gateway"
)

// Many small streams and a big one share one HTTP/2 connection: none of them waits for the end of another.
func TestForward_SmallStreamsBesideABigOne(t *testing.T) {
	enough := make(chan struct{})
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/big" {
			io.WriteString(w, "small")
			return
		}
		piece := make([]byte, 64<<10)
		for {
			select {
			case <-enough:
				return
			default:
			}
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("web", up))
	r.slow(t, true)
	res, err := r.client.Do(r.newRequest("GET", "https://web.localhost/big", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var received atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		piece := make([]byte, 64<<10)
		for {
			n, err := res.Body.Read(piece)
			if received.Add(int64(n)); err != nil {
				return
			}
		}
	})
	waitUntil(t, "the big stream", func() bool { return received.Load() > 8<<20 })
	before, began := received.Load(), time.Now()
	var mu sync.Mutex
	var took []time.Duration
	for range 20 {
		all.Go(func() {
			for range 10 {
				sentAt := time.Now()
				if got := r.getSlow("/small"); got.body != "small" || got.ProtoMajor != 2 {
					t.Errorf("got %q over %s", got.body, got.Proto)
				}
				mu.Lock()
				took = append(took, time.Since(sentAt))
				mu.Unlock()
			}
		})
	}
	waitUntil(t, "the small streams", func() bool { mu.Lock(); defer mu.Unlock(); return len(took) == 200 })
	rate := float64(received.Load()-before) / time.Since(began).Seconds() / (1 << 20)
	close(enough)
	all.Wait()
	slices.Sort(took)
	t.Logf("small streams took %s, at most %s; the big one got %.0f MiB/s", took[100], took[199], rate)
	if took[199] > 2*time.Second || rate < 1 {
		t.Errorf("small streams took up to %s, and the big one got %.1f MiB/s", took[199], rate)
	}
}
