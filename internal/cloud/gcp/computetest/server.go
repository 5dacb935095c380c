// Package computetest is a stand-in for Google Compute Engine and the APIs around it: tokens, permissions and prices. It
// checks each request against the API's discovery document, and against rules that the document does not have. Its
// operations end by its own clock, well or with errors.
package computetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options configures a Server. The zero value is a project with DefaultRegions and DefaultTypes whose operations are
// done as soon as they are looked at.
type Options struct {
	Project  string             // empty: DefaultProject
	Accounts map[string]Account // by e-mail address; nil: DefaultAccount with all permissions
	Regions  map[string]Region  // nil: DefaultRegions
	Types    []Type             // nil: DefaultTypes
	Images   []string           // paths; nil: DefaultImages
	Networks []Network          // nil: one with the name default and a subnet in each region
	Steps    Steps
	Latency  time.Duration // of every answer
	PageSize int           // limits the items of a page beyond what a request asks for; 0: no limit
	Document *Document     // checks requests; nil: only the server's own rules do
	Now      func() time.Time

	// The hooks play the machines. They are called in the background, once for each machine or attachment, and may
	// take their time: the operation goes on until they return.
	OnRun       func(i Instance) (address string, err error) // address is its public or private one; an error ends it
	OnTerminate func(i Instance)
	OnAttach    func(d Disk, i Instance) error
	OnDetach    func(d Disk, i Instance)
}

// Steps are how long each step takes, by the server's clock.
type Steps struct {
	Lag        time.Duration // until lists show that a machine exists
	Refused    time.Duration // until an operation fails
	Running    time.Duration // from the request until a machine is running
	Terminated time.Duration // from its deletion until a machine is gone
	Disk       time.Duration // until a disk is there, attached, detached or gone
	Other      time.Duration // until other operations are done
	Tokens     time.Duration // how long IDs of requests are remembered; 0: an hour
}

// DefaultProject is the project, if Options names none.
const DefaultProject = "test-project"

// DefaultAccount is the account, if Options names none.
const DefaultAccount = "dstack@test-project.iam.gserviceaccount.com"

// Account is a service account.
type Account struct {
	IsDeleted bool     // its key is refused
	Denied    []string // permissions that it lacks: compute.instances.create
}

// Server is a project in memory. All methods may be called by several goroutines at once.
type Server struct {
	URL string

	mu         sync.Mutex
	options    Options
	offset     time.Duration // of the clock
	serial     int           // of identifiers
	instances  map[string]*instance
	disks      map[string]*disk
	operations map[string]*operation
	requests   map[string]requestUse
	objects    map[string]map[string]any // rules of the firewall and placement policies, by path
	quotas     map[string]map[string]float64
	capacity   map[Place]int
	faults     []*Fault
	calls      []Call
	cutAfter   int // see CutAfter
	cutTimes   int
	cutDone    bool
	isHidden   bool
	tokens     map[string]string // account, by token
	key        signingKey

	ctx      context.Context
	cancel   context.CancelFunc
	hooks    sync.WaitGroup
	http     *http.Server
	listener net.Listener
}

// requestUse is what an ID of a request was used for.
type requestUse struct {
	operation string
	until     time.Time
}

// Start starts a server on a free port of the loopback address. The caller closes it.
func Start(o Options) (*Server, error) {
	o.setDefaults()
	s := &Server{
		options: o, instances: map[string]*instance{}, disks: map[string]*disk{}, operations: map[string]*operation{}, requests: map[string]requestUse{},
		objects: map[string]map[string]any{}, capacity: map[Place]int{}, quotas: map[string]map[string]float64{}, tokens: map[string]string{},
	}
	for name := range o.Regions {
		s.quotas[name] = defaultQuotas()
	}
	s.quotas[""] = map[string]float64{"CPUS_ALL_REGIONS": 1000, "GPUS_ALL_REGIONS": 100}
	var err error
	if s.key, err = newSigningKey(); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.URL = "http://" + s.listener.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	s.hooks.Go(func() { _ = s.http.Serve(s.listener) })
	return s, nil
}

func (o *Options) setDefaults() {
	if o.Project == "" {
		o.Project = DefaultProject
	}
	if o.Accounts == nil {
		o.Accounts = map[string]Account{DefaultAccount: {}}
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
	if o.Networks == nil {
		network := Network{Project: o.Project, Name: "default", Subnets: map[string]string{}, NAT: map[string]bool{}}
		for region := range o.Regions {
			network.Subnets[region] = "default"
		}
		o.Networks = []Network{network}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Steps.Tokens == 0 {
		o.Steps.Tokens = time.Hour
	}
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
	for _, o := range s.operations {
		if o.isHeld {
			return true
		}
	}
	return false
}

// SetSteps replaces how long the steps take.
func (s *Server) SetSteps(steps Steps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if steps.Tokens == 0 {
		steps.Tokens = time.Hour
	}
	s.options.Steps = steps
}

// SetAccount adds or replaces an account.
func (s *Server) SetAccount(email string, a Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	accounts := map[string]Account{}
	for other, account := range s.options.Accounts {
		accounts[other] = account
	}
	accounts[email] = a
	s.options.Accounts = accounts
}

func (s *Server) now() time.Time { return s.options.Now().Add(s.offset) }

// newID returns an identifier, as the API has them.
func (s *Server) newID() string {
	s.serial++
	return fmt.Sprint(4_000_000_000_000_000_000 + s.serial)
}

// request is one request to the Compute API.
type request struct {
	resource, method string // instances, insert
	project          string
	params           map[string]string // of the path: zone, instance
	query            map[string]string
	body             map[string]any
	account          string
}

// text returns a field of the body, at the end of a path of names.
func (r *request) text(names ...string) string {
	var at any = r.body
	for _, name := range names {
		object, _ := at.(map[string]any)
		at = object[name]
	}
	text, _ := at.(string)
	return text
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	body, err := io.ReadAll(io.LimitReader(hr.Body, 1<<20))
	if err != nil {
		return
	}
	if hr.URL.Path == "/token" {
		s.serveToken(w, hr, body)
		return
	}
	if strings.HasPrefix(hr.URL.Path, "/computeMetadata/") {
		http.Error(w, "ask the handler of a machine", http.StatusNotFound)
		return
	}
	s.wait(hr.Context(), s.latency())
	answer, err := s.serve(w, hr, body)
	switch {
	case errors.Is(err, errDropped):
	case err != nil:
		s.writeError(w, err)
	default:
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		_ = json.NewEncoder(w).Encode(selectFields(answer, hr.URL.Query().Get("fields")))
	}
}

func (s *Server) latency() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options.Latency
}

func (s *Server) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
}

// serve answers a request, or returns an *apiError.
func (s *Server) serve(w http.ResponseWriter, hr *http.Request, body []byte) (any, error) {
	r, err := s.parseRequest(hr, body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.calls = append(s.calls, Call{r.resource + "." + r.method, r.params["zone"]})
	s.mu.Unlock()
	fault := s.takeFault(r)
	if fault != nil && !fault.Done {
		return nil, s.playFault(w, hr, fault)
	}
	if r.account, err = s.authorize(hr, r); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.advance()
	answer, err := s.carryOut(r)
	s.advance()
	if o, ok := answer.(*operation); ok {
		answer = s.describeOperation(o)
	}
	s.mu.Unlock()
	if fault != nil {
		return nil, s.playFault(w, hr, fault)
	}
	return answer, err
}

// apiError is a refusal.
type apiError struct {
	status          int
	reason, message string
	details         []any
	retryAfter      time.Duration
}

// Error implements error.
func (e *apiError) Error() string { return e.reason + ": " + e.message }

func fail(status int, reason, format string, args ...any) error {
	return &apiError{status: status, reason: reason, message: fmt.Sprintf(format, args...)}
}

func notFound(path string) error {
	return fail(http.StatusNotFound, "notFound", "The resource '%s' was not found", path)
}

func (s *Server) writeError(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*apiError](err)
	if !ok {
		e = &apiError{status: http.StatusInternalServerError, reason: "internalError", message: err.Error()}
	}
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(e.retryAfter/time.Second)))
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(e.status)
	content := map[string]any{"code": e.status, "message": e.message, "errors": []any{
		map[string]any{"message": e.message, "domain": "global", "reason": e.reason},
	}}
	if len(e.details) > 0 {
		content["details"] = e.details
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"error": content})
}
