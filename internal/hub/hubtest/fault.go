package hubtest

import (
	"bytes"
	"net/http"
	"strings"
	"time"
)

// Fault describes how the hub fails. Zero fields have no effect.
type Fault struct {
	Path    string        // part of the path of affected requests; empty for all
	Times   int           // number of affected requests; 0 for all until Mend
	Delay   time.Duration // wait before the response
	Until   chan struct{} // wait until it is closed before the response
	Status  int           // respond with this status
	Code    string        // set X-Error-Code
	Message string        // set X-Error-Message
	To      string        // redirect to this URL
	Body    string        // respond 200 with this body
	Cut     bool          // close the connection in the middle of the body
	Huge    int64         // respond 200 with this many bytes and no Content-Length
}

// Fail adds a fault. The first fault that matches a request applies.
func (h *Hub) Fail(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, &f)
}

// Mend removes all faults.
func (h *Hub) Mend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = nil
}

// takeFault returns the fault for a path, or nil, and counts its use. The
// caller holds h.mu.
func (h *Hub) takeFault(path string) *Fault {
	for i, f := range h.faults {
		if !strings.Contains(path, f.Path) {
			continue
		}
		if f.Times == 1 {
			h.faults = append(h.faults[:i:i], h.faults[i+1:]...)
		}
		f.Times--
		return f
	}
	return nil
}

// applyFault applies a fault and reports whether it has responded.
func (h *Hub) applyFault(w http.ResponseWriter, r *http.Request, f *Fault) bool {
	if !h.waitForFault(r, f) {
		return true
	}
	if f.Code != "" {
		w.Header().Set("X-Error-Code", f.Code)
	}
	if f.Message != "" {
		w.Header().Set("X-Error-Message", f.Message)
	}
	switch {
	case f.To != "":
		w.Header().Set("Location", f.To)
		w.WriteHeader(http.StatusFound)
	case f.Status != 0:
		w.WriteHeader(f.Status)
	case f.Cut:
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"sha":`))
		_ = http.NewResponseController(w).Flush() // otherwise the client gets nothing and tries again
		panic(http.ErrAbortHandler)
	case f.Huge > 0:
		writeSpaces(w, f.Huge)
	case f.Body != "":
		_, _ = w.Write([]byte(f.Body))
	default:
		return false
	}
	return true
}

// waitForFault waits as the fault says. It returns false if the client or the
// hub has gone meanwhile.
func (h *Hub) waitForFault(r *http.Request, f *Fault) bool {
	until := f.Until
	if until == nil {
		if f.Delay == 0 {
			return true
		}
		until = make(chan struct{}) // never closed
	}
	var over <-chan time.Time
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
		return true
	case <-until:
		return true
	case <-r.Context().Done():
	case <-h.closing:
	}
	return false
}

func writeSpaces(w http.ResponseWriter, n int64) {
	block := bytes.Repeat([]byte{' '}, 64<<10)
	for n > 0 {
		m, err := w.Write(block[:min(n, int64(len(block)))])
		if err != nil {
			return
		}
		n -= int64(m)
	}
}
