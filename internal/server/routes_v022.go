package server

import (
	"net/http"
	"slices"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v022"
)

// dialectOperations are the operations of each dialect. A path that only one dialect has is served in all.
var dialectOperations = map[wire.Dialect][]apiOperation{
	wire.Dialect018: mergeOperations(apiOperations, newestOperations),
	wire.Dialect022: mergeOperations(newestOperations, apiOperations),
}

// mergeOperations returns operations, and those of others that they lack.
func mergeOperations(operations, others []apiOperation) []apiOperation {
	merged := slices.Clone(operations)
	for _, other := range others {
		if !slices.ContainsFunc(operations, func(op apiOperation) bool { return op.method == other.method && op.path == other.path }) {
			merged = append(merged, other)
		}
	}
	return merged
}

// newestOperations are the operations of the dialect of 0.22 whose requests or answers differ from those of 0.18.10, or
// that 0.18.10 does not have. Each calls a handler that the other dialect has, too, where there is one.
var newestOperations = []apiOperation{
	newOperation("/api/users/list", access.LevelUser, translateHandler(v022.DecodeListQuery, (*Server).listUsers, v022.BuildUsers),
		"List all users. Callers other than global admins get only themselves."),
	newOperation("/api/users/get_my_user", access.LevelUser, answerIn((*Server).getCaller, v022.BuildCaller),
		"Get the caller, with the token of the request and the key pair for attaching to runs."),
	newOperation("/api/users/get_user", access.LevelUser, answerIn((*Server).getUser, v022.BuildUserWithoutCreds), "Get a user."),
	newOperation("/api/users/create", access.LevelGlobalAdmin,
		translateHandler(v022.DecodePutUser, (*Server).createUser, v022.BuildPutUser), "Create a user."),
	newOperation("/api/users/update", access.LevelGlobalAdmin,
		translateHandler(v022.DecodePutUser, (*Server).updateUser, v022.BuildPutUser), "Set a user's role and e-mail address."),
	newOperation("/api/users/refresh_token", access.LevelUser, answerIn((*Server).refreshToken, v022.BuildUserWithCreds),
		"Create a new token for a user and revoke the old one. The response is the only place that shows the token."),

	newOperation("/api/projects/list", access.LevelUser,
		translateHandler(v022.DecodeListQuery, (*Server).listProjects, v022.BuildProjects), "List the projects that the caller may see."),
	newOperation("/api/projects/create", access.LevelUser,
		translateHandler(v022.DecodeCreateProject, (*Server).createProject, v022.BuildCreatedProject), "Create a project."),
	newOperation("/api/projects/{project_name}/get", access.LevelMember, answerIn((*Server).getProject, v022.BuildProject),
		"Get a project."),
	newOperation(api.PathSetMembers, access.LevelProjectAdmin, answerIn((*Server).setMembers, v022.BuildProject),
		"Replace all members of a project."),
	newOperation(api.PathAddMembers, access.LevelProjectAdmin, answerIn((*Server).addMembers, v022.BuildProject),
		"Add members to a project, or change the roles of members."),
	newOperation(api.PathRemoveMembers, access.LevelProjectAdmin, answerIn((*Server).removeMembers, v022.BuildProject),
		"Remove members from a project."),

	newOperation(api.ProjectPrefix+"/repos/get", access.LevelMember, (*Server).getRepoOrNone, "Get a repo. The credentials are always null."),

	newOperation("/api/runs/list", access.LevelUser, translateHandler(v022.DecodeListRuns, (*Server).listRuns, v022.BuildRuns),
		"List runs, newest first."),
	newOperation(api.ProjectPrefix+"/runs/get", access.LevelMember,
		translateHandler(keepRequest, (*Server).getRunByNameOrID, v022.BuildRun), "Get a run by its name or its ID."),
	allowLargeBody(newOperation(api.ProjectPrefix+"/runs/get_plan", access.LevelMember,
		translateHandler(v022.DecodeGetPlan, (*Server).planNewest, v022.BuildPlan),
		"Plan a run: what one replica runs, and the offers that meet its requirements.")),
	allowLargeBody(newOperation(api.ProjectPrefix+"/gpus/list", access.LevelMember,
		translateHandler(v022.DecodeListGPUs, (*Server).listGPUs, v022.BuildGPUs), "List the GPUs that a configuration could get, in groups.")),
	allowLargeBody(newOperation(api.ProjectPrefix+"/runs/apply", access.LevelMember,
		translateHandler(v022.DecodeApplyPlan, (*Server).applyNewest, v022.BuildAppliedRun),
		"Submit a run, or a new revision of the unfinished run with the same name.")),
	newOperation(api.ProjectPrefix+"/logs/poll", access.LevelMember,
		translateHandler(v022.DecodePollLogs, (*Server).pollLogs, v022.BuildLogs), "Read the logs of one attempt."),
	newOperation("/api/events/list", access.LevelUser, translateHandler(v022.DecodeListEvents, (*Server).findEvents, v022.BuildEvents),
		"List the events of all runs that the caller may see."),

	newOperation("/api/volumes/list", access.LevelUser, answerIn((*Server).listVolumes, v022.BuildVolumes), "List volumes, newest first."),
	newOperation(api.PathVolumes+"/list", access.LevelMember, answerIn((*Server).listProjectVolumes, v022.BuildVolumes),
		"List the volumes of a project by name."),
	newOperation(api.PathVolumes+"/get", access.LevelMember, answerIn((*Server).getVolume, v022.BuildVolume), "Get a volume."),
	newOperation(api.PathVolumes+"/create", access.LevelMember, answerIn((*Server).createVolume, v022.BuildVolume), "Create a volume."),

	newOperation(api.ProjectPrefix+"/exports/list", access.LevelMember, answerIn((*Server).listNothing, v022.BuildNoExports),
		"Always empty: projects share nothing."),
	newOperation(api.ProjectPrefix+"/imports/list", access.LevelMember, answerIn((*Server).listNothing, v022.BuildNoImports),
		"Always empty: projects share nothing."),
	newOperation(api.ProjectPrefix+"/fleets/list", access.LevelMember,
		translateHandler(v022.DecodeListFleets, (*Server).listProjectFleets, v022.BuildFleets),
		"List the fleets of a project. The server's own machines are the fleet default."),
	newOperation(api.ProjectPrefix+"/fleets/get", access.LevelMember,
		translateHandler(v022.DecodeGetFleet, (*Server).findProjectFleet, v022.BuildNamedFleet), "Get a fleet by its name or its ID."),
	allowLargeBody(newOperation(api.ProjectPrefix+"/fleets/get_plan", access.LevelMember,
		translateHandler(v022.DecodeGetFleetPlan, (*Server).planFleet, v022.BuildFleetPlan), "Plan a fleet.")),
	allowLargeBody(newOperation(api.ProjectPrefix+"/fleets/apply", access.LevelMember,
		translateHandler(v022.DecodeApplyFleetPlan, (*Server).applyFleet, v022.BuildAppliedFleet),
		"Create a fleet, or replace the configuration of one. Hosts that stay keep what runs on them.")),
	newOperation("/api/fleets/list", access.LevelUser, translateHandler(v022.DecodeListAllFleets, (*Server).listAllFleets, v022.BuildAllFleets),
		"List the fleets of all projects that the caller may see, newest first."),
	newOperation("/api/instances/list", access.LevelUser, translateHandler(v022.DecodeListInstances, (*Server).listAllFleets, v022.BuildInstances),
		"List the hosts of all fleets that the caller may see, newest first."),
	newOperation(api.ProjectPrefix+"/instances/get", access.LevelMember, (*Server).findInstance, "Get a host of a fleet."),
	newOperation(api.PathGateways+"/list", access.LevelMember, translateHandler(v022.DecodeListGateways, (*Server).listGateways, v022.BuildGateways),
		"List the gateways of a project, the oldest first."),
	newOperation(api.PathGateways+"/get", access.LevelMember, answerIn((*Server).getGateway, v022.BuildGateway), "Get a gateway."),
	newOperation(api.PathGateways+"/create", access.LevelProjectAdmin, translateHandler(v022.DecodeCreateGateway, (*Server).createGateway, v022.BuildCreatedGateway),
		"Create a gateway."),
	newOperation(api.PathGateways+"/get_plan", access.LevelMember, translateHandler(v022.DecodeGetGatewayPlan, (*Server).planGateway, v022.BuildGatewayPlan),
		"Plan a gateway."),
	newOperation(api.PathGateways+"/apply", access.LevelProjectAdmin, (*Server).applyGatewayPlan,
		"Create a gateway, or replace the configuration of one, which changes in place."),
	newOperation(api.PathGateways+"/set_default", access.LevelProjectAdmin, (*Server).setProjectsDefaultGateway, "Make a gateway the default of its project."),
	newOperation(api.PathGateways+"/set_wildcard_domain", access.LevelProjectAdmin, answerIn((*Server).setGatewayDomain, v022.BuildGateway),
		"Change the domain of a gateway. Requests that are in flight go on."),
	newEmptyListOperation("/api/auth/list_providers", access.LevelNone),
	newEmptyListOperation("/api/users/public_keys/list", access.LevelUser),

	newUnsupportedOperation("/api/users/public_keys/add", access.LevelUser, "public keys of users"),
	newUnsupportedOperation("/api/users/public_keys/delete", access.LevelUser, "public keys of users"),
	newUnsupportedOperation("/api/users/refresh_ssh_key", access.LevelUser, "users/refresh_ssh_key"),
	newUnsupportedOperation(api.ProjectPrefix+"/exports/create", access.LevelProjectAdmin, "sharing between projects"),
	newUnsupportedOperation(api.ProjectPrefix+"/exports/update", access.LevelProjectAdmin, "sharing between projects"),
	newUnsupportedOperation(api.ProjectPrefix+"/exports/delete", access.LevelProjectAdmin, "sharing between projects"),
	newUnsupportedOperation(api.ProjectPrefix+"/imports/delete", access.LevelProjectAdmin, "sharing between projects"),
	newUnsupportedOperation(api.ProjectPrefix+"/presets/push", access.LevelMember, "presets"),
	newUnsupportedOperation(api.ProjectPrefix+"/presets/get", access.LevelMember, "presets"),
	newUnsupportedOperation(api.ProjectPrefix+"/presets/get_files", access.LevelMember, "presets"),
	withMethod(http.MethodGet, newUnsupportedOperation(api.ProjectPrefix+"/metrics/job/{run_name}", access.LevelMember, "metrics of runs")),
}
