package computetest

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// operation is a change that goes on.
type operation struct {
	name, kind, target string
	scope              string // zones/us-central1-a, regions/us-central1, global
	client             string // ID of the request
	user               string
	begun              time.Time
	endsAt             time.Time
	isDone             bool
	isHeld             bool // a hook runs
	failure            *operationError
	finish             func() // called once, at its end
}

// operationError is why an operation failed.
type operationError struct {
	code, message string
	status        int
	details       []any
}

// newOperation begins a change that ends after a time, unless a fault says otherwise.
func (s *Server) newOperation(r *request, kind, scope, target string, takes time.Duration, finish func()) *operation {
	o := &operation{name: "operation-" + s.newID(), kind: kind, scope: scope, target: target, begun: s.now(), endsAt: s.now().Add(takes), finish: finish}
	if r != nil {
		o.user = r.account
		if f := s.takeMatching(r, true); f != nil {
			o.failure = &operationError{code: f.Code, message: f.Message, status: f.Status}
			if f.Details != nil {
				o.failure.details = []any{f.Details}
			}
			o.endsAt = s.now().Add(s.options.Steps.Refused)
		}
	}
	s.operations[o.name] = o
	return o
}

// fail makes an operation end with an error.
func (s *Server) failLater(o *operation, e *operationError) *operation {
	if o.failure == nil {
		o.failure, o.endsAt = e, s.now().Add(s.options.Steps.Refused)
	}
	return o
}

// advance ends the operations whose time has come. The caller holds the lock.
func (s *Server) advance() {
	for progress := true; progress; {
		progress = false
		for _, name := range slices.Sorted(maps.Keys(s.operations)) {
			o := s.operations[name]
			if !o.isDone && !o.isHeld && !s.now().Before(o.endsAt) {
				o.isDone, progress = true, true
				o.finish()
			}
		}
	}
}

func (s *Server) describeOperation(o *operation) map[string]any {
	body := map[string]any{
		"kind": "compute#operation", "id": "1", "name": o.name, "operationType": o.kind, "status": "RUNNING", "user": o.user,
		"targetLink": link(o.target), "insertTime": formatTime(o.begun), "selfLink": link("projects/" + s.options.Project + "/" + o.scope + "/operations/" + o.name),
	}
	if o.client != "" {
		body["clientOperationId"] = o.client
	}
	if !o.isDone {
		return body
	}
	body["status"], body["endTime"] = "DONE", formatTime(o.endsAt)
	if e := o.failure; e != nil {
		one := map[string]any{"code": e.code, "message": e.message}
		if len(e.details) > 0 {
			one["errorDetails"] = e.details
		}
		body["error"] = map[string]any{"errors": []any{one}}
		body["httpErrorStatusCode"], body["httpErrorMessage"] = e.status, http.StatusText(e.status)
	}
	return body
}

// formatTime returns a time as the API writes it.
func formatTime(t time.Time) string {
	return t.In(time.FixedZone("", -7*60*60)).Format("2006-01-02T15:04:05.000-07:00")
}

func (s *Server) getOperation(r *request) (any, error) {
	o := s.operations[r.params["operation"]]
	if o == nil || o.scope != scopeOf(r) {
		return nil, notFound("projects/" + r.project + "/" + scopeOf(r) + "/operations/" + r.params["operation"])
	}
	return s.describeOperation(o), nil
}

// scopeOf returns the place of a request.
func scopeOf(r *request) string {
	switch {
	case r.params["zone"] != "":
		return "zones/" + r.params["zone"]
	case r.params["region"] != "":
		return "regions/" + r.params["region"]
	}
	return "global"
}

// operationItems are the operations of a place; with an empty one, those of zones and regions.
func (s *Server) operationItems(scope string) (items []item) {
	for _, name := range slices.Sorted(maps.Keys(s.operations)) {
		o := s.operations[name]
		if scope == "" && o.scope != "global" || o.scope == scope {
			items = append(items, item{o.scope, s.describeOperation(o)})
		}
	}
	return items
}

// objectPath returns the path of an object that a request is about.
func objectPath(r *request, name string) string {
	return "projects/" + r.project + "/" + scopeOf(r) + "/" + r.resource + "/" + name
}

// objectItems are the rules of the firewall, or the placement policies.
func (s *Server) objectItems(prefix string) (items []item) {
	for _, path := range slices.Sorted(maps.Keys(s.objects)) {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			scope := "global"
			if region, _, ok := strings.Cut(rest, "/resourcePolicies/"); ok {
				scope = "regions/" + region
			}
			items = append(items, item{scope, s.objects[path]})
		}
	}
	return items
}

func (s *Server) getObject(r *request) (any, error) {
	for _, name := range []string{r.params["firewall"], r.params["resourcePolicy"]} {
		if body := s.objects[objectPath(r, name)]; body != nil {
			return body, nil
		}
	}
	return nil, notFound(objectPath(r, r.params["firewall"]+r.params["resourcePolicy"]))
}

// insertObject makes a rule of the firewall or a placement policy.
func (s *Server) insertObject(r *request) (any, error) {
	path := objectPath(r, r.text("name"))
	if s.objects[path] != nil {
		return nil, fail(http.StatusConflict, "alreadyExists", "The resource '%s' already exists", path)
	}
	if r.resource == "firewalls" {
		network := r.text("network")
		parts := strings.Split(network, "/")
		if len(parts) != 5 || s.findNetwork(parts[1], parts[4]) == nil {
			return nil, invalid("Invalid value for field 'resource.network': '%s'. The referenced resource does not exist.", network)
		}
		if r.body["allowed"] == nil || r.body["targetTags"] == nil {
			return nil, fail(http.StatusBadRequest, "required", "a rule of dstack has allowed and targetTags")
		}
	}
	return s.newOperation(r, "insert", scopeOf(r), path, s.options.Steps.Other, func() {
		body := r.body
		body["creationTimestamp"] = formatTime(s.now())
		if region := r.params["region"]; region != "" {
			body["region"] = link("projects/" + r.project + "/regions/" + region)
		}
		s.objects[path] = body
	}), nil
}

func (s *Server) deleteObject(r *request) (any, error) {
	path := objectPath(r, r.params["firewall"]+r.params["resourcePolicy"])
	if s.objects[path] == nil {
		return nil, notFound(path)
	}
	for _, i := range s.instances {
		for _, policy := range i.policies {
			if strings.HasSuffix(path, lastPart(policy)) && r.resource == "resourcePolicies" {
				return nil, fail(http.StatusBadRequest, "resourceInUseByAnotherResource", "The resource '%s' is already being used by '%s'", path, i.path())
			}
		}
	}
	return s.newOperation(r, "delete", scopeOf(r), path, s.options.Steps.Other, func() { delete(s.objects, path) }), nil
}

// Objects returns the rules of the firewall (firewalls), or the placement policies (resourcePolicies), ordered by path.
func (s *Server) Objects(kind string) (list []map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	for _, path := range slices.Sorted(maps.Keys(s.objects)) {
		if strings.Contains(path, "/"+kind+"/") {
			list = append(list, s.objects[path])
		}
	}
	return list
}
