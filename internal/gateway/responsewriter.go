package gateway

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
	"time"
)

// maxInformational is how many informational responses (103 and the like) of a
// replica are passed on.
const maxInformational = 16

// responseWriter writes the response to the client. It records what is sent,
// and gives up on clients that accept nothing for the stall timeout.
type responseWriter struct {
	http.ResponseWriter
	control       *http.ResponseController
	stall         time.Duration
	deadline      time.Time   // for writes; zero: none is set
	stream        *stallTimer // of an HTTP/2 stream; nil: the deadline of a connection
	padding       *padding    // nil: none, or not any more
	status        int         // for the log and the metrics
	bytes         int64
	headAt        time.Time // when the final status was sent
	firstAt       time.Time // when the first byte of the body was sent; zero: none was, or only what the gateway adds to a wait
	informational uint8     // responses so far, at most one more than are passed on
	sent          bool      // the final status is sent
	hijacked      bool
	padded        bool // newlines have begun the response
	isEventStream bool // the replica's response
}

func newResponseWriter(w http.ResponseWriter, stall time.Duration, isStream bool) responseWriter {
	written := responseWriter{ResponseWriter: w, control: http.NewResponseController(w), stall: stall}
	if isStream {
		written.stream = newStallTimer(written.control.SetWriteDeadline)
	}
	return written
}

// Header returns the header of the response. It ends the padding.
func (w *responseWriter) Header() http.Header {
	w.endPadding()
	return w.ResponseWriter.Header()
}

// WriteHeader sends a status. Of the informational ones, net/http sends 100
// itself, and the number of the others is limited.
func (w *responseWriter) WriteHeader(status int) {
	w.endPadding()
	if w.sent { // a response with keep-alive comments or newlines
		return
	}
	if status < http.StatusOK && status != http.StatusSwitchingProtocols {
		w.informational = min(w.informational+1, maxInformational+1)
		if status == http.StatusContinue || w.informational > maxInformational {
			return
		}
		defer w.beginWrite()()
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.sent, w.status, w.headAt = true, status, time.Now()
	w.keepContentType()
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.endPadding()
	if !w.sent {
		w.sent, w.status, w.headAt = true, http.StatusOK, time.Now()
		w.keepContentType()
	}
	if w.firstAt.IsZero() {
		w.firstAt = time.Now()
	}
	defer w.beginWrite()()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// FlushError sends what was written.
func (w *responseWriter) FlushError() error {
	if w.stream != nil {
		w.stream.begin(w.stall)
		defer w.stream.done()
	}
	return w.control.Flush()
}

// beginWrite limits a write until done is called.
func (w *responseWriter) beginWrite() (done func()) {
	if w.stream == nil {
		w.extendDeadline()
		return func() {}
	}
	w.stream.begin(w.stall)
	return w.stream.done
}

// keepContentType keeps net/http from guessing the type of a response that has
// none: the replica did not name it either.
func (w *responseWriter) keepContentType() {
	if h := w.Header(); h["Content-Type"] == nil {
		h["Content-Type"] = nil
	}
}

// writeAll sends a complete response.
func (w *responseWriter) writeAll(status int, contentType string, body []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, err := w.Write(body)
	return err
}

// extendDeadline moves the write deadline once half of it has passed: setting it
// for every write would cost too much.
func (w *responseWriter) extendDeadline() {
	now := time.Now()
	if w.deadline.Sub(now) > w.stall/2 {
		return
	}
	w.deadline = now.Add(w.stall)
	// Not every writer supports deadlines; a disconnected client is detected on
	// the next Write.
	_ = w.control.SetWriteDeadline(w.deadline)
}

// Hijack takes over the connection, for a WebSocket.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.endPadding()
	w.sent, w.hijacked = true, true
	w.status, w.headAt = http.StatusSwitchingProtocols, time.Now()
	return w.control.Hijack()
}

// Unwrap gives http.ResponseController the methods that responseWriter lacks.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// finish flushes the response and removes the deadline, since the connection
// may serve other handlers next.
func (w *responseWriter) finish() {
	w.endPadding()
	if w.stream != nil {
		w.stream.stop()
		return
	}
	if w.hijacked || w.deadline.IsZero() {
		return
	}
	if w.sent {
		_ = w.control.Flush() // an error here shows in the connection's next use
	}
	_ = w.control.SetWriteDeadline(time.Time{})
}
