package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// shot is one request of a traffic, and what became of it.
type shot struct {
	at, end  time.Time
	status   int // 0: no answer, see err
	err      error
	version  string
	instance string
}

func (s shot) took() time.Duration { return s.end.Sub(s.at) }

// traffic asks at a fixed rate, however long the answers take: as people do,
// who do not know of each other.
type traffic struct {
	h    *house
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	all  []shot
	open int
}

// mostOpen bounds the requests of one traffic that are not answered yet.
const mostOpen = 400

// asks begins a traffic of GETs. The test must end it, or else its end does.
func (h *house) asks(perSecond float64, address string) *traffic {
	l := &traffic{h: h, stop: make(chan struct{})}
	l.wg.Go(func() {
		tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
		defer tick.Stop()
		for {
			l.wg.Go(func() { l.shoot(address) })
			select {
			case <-l.stop:
				return
			case <-h.t.Context().Done():
				return
			case <-tick.C:
			}
		}
	})
	return l
}

func (l *traffic) shoot(address string) {
	l.mu.Lock()
	l.open++
	tooMany := l.open > mostOpen
	l.mu.Unlock()
	s := shot{at: time.Now(), err: fmt.Errorf("more than %d requests wait for an answer", mostOpen)}
	if !tooMany {
		s = l.h.shot("GET", address, nil)
	}
	l.mu.Lock()
	l.open--
	l.all = append(l.all, s)
	l.mu.Unlock()
}

// shot makes one request with the user's token, and reads the answer.
func (h *house) shot(method, address string, body io.Reader) (s shot) {
	s.at = time.Now()
	defer func() { s.end = time.Now() }()
	req, err := http.NewRequestWithContext(h.t.Context(), method, address, body)
	if err != nil {
		s.err = err
		return s
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	res, err := client.Do(req)
	if err != nil {
		s.err = err
		return s
	}
	defer res.Body.Close()
	s.status, s.version, s.instance = res.StatusCode, res.Header.Get("X-Version"), res.Header.Get("X-Instance")
	text, err := io.ReadAll(res.Body)
	if s.err = err; err == nil && s.status != http.StatusOK {
		s.err = fmt.Errorf("status %d: %.300s", s.status, text)
	}
	return s
}

// seen is what was answered so far.
func (l *traffic) seen() []shot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]shot(nil), l.all...)
}

// ends asks no more, and returns all once the last is answered.
func (l *traffic) ends() []shot {
	close(l.stop)
	l.wg.Wait()
	return l.all
}

// endsWell checks that there was traffic, and each request was answered.
func (l *traffic) endsWell(what string) []shot {
	l.h.t.Helper()
	all := l.ends()
	bad, longest := failed(all), time.Duration(0)
	for _, s := range all {
		longest = max(longest, s.took())
	}
	for i, s := range bad {
		if i < 5 {
			l.h.t.Errorf("%s: a request failed, begun %s, after %s: %v", what, s.at.Format("15:04:05.000"), s.took().Round(time.Millisecond), s.err)
		}
	}
	if len(bad) > 0 || len(all) == 0 {
		l.h.t.Errorf("%s: %d of %d requests failed", what, len(bad), len(all))
	}
	l.h.t.Logf("%s: %d requests, the longest took %s", what, len(all), longest.Round(time.Millisecond))
	return all
}

var errNotYet = errors.New("not yet")

func failed(all []shot) (bad []shot) {
	for _, s := range all {
		if s.err != nil {
			bad = append(bad, s)
		}
	}
	return bad
}

// stream is a stream of events, as its client saw it.
type stream struct {
	shot
	last  int  // the number of the last event
	whole bool // all came, in order, and the last one that says so
	begun chan struct{}
	done  chan struct{}
}

// streams opens a stream of n events, ms apart, and returns once the first
// event or a refusal is there; done is closed at its end.
func (h *house) streams(ctx context.Context, run string, n, ms int) *stream {
	s := &stream{begun: make(chan struct{}), done: make(chan struct{})}
	s.at = time.Now()
	go func() {
		defer close(s.done)
		first := sync.OnceFunc(func() { close(s.begun) })
		defer first()
		s.err = h.follow(ctx, h.service(run, fmt.Sprintf("/sse?n=%d&ms=%d", n, ms)), s, first)
		s.end = time.Now()
		s.whole = s.whole && s.last == n
	}()
	<-s.begun
	return s
}

// follow reads a stream to its end.
func (h *house) follow(ctx context.Context, address string, s *stream, first func()) error {
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	res, err := patient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	s.status, s.version, s.instance = res.StatusCode, res.Header.Get("X-Version"), res.Header.Get("X-Instance")
	if s.status != http.StatusOK {
		return fmt.Errorf("status %d", s.status)
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		number, isID := strings.CutPrefix(lines.Text(), "id: ")
		if isID {
			got, err := strconv.Atoi(number)
			if err != nil || got != s.last+1 {
				return fmt.Errorf("event %q after event %d: %v", number, s.last, err)
			}
			s.last = got
			first()
		}
		s.whole = s.whole || lines.Text() == "event: end"
	}
	return lines.Err()
}

// patient is the client without its limit on time, for long streams.
var patient = &http.Client{Transport: client.Transport}

// listening opens streams one after the other, each as long as it is.
type listening struct {
	h    *house
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	all  []*stream
}

// listens begins to open streams of n events, ms apart, one each pause.
func (h *house) listens(run string, n, ms int, pause time.Duration) *listening {
	l := &listening{h: h, stop: make(chan struct{})}
	l.wg.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			l.wg.Go(func() {
				s := h.streams(h.t.Context(), run, n, ms)
				l.mu.Lock()
				l.all = append(l.all, s)
				l.mu.Unlock()
				<-s.done
			})
			select {
			case <-l.stop:
				return
			case <-h.t.Context().Done():
				return
			case <-tick.C:
			}
		}
	})
	return l
}

// have checks that as many streams have begun.
func (l *listening) have(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) < n {
		return fmt.Errorf("%d streams have begun, not %d yet", len(l.all), n)
	}
	return nil
}

// endWell opens no more, and checks that not one was cut.
func (l *listening) endWell(what string) []*stream {
	l.h.t.Helper()
	close(l.stop)
	l.wg.Wait()
	areWhole(l.h, what, l.all)
	return l.all
}

// areWhole waits for streams, and checks that none was cut.
func areWhole(h *house, what string, all []*stream) {
	h.t.Helper()
	cut := 0
	for _, s := range all {
		<-s.done
		if s.whole {
			continue
		}
		if cut++; cut <= 5 {
			h.t.Errorf("%s: a stream of %s, begun %s, was cut after %s at event %d: %v",
				what, s.instance, s.at.Format("15:04:05.000"), s.took().Round(time.Millisecond), s.last, s.err)
		}
	}
	if cut > 0 || len(all) == 0 {
		h.t.Errorf("%s: %d of %d streams were cut", what, cut, len(all))
	}
	h.t.Logf("%s: %d streams", what, len(all))
}
