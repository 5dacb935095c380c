package gateway

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// httputil.ReverseProxy reads once more after the end, when the server may have
// closed the body. Any error but io.EOF makes it cut the response short.
func TestRequestBody_ReadAfterTheEnd(t *testing.T) {
	w := newDeadlines()
	body := &closableBody{Reader: strings.NewReader("body")}
	i := newRequestBody(body, http.NewResponseController(w), time.Minute, false)
	if got, err := io.ReadAll(i); string(got) != "body" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	body.Close()
	if n, err := i.Read(make([]byte, 8)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if !i.isComplete() || i.hasFailed() {
		t.Errorf("ended %v, broken %v", i.isComplete(), i.hasFailed())
	}
	if !w.read.IsZero() {
		t.Error("its deadline outlives the body")
	}
	i.abandon()
	if !w.read.IsZero() {
		t.Error("a whole body got a deadline")
	}
}

func TestRequestBody_Deadlines(t *testing.T) {
	w := newDeadlines()
	i := newRequestBody(&closableBody{Reader: strings.NewReader("body")}, http.NewResponseController(w), time.Minute, false)
	if left := time.Until(w.read); left < 50*time.Second || left > time.Minute {
		t.Errorf("before the first read: %v left", left)
	}
	i.Read(make([]byte, 1))
	i.abandon()
	if left := time.Until(w.read); left > drainTimeout || left < 0 {
		t.Errorf("for an unwanted rest: %v left", left)
	}
	w.read = time.Time{} // the server has gone on to the next request
	io.Copy(io.Discard, i)
	if !w.read.IsZero() {
		t.Error("a late reader sets a deadline for the next request")
	}
}

func TestRequestBody_ClientFails(t *testing.T) {
	w := newDeadlines()
	i := newRequestBody(&closableBody{Reader: strings.NewReader("body"), closed: true}, http.NewResponseController(w), time.Minute, false)
	if _, err := io.ReadAll(i); !errors.Is(err, errClosed) || !i.hasFailed() || i.isComplete() {
		t.Errorf("got %v, broken %v, ended %v", err, i.hasFailed(), i.isComplete())
	}
}

var errClosed = errors.New("read after close")

// closableBody is a body whose reads fail once it is closed.
type closableBody struct {
	io.Reader
	closed bool
}

func (c *closableBody) Read(p []byte) (int, error) {
	if c.closed {
		return 0, errClosed
	}
	return c.Reader.Read(p)
}

func (c *closableBody) Close() error { c.closed = true; return nil }

// deadlineRecorder is a writer that records its read deadline.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	read time.Time
}

func newDeadlines() *deadlineRecorder {
	return &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
}

func (d *deadlineRecorder) SetReadDeadline(t time.Time) error { d.read = t; return nil }
