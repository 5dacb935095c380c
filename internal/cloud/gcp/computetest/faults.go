package computetest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault is what goes wrong with requests. The zero values of Method and Zone mean any.
type Fault struct {
	Method string // instances.insert, token, skus.list, iam.testIamPermissions
	Zone   string

	Reason, Message string
	Status          int           // 0: 400
	RetryAfter      time.Duration // sent in whole seconds as a header; 0: no header
	IsHTML          bool          // the answer is a page of a proxy
	Cut             bool          // the connection ends without an answer
	Hang            bool          // there is no answer until the client gives up
	Done            bool          // the request is carried out before it fails: the answer is lost
	// Code lets the operation of the request fail with this code, instead of the request. The Message goes with it.
	Code    string
	Details map[string]any // of the operation's error: errorDetails
	Times   int            // how many requests it meets; 0: all, until it is removed
}

// errDropped is an answer that is not written.
var errDropped = errors.New("no answer")

// Inject adds a fault. Faults that were added earlier have precedence.
func (s *Server) Inject(f Fault) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := &f
	if f.Times == 0 {
		fault.Times = -1
	}
	s.faults = append(s.faults, fault)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(other *Fault) bool { return other == fault })
	}
}

// Throttle makes the next requests of a method fail: too many requests.
func (s *Server) Throttle(method string, times int, retryAfter time.Duration) (remove func()) {
	return s.Inject(Fault{
		Method: method, Reason: "rateLimitExceeded", Status: http.StatusTooManyRequests, RetryAfter: retryAfter, Times: times,
		Message: "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service 'compute.googleapis.com'",
	})
}

// takeFault returns the fault that a request meets, or nil. Those of operations are taken with the operation.
func (s *Server) takeFault(r *request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.resource != "token" {
		if f := s.takeCut(); f != nil {
			return f
		}
	}
	return s.takeMatching(r, false)
}

func (s *Server) takeMatching(r *request, ofOperation bool) *Fault {
	name := r.resource
	if r.method != "" {
		name += "." + r.method
	}
	for _, f := range s.faults {
		matches := (f.Method == "" || f.Method == name) && (f.Zone == "" || f.Zone == r.params["zone"])
		if f.Times == 0 || !matches || (f.Code != "") != ofOperation {
			continue
		}
		if f.Times > 0 {
			f.Times--
		}
		return f
	}
	return nil
}

// playFault answers a request with a fault.
func (s *Server) playFault(w http.ResponseWriter, hr *http.Request, f *Fault) error {
	if f.Hang {
		select {
		case <-hr.Context().Done():
		case <-s.ctx.Done():
		}
	}
	if f.Cut || f.Hang {
		if hijacker, ok := w.(http.Hijacker); ok {
			if conn, _, err := hijacker.Hijack(); err == nil {
				_ = conn.Close()
			}
		}
		return errDropped
	}
	status := f.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	if f.IsHTML {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "<!doctype html>\n<title>%s</title>\n", http.StatusText(status))
		return errDropped
	}
	return &apiError{status: status, reason: f.Reason, message: f.Message, retryAfter: f.RetryAfter}
}

// Call is a request that the server got.
type Call struct {
	Method string // instances.insert
	Zone   string
}

// Calls returns the requests so far, failed ones included, in their order.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Permissions returns those that the requests so far needed, each once, in their order.
func (s *Server) Permissions() []string {
	var used []string
	for _, c := range s.Calls() {
		resource, method, _ := strings.Cut(c.Method, ".")
		if right := permissionFor(&request{resource: resource, method: method}); right != "" && method != "" && !slices.Contains(used, right) {
			used = append(used, right)
		}
	}
	return used
}

// CountCalls returns how many requests of a method there were so far; with an empty name, of all but those for tokens.
func (s *Server) CountCalls(method string) int {
	count := 0
	for _, c := range s.Calls() {
		if c.Method == method || method == "" && !strings.HasPrefix(c.Method, "token") {
			count++
		}
	}
	return count
}

// CutAfter makes one request end without an answer, after n others (those for tokens do not count). isDone: it is carried
// out nevertheless. The client's own repetitions of it end so, too.
func (s *Server) CutAfter(n int, isDone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutAfter, s.cutTimes, s.cutDone = n, clientAttempts, isDone
}

// clientAttempts is how often clients try a request.
const clientAttempts = 4

// takeCut returns the fault of CutAfter, or nil. The caller holds the lock.
func (s *Server) takeCut() *Fault {
	if s.cutTimes == 0 {
		return nil
	}
	if s.cutAfter--; s.cutAfter >= 0 {
		return nil
	}
	s.cutTimes--
	return &Fault{Cut: true, Done: s.cutDone}
}

// Hide makes lists lack all machines, as a part of the API that lags may.
func (s *Server) Hide(isHidden bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isHidden = isHidden
}
