package server

import (
	"net/http"
	"reflect"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// apiOperations is every operation of the API except openapiPath. It contains
// all operations of 0.18.10 (spec §4.4). Summaries are published in OpenAPI.
var apiOperations = []apiOperation{
	newOperation("/api/users/list", access.Auth, (*Server).listUsers,
		"List all users. Callers other than global admins get only themselves."),
	newOperation("/api/users/get_my_user", access.Auth, (*Server).getMyUser, "Get the caller."),
	newOperation("/api/users/get_user", access.Auth, (*Server).getUser,
		"Get a user. The token is empty: the server stores only hashes of tokens."),
	newOperation("/api/users/create", access.GlobalAdmin, (*Server).createUser, "Create a user."),
	newOperation("/api/users/update", access.GlobalAdmin, (*Server).updateUser, "Set a user's role and e-mail address."),
	newOperation("/api/users/refresh_token", access.Auth, (*Server).refreshToken,
		"Create a new token for a user and revoke the old one. The response is the only place that shows the token."),
	newOperation("/api/users/delete", access.GlobalAdmin, (*Server).deleteUsers, "Delete users."),

	newOperation("/api/projects/list", access.Auth, (*Server).listProjects, "List the projects that the caller may see."),
	newOperation("/api/projects/create", access.Auth, (*Server).createProject, "Create a project."),
	newOperation("/api/projects/delete", access.Auth, (*Server).deleteProjects, "Delete projects that have no unfinished run."),
	newOperation("/api/projects/{project_name}/get", access.Member, (*Server).getProject, "Get a project."),
	newOperation("/api/projects/{project_name}/set_members", access.Admin, (*Server).setMembers, "Replace all members of a project."),

	newOperation("/api/backends/list_types", access.None, (*Server).listBackendTypes, "List the supported types of backends."),
	newOperation("/api/backends/config_values", access.Auth, (*Server).getBackendValues,
		"Get the values that a backend's configuration may have."),

	newOperation(api.ProjectPrefix+"/repos/list", access.Member, (*Server).listRepos, "List the repos of a project."),
	newOperation(api.ProjectPrefix+"/repos/get", access.Member, (*Server).getRepo, "Get a repo."),
	newOperation(api.ProjectPrefix+"/repos/init", access.Member, (*Server).initRepo, "Register a repo, or update its registration."),
	newOperation(api.ProjectPrefix+"/repos/delete", access.Member, (*Server).deleteRepos, "Delete repos and the code uploaded to them."),
	{method: http.MethodPost, path: api.ProjectPrefix + "/repos/upload_code", level: access.Member, format: formatMultipart, maxBody: noBodyLimit,
		summary: "Upload code: a file whose name is the SHA-256 of its content.", requestType: reflect.TypeFor[wire.Null](),
		responseType: reflect.TypeFor[wire.Null](), handle: (*Server).uploadCode},

	newOperation("/api/runs/list", access.Auth, (*Server).listRuns, "List runs, newest first."),
	newOperation(api.ProjectPrefix+"/runs/get", access.Member, (*Server).getRun, "Get a run."),
	allowLargeBody(newOperation(api.ProjectPrefix+"/runs/get_plan", access.Member, (*Server).getPlan,
		"Plan a run: what one replica runs, and the offers that meet its requirements.")),
	allowLargeBody(newOperation(api.ProjectPrefix+"/runs/submit", access.Member, (*Server).submitRun, "Submit a run.")),
	newOperation(api.ProjectPrefix+"/runs/stop", access.Member, (*Server).stopRuns, "Stop runs."),
	newOperation(api.ProjectPrefix+"/runs/delete", access.Member, (*Server).deleteRuns, "Delete finished runs and their logs."),

	allowLargeBody(newOperation(api.PathPreview, access.Member, (*Server).previewRun,
		"Plan a run and show what applying it would change.")),
	allowLargeBody(newOperation(api.PathApply, access.Member, (*Server).applyRun,
		"Submit a run, or a new revision of the unfinished run with the same name.")),
	newOperation(api.PathEvents, access.Member, (*Server).listEvents,
		"List the events of all runs with a name, deleted runs included. Can wait for a new event."),
	newOperation(api.PathHistory, access.Member, (*Server).listRevisions, "List the revisions of a run, newest first."),
	newOperation(api.PathRollback, access.Member, (*Server).rollBackRun, "Submit an earlier revision again, as the next one."),
	newOperation(api.PathExplain, access.Member, (*Server).explainScaling, "Explain why a run has its current number of replicas."),
	newOperation(api.PathView, access.Member, (*Server).waitForView,
		"Get a run as the command line shows it. Can wait for a change."),
	newOperation(api.PathViews, access.Auth, (*Server).listViews, "List runs as the command line shows them, newest first."),

	newOperation(api.ProjectPrefix+"/logs/poll", access.Member, (*Server).pollLogs, "Read the logs of one attempt."),
	{method: http.MethodPost, path: api.PathFollow, level: access.Member, format: formatLines, maxBody: maxBodyBytes,
		summary: "Stream the logs of a run, one JSON document per line.", requestType: reflect.TypeFor[api.FollowLogs](),
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

	{method: http.MethodGet, path: "/healthcheck", level: access.None, summary: "Report that the server is running.",
		requestType: reflect.TypeFor[wire.Null](), responseType: reflect.TypeFor[healthStatus](), handle: (*Server).reportHealth},

	newSchemaOperation("/schema/dstack.yml.json", "Get the JSON Schema of configurations, for editors.", spec.Schema),
	newSchemaOperation("/schema/profiles.yml.json", "Get the JSON Schema of profiles.yml, for editors.", spec.ProfilesSchema),
}
