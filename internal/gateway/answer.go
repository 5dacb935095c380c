package gateway

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// mostEarly is how many informational answers (103 and the like) of a replica
// are passed on.
const mostEarly = 16

// answer is the way back to the client. It notes what was sent, and gives up
// on clients that take nothing for too long.
type answer struct {
	http.ResponseWriter
	control  *http.ResponseController
	stall    time.Duration
	due      time.Time // the write deadline; zero: none was set
	sent     bool      // a final status
	status   int       // for the log
	bytes    int64
	early    int
	hijacked bool
}

func newAnswer(w http.ResponseWriter, stall time.Duration) *answer {
	return &answer{ResponseWriter: w, control: http.NewResponseController(w), stall: stall}
}

// WriteHeader passes a status on. Of informational ones, 100 is the server's
// own to send, and a replica cannot flood a client with the others.
func (a *answer) WriteHeader(status int) {
	if a.sent { // comments went before
		return
	}
	if status < http.StatusOK && status != http.StatusSwitchingProtocols {
		if a.early++; status == http.StatusContinue || a.early > mostEarly {
			return
		}
		a.extend()
		a.ResponseWriter.WriteHeader(status)
		return
	}
	a.sent, a.status = true, status
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if !a.sent {
		a.sent, a.status = true, http.StatusOK
	}
	a.extend()
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// extend moves the deadline, not at every piece: that costs more than it tells.
func (a *answer) extend() {
	now := time.Now()
	if a.due.Sub(now) > a.stall/2 {
		return
	}
	a.due = now.Add(a.stall)
	_ = a.control.SetWriteDeadline(a.due) // not every writer has one, and a gone client shows in Write
}

// Hijack gives the connection away, for a WebSocket.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.sent, a.hijacked = true, true
	a.status = http.StatusSwitchingProtocols
	return a.control.Hijack()
}

// Unwrap lets http.ResponseController find what answer does not have itself.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// end sends what is left while the deadline stands, and takes it away: the
// connection may serve other handlers next.
func (a *answer) end() {
	if a.hijacked || a.due.IsZero() {
		return
	}
	if a.sent {
		_ = a.control.Flush() // an error here shows in the connection's next use
	}
	_ = a.control.SetWriteDeadline(time.Time{})
}
