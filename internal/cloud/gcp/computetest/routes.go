package computetest

import (
	"encoding/json"
	"net/http"
	"strings"
)

// route is a method of an API.
type route struct {
	resource, method string
	verb, path       string
	isOther          bool // of another API than Compute
}

// routes are the methods that the server has.
var routes = []route{
	{"projects", "get", "GET", "projects/{project}", false},
	{"regions", "get", "GET", "projects/{project}/regions/{region}", false},
	{"zones", "list", "GET", "projects/{project}/zones", false},
	{"machineTypes", "list", "GET", "projects/{project}/zones/{zone}/machineTypes", false},
	{"acceleratorTypes", "list", "GET", "projects/{project}/zones/{zone}/acceleratorTypes", false},
	{"instances", "insert", "POST", "projects/{project}/zones/{zone}/instances", false},
	{"instances", "get", "GET", "projects/{project}/zones/{zone}/instances/{instance}", false},
	{"instances", "delete", "DELETE", "projects/{project}/zones/{zone}/instances/{instance}", false},
	{"instances", "aggregatedList", "GET", "projects/{project}/aggregated/instances", false},
	{"instances", "attachDisk", "POST", "projects/{project}/zones/{zone}/instances/{instance}/attachDisk", false},
	{"instances", "detachDisk", "POST", "projects/{project}/zones/{zone}/instances/{instance}/detachDisk", false},
	{"disks", "insert", "POST", "projects/{project}/zones/{zone}/disks", false},
	{"disks", "get", "GET", "projects/{project}/zones/{zone}/disks/{disk}", false},
	{"disks", "delete", "DELETE", "projects/{project}/zones/{zone}/disks/{disk}", false},
	{"disks", "aggregatedList", "GET", "projects/{project}/aggregated/disks", false},
	{"zoneOperations", "get", "GET", "projects/{project}/zones/{zone}/operations/{operation}", false},
	{"zoneOperations", "list", "GET", "projects/{project}/zones/{zone}/operations", false},
	{"regionOperations", "get", "GET", "projects/{project}/regions/{region}/operations/{operation}", false},
	{"globalOperations", "get", "GET", "projects/{project}/global/operations/{operation}", false},
	{"globalOperations", "aggregatedList", "GET", "projects/{project}/aggregated/operations", false},
	{"networks", "get", "GET", "projects/{project}/global/networks/{network}", false},
	{"subnetworks", "aggregatedList", "GET", "projects/{project}/aggregated/subnetworks", false},
	{"routers", "aggregatedList", "GET", "projects/{project}/aggregated/routers", false},
	{"firewalls", "list", "GET", "projects/{project}/global/firewalls", false},
	{"firewalls", "get", "GET", "projects/{project}/global/firewalls/{firewall}", false},
	{"firewalls", "insert", "POST", "projects/{project}/global/firewalls", false},
	{"firewalls", "delete", "DELETE", "projects/{project}/global/firewalls/{firewall}", false},
	{"resourcePolicies", "aggregatedList", "GET", "projects/{project}/aggregated/resourcePolicies", false},
	{"resourcePolicies", "get", "GET", "projects/{project}/regions/{region}/resourcePolicies/{resourcePolicy}", false},
	{"resourcePolicies", "insert", "POST", "projects/{project}/regions/{region}/resourcePolicies", false},
	{"resourcePolicies", "delete", "DELETE", "projects/{project}/regions/{region}/resourcePolicies/{resourcePolicy}", false},
	{"images", "getFromFamily", "GET", "projects/{project}/global/images/family/{family}", false},
	{"images", "get", "GET", "projects/{project}/global/images/{image}", false},
	{"skus", "list", "GET", "services/{service}/skus", true},
	{"iam", "testIamPermissions", "POST", "projects/{project}:testIamPermissions", true},
}

// matchPath compares a path with a pattern such as projects/{project}/zones.
func matchPath(pattern, path string) (params map[string]string, ok bool) {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return nil, false
	}
	params = map[string]string{}
	for i, part := range want {
		name, isParam := strings.CutPrefix(part, "{")
		name, suffix, _ := strings.Cut(name, "}")
		value, hasSuffix := strings.CutSuffix(got[i], suffix)
		switch {
		case !isParam && part != got[i], isParam && (!hasSuffix || value == ""):
			return nil, false
		case isParam:
			params[name] = value
		}
	}
	return params, true
}

// parseRequest reads and checks a request.
func (s *Server) parseRequest(hr *http.Request, body []byte) (*request, error) {
	path, isCompute := strings.CutPrefix(hr.URL.Path, "/compute/v1/")
	if !isCompute {
		path = strings.TrimPrefix(hr.URL.Path, "/v1/")
	}
	for _, route := range routes {
		params, ok := matchPath(route.path, path)
		if !ok || route.verb != hr.Method || route.isOther == isCompute {
			continue
		}
		r := &request{resource: route.resource, method: route.method, params: params, project: params["project"], query: map[string]string{}}
		for name, values := range hr.URL.Query() {
			if len(values) > 1 {
				return nil, invalid("the parameter %s is there twice", name)
			}
			r.query[name] = values[0]
		}
		if len(body) > 0 {
			if err := json.Unmarshal(body, &r.body); err != nil {
				return nil, fail(http.StatusBadRequest, "parseError", "Parse Error: %s", err)
			}
		}
		return r, s.options.Document.check(r, route)
	}
	return nil, fail(http.StatusNotFound, "notFound", "there is no method %s %s", hr.Method, hr.URL.Path)
}

// carryOut does what a request asks for. The caller holds the lock.
func (s *Server) carryOut(r *request) (any, error) {
	if id := r.query["requestId"]; id != "" {
		use, used := s.requests[id]
		if used && s.now().Before(use.until) && s.operations[use.operation] != nil {
			return s.operations[use.operation], nil
		}
	}
	answer, err := s.dispatch(r)
	if o, ok := answer.(*operation); ok && err == nil {
		if id := r.query["requestId"]; id != "" {
			o.client = id
			s.requests[id] = requestUse{o.name, s.now().Add(s.options.Steps.Tokens)}
		}
	}
	return answer, err
}

func (s *Server) dispatch(r *request) (any, error) {
	if r.resource != "images" && r.resource != "skus" && !s.hasProject(r.project) {
		return nil, notFound("projects/" + r.project)
	}
	if zone := r.params["zone"]; zone != "" && !s.hasZone(zone) {
		return nil, notFound("projects/" + r.project + "/zones/" + zone)
	}
	if region := r.params["region"]; region != "" && s.options.Regions[region].Zones == nil {
		return nil, notFound("projects/" + r.project + "/regions/" + region)
	}
	switch r.resource + "." + r.method {
	case "instances.insert":
		return s.insertInstance(r)
	case "instances.get":
		return s.getInstance(r)
	case "instances.delete":
		return s.deleteInstance(r)
	case "instances.aggregatedList":
		return s.page(r, s.instanceItems(), "instances", true)
	case "instances.attachDisk":
		return s.attachDisk(r)
	case "instances.detachDisk":
		return s.detachDisk(r)
	case "disks.insert":
		return s.insertDisk(r)
	case "disks.get":
		return s.getDisk(r)
	case "disks.delete":
		return s.deleteDisk(r)
	case "disks.aggregatedList":
		return s.page(r, s.diskItems(), "disks", true)
	case "zoneOperations.get", "regionOperations.get", "globalOperations.get":
		return s.getOperation(r)
	case "zoneOperations.list":
		return s.page(r, s.operationItems("zones/"+r.params["zone"]), "items", false)
	case "globalOperations.aggregatedList":
		return s.page(r, s.operationItems(""), "operations", true)
	case "skus.list":
		return s.page(r, s.skuItems(), "skus", false)
	case "iam.testIamPermissions":
		return s.testPermissions(r), nil
	}
	return s.dispatchFacts(r)
}

func (s *Server) dispatchFacts(r *request) (any, error) {
	switch r.resource + "." + r.method {
	case "projects.get":
		return map[string]any{"name": r.project, "quotas": s.quotaItems("")}, nil
	case "regions.get":
		return map[string]any{"name": r.params["region"], "quotas": s.quotaItems(r.params["region"])}, nil
	case "zones.list":
		return s.page(r, s.zoneItems(), "items", false)
	case "machineTypes.list":
		return s.page(r, s.typeItems(r.params["zone"]), "items", false)
	case "acceleratorTypes.list":
		return s.page(r, s.acceleratorItems(r.params["zone"]), "items", false)
	case "networks.get":
		if s.findNetwork(r.project, r.params["network"]) == nil {
			return nil, notFound("projects/" + r.project + "/global/networks/" + r.params["network"])
		}
		return map[string]any{"name": r.params["network"]}, nil
	case "subnetworks.aggregatedList":
		return s.page(r, s.subnetItems(r.project), "subnetworks", true)
	case "routers.aggregatedList":
		return s.page(r, s.routerItems(r.project), "routers", true)
	case "images.get", "images.getFromFamily":
		return s.getImage(r)
	case "firewalls.list":
		return s.page(r, s.objectItems("projects/"+r.project+"/global/firewalls/"), "items", false)
	case "resourcePolicies.aggregatedList":
		return s.page(r, s.objectItems("projects/"+r.project+"/regions/"), "resourcePolicies", true)
	}
	switch r.method {
	case "get":
		return s.getObject(r)
	case "insert":
		return s.insertObject(r)
	}
	return s.deleteObject(r)
}
