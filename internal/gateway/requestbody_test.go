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

// TestIntake_TheEndIsTheEnd: the proxy asks once more after the end, while the
// server may already have closed the body. Any other answer than the end
// makes the proxy cut the replica's answer short, one time in hundreds.
func TestIntake_TheEndIsTheEnd(t *testing.T) {
	w := newDeadlines()
	body := &closing{Reader: strings.NewReader("body")}
	i := newRequestBody(body, http.NewResponseController(w), time.Minute)
	if got, err := io.ReadAll(i); string(got) != "body" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	body.Close()
	if n, err := i.Read(make([]byte, 8)); n != 0 || err != io.EOF {
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

func TestIntake_DeadlineWhileItComes(t *testing.T) {
	w := newDeadlines()
	i := newRequestBody(&closing{Reader: strings.NewReader("body")}, http.NewResponseController(w), time.Minute)
	if left := time.Until(w.read); left < 50*time.Second || left > time.Minute {
		t.Errorf("before the first read: %v left", left)
	}
	i.Read(make([]byte, 1))
	i.abandon()
	if left := time.Until(w.read); left > drainTimeout || left < 0 {
		t.Errorf("once nobody wants the rest: %v left", left)
	}
	w.read = time.Time{} // the server has gone on to the next request
	io.Copy(io.Discard, i)
	if !w.read.IsZero() {
		t.Error("a late reader sets a deadline for the next request")
	}
}

func TestIntake_ClientThatFails(t *testing.T) {
	w := newDeadlines()
	i := newRequestBody(&closing{Reader: strings.NewReader("body"), closed: true}, http.NewResponseController(w), time.Minute)
	if _, err := io.ReadAll(i); !errors.Is(err, errClosed) || !i.hasFailed() || i.isComplete() {
		t.Errorf("got %v, broken %v, ended %v", err, i.hasFailed(), i.isComplete())
	}
}

var errClosed = errors.New("read after close")

// closing is a body that fails once it is closed.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Read(p []byte) (int, error) {
	if c.closed {
		return 0, errClosed
	}
	return c.Reader.Read(p)
}

func (c *closing) Close() error { c.closed = true; return nil }

// deadlines is a writer that remembers its deadlines.
type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func newDeadlines() *deadlines { return &deadlines{ResponseRecorder: httptest.NewRecorder()} }

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = t; return nil }
