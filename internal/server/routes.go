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

// endpoints is everything that can be called, and by whom. What is not here
// cannot be called. Of spec §4.4 it has every line.
var endpoints = []apiCall{
	newCall("/api/users/list", access.LevelUser, (*Server).listUsers, "users; for others than global admins only the caller"),
	newCall("/api/users/get_my_user", access.LevelUser, (*Server).getMyUser, "the caller"),
	newCall("/api/users/get_user", access.LevelUser, (*Server).getUser, "a user; the token is empty, for the server does not know it"),
	newCall("/api/users/create", access.LevelGlobalAdmin, (*Server).createUser, "make a user"),
	newCall("/api/users/update", access.LevelGlobalAdmin, (*Server).updateUser, "change a user's role and e-mail"),
	newCall("/api/users/refresh_token", access.LevelUser, (*Server).refreshToken, "make a new token; the old one ends; shown this once"),
	newCall("/api/users/delete", access.LevelGlobalAdmin, (*Server).deleteUsers, "delete users"),

	newCall("/api/projects/list", access.LevelUser, (*Server).listProjects, "the caller's projects"),
	newCall("/api/projects/create", access.LevelUser, (*Server).createProject, "make a project"),
	newCall("/api/projects/delete", access.LevelUser, (*Server).deleteProjects, "delete projects in which nothing runs"),
	newCall("/api/projects/{project_name}/get", access.LevelMember, (*Server).getProject, "a project"),
	newCall("/api/projects/{project_name}/set_members", access.LevelProjectAdmin, (*Server).setMembers, "replace a project's members"),

	newCall("/api/backends/list_types", access.LevelNone, (*Server).listBackendTypes, "the types of backends there are"),
	newCall("/api/backends/config_values", access.LevelUser, (*Server).backendValues, "what a backend's configuration may say"),

	newCall(api.ProjectPrefix+"/repos/list", access.LevelMember, (*Server).listRepos, "repos"),
	newCall(api.ProjectPrefix+"/repos/get", access.LevelMember, (*Server).getRepo, "a repo"),
	newCall(api.ProjectPrefix+"/repos/init", access.LevelMember, (*Server).initRepo, "make a repo known, or again"),
	newCall(api.ProjectPrefix+"/repos/delete", access.LevelMember, (*Server).deleteRepos, "forget repos and what was uploaded to them"),
	{method: http.MethodPost, path: api.ProjectPrefix + "/repos/upload_code", level: access.LevelMember, form: formUpload, limit: noLimit,
		about: "upload code: a file named by the SHA-256 of its content", in: reflect.TypeFor[wire.Null](),
		out: reflect.TypeFor[wire.Null](), serve: (*Server).uploadCode},

	newCall("/api/runs/list", access.LevelUser, (*Server).listRuns, "runs, newest first"),
	newCall(api.ProjectPrefix+"/runs/get", access.LevelMember, (*Server).getRun, "a run"),
	allowConfiguration(newCall(api.ProjectPrefix+"/runs/get_plan", access.LevelMember, (*Server).getPlan, "what a run would need and where it could go")),
	allowConfiguration(newCall(api.ProjectPrefix+"/runs/submit", access.LevelMember, (*Server).submitRun, "submit a run")),
	newCall(api.ProjectPrefix+"/runs/stop", access.LevelMember, (*Server).stopRuns, "stop runs"),
	newCall(api.ProjectPrefix+"/runs/delete", access.LevelMember, (*Server).deleteRuns, "delete finished runs"),

	allowConfiguration(newCall(api.PathPreview, access.LevelMember, (*Server).previewRun, "a plan, with what a person wants to know of it")),
	allowConfiguration(newCall(api.PathApply, access.LevelMember, (*Server).applyRun, "submit a run, or give it its next revision")),
	newCall(api.PathEvents, access.LevelMember, (*Server).listEvents, "what happened to the runs of a name, those that are gone included"),
	newCall(api.PathHistory, access.LevelMember, (*Server).listRevisions, "a run's revisions, newest first"),
	newCall(api.PathRollback, access.LevelMember, (*Server).rollBackRun, "make an earlier revision the next one"),
	newCall(api.PathExplain, access.LevelMember, (*Server).explainScaling, "why a run has the replicas that it has"),
	newCall(api.PathView, access.LevelMember, (*Server).waitForView, "a run as people see it; waits for a change"),
	newCall(api.PathViews, access.LevelUser, (*Server).listViews, "runs as people see them"),

	newCall(api.ProjectPrefix+"/logs/poll", access.LevelMember, (*Server).pollLogs, "output of one attempt"),
	{method: http.MethodPost, path: api.PathFollow, level: access.LevelMember, form: formLines, limit: bodyLimit,
		about: "output of a run, as it comes", in: reflect.TypeFor[api.FollowLogs](),
		out: reflect.TypeFor[api.LogEntry](), serve: (*Server).followLogs},

	emptyList("/api/volumes/list", access.LevelUser),
	emptyList(api.ProjectPrefix+"/gateways/list", access.LevelMember),
	emptyList(api.ProjectPrefix+"/volumes/list", access.LevelMember),
	emptyList(api.ProjectPrefix+"/fleets/list", access.LevelMember),
	emptyList(api.ProjectPrefix+"/pool/list", access.LevelMember),
	emptyList("/api/pools/list_instances", access.LevelUser),

	unsupportedCall(api.ProjectPrefix+"/backends/create", access.LevelProjectAdmin, "configuring backends by the API"),
	unsupportedCall(api.ProjectPrefix+"/backends/update", access.LevelProjectAdmin, "configuring backends by the API"),
	unsupportedCall(api.ProjectPrefix+"/backends/delete", access.LevelProjectAdmin, "configuring backends by the API"),
	unsupportedCall(api.ProjectPrefix+"/backends/{name}/config_info", access.LevelProjectAdmin, "configuring backends by the API"),
	unsupportedCall(api.ProjectPrefix+"/backends/create_yaml", access.LevelProjectAdmin, "configuring backends by the API"),
	unsupportedCall(api.ProjectPrefix+"/backends/update_yaml", access.LevelProjectAdmin, "configuring backends by the API"),
	unsupportedCall(api.ProjectPrefix+"/backends/{name}/get_yaml", access.LevelProjectAdmin, "configuring backends by the API"),
	unsupportedCall(api.ProjectPrefix+"/runs/get_offers", access.LevelMember, "pools"),
	unsupportedCall(api.ProjectPrefix+"/runs/create_instance", access.LevelMember, "pools"),
	unsupportedCall(api.ProjectPrefix+"/secrets/list", access.LevelMember, "secrets"),
	unsupportedCall(api.ProjectPrefix+"/secrets/get", access.LevelMember, "secrets"),
	unsupportedCall(api.ProjectPrefix+"/secrets/add", access.LevelMember, "secrets"),
	unsupportedCall(api.ProjectPrefix+"/secrets/delete", access.LevelMember, "secrets"),
	unsupportedCall(api.ProjectPrefix+"/gateways/get", access.LevelMember, "gateways"),
	unsupportedCall(api.ProjectPrefix+"/gateways/create", access.LevelProjectAdmin, "gateways"),
	unsupportedCall(api.ProjectPrefix+"/gateways/delete", access.LevelProjectAdmin, "gateways"),
	unsupportedCall(api.ProjectPrefix+"/gateways/set_default", access.LevelProjectAdmin, "gateways"),
	unsupportedCall(api.ProjectPrefix+"/gateways/set_wildcard_domain", access.LevelProjectAdmin, "gateways"),
	unsupportedCall(api.ProjectPrefix+"/volumes/get", access.LevelMember, "volumes"),
	unsupportedCall(api.ProjectPrefix+"/volumes/create", access.LevelMember, "volumes"),
	unsupportedCall(api.ProjectPrefix+"/volumes/delete", access.LevelMember, "volumes"),
	unsupportedCall(api.ProjectPrefix+"/fleets/get", access.LevelMember, "fleets"),
	unsupportedCall(api.ProjectPrefix+"/fleets/create", access.LevelMember, "fleets"),
	unsupportedCall(api.ProjectPrefix+"/fleets/delete", access.LevelMember, "fleets"),
	unsupportedCall(api.ProjectPrefix+"/fleets/delete_instances", access.LevelMember, "fleets"),
	unsupportedCall(api.ProjectPrefix+"/pool/create", access.LevelMember, "pools"),
	unsupportedCall(api.ProjectPrefix+"/pool/delete", access.LevelMember, "pools"),
	unsupportedCall(api.ProjectPrefix+"/pool/show", access.LevelMember, "pools"),
	unsupportedCall(api.ProjectPrefix+"/pool/remove", access.LevelMember, "pools"),
	unsupportedCall(api.ProjectPrefix+"/pool/set_default", access.LevelMember, "pools"),
	unsupportedCall(api.ProjectPrefix+"/pool/add_remote", access.LevelMember, "pools"),

	{method: http.MethodGet, path: "/healthcheck", level: access.LevelNone, about: "whether the server runs",
		in: reflect.TypeFor[wire.Null](), out: reflect.TypeFor[healthStatus](), serve: (*Server).reportHealth},

	serveSchema("/schema/dstack.yml.json", "of a configuration, for editors", spec.Schema),
	serveSchema("/schema/profiles.yml.json", "of a profiles.yml, for editors", spec.ProfilesSchema),
}

// noLimit leaves the limit to the route, which tells it in its own words.
const noLimit = 1 << 40

// emptyList is a list of things that do not exist yet, and so is empty. What it
// is asked for does not matter.
func emptyList(path string, level access.Level) apiCall {
	return apiCall{method: http.MethodPost, path: path, level: level, limit: bodyLimit, about: "always empty: not supported yet",
		in: reflect.TypeFor[map[string]any](), out: reflect.TypeFor[[]wire.Null](),
		serve: func(s *Server, c *request) error {
			s.respondJSON(c.w, http.StatusOK, []wire.Null{})
			return nil
		}}
}

// unsupportedCall is a call of the reference that has nothing behind it yet.
func unsupportedCall(path string, level access.Level, what string) apiCall {
	return apiCall{method: http.MethodPost, path: path, level: level, limit: bodyLimit, about: "not supported yet",
		in: reflect.TypeFor[map[string]any](), out: reflect.TypeFor[wire.Null](),
		serve: func(*Server, *request) error {
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

func (s *Server) reportHealth(c *request) error {
	s.respondJSON(c.w, http.StatusOK, healthStatus{"running"})
	return nil
}

// newMux makes the table answer.
func (s *Server) newMux() *http.ServeMux {
	mux := http.NewServeMux()
	for i := range endpoints {
		mux.HandleFunc(endpoints[i].method+" "+endpoints[i].path, s.handleCall(&endpoints[i]))
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
