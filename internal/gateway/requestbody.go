package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// drainTimeout is how long the rest of an unwanted body may still arrive, so
	// that a client that sends before it reads gets the response.
	drainTimeout = time.Second
	// paceTolerance is how exactly a pace deadline is kept.
	paceTolerance = 50 * time.Millisecond
)

// requestBody is the body of a request as it arrives. It gives up on clients
// that send nothing for the stall timeout, and records whether the client
// failed. One goroutine reads it, possibly still when the request ends.
type requestBody struct {
	io.ReadCloser
	control      *http.ResponseController
	stall        time.Duration
	trailer      requestTrailer
	deadline     time.Time   // for reads, as set last
	paceDeadline time.Time   // when the next piece must be there, whatever the stall timeout; zero: none
	stream       *stallTimer // of an HTTP/2 stream; nil: the deadline of a connection

	mu        sync.Mutex // never held while reading
	complete  bool       // read to its end
	failed    bool       // the client did not send what it announced
	abandoned bool       // Read sets no deadlines any more
}

// newRequestBody sets a deadline at once: without one the server would wait for
// ever for the rest of a body that is not read. An HTTP/2 stream needs none.
func newRequestBody(body io.ReadCloser, control *http.ResponseController, stall time.Duration, isStream bool) *requestBody {
	b := &requestBody{ReadCloser: body, control: control, stall: stall}
	if isStream {
		b.stream = newStallTimer(control.SetReadDeadline)
		return b
	}
	b.extendDeadline()
	return b
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.isComplete() {
		// httputil.ReverseProxy reads once more after the end. The server may
		// have closed the body by then, and its error would make the proxy cut
		// the response short.
		return 0, io.EOF
	}
	if b.stream != nil {
		b.stream.begin(b.stallLimit())
		defer b.stream.done()
	} else {
		b.extendDeadline()
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.recordEnd(err)
	}
	return n, err
}

func (b *requestBody) recordEnd(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complete = errors.Is(err, io.EOF)
	b.failed = !b.complete
	if b.complete {
		b.trailer.complete()
	}
	if b.complete && !b.abandoned && b.stream == nil {
		// net/http keeps reading, to detect that the client disconnects: it must
		// not meet this deadline.
		_ = b.control.SetReadDeadline(time.Time{})
	}
}

// stallLimit returns how long the next piece may take.
func (b *requestBody) stallLimit() time.Duration {
	limit := b.stall
	if !b.paceDeadline.IsZero() {
		limit = min(limit, time.Until(b.paceDeadline))
	}
	return limit
}

// extendDeadline moves the read deadline once half of it has passed: setting it
// for every read would cost too much.
func (b *requestBody) extendDeadline() {
	now := time.Now()
	due, isSet := now.Add(b.stall), b.deadline.Sub(now) > b.stall/2
	if !b.paceDeadline.IsZero() && b.paceDeadline.Before(due) {
		due, isSet = b.paceDeadline, b.paceDeadline.Sub(b.deadline).Abs() < paceTolerance
	}
	if isSet {
		return
	}
	b.deadline = due
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.abandoned {
		_ = b.control.SetReadDeadline(b.deadline) // not every writer supports deadlines
	}
}

// setPaceDeadline sets when the next piece must be there.
func (b *requestBody) setPaceDeadline(at time.Time) { b.paceDeadline = at }

// isLate reports that the pace deadline has passed.
func (b *requestBody) isLate() bool {
	return !b.paceDeadline.IsZero() && !time.Now().Before(b.paceDeadline.Add(-paceTolerance))
}

// abandon limits how long the server reads the rest of the body, which is not
// at all once the client has failed. The server removes the deadline before it
// reads the connection's next request.
func (b *requestBody) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.abandoned = true
	if b.stream != nil { // the server ends the stream with the response
		b.stream.stop()
		return
	}
	if !b.complete && !b.failed {
		_ = b.control.SetReadDeadline(time.Now().Add(drainTimeout))
	}
}

func (b *requestBody) isComplete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.complete
}

func (b *requestBody) hasFailed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}
