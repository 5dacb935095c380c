package server

import (
	"net/http"
	"reflect"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// apiOperations is every operation of the API except openapiPath, in the dialect of 0.18.10, which our own client uses,
// too. It contains all operations of 0.18.10 (spec §4.4). Summaries are published in OpenAPI. Those that later clients
// call in another form are in newestOperations.
var apiOperations = []apiOperation{
	newOperation("/api/users/list", access.LevelUser, (*Server).listUsers,
		"List all users. Callers other than global admins get only themselves."),
	newOperation("/api/users/get_my_user", access.LevelUser, (*Server).getMyUser, "Get the caller."),
	newOperation("/api/users/get_user", access.LevelUser, (*Server).getUser,
		"Get a user. The token is empty: the server stores only hashes of tokens."),
	newOperation("/api/users/create", access.LevelGlobalAdmin, (*Server).createUser, "Create a user."),
	newOperation("/api/users/update", access.LevelGlobalAdmin, (*Server).updateUser, "Set a user's role and e-mail address."),
	newOperation("/api/users/refresh_token", access.LevelUser, (*Server).refreshToken,
		"Create a new token for a user and revoke the old one. The response is the only place that shows the token."),
	newOperation("/api/users/delete", access.LevelGlobalAdmin, (*Server).deleteUsers,
		"Delete users. Their tokens end at once, their runs go on. new_owner gets their projects."),

	newOperation("/api/projects/list", access.LevelUser, (*Server).listProjects, "List the projects that the caller may see."),
	newOperation("/api/projects/create", access.LevelUser, (*Server).createProject, "Create a project."),
	newOperation("/api/projects/delete", access.LevelUser, (*Server).deleteProjects, "Delete projects that have no unfinished run."),
	newOperation("/api/projects/{project_name}/get", access.LevelMember, (*Server).getProject, "Get a project."),
	newOperation("/api/projects/{project_name}/set_members", access.LevelProjectAdmin, (*Server).setMembers, "Replace all members of a project."),
	newOperation(api.PathAddMembers, access.LevelProjectAdmin, (*Server).addMembers,
		"Add members to a project, or change the roles of members."),
	newOperation(api.PathRemoveMembers, access.LevelProjectAdmin, (*Server).removeMembers, "Remove members from a project."),

	newOperation(api.PathSecrets+"/list", access.LevelMember, (*Server).listSecrets,
		"List the secrets of a project, and the runs that use them. Values are never returned."),
	newOperation(api.PathSecrets+"/get", access.LevelMember, (*Server).getSecret,
		"Get a secret. The value is always null: it is never returned."),
	newOperation(api.PathSecrets+"/create_or_update", access.LevelProjectAdmin, (*Server).setSecret,
		"Set the value of a secret. A change replaces the replicas of the services that use it."),
	newOperation(api.PathSecrets+"/delete", access.LevelProjectAdmin, (*Server).deleteSecrets,
		"Delete secrets. With force, also those that unfinished runs use."),

	newOperation("/api/backends/list_types", access.LevelNone, (*Server).listBackendTypes, "List the supported types of backends."),
	newOperation("/api/backends/config_values", access.LevelUser, (*Server).getBackendValues,
		"Get the values that a backend's configuration may have."),

	newOperation(api.ProjectPrefix+"/repos/list", access.LevelMember, (*Server).listRepos, "List the repos of a project."),
	newOperation(api.ProjectPrefix+"/repos/get", access.LevelMember, (*Server).getRepo, "Get a repo."),
	askOtherServers(newOperation(api.ProjectPrefix+"/repos/init", access.LevelMember, (*Server).initRepo,
		"Register a repo, or update its registration.")),
	newOperation(api.ProjectPrefix+"/repos/delete", access.LevelMember, (*Server).deleteRepos, "Delete repos and the code uploaded to them."),
	{method: http.MethodPost, path: api.ProjectPrefix + "/repos/upload_code", level: access.LevelMember, format: formatMultipart, maxBody: noBodyLimit,
		query:   []string{"repo_id"},
		summary: "Upload code: a file whose name is the SHA-256 of its content.", requestType: reflect.TypeFor[wire.Null](),
		responseType: reflect.TypeFor[wire.Null](), handle: (*Server).uploadCode},

	newOperation(api.PathArchiveByHash, access.LevelUser, (*Server).getArchiveByHash, "Find an uploaded file or folder of the caller."),
	{method: http.MethodPost, path: api.PathUploadArchive, level: access.LevelUser, format: formatMultipart, maxBody: noBodyLimit,
		summary: "Upload a file or folder that a configuration names: a tar archive whose name is its SHA-256.", requestType: reflect.TypeFor[wire.Null](),
		responseType: reflect.TypeFor[api.FileArchive](), handle: (*Server).uploadArchive},

	newOperation("/api/runs/list", access.LevelUser, answerIn((*Server).listRuns, v018.BuildRuns), "List runs, newest first."),
	newOperation(api.ProjectPrefix+"/runs/get", access.LevelMember, answerIn((*Server).getRun, v018.BuildRun), "Get a run."),
	allowLargeBody(newOperation(api.ProjectPrefix+"/runs/get_plan", access.LevelMember, answerIn((*Server).getPlan, v018.BuildPlanWithPool),
		"Plan a run: what one replica runs, and the offers that meet its requirements.")),
	newOperation(api.ProjectPrefix+"/runs/get_offers", access.LevelMember, (*Server).getOffers,
		"List the machines that meet requirements, best first."),
	allowLargeBody(newOperation(api.ProjectPrefix+"/runs/submit", access.LevelMember, answerIn((*Server).submitRun, v018.BuildRun), "Submit a run.")),
	newOperation(api.ProjectPrefix+"/runs/stop", access.LevelMember, (*Server).stopRuns, "Stop runs."),
	newOperation(api.ProjectPrefix+"/runs/delete", access.LevelMember, (*Server).deleteRuns, "Delete finished runs and their logs."),

	allowLargeBody(newOperation(api.PathPreview, access.LevelMember, (*Server).previewRun,
		"Plan a run and show what applying it would change.")),
	allowLargeBody(newOperation(api.PathApply, access.LevelMember, (*Server).applyRun,
		"Submit a run, or a new revision of the unfinished run with the same name.")),
	allowLargeBody(newOperation(api.PathOffers, access.LevelMember, (*Server).listOffers,
		"List the machines that suit a configuration, best first, and why the others do not.")),
	newOperation(api.PathEvents, access.LevelMember, (*Server).listEvents,
		"List the events of all runs with a name, deleted runs included. Can wait for a new event."),
	newOperation(api.PathHistory, access.LevelMember, (*Server).listRevisions, "List the revisions of a run, newest first."),
	newOperation(api.PathRollback, access.LevelMember, (*Server).rollBackRun, "Submit an earlier revision again, as the next one."),
	newOperation(api.PathExplain, access.LevelMember, (*Server).explainScaling, "Explain why a run has its current number of replicas."),
	newOperation(api.PathView, access.LevelMember, (*Server).waitForView,
		"Get a run as the command line shows it. Can wait for a change."),
	newOperation(api.PathViews, access.LevelUser, (*Server).listViews, "List runs as the command line shows them, newest first."),

	newOperation(api.ProjectPrefix+"/logs/poll", access.LevelMember, (*Server).pollLogs, "Read the logs of one attempt."),
	{method: http.MethodPost, path: api.PathFollow, level: access.LevelMember, format: formatLines, maxBody: maxBodyBytes,
		summary: "Stream the logs of a run, one JSON document per line.", requestType: reflect.TypeFor[api.FollowLogs](),
		responseType: reflect.TypeFor[api.LogEntry](), handle: (*Server).followLogs},

	{method: http.MethodGet, path: api.PathExec, level: access.LevelMember, format: formatWebSocket, maxBody: maxBodyBytes,
		summary:     "Run a command in a replica, over a WebSocket whose first message is an ExecRequest.",
		requestType: reflect.TypeFor[wire.Null](), responseType: reflect.TypeFor[api.ExecUpdate](), handle: (*Server).execInReplica},

	newOperation("/api/volumes/list", access.LevelUser, answerIn((*Server).listVolumes, v018.BuildVolumes), "List volumes, newest first."),
	newOperation(api.PathVolumes+"/list", access.LevelMember, answerIn((*Server).listProjectVolumes, v018.BuildVolumes),
		"List the volumes of a project by name."),
	newOperation(api.PathVolumes+"/get", access.LevelMember, answerIn((*Server).getVolume, v018.BuildVolume), "Get a volume."),
	newOperation(api.PathVolumes+"/create", access.LevelMember, answerIn((*Server).createVolume, v018.BuildVolume), "Create a volume."),
	newOperation(api.PathApplyVolume, access.LevelMember, (*Server).applyVolume,
		"Create a volume, unless it exists with the same configuration."),
	newOperation(api.PathVolumes+"/delete", access.LevelMember, (*Server).deleteVolumes,
		"Delete volumes with their data, which no unfinished run may name. Waits some seconds until they are gone."),

	newEmptyListOperation(api.ProjectPrefix+"/gateways/list", access.LevelMember),
	newOperation(api.ProjectPrefix+"/fleets/list", access.LevelMember, answerIn((*Server).listFleets, v018.BuildFleets), "List the fleets of a project."),
	newOperation(api.ProjectPrefix+"/fleets/get", access.LevelMember,
		translateHandler(v018.DecodeGetFleet, (*Server).getFleet, func(_ v018.GetFleet, a wire.FleetAnswer) v018.Fleet { return v018.BuildFleet(a) }),
		"Get a fleet."),
	allowLargeBody(newOperation(api.ProjectPrefix+"/fleets/create", access.LevelMember,
		translateHandler(v018.DecodeCreateFleet, (*Server).createFleet, func(_ v018.CreateFleet, a wire.FleetAnswer) v018.Fleet { return v018.BuildFleet(a) }),
		"Create a fleet of hosts that are reached by SSH. The keys are in the configuration; they are never returned.")),
	newOperation(api.ProjectPrefix+"/fleets/delete", access.LevelMember, (*Server).deleteFleets,
		"Delete fleets on which nothing runs, or which are drained. Hosts leave as soon as nothing runs on them."),
	newOperation(api.ProjectPrefix+"/fleets/delete_instances", access.LevelMember, (*Server).deleteFleetInstances, "Remove hosts from a fleet."),
	allowLargeBody(newOperation(api.PathFleetPreview, access.LevelMember, (*Server).previewFleet, "Show what applying a fleet would change.")),
	allowLargeBody(newOperation(api.PathFleetApply, access.LevelMember, answerIn((*Server).applyFleet, buildFleetView),
		"Create a fleet, or replace the configuration of one. Hosts that stay keep what runs on them.")),
	newOperation(api.PathFleetViews, access.LevelMember, (*Server).listFleetViews, "List fleets as the command line shows them, by name."),
	newOperation(api.PathFleetDrain, access.LevelMember, answerIn((*Server).drainFleet, buildFleetView),
		"Drain hosts of a fleet, which then get no new replicas, or use them again."),
	newOperation(api.ProjectPrefix+"/pool/list", access.LevelMember, (*Server).listPools,
		"List the pools of a project: there is only one, with all machines that replicas share."),
	newOperation(api.ProjectPrefix+"/pool/show", access.LevelMember, (*Server).showPool, "List the machines that replicas share."),
	newOperation("/api/pools/list_instances", access.LevelUser, (*Server).listPoolInstances,
		"List the hosts of all fleets that the caller may see, newest first."),

	newUnsupportedOperation(api.ProjectPrefix+"/backends/create", access.LevelProjectAdmin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/update", access.LevelProjectAdmin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/delete", access.LevelProjectAdmin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/{name}/config_info", access.LevelProjectAdmin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/create_yaml", access.LevelProjectAdmin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/update_yaml", access.LevelProjectAdmin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/backends/{name}/get_yaml", access.LevelProjectAdmin, "configuring backends by the API"),
	newUnsupportedOperation(api.ProjectPrefix+"/runs/create_instance", access.LevelMember, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/secrets/add", access.LevelProjectAdmin, "secrets/add"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/get", access.LevelMember, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/create", access.LevelProjectAdmin, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/delete", access.LevelProjectAdmin, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/set_default", access.LevelProjectAdmin, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/gateways/set_wildcard_domain", access.LevelProjectAdmin, "gateways"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/create", access.LevelMember, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/delete", access.LevelMember, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/remove", access.LevelMember, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/set_default", access.LevelMember, "pools"),
	newUnsupportedOperation(api.ProjectPrefix+"/pool/add_remote", access.LevelMember, "pools"),

	{method: http.MethodGet, path: "/healthcheck", level: access.LevelNone, summary: "Report that the server is running.",
		requestType: reflect.TypeFor[wire.Null](), responseType: reflect.TypeFor[healthStatus](), handle: (*Server).reportHealth},

	newSchemaOperation("/schema/dstack.yml.json", "Get the JSON Schema of configurations, for editors.", spec.Schema),
	newSchemaOperation("/schema/profiles.yml.json", "Get the JSON Schema of profiles.yml, for editors.", spec.ProfilesSchema),
}
