package hubtest

import (
	"bytes"
	"net/http"
	"strings"
	"time"
)

// Fault is how requests go wrong. What is zero in it does not.
type Fault struct {
	Path    string        // a part of the path of the requests meant; empty: all
	Times   int           // how many of them; 0: until Mend
	Delay   time.Duration // before the answer, which then is as without a fault, or as below
	Until   chan struct{} // wait until it is closed, likewise
	Status  int           // answer with it
	Code    string        // and X-Error-Code
	Message string        // and X-Error-Message
	To      string        // redirect there
	Body    string        // answer 200 and this
	Cut     bool          // promise more than comes, and hang up
	Huge    int64         // answer 200 and so many bytes, their number not said before
}

// Fail makes requests go wrong from now on. The first fault that means a
// request has it.
func (h *Hub) Fail(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, &f)
}

// Mend ends all faults.
func (h *Hub) Mend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = nil
}

// takeFault is the one that means a path. The caller holds the lock.
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

// applyFault does what a fault says, and tells whether that was the answer.
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
		_ = http.NewResponseController(w).Flush() // else nothing comes at all, and clients try again
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

// waitForFault tells whether anybody still waits for the answer afterwards.
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
