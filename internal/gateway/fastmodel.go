package gateway

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/httpwire"
	"dstack/internal/openai"
	"dstack/internal/relay"
)

// fastModel is what a fastRequest knows of a call to a model, as modelCall does on the slow path.
type fastModel struct {
	isCall bool // the request is one
	call   openai.Call
	path   []byte // of call
	name   string // of the model, once the body is read
	body   fastBody
	target []byte // memory for the target at a replica

	timing       timing
	isAsking     bool // the request waits until the replica has said what its model can do
	hasAsked     bool
	isStream     bool // the response is a stream of events
	countsTokens bool // it may say how many tokens it took
	wait         fastKeepAlive
}

// reset forgets the request. It keeps the parsed call, as the next request often has the same.
func (m *fastModel) reset() {
	if !m.isCall {
		return
	}
	m.isAsking, m.hasAsked = false, false
	m.isCall, m.name, m.isStream, m.countsTokens, m.wait = false, "", false, false, fastKeepAlive{}
	m.timing.tokens.Reset()
	m.timing.firstAt = time.Time{}
	m.body.reset()
}

// heldBytes is how much memory the body takes while the request waits.
func (m *fastModel) heldBytes() int64 { return m.body.held.bytes }

// beginModel begins a call to the models of a project, after identify and readFields: nothing of it is counted yet. It reads the
// body of a plain call of an authorized caller, which names the model; all else is handed over.
func (f *fastRequest) beginModel() relay.Step {
	f.model.isCall = true
	f.access.hidesToken = true
	if !f.findCall() || !f.authorizeModels() || !f.beginKey() {
		return relay.HandOver
	}
	if err := f.limitKey(); err != nil {
		return f.fail(err)
	}
	if !f.beginBody() {
		return f.handOver()
	}
	return relay.ReadBody
}

// limitKey refuses a request with a key for callers that has too many, before its body takes memory.
func (f *fastRequest) limitKey() error {
	if key := f.keyUse.key; key == nil || key.RPS <= 0 {
		return nil
	}
	f.count()
	err := f.checkKeyLimit()
	f.keyUse.isLimited = err == nil
	return err
}

// findCall reports whether the head is that of a call that a replica answers, with a body in JSON.
func (f *fastRequest) findCall() bool {
	m, r := &f.model, &f.x.Request
	if string(r.Method) != http.MethodPost || r.Length == 0 || r.Length > f.gateway.limits.MaxBody {
		return false
	}
	path, _, _ := bytes.Cut(r.Target, questionMark)
	path = path[len(f.conn.destination.Base):]
	if !bytes.Equal(path, m.path) {
		m.path, m.call = append(m.path[:0], path...), openai.ParseCall(string(path))
	}
	return m.call.Operation == openai.Forward && f.findBodyType()
}

var questionMark = []byte("?")

// findBodyType reports whether the body is one that the fast path reads: forms and compressed bodies are for the slow one.
func (f *fastRequest) findBodyType() bool {
	types := 0
	for i := range f.x.Request.Fields {
		switch field := &f.x.Request.Fields[i]; field.Kind {
		case httpwire.ContentEncoding:
			return false
		case httpwire.ContentType:
			if types++; types > 1 || hasPrefixFold(bytes.TrimLeft(field.Value, " \t"), "multipart/") {
				return false
			}
		default:
		}
	}
	return true
}

// hasPrefixFold reports whether a text begins with a prefix in any case.
func hasPrefixFold(text []byte, prefix string) bool {
	return len(text) >= len(prefix) && strings.EqualFold(string(text[:len(prefix)]), prefix)
}

// authorizeModels makes sure that the caller may use the models of the project. Which ones is found once the body is read.
func (f *fastRequest) authorizeModels() bool {
	token, ok := f.modelToken()
	return ok && f.checkDigest(sha256.Sum256(token)) && f.access.view.HasProject(f.conn.destination.Project)
}

// modelToken returns the token of the request: Anthropic's clients have a field of their own for it.
func (f *fastRequest) modelToken() (token []byte, ok bool) {
	if f.fields.authorizations > 0 {
		token, ok = bearerTokenOf(f.fields.authorization)
		return token, ok && f.fields.authorizations == 1
	}
	for i := range f.x.Request.Fields {
		if field := &f.x.Request.Fields[i]; field.Kind == httpwire.APIKey {
			if ok {
				return nil, false
			}
			token, ok = field.Value, true
		}
	}
	return token, len(token) > 0
}

// readModel goes on after relay.ReadBody, which only calls to models ask for.
func (f *fastRequest) readModel(e relay.Event) relay.Step {
	body := &f.model.body
	body.scanner.Scan(f.x.Body)
	if e == relay.BodyComplete {
		body.isRead = true
		f.x.WakeAt(time.Time{})
		return f.callModel()
	}
	if !f.growBody() {
		return f.handOver()
	}
	f.x.WakeAt(body.paceDeadline(len(f.x.Body), f.gateway.limits.MaxLag))
	return relay.ReadBody
}

// callModel goes on with the call once its body is in memory.
func (f *fastRequest) callModel() relay.Step {
	m := &f.model
	name, err := m.body.scanner.Finish()
	if err != nil {
		failure := &responseError{details: details{Kind: dstack.Invalid, Message: err.Error()}}
		if !errors.Is(err, openai.ErrNotJSON) {
			failure.param = "model"
		}
		f.count()
		f.countKey(false)
		return f.fail(failure)
	}
	m.name = name
	v := f.access.view
	if f.access.routes = f.modelRoutes(v); len(f.access.routes) == 0 {
		return f.handOver()
	}
	for _, r := range f.access.routes {
		if run := v.runs[r.Run]; run == nil || !run.isDirect || f.isConverted(r) {
			return f.handOver()
		}
	}
	return f.limitAndAcquire()
}

// modelRoutes returns the routes of the call's model by a view that the caller may use.
func (f *fastRequest) modelRoutes(v *view) []*route.Route {
	d, name := f.conn.destination, f.model.name
	if key := f.keyUse.key; key != nil && !key.AllowsModel(d.Project, name) {
		return nil
	}
	return v.Model(d, name)
}

// reauthorize repeats the authorization by another view, while the request waits: see authorizeAgain. It reads nothing of the
// exchange.
func (f *fastRequest) reauthorize(v *view) bool {
	now := time.Now()
	if !f.conn.destination.Models {
		return f.authorizeAgain(v, now)
	}
	d := f.conn.destination
	found, ok := v.findCredential(f.access.digest, now)
	if !ok || !f.isStillOpen(v, now) || !v.HasProject(d.Project) || found.key != nil && !found.key.AllowsModel(d.Project, f.model.name) {
		return false
	}
	routes := v.Model(d, f.model.name)
	if len(routes) == 0 {
		return false
	}
	f.access.view, f.access.routes = v, routes
	return true
}

// isConverted reports whether the replicas of a route need other calls than the client's.
func (f *fastRequest) isConverted(r *route.Route) bool {
	return f.conn.destination.Models && r.Format == "tgi"
}

// modelTarget is the target of a call at a replica of the route.
func (f *fastRequest) modelTarget(r *route.Route) []byte {
	m := &f.model
	to := m.target[:0]
	if !m.call.Root {
		to = append(to, (&url.URL{Path: strings.TrimSuffix(r.Prefix, "/")}).EscapedPath()...)
	}
	to = append(to, m.call.Path...)
	if at := bytes.IndexByte(f.x.Request.Target, '?'); at >= 0 {
		to = append(to, f.x.Request.Target[at:]...)
	}
	m.target = to
	return to
}

// prepareModel prepares the fields of a call for the replica that counts it. It returns false and the step to take if
// it has to ask the replica first what its model can do with the request.
func (f *fastRequest) prepareModel() (step relay.Step, isReady bool) {
	m := &f.model
	m.body.releaseReading(f.gateway)
	if m.wait.hasBegun() {
		for i := range f.x.Request.Fields {
			if field := &f.x.Request.Fields[i]; field.Kind == httpwire.AcceptEncoding {
				field.Drop = true // the head that has been sent names no encoding
			}
		}
		return relay.Send, true
	}
	features := m.call.FindFeatures(&m.body.scanner)
	if features == (openai.Features{}) {
		return relay.Send, true
	}
	target := f.acquirer.replica.target
	traits, isKnown := f.gateway.traits.knownOf(target.Replica)
	switch {
	case isKnown || m.hasAsked:
		m.wait.warning = traits.Warn(features)
		return relay.Send, true
	case !f.gateway.traits.ask(target, f.handle.Wake):
		return f.handOver(), false
	}
	m.isAsking, m.hasAsked = true, true
	f.x.WakeAt(f.nextTime())
	return relay.Wait, false
}
