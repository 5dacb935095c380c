package v022

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// ListEvents is the body of /api/events/list. Our events are about runs and their replicas, which these clients call jobs:
// of the filters by other targets, none matches one.
type ListEvents struct {
	TargetProjects        []dstack.ProjectID `json:"target_projects,omitempty"`
	TargetUsers           []string           `json:"target_users,omitempty"`
	TargetFleets          []string           `json:"target_fleets,omitempty"`
	TargetInstances       []string           `json:"target_instances,omitempty"`
	TargetRuns            []dstack.RunID     `json:"target_runs,omitempty"`
	TargetJobs            []string           `json:"target_jobs,omitempty"`
	TargetVolumes         []string           `json:"target_volumes,omitempty"`
	TargetGateways        []string           `json:"target_gateways,omitempty"`
	TargetGatewayReplicas []string           `json:"target_gateway_replicas,omitempty"`
	TargetSecrets         []string           `json:"target_secrets,omitempty"`
	TargetPresets         []string           `json:"target_presets,omitempty"`
	WithinProjects        []dstack.ProjectID `json:"within_projects,omitempty"`
	WithinFleets          []string           `json:"within_fleets,omitempty"`
	WithinRuns            []dstack.RunID     `json:"within_runs,omitempty"`
	WithinGateways        []string           `json:"within_gateways,omitempty"`
	IncludeTargetTypes    []string           `json:"include_target_types,omitempty"`
	Actors                []*dstack.UserID   `json:"actors,omitempty"` // nil: the server itself
	PrevRecordedAt        *time.Time         `json:"prev_recorded_at"`
	PrevID                *string            `json:"prev_id"`
	Limit                 *int               `json:"limit" minimum:"1" maximum:"100"`
	Ascending             bool               `json:"ascending,omitempty"`
}

// The types of the targets that our events have.
const (
	targetRun = "run"
	targetJob = "job"
)

// EventQuery asks for events.
type EventQuery struct {
	Projects   []dstack.ProjectID // nil: all that the caller may see
	Runs       []dstack.RunID     // nil: all
	Actors     []*dstack.UserID   // nil: all; a nil element: the server itself
	OfRuns     bool               // events about runs as a whole
	OfReplicas bool               // events about one replica
	Beyond     time.Time          // only later ones if Ascending, and else earlier ones; zero: all
	BeyondID   int64              // takes precedence over Beyond; 0: none
	Limit      int
	Ascending  bool
}

// DecodeListEvents returns the query. It matches nothing without OfRuns and OfReplicas.
func DecodeListEvents(in ListEvents) (EventQuery, error) {
	q := EventQuery{Projects: in.WithinProjects, Runs: slices.Concat(in.TargetRuns, in.WithinRuns), Actors: in.Actors,
		OfRuns: in.includes(targetRun), OfReplicas: in.includes(targetJob), Limit: valueOr(in.Limit, 100), Ascending: in.Ascending,
		Beyond: valueOr(in.PrevRecordedAt, time.Time{})}
	if len(in.TargetJobs) > 0 {
		return q, &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: events of single jobs",
			Hint: "list the events within their run"}
	}
	if len(in.TargetRuns) > 0 {
		q.OfReplicas = false
	}
	others := slices.Concat(in.TargetUsers, in.TargetFleets, in.TargetInstances, in.TargetVolumes, in.TargetGateways,
		in.TargetGatewayReplicas, in.TargetSecrets, in.TargetPresets, in.WithinFleets, in.WithinGateways)
	if len(others)+len(in.TargetProjects) > 0 {
		q.OfRuns, q.OfReplicas = false, false
	}
	if in.PrevID != nil {
		var ok bool
		if q.BeyondID, ok = parseEventID(*in.PrevID); !ok {
			return q, &dstack.Error{Kind: dstack.Invalid, Message: "prev_id is not the ID of an event", Hint: "send the ID of an event of the last answer"}
		}
	}
	return q, nil
}

func (in ListEvents) includes(kind string) bool {
	return len(in.IncludeTargetTypes) == 0 || slices.Contains(in.IncludeTargetTypes, kind)
}

// EventAnswer is an event with what it refers to by name.
type EventAnswer struct {
	Event   dstack.Event
	Project string
	UserID  dstack.UserID // of Event.User; empty: it was deleted
}

// Event is an event in an answer.
type Event struct {
	ID                 string         `json:"id"`
	Message            string         `json:"message"`
	RecordedAt         api.Timestamp  `json:"recorded_at"`
	ActorUserID        *dstack.UserID `json:"actor_user_id"` // null: the server itself, or the user was deleted
	ActorUser          *string        `json:"actor_user"`
	IsActorUserDeleted *bool          `json:"is_actor_user_deleted"`
	Targets            []EventTarget  `json:"targets"`
}

// EventTarget is what an Event is about.
type EventTarget struct {
	Type             string           `json:"type"`
	ProjectID        dstack.ProjectID `json:"project_id"`
	ProjectName      string           `json:"project_name"`
	IsProjectDeleted bool             `json:"is_project_deleted"`
	ID               string           `json:"id"`
	Name             string           `json:"name"`
}

// BuildEvents returns events.
func BuildEvents(_ ListEvents, found []EventAnswer) []Event {
	events := make([]Event, 0, len(found))
	for _, e := range found {
		events = append(events, buildEvent(e))
	}
	return events
}

func buildEvent(answer EventAnswer) Event {
	e := answer.Event
	target := EventTarget{Type: targetRun, ProjectID: e.Project, ProjectName: answer.Project, ID: string(e.Run), Name: e.RunName}
	if e.Replica != nil {
		target.Type, target.Name = targetJob, fmt.Sprintf("%s-%d-0", e.RunName, *e.Replica)
		target.ID = uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "dstack:job:%s:%d", e.Run, *e.Replica)).String()
	}
	event := Event{ID: formatEventID(e.ID), Message: describeEvent(e), RecordedAt: api.NewTimestamp(e.At), Targets: []EventTarget{target}}
	if e.User != "" {
		isDeleted := answer.UserID == ""
		event.ActorUser, event.IsActorUserDeleted = &e.User, &isDeleted
		if !isDeleted {
			event.ActorUserID = &answer.UserID
		}
	}
	return event
}

// describeEvent returns an event on one line: status changed: waiting → starting: on local vm.
func describeEvent(e dstack.Event) string {
	subject := strings.ReplaceAll(string(e.Kind), "_", " ")
	switch {
	case e.Kind == dstack.EventRun, e.Kind == dstack.EventReplica && e.Replica != nil:
		subject = "status changed"
	case e.Kind == dstack.EventReplica:
		subject = "replicas"
	}
	change := e.To
	if e.From != "" {
		change = e.From + " → " + e.To
	}
	if change == subject { // stop: asked to stop
		change = ""
	}
	parts := []string{subject, change, e.Message}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), ": ")
}

// eventIDPrefix makes the ID of an event a UUID, as clients want it.
const eventIDPrefix = "00000000-0000-4000-8000-"

func formatEventID(id int64) string { return fmt.Sprintf("%s%012x", eventIDPrefix, id) }

func parseEventID(text string) (int64, bool) {
	digits, ok := strings.CutPrefix(text, eventIDPrefix)
	id, err := strconv.ParseInt(digits, 16, 64)
	return id, ok && err == nil && id > 0
}
