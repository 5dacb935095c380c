package gateway

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// drainTimeout is how long what is left of a body may still come once nobody wants
// it. It lets a client that sends before it reads see the answer.
const drainTimeout = time.Second

// requestBody is a request's body as it comes in. It gives up on clients that send
// nothing for too long, and notes when it was the client that failed. One
// goroutine reads it, which may be at it when the exchange ends.
type requestBody struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
	due     time.Time // the reader's own
	most    time.Time // when the next piece must have come, whatever the stall; zero: no matter

	mu    sync.Mutex // never held while reading
	whole bool       // read to its end
	fail  bool       // the client did not send what it said
	over  bool       // deadlines are not the reader's to set any more
}

// newRequestBody sets a deadline at once: without one the server would wait for
// ever for the rest of a body that nobody reads.
func newRequestBody(body io.ReadCloser, control *http.ResponseController, stall time.Duration) *requestBody {
	i := &requestBody{ReadCloser: body, control: control, stall: stall}
	i.extendDeadline()
	return i
}

func (i *requestBody) Read(p []byte) (int, error) {
	if i.isComplete() {
		// The proxy asks once more after the end. By then the server may have
		// closed the body, and would answer with an error for which the
		// proxy cuts the replica's answer short.
		return 0, io.EOF
	}
	i.extendDeadline()
	n, err := i.ReadCloser.Read(p)
	if err != nil {
		i.recordEnd(err)
	}
	return n, err
}

// recordEnd notes how the body ended.
func (i *requestBody) recordEnd(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.whole, i.fail = err == io.EOF, err != io.EOF
	if i.whole && !i.over {
		// The server goes on reading, to notice a client that leaves: it must
		// not meet our deadline.
		_ = i.control.SetReadDeadline(time.Time{})
	}
}

// extendDeadline moves the deadline, not at every piece: that costs more than it tells.
func (i *requestBody) extendDeadline() {
	now := time.Now()
	due, enough := now.Add(i.stall), i.due.Sub(now) > i.stall/2
	if !i.most.IsZero() && i.most.Before(due) {
		due, enough = i.most, i.most.Sub(i.due).Abs() < paceStep
	}
	if enough {
		return
	}
	i.due = due
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.over {
		_ = i.control.SetReadDeadline(i.due) // not every writer has one
	}
}

// paceStep is how exactly a pace is kept.
const paceStep = 50 * time.Millisecond

// setPaceDeadline sets when the next piece must have come.
func (i *requestBody) setPaceDeadline(most time.Time) { i.most = most }

// isLate says that it did not come by then.
func (i *requestBody) isLate() bool {
	return !i.most.IsZero() && !time.Now().Before(i.most.Add(-paceStep))
}

// abandon bounds what the server does with the rest: nothing, once the client has
// failed. The server lifts the deadline before it reads the connection's next
// request.
func (i *requestBody) abandon() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over = true
	if !i.whole && !i.fail {
		_ = i.control.SetReadDeadline(time.Now().Add(drainTimeout))
	}
}

func (i *requestBody) isComplete() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.whole
}

func (i *requestBody) hasFailed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fail
}
