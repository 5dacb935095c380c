package server

import (
	"net/http"
	"reflect"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// apiOperations is everything that can be called, and by whom. What is not here
// cannot be called. Of spec §4.4 it has every line.
var apiOperations = []apiOperation{
	newOperation("/api/users/list", access.Auth, (*Server).listUsers, "users; for others than global admins only the caller"),
	newOperation("/api/users/get_my_user", access.Auth, (*Server).getMyUser, "the caller"),
	newOperation("/api/users/get_user", access.Auth, (*Server).getUser, "a user; the token is empty, for the server does not know it"),
	newOperation("/api/users/create", access.GlobalAdmin, (*Server).createUser, "make a user"),
	newOperation("/api/users/update", access.GlobalAdmin, (*Server).updateUser, "change a user's role and e-mail"),
	newOperation("/api/users/refresh_token", access.Auth, (*Server).refreshToken, "make a new token; the old one ends; shown this once"),
	newOperation("/api/users/delete", access.GlobalAdmin, (*Server).deleteUsers, "delete users"),

	newOperation("/api/projects/list", access.Auth, (*Server).listProjects, "the caller's projects"),
	newOperation("/api/projects/create", access.Auth, (*Server).createProject, "make a project"),
	newOperation("/api/projects/delete", access.Auth, (*Server).deleteProjects, "delete projects in which nothing runs"),
	newOperation("/api/projects/{project_name}/get", access.Member, (*Server).getProject, "a project"),
	newOperation("/api/projects/{project_name}/set_members", access.Admin, (*Server).setMembers, "replace a project's members"),

	newOperation("/api/backends/list_types", access.None, (*Server).listBackendTypes, "the types of backends there are"),
	newOperation("/api/backends/config_values", access.Auth, (*Server).getBackendValues, "what a backend's configuration may say"),

	newOperation(api.ProjectPrefix+"/repos/list", access.Member, (*Server).listRepos, "repos"),
	newOperation(api.ProjectPrefix+"/repos/get", access.Member, (*Server).getRepo, "a repo"),
	newOperation(api.ProjectPrefix+"/repos/init", access.Member, (*Server).initRepo, "make a repo known, or again"),
	newOperation(api.ProjectPrefix+"/repos/delete", access.Member, (*Server).deleteRepos, "forget repos and what was uploaded to them"),
	{method: http.MethodPost, path: api.ProjectPrefix + "/repos/upload_code", level: access.Member, format: formatMultipart, maxBody: noBodyLimit,
		summary: "upload code: a file named by the SHA-256 of its content", requestType: reflect.TypeFor[wire.Null](),
		responseType: reflect.TypeFor[wire.Null](), handle: (*Server).uploadCode},

	newOperation("/api/runs/list", access.Auth, (*Server).listRuns, "runs, newest first"),
	newOperation(api.ProjectPrefix+"/runs/get", access.Member, (*Server).getRun, "a run"),
	allowLargeBody(newOperation(api.ProjectPrefix+"/runs/get_plan", access.Member, (*Server).getPlan, "what a run would need and where it could go")),
	allowLargeBody(newOperation(api.ProjectPrefix+"/runs/submit", access.Member, (*Server).submitRun, "submit a run")),
	newOperation(api.ProjectPrefix+"/runs/stop", access.Member, (*Server).stopRuns, "stop runs"),
	newOperation(api.ProjectPrefix+"/runs/delete", access.Member, (*Server).deleteRuns, "delete finished runs"),

	allowLargeBody(newOperation(api.PathPreview, access.Member, (*Server).previewRun, "a plan, with what a person wants to know of it")),
	allowLargeBody(newOperation(api.PathApply, access.Member, (*Server).applyRun, "submit a run, or give it its next revision")),
	newOperation(api.PathEvents, access.Member, (*Server).listEvents, "what happened to the runs of a name, those that are gone included"),
	newOperation(api.PathHistory, access.Member, (*Server).listRevisions, "a run's revisions, newest first"),
	newOperation(api.PathRollback, access.Member, (*Server).rollBackRun, "make an earlier revision the next one"),
	newOperation(api.PathExplain, access.Member, (*Server).explainScaling, "why a run has the replicas that it has"),
	newOperation(api.PathView, access.Member, (*Server).waitForView, "a run as people see it; waits for a change"),
	newOperation(api.PathViews, access.Auth, (*Server).listViews, "runs as people see them"),

	newOperation(api.ProjectPrefix+"/logs/poll", access.Member, (*Server).pollLogs, "output of one attempt"),
	{method: http.MethodPost, path: api.PathFollow, level: access.Member, format: formatLines, maxBody: maxBodyBytes,
		summary: "output of a run, as it comes", requestType: reflect.TypeFor[api.FollowLogs](),
		responseType: reflect.TypeFor[api.LogEntry](), handle: (*Server).followLogs},

	newEmptyListOperation("/api/volumes/list", access.Auth),
	newEmptyListOperation(api.ProjectPrefix+"/gateways/list", access.Member),
	newEmptyListOperation(api.ProjectPrefix+"/volumes/list", access.Member),
	newEmptyListOperation(api.ProjectPrefix+"/fleets/list", access.Member),
	newEmptyListOperation(api.ProjectPrefix+"/pool/list", access.Member),
	newEmptyListOperation("/api/pools/list_instances", access.Auth),

	newUnsupportedOperation(api.ProjectPrefix+"/backends/create", access.Admin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/update", access.Admin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/delete", access.Admin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/{name}/config_info", access.Admin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/create_yaml", access.Admin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/update_yaml", access.Admin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/{name}/get_yaml", access.Admin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/runs/get_offers", access.Member, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/runs/create_instance", access.Member, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/secrets/list", access.Member, "secrets"),
	newUnsupportedOperation(api.ProjectPrefix+"/secrets/get", access.Member, "secrets"),
	newUnsupportedOperation(api.ProjectPrefix+"/secrets/add", access.Member, "secrets"),
	newUnsupportedOperation(api.ProjectPrefix+"/secrets/delete", access.Member, "secrets"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/get", access.Member, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/create", access.Admin, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/delete", access.Admin, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/set_default", access.Admin, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/set_wildcard_domain", access.Admin, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/volumes/get", access.Member, "volumes"),
	newUnsupportedOperation(api.ProjectPrefix+"/volumes/create", access.Member, "volumes"),
	newUnsupportedOperation(api.ProjectPrefix+"/volumes/delete", access.Member, "volumes"),
	newUnsupportedOperation(api.ProjectPrefix+"/fleets/get", access.Member, "fleets"),
	newUnsupportedOperation(api.ProjectPrefix+"/fleets/create", access.Member, "fleets"),
	newUnsupportedOperation(api.ProjectPrefix+"/fleets/delete", access.Member, "fleets"),
	newUnsupportedOperation(api.ProjectPrefix+"/fleets/delete_instances", access.Member, "fleets"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/create", access.Member, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/delete", access.Member, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/show", access.Member, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/remove", access.Member, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/set_default", access.Member, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/add_remote", access.Member, "pools"),

	{method: http.MethodGet, path: "/healthcheck", level: access.None, summary: "whether the server runs",
		requestType: reflect.TypeFor[wire.Null](), responseType: reflect.TypeFor[healthStatus](), handle: (*Server).reportHealth},

	newSchemaOperation("/schema/dstack.yml.json", "of a configuration, for editors", spec.Schema),
	newSchemaOperation("/schema/profiles.yml.json", "of a profiles.yml, for editors", spec.ProfilesSchema),
}

// noBodyLimit leaves the limit to the route, which tells it in its own words.
const noBodyLimit = 1 << 40

// newEmptyListOperation is a list of things that do not exist yet, and so is empty. What it
// is asked for does not matter.
func newEmptyListOperation(path string, level access.Level) apiOperation {
	return apiOperation{method: http.MethodPost, path: path, level: level, maxBody: maxBodyBytes, summary: "always empty: not supported yet",
		requestType: reflect.TypeFor[map[string]any](), responseType: reflect.TypeFor[[]wire.Null](),
		handle: func(s *Server, c *apiCall) error {
			s.respondJSON(c.w, http.StatusOK, []wire.Null{})
			return nil
		}}
}

// newUnsupportedOperation is a call of the reference that has nothing behind it yet.
func newUnsupportedOperation(path string, level access.Level, what string) apiOperation {
	return apiOperation{method: http.MethodPost, path: path, level: level, maxBody: maxBodyBytes, summary: "not supported yet",
		requestType: reflect.TypeFor[map[string]any](), responseType: reflect.TypeFor[wire.Null](),
		handle: func(*Server, *apiCall) error {
			return &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: " + what,
				Hint: unsupportedHints[what]}
		}}
}

var unsupportedHints = map[string]string{
	"configuring backends by the API": "write them into the server's config.yml and start it again",
	"pools":                           "machines come from the backends in the server's config.yml",
	"secrets":                         "give the value in env: when you apply",
	"gateways":                        "the server publishes services itself, at its own address",
	"volumes":                         "keep data outside of the service",
	"fleets":                          "machines come from the backends in the server's config.yml",
}

type healthStatus struct {
	Status string `json:"status"`
}

func (s *Server) reportHealth(c *apiCall) error {
	s.respondJSON(c.w, http.StatusOK, healthStatus{"running"})
	return nil
}

// newMux makes the table answer.
func (s *Server) newMux() *http.ServeMux {
	mux := http.NewServeMux()
	for i := range apiOperations {
		mux.HandleFunc(apiOperations[i].method+" "+apiOperations[i].path, s.newHandler(&apiOperations[i]))
	}
	mux.HandleFunc("GET "+openapiPath, s.serveOpenAPI)
	mux.HandleFunc("/", s.respondUnknownPath)
	return mux
}

// respondUnknownPath answers for every path that is not in the table, and for those
// that are, asked by another method.
func (s *Server) respondUnknownPath(w http.ResponseWriter, r *http.Request) {
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := s.mux.Handler(probe); pattern != "/" && method != r.Method {
			w.Header().Set("Allow", method)
			s.respondError(w, r, wire.StatusError{Status: http.StatusMethodNotAllowed, Detail: "Method Not Allowed", Err: &dstack.Error{Kind: dstack.Invalid,
				Message: r.URL.Path + " is not called by " + r.Method, Hint: "call it by " + method}})
			return
		}
	}
	s.respondError(w, r, wire.StatusError{Status: http.StatusNotFound, Detail: "Not Found", Err: &dstack.Error{Kind: dstack.NotFound,
		Message: "there is no call " + quote(r.URL.Path),
		Hint:    "what there is, is listed at " + openapiPath}})
}
