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
var endpoints = []endpoint{
	post("/api/users/list", access.Auth, (*Server).listUsers, "users; for others than global admins only the caller"),
	post("/api/users/get_my_user", access.Auth, (*Server).getMyUser, "the caller"),
	post("/api/users/get_user", access.Auth, (*Server).getUser, "a user; the token is empty, for the server does not know it"),
	post("/api/users/create", access.GlobalAdmin, (*Server).createUser, "make a user"),
	post("/api/users/update", access.GlobalAdmin, (*Server).updateUser, "change a user's role and e-mail"),
	post("/api/users/refresh_token", access.Auth, (*Server).refreshToken, "make a new token; the old one ends; shown this once"),
	post("/api/users/delete", access.GlobalAdmin, (*Server).deleteUsers, "delete users"),

	post("/api/projects/list", access.Auth, (*Server).listProjects, "the caller's projects"),
	post("/api/projects/create", access.Auth, (*Server).createProject, "make a project"),
	post("/api/projects/delete", access.Auth, (*Server).deleteProjects, "delete projects in which nothing runs"),
	post("/api/projects/{project_name}/get", access.Member, (*Server).getProject, "a project"),
	post("/api/projects/{project_name}/set_members", access.Admin, (*Server).setMembers, "replace a project's members"),

	post("/api/backends/list_types", access.None, (*Server).listBackendTypes, "the types of backends there are"),
	post("/api/backends/config_values", access.Auth, (*Server).backendValues, "what a backend's configuration may say"),

	post(api.ProjectPrefix+"/repos/list", access.Member, (*Server).listRepos, "repos"),
	post(api.ProjectPrefix+"/repos/get", access.Member, (*Server).getRepo, "a repo"),
	post(api.ProjectPrefix+"/repos/init", access.Member, (*Server).initRepo, "make a repo known, or again"),
	post(api.ProjectPrefix+"/repos/delete", access.Member, (*Server).deleteRepos, "forget repos and what was uploaded to them"),
	{method: http.MethodPost, path: api.ProjectPrefix + "/repos/upload_code", level: access.Member, form: formUpload, limit: noLimit,
		about: "upload code: a file named by the SHA-256 of its content", in: reflect.TypeFor[wire.Null](),
		out: reflect.TypeFor[wire.Null](), serve: (*Server).uploadCode},

	post("/api/runs/list", access.Auth, (*Server).listRuns, "runs, newest first"),
	post(api.ProjectPrefix+"/runs/get", access.Member, (*Server).getRun, "a run"),
	large(post(api.ProjectPrefix+"/runs/get_plan", access.Member, (*Server).getPlan, "what a run would need and where it could go")),
	large(post(api.ProjectPrefix+"/runs/submit", access.Member, (*Server).submitRun, "submit a run")),
	post(api.ProjectPrefix+"/runs/stop", access.Member, (*Server).stopRuns, "stop runs"),
	post(api.ProjectPrefix+"/runs/delete", access.Member, (*Server).deleteRuns, "delete finished runs"),

	large(post(api.PathPreview, access.Member, (*Server).preview, "a plan, with what a person wants to know of it")),
	large(post(api.PathApply, access.Member, (*Server).apply, "submit a run, or give it its next revision")),
	post(api.PathEvents, access.Member, (*Server).events, "what happened to the runs of a name, those that are gone included"),
	post(api.PathHistory, access.Member, (*Server).history, "a run's revisions, newest first"),
	post(api.PathRollback, access.Member, (*Server).rollback, "make an earlier revision the next one"),
	post(api.PathExplain, access.Member, (*Server).explain, "why a run has the replicas that it has"),
	post(api.PathView, access.Member, (*Server).view, "a run as people see it; waits for a change"),
	post(api.PathViews, access.Auth, (*Server).views, "runs as people see them"),

	post(api.ProjectPrefix+"/logs/poll", access.Member, (*Server).pollLogs, "output of one attempt"),
	{method: http.MethodPost, path: api.PathFollow, level: access.Member, form: formLines, limit: bodyLimit,
		about: "output of a run, as it comes", in: reflect.TypeFor[api.FollowLogs](),
		out: reflect.TypeFor[api.LogEntry](), serve: (*Server).followLogs},

	none("/api/volumes/list", access.Auth),
	none(api.ProjectPrefix+"/gateways/list", access.Member),
	none(api.ProjectPrefix+"/volumes/list", access.Member),
	none(api.ProjectPrefix+"/fleets/list", access.Member),
	none(api.ProjectPrefix+"/pool/list", access.Member),
	none("/api/pools/list_instances", access.Auth),

	later(api.ProjectPrefix+"/backends/create", access.Admin, "configuring backends by the API"),
	later(api.ProjectPrefix+"/backends/update", access.Admin, "configuring backends by the API"),
	later(api.ProjectPrefix+"/backends/delete", access.Admin, "configuring backends by the API"),
	later(api.ProjectPrefix+"/backends/{name}/config_info", access.Admin, "configuring backends by the API"),
	later(api.ProjectPrefix+"/backends/create_yaml", access.Admin, "configuring backends by the API"),
	later(api.ProjectPrefix+"/backends/update_yaml", access.Admin, "configuring backends by the API"),
	later(api.ProjectPrefix+"/backends/{name}/get_yaml", access.Admin, "configuring backends by the API"),
	later(api.ProjectPrefix+"/runs/get_offers", access.Member, "pools"),
	later(api.ProjectPrefix+"/runs/create_instance", access.Member, "pools"),
	later(api.ProjectPrefix+"/secrets/list", access.Member, "secrets"),
	later(api.ProjectPrefix+"/secrets/get", access.Member, "secrets"),
	later(api.ProjectPrefix+"/secrets/add", access.Member, "secrets"),
	later(api.ProjectPrefix+"/secrets/delete", access.Member, "secrets"),
	later(api.ProjectPrefix+"/gateways/get", access.Member, "gateways"),
	later(api.ProjectPrefix+"/gateways/create", access.Admin, "gateways"),
	later(api.ProjectPrefix+"/gateways/delete", access.Admin, "gateways"),
	later(api.ProjectPrefix+"/gateways/set_default", access.Admin, "gateways"),
	later(api.ProjectPrefix+"/gateways/set_wildcard_domain", access.Admin, "gateways"),
	later(api.ProjectPrefix+"/volumes/get", access.Member, "volumes"),
	later(api.ProjectPrefix+"/volumes/create", access.Member, "volumes"),
	later(api.ProjectPrefix+"/volumes/delete", access.Member, "volumes"),
	later(api.ProjectPrefix+"/fleets/get", access.Member, "fleets"),
	later(api.ProjectPrefix+"/fleets/create", access.Member, "fleets"),
	later(api.ProjectPrefix+"/fleets/delete", access.Member, "fleets"),
	later(api.ProjectPrefix+"/fleets/delete_instances", access.Member, "fleets"),
	later(api.ProjectPrefix+"/pool/create", access.Member, "pools"),
	later(api.ProjectPrefix+"/pool/delete", access.Member, "pools"),
	later(api.ProjectPrefix+"/pool/show", access.Member, "pools"),
	later(api.ProjectPrefix+"/pool/remove", access.Member, "pools"),
	later(api.ProjectPrefix+"/pool/set_default", access.Member, "pools"),
	later(api.ProjectPrefix+"/pool/add_remote", access.Member, "pools"),

	{method: http.MethodGet, path: "/healthcheck", level: access.None, about: "whether the server runs",
		in: reflect.TypeFor[wire.Null](), out: reflect.TypeFor[health](), serve: (*Server).healthcheck},

	schema("/schema/dstack.yml.json", "of a configuration, for editors", spec.Schema),
	schema("/schema/profiles.yml.json", "of a profiles.yml, for editors", spec.ProfilesSchema),
}

// noLimit leaves the limit to the route, which tells it in its own words.
const noLimit = 1 << 40

// none is a list of things that do not exist yet, and so is empty. What it
// is asked for does not matter.
func none(path string, level access.Level) endpoint {
	return endpoint{method: http.MethodPost, path: path, level: level, limit: bodyLimit, about: "always empty: not supported yet",
		in: reflect.TypeFor[map[string]any](), out: reflect.TypeFor[[]wire.Null](),
		serve: func(s *Server, c *call) error {
			s.write(c.w, http.StatusOK, []wire.Null{})
			return nil
		}}
}

// later is a call of the reference that has nothing behind it yet.
func later(path string, level access.Level, what string) endpoint {
	return endpoint{method: http.MethodPost, path: path, level: level, limit: bodyLimit, about: "not supported yet",
		in: reflect.TypeFor[map[string]any](), out: reflect.TypeFor[wire.Null](),
		serve: func(*Server, *call) error {
			return &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: " + what,
				Hint: laterHints[what]}
		}}
}

var laterHints = map[string]string{
	"configuring backends by the API": "write them into the server's config.yml and start it again",
	"pools":                           "machines come from the backends in the server's config.yml",
	"secrets":                         "give the value in env: when you apply",
	"gateways":                        "the server publishes services itself, at its own address",
	"volumes":                         "keep data outside of the service",
	"fleets":                          "machines come from the backends in the server's config.yml",
}

type health struct {
	Status string `json:"status"`
}

func (s *Server) healthcheck(c *call) error {
	s.write(c.w, http.StatusOK, health{"running"})
	return nil
}

// routes makes the table answer.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for i := range endpoints {
		mux.HandleFunc(endpoints[i].method+" "+endpoints[i].path, s.enter(&endpoints[i]))
	}
	mux.HandleFunc("GET "+openapiPath, s.openapi)
	mux.HandleFunc("/", s.unknown)
	return mux
}

// unknown answers for every path that is not in the table, and for those
// that are, asked by another method.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := s.mux.Handler(probe); pattern != "/" && method != r.Method {
			w.Header().Set("Allow", method)
			s.refuse(w, r, wire.StatusError{Status: http.StatusMethodNotAllowed, Detail: "Method Not Allowed", Err: &dstack.Error{Kind: dstack.Invalid,
				Message: r.URL.Path + " is not called by " + r.Method, Hint: "call it by " + method}})
			return
		}
	}
	s.refuse(w, r, wire.StatusError{Status: http.StatusNotFound, Detail: "Not Found", Err: &dstack.Error{Kind: dstack.NotFound,
		Message: "there is no call " + quote(r.URL.Path),
		Hint:    "what there is, is listed at " + openapiPath}})
}
