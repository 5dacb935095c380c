package gateway

import (
	"compress/gzip"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"dstack/internal/openai"
)

// padding keeps the connection of a client that waits long for a JSON response:
// it begins the response with newlines, which JSON allows before its value.
// Node.js, for example, gives up on a response whose header takes 300 seconds.
// From the first newline on, the status of the response is 200.
//
// The timer writes newlines while the request waits for a replica and while the
// replica works. The request ends that when it uses the response itself; the
// lock keeps both from writing at once.
type padding struct {
	mu       sync.Mutex
	timer    *time.Timer
	interval time.Duration
	writer   *responseWriter
	begin    func(h http.Header) bool // sets the header; false: the client takes no newlines
	isOver   bool
	hasBegun bool
	bytes    int64
	deadline time.Time // the last write deadline
}

// padAfter begins the response with newlines once first has passed, unless the
// response is used before.
func (w *responseWriter) padAfter(first, interval time.Duration, begin func(h http.Header) bool) {
	p := &padding{interval: interval, writer: w, begin: begin}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(first, p.writeNewline)
	w.padding = p
}

// continuePadding goes on with newlines that have begun the response.
func (w *responseWriter) continuePadding(next, interval time.Duration, setHeader func(http.Header)) {
	setHeader(w.ResponseWriter.Header())
	w.ResponseWriter.WriteHeader(http.StatusOK)
	p := &padding{interval: interval, writer: w, hasBegun: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(next, p.writeNewline)
	w.padding = p
}

func (p *padding) writeNewline() {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.writer
	if p.isOver || !p.hasBegun && !p.begin(w.ResponseWriter.Header()) {
		return
	}
	p.deadline = time.Now().Add(w.stall)
	if w.stream == nil {
		_ = w.control.SetWriteDeadline(p.deadline) // as in extendDeadline
	}
	if !p.hasBegun {
		p.hasBegun = true
		w.ResponseWriter.WriteHeader(http.StatusOK)
	}
	n, err := io.WriteString(w.ResponseWriter, "\n")
	p.bytes += int64(n)
	if err == nil {
		err = w.control.Flush()
	}
	if err == nil { // otherwise the client has left, which ends the request's context
		p.timer.Reset(p.interval)
	}
}

// isPadded reports whether newlines have begun the response.
func (w *responseWriter) isPadded() bool {
	p := w.padding
	if p == nil {
		return w.padded
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hasBegun
}

// endPadding ends the newlines: the caller uses the response now. It reports
// whether they have begun it.
func (w *responseWriter) endPadding() bool {
	p := w.padding
	if p == nil {
		return w.padded
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isOver, w.padding, w.padded = true, nil, p.hasBegun
	p.timer.Stop()
	if p.hasBegun {
		w.sent, w.status, w.deadline = true, http.StatusOK, p.deadline
		w.bytes += p.bytes
	}
	return p.hasBegun
}

// keepConnected sends newlines to a client that waits long for a response in
// JSON.
func (m *modelCall) keepConnected() {
	p := m.request
	if p.response.isPadded() { // by the fast path
		return
	}
	limits := p.gateway.limits
	p.response.padAfter(time.Until(p.startedAt.Add(limits.NewlineAfter)), limits.NewlineInterval, m.beginNewlines)
}

// beginNewlines sets the header of a response that newlines begin. It reports whether
// the client takes them. It runs in the timer's goroutine, where a panic about the
// client's body would end the process: after one, there are no newlines.
func (m *modelCall) beginNewlines(h http.Header) (isWanted bool) {
	p := m.request
	defer func() {
		if value := recover(); value != nil {
			isWanted = false
			p.gateway.log.Error("panic while waiting", "id", p.id, "panic", value, "stack", string(debug.Stack()))
		}
	}()
	if !m.WantsJSON(&m.body.scanner) {
		return false
	}
	m.setNewlineHeaders(h)
	return true
}

// setNewlineHeaders sets the header of a response that newlines begin.
func (m *modelCall) setNewlineHeaders(h http.Header) {
	openai.AllowOrigin(h)
	h.Set("X-Request-Id", m.request.id)
	h.Set("Content-Type", "application/json")
	h.Set("X-Accel-Buffering", "no")
}

// continueJSON makes a replica's response the rest of the response that newlines
// have begun.
func (m *modelCall) continueJSON(res *http.Response, contentType string) error {
	if res.StatusCode != http.StatusOK {
		return readForeignError(res)
	}
	name := m.request.acquirer.lastReplica.route.Name
	if contentType != "application/json" && !strings.HasSuffix(contentType, "+json") {
		return newBadResponseError(name + " did not answer with JSON")
	}
	switch encoding := res.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return nil
	case "gzip": // the header that has been sent does not name it
		plain, err := gzip.NewReader(res.Body)
		if err != nil {
			return newBadResponseError(name + " did not answer with valid gzip")
		}
		res.Body = readCloser{plain, res.Body}
		return nil
	default:
		return newBadResponseError(name + " answered in the encoding " + quoteName(encoding))
	}
}

// readCloser reads from one and closes the other.
type readCloser struct {
	io.Reader
	io.Closer
}

// cutWithError writes an error after newlines and cuts the connection before its
// end. The status is 200 already: clients would take a complete error for an
// answer without content, but all of them report a cut.
func (m *modelCall) cutWithError(problem *openai.Problem) {
	p := m.request
	err := problem.WritePart(&p.response, m.isAnthropic())
	if err == nil {
		err = p.response.control.Flush()
	}
	p.logUndelivered(err)
	p.response.status = problem.Status // for the log and the metrics
	panic(http.ErrAbortHandler)
}
