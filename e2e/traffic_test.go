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

// requestResult is the result of one request.
type requestResult struct {
	startedAt, endedAt time.Time
	status             int // 0: no response, see err
	err                error
	version            string
	instance           string
}

func (s requestResult) duration() time.Duration { return s.endedAt.Sub(s.startedAt) }

// traffic sends requests at a fixed rate, independently of the responses.
type traffic struct {
	h    *harness
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	all  []requestResult
	open int
}

// maxOpenRequests limits the requests of one traffic that have no response yet.
const maxOpenRequests = 400

// startTraffic starts to send GETs. They end with finish, or with the test.
func (h *harness) startTraffic(perSecond float64, address string) *traffic {
	l := &traffic{h: h, stop: make(chan struct{})}
	l.wg.Go(func() {
		tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
		defer tick.Stop()
		for {
			l.wg.Go(func() { l.sendOne(address) })
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

func (l *traffic) sendOne(address string) {
	l.mu.Lock()
	l.open++
	tooMany := l.open > maxOpenRequests
	l.mu.Unlock()
	s := requestResult{startedAt: time.Now(), err: fmt.Errorf("more than %d requests have no response", maxOpenRequests)}
	if !tooMany {
		s = l.h.measureRequest("GET", address, nil)
	}
	l.mu.Lock()
	l.open--
	l.all = append(l.all, s)
	l.mu.Unlock()
}

// measureRequest sends a request with the user's token and reads the response.
func (h *harness) measureRequest(method, address string, body io.Reader) (s requestResult) {
	s.startedAt = time.Now()
	defer func() { s.endedAt = time.Now() }()
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

// resultsSoFar returns the results of all requests that have ended.
func (l *traffic) resultsSoFar() []requestResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]requestResult(nil), l.all...)
}

// finish stops the traffic, waits for the open requests and returns all results.
func (l *traffic) finish() []requestResult {
	close(l.stop)
	l.wg.Wait()
	return l.all
}

// expectNoFailure finishes the traffic and checks that there were requests and none
// failed.
func (l *traffic) expectNoFailure(what string) []requestResult {
	l.h.t.Helper()
	all := l.finish()
	bad, longest := filterFailed(all), time.Duration(0)
	for _, s := range all {
		longest = max(longest, s.duration())
	}
	for i, s := range bad {
		if i < 5 {
			l.h.t.Errorf("%s: a request failed, sent at %s, after %s: %v", what, s.startedAt.Format("15:04:05.000"), s.duration().Round(time.Millisecond), s.err)
		}
	}
	if len(bad) > 0 || len(all) == 0 {
		l.h.t.Errorf("%s: %d of %d requests failed", what, len(bad), len(all))
	}
	l.h.t.Logf("%s: %d requests, the longest took %s", what, len(all), longest.Round(time.Millisecond))
	return all
}

var errNotYet = errors.New("not yet")

func filterFailed(all []requestResult) (bad []requestResult) {
	for _, s := range all {
		if s.err != nil {
			bad = append(bad, s)
		}
	}
	return bad
}

// eventStream is a stream of events as its client received it.
type eventStream struct {
	requestResult
	lastEvent int  // the number of the last event
	complete  bool // all events arrived in order, and the end event
	started   chan struct{}
	done      chan struct{}
}

// openStream opens a stream of n events, ms milliseconds apart. It returns when the
// first event or a refusal has arrived; done is closed at the end of the stream.
func (h *harness) openStream(ctx context.Context, run string, n, ms int) *eventStream {
	s := &eventStream{started: make(chan struct{}), done: make(chan struct{})}
	s.startedAt = time.Now()
	go func() {
		defer close(s.done)
		first := sync.OnceFunc(func() { close(s.started) })
		defer first()
		s.err = h.readStream(ctx, h.serviceURL(run, fmt.Sprintf("/sse?n=%d&ms=%d", n, ms)), s, first)
		s.endedAt = time.Now()
		s.complete = s.complete && s.lastEvent == n
	}()
	<-s.started
	return s
}

// readStream reads a stream to its end.
func (h *harness) readStream(ctx context.Context, address string, s *eventStream, first func()) error {
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	res, err := clientWithoutTimeout.Do(req)
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
			if err != nil || got != s.lastEvent+1 {
				return fmt.Errorf("event %q after event %d: %w", number, s.lastEvent, err)
			}
			s.lastEvent = got
			first()
		}
		s.complete = s.complete || lines.Text() == "event: end"
	}
	return lines.Err()
}

// clientWithoutTimeout is client without its timeout, for long streams.
var clientWithoutTimeout = &http.Client{Transport: client.Transport}

// streamTraffic opens streams at a fixed rate.
type streamTraffic struct {
	h    *harness
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	all  []*eventStream
}

// startStreams starts to open streams of n events, ms milliseconds apart, with a
// pause between their starts.
func (h *harness) startStreams(run string, n, ms int, pause time.Duration) *streamTraffic {
	l := &streamTraffic{h: h, stop: make(chan struct{})}
	l.wg.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			l.wg.Go(func() {
				s := h.openStream(h.t.Context(), run, n, ms)
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

// checkStarted returns an error unless n streams have been started.
func (l *streamTraffic) checkStarted(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) < n {
		return fmt.Errorf("%d streams have started, want %d", len(l.all), n)
	}
	return nil
}

// expectComplete stops to open streams, waits for the open ones and checks that all
// are complete.
func (l *streamTraffic) expectComplete(what string) []*eventStream {
	l.h.t.Helper()
	close(l.stop)
	l.wg.Wait()
	expectCompleteStreams(l.h, what, l.all)
	return l.all
}

// expectCompleteStreams waits for streams and checks that all are complete.
func expectCompleteStreams(h *harness, what string, all []*eventStream) {
	h.t.Helper()
	cut := 0
	for _, s := range all {
		<-s.done
		if s.complete {
			continue
		}
		if cut++; cut <= 5 {
			h.t.Errorf("%s: a stream of %s, started at %s, was cut after %s at event %d: %v",
				what, s.instance, s.startedAt.Format("15:04:05.000"), s.duration().Round(time.Millisecond), s.lastEvent, s.err)
		}
	}
	if cut > 0 || len(all) == 0 {
		h.t.Errorf("%s: %d of %d streams were cut", what, cut, len(all))
	}
	h.t.Logf("%s: %d streams", what, len(all))
}
