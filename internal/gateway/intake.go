package gateway

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// drain is how long what is left of a body may still come once nobody wants
// it. It lets a client that sends before it reads see the answer.
const drain = time.Second

// intake is a request's body as it comes in. It gives up on clients that send
// nothing for too long, and notes when it was the client that failed.
type intake struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
	due     time.Time
	ended   atomic.Bool // read to its end
	broken  atomic.Bool
}

// newIntake sets a deadline at once: without one the server would wait for
// ever for the rest of a body that nobody reads.
func newIntake(body io.ReadCloser, control *http.ResponseController, stall time.Duration) *intake {
	i := &intake{ReadCloser: body, control: control, stall: stall}
	i.extend()
	return i
}

func (i *intake) Read(p []byte) (int, error) {
	i.extend()
	n, err := i.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		// The server goes on reading, to notice a client that leaves: it must
		// not meet our deadline.
		i.ended.Store(true)
		_ = i.control.SetReadDeadline(time.Time{})
	case err != nil:
		i.broken.Store(true)
	}
	return n, err
}

// extend moves the deadline, not at every piece: that costs more than it tells.
func (i *intake) extend() {
	now := time.Now()
	if i.due.Sub(now) > i.stall/2 {
		return
	}
	i.due = now.Add(i.stall)
	_ = i.control.SetReadDeadline(i.due) // not every writer has one
}

// end bounds what the server does with the rest: nothing, once the client has
// failed. The server lifts the deadline before it reads the connection's next
// request.
func (i *intake) end() {
	if !i.ended.Load() && !i.broken.Load() {
		_ = i.control.SetReadDeadline(time.Now().Add(drain))
	}
}
