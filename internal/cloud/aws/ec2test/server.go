// Package ec2test is a stand-in for Amazon EC2, for tests. It speaks the query protocol on a loopback address and does
// what the real service does and other stand-ins do not: it remembers client tokens, checks images, architectures, zones,
// networks and user data, lets states advance step by step, and has capacity, quotas, rights, lag and faults on demand.
// It also answers for STS, the price list and service quotas. Region and service are those of a request's signature.
package ec2test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Options configures a Server. The zero value is an account with DefaultRegions, DefaultTypes and DefaultImages whose
// machines run as soon as they are looked at.
type Options struct {
	Account string            // the number of the account; empty: 123456789012
	Keys    map[string]Key    // by access key ID; nil: AccessKey with SecretKey and all rights
	Regions map[string]Region // by name; nil: DefaultRegions
	Types   []Type            // nil: DefaultTypes
	Images  []Image           // in every region, with another ID in each; nil: DefaultImages
	Steps   Steps
	Latency time.Duration // of every answer
	// PageSize limits the items of a page beyond what a request asks for; 0: no limit.
	PageSize int
	Profiles []string // names of IAM instance profiles that exist
	Now      func() time.Time

	// The hooks play the machines. They are called in the background, once for each machine or attachment, and may
	// take their time: the machine is pending, or shutting down, and the disk attaching or detaching until they return.
	OnRun       func(i Instance) (address string, err error) // address is its public or private one; an error ends it: Server.InternalError
	OnTerminate func(i Instance)
	OnAttach    func(v Volume, i Instance) error
	OnDetach    func(v Volume, i Instance)
}

// Steps are how long each step takes, by the server's clock.
type Steps struct {
	Lag        time.Duration // until a description shows that a machine exists, or is being terminated
	Running    time.Duration // from the request until it is running
	Terminated time.Duration // from its termination until it has ended
	Shown      time.Duration // how long a terminated machine is shown; 0: an hour
	Volume     time.Duration // until a new disk is available
	Attach     time.Duration // until a disk is attached, or detached
}

// The credentials of the account, if Options.Keys is nil.
const (
	AccessKey = "AKIDEC2TESTEXAMPLE01"
	SecretKey = "ec2test/secret/example/key"
)

// Key is a pair of credentials.
type Key struct {
	Secret    string
	IsExpired bool
	Denied    []string // actions without a right: ec2:RunInstances, pricing:GetProducts, ec2:*
}

// Server is an account of EC2 in memory. All methods may be called by several goroutines at once.
type Server struct {
	URL string

	mu       sync.Mutex
	options  Options
	offset   time.Duration // of the clock
	serial   int           // of identifiers
	regions  map[string]*region
	faults   []*Fault
	calls    []Call
	capacity map[Place]int

	ctx      context.Context
	cancel   context.CancelFunc
	hooks    sync.WaitGroup
	http     *http.Server
	listener net.Listener
}

// Start starts a server on a free port of the loopback address. The caller closes it.
func Start(o Options) (*Server, error) {
	if o.Account == "" {
		o.Account = "123456789012"
	}
	if o.Keys == nil {
		o.Keys = map[string]Key{AccessKey: {Secret: SecretKey}}
	}
	if o.Regions == nil {
		o.Regions = DefaultRegions
	}
	if o.Types == nil {
		o.Types = DefaultTypes
	}
	if o.Images == nil {
		o.Images = DefaultImages
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Steps.Shown == 0 {
		o.Steps.Shown = time.Hour
	}
	s := &Server{options: o, regions: map[string]*region{}, capacity: map[Place]int{}}
	for name, r := range o.Regions {
		s.regions[name] = s.newRegion(name, r)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.URL = "http://" + s.listener.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	s.hooks.Go(func() { _ = s.http.Serve(s.listener) })
	return s, nil
}

// Close ends the server and waits for its hooks.
func (s *Server) Close() {
	s.cancel()
	_ = s.http.Close()
	s.hooks.Wait()
}

// Advance moves the server's clock.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset += d
	s.advance()
}

// Settle waits until no hook runs.
func (s *Server) Settle(ctx context.Context) error {
	for {
		if !s.isBusy() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *Server) isBusy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	for _, r := range s.regions {
		for _, i := range r.instances {
			if i.hooks > 0 {
				return true
			}
		}
	}
	return false
}

// SetSteps replaces how long the steps take.
func (s *Server) SetSteps(steps Steps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if steps.Shown == 0 {
		steps.Shown = time.Hour
	}
	s.options.Steps = steps
}

// SetKey adds or replaces credentials.
func (s *Server) SetKey(id string, k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[string]Key{}
	for other, key := range s.options.Keys {
		keys[other] = key
	}
	keys[id] = k
	s.options.Keys = keys
}

func (s *Server) now() time.Time { return s.options.Now().Add(s.offset) }

func (s *Server) newID(prefix string) string {
	s.serial++
	return fmt.Sprintf("%s-%08x%09x", prefix, 0x0ec2, s.serial)
}

// request is one call of an action.
type request struct {
	service, region, action string
	key                     string // access key ID
	params                  *params
	body                    []byte
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	body, err := io.ReadAll(io.LimitReader(hr.Body, 4<<20))
	if err != nil {
		return
	}
	r := s.parseRequest(hr, body)
	latency := s.record(r)
	select {
	case <-hr.Context().Done():
		return
	case <-s.ctx.Done():
		return
	case <-time.After(latency):
	}
	if err := s.authorize(hr, body, r); err != nil {
		s.writeError(w, r, err)
		return
	}
	fault := s.takeFault(r)
	if fault != nil && !fault.Done {
		s.writeFault(w, hr, r, fault)
		return
	}
	answer, err := s.answer(r, fault)
	switch {
	case fault != nil && err == nil && fault.StateReason == "":
		s.writeFault(w, hr, r, fault)
	case err != nil:
		s.writeError(w, r, err)
	default:
		w.Header().Set("Content-Type", answer.contentType)
		_, _ = w.Write(answer.body)
	}
}

// parseRequest reads service and region from the credential scope, and the action from the form or from a header.
func (s *Server) parseRequest(hr *http.Request, body []byte) *request {
	r := &request{body: body}
	if scope := parseScope(hr); len(scope) == 5 {
		r.key, r.region, r.service = scope[0], scope[2], scope[3]
	}
	values, _ := url.ParseQuery(string(body))
	r.params = newParams(values)
	r.action = r.params.get("Action")
	r.params.get("Version")
	if target := hr.Header.Get("X-Amz-Target"); target != "" {
		_, r.action = splitLast(target, ".")
	}
	return r
}

// answer is a good answer.
type answer struct {
	contentType string
	body        []byte
}

// answer runs the action.
func (s *Server) answer(r *request, fault *Fault) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	switch r.service {
	case "ec2":
		return s.answerEC2(r, fault)
	case "sts":
		return s.answerSTS(r)
	case "pricing":
		return s.answerPricing(r)
	case "servicequotas":
		return s.answerQuotas(r)
	}
	return answer{}, &apiError{status: 400, code: "InvalidAction", message: "ec2test knows no service " + r.service}
}

// apiError is an error as EC2 answers it.
type apiError struct {
	status        int
	code, message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func fail(code, format string, args ...any) error {
	return &apiError{status: 400, code: code, message: fmt.Sprintf(format, args...)}
}

func (s *Server) writeError(w http.ResponseWriter, r *request, err error) {
	var e *apiError
	if !errors.As(err, &e) {
		e = &apiError{status: 500, code: "InternalError", message: err.Error()}
	}
	writeAPIError(w, r, e)
}
