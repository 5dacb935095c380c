package ec2test

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Fault is what goes wrong with requests. The zero values of Service, Region, Action, Zone and Type mean any.
type Fault struct {
	Service, Region, Action, Zone, Type string

	Code, Message string
	Status        int           // 0: 400
	RetryAfter    time.Duration // sent in whole seconds as a header; 0: no header
	IsHTML        bool          // the answer is a page of a proxy, without a code
	Cut           bool          // the connection ends without an answer
	Hang          bool          // there is no answer until the client gives up
	// Done does what the request asks for before it fails: the answer is lost.
	Done bool
	// StateReason lets RunInstances answer well with machines that end at once for this reason, such as
	// Server.InsufficientInstanceCapacity. The Message goes with it.
	StateReason string
	Times       int // how many requests it meets; 0: all, until it is removed
}

// Inject adds a fault. Faults that were added earlier have precedence.
func (s *Server) Inject(f Fault) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := &f
	if f.Times == 0 {
		fault.Times = -1
	}
	if f.StateReason != "" {
		fault.Done = true
	}
	s.faults = append(s.faults, fault)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(other *Fault) bool { return other == fault })
	}
}

// Throttle makes the next requests of an action fail: too many requests.
func (s *Server) Throttle(action string, times int, retryAfter time.Duration) (remove func()) {
	return s.Inject(Fault{
		Action: action, Code: "RequestLimitExceeded", Message: "Request limit exceeded.", Status: 503, RetryAfter: retryAfter, Times: times,
	})
}

// takeFault returns the fault that a request meets, or nil.
func (s *Server) takeFault(r *request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		matches := (f.Service == "" || f.Service == r.service) && (f.Region == "" || f.Region == r.region) &&
			(f.Action == "" || f.Action == r.action) && (f.Type == "" || f.Type == r.params.values.Get("InstanceType")) &&
			(f.Zone == "" || f.Zone == s.zoneOf(r))
		if f.Times == 0 || !matches {
			continue
		}
		if f.Times > 0 {
			f.Times--
		}
		return f
	}
	return nil
}

// zoneOf returns the zone that a request names, directly or by a subnet.
func (s *Server) zoneOf(r *request) string {
	for _, name := range []string{"Placement.AvailabilityZone", "AvailabilityZone"} {
		if zone := r.params.values.Get(name); zone != "" {
			return zone
		}
	}
	for _, name := range []string{"SubnetId", "NetworkInterface.1.SubnetId"} {
		if reg := s.regions[r.region]; reg != nil {
			if subnet := reg.findSubnet(r.params.values.Get(name)); subnet != nil {
				return subnet.Zone
			}
		}
	}
	return ""
}

func (s *Server) writeFault(w http.ResponseWriter, hr *http.Request, r *request, f *Fault) {
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
		return
	}
	status := f.Status
	if status == 0 {
		status = 400
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter/time.Second)))
	}
	if f.IsHTML {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = w.Write([]byte("<!doctype html>\n<title>" + http.StatusText(status) + "</title>\n"))
		return
	}
	writeAPIError(w, r, &apiError{status: status, code: f.Code, message: f.Message})
}

// Call is a request that the server got.
type Call struct{ Service, Region, Action string }

// Calls returns the requests so far, failed ones included, in their order.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// CountCalls returns how many requests of an action there were so far.
func (s *Server) CountCalls(action string) int {
	count := 0
	for _, c := range s.Calls() {
		if c.Action == action {
			count++
		}
	}
	return count
}

// record counts a request and returns how long its answer takes.
func (s *Server) record(r *request) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, Call{Service: r.service, Region: r.region, Action: r.action})
	return s.options.Latency
}
