package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"dstack/internal/dstack"
)

// BuildRunEvents returns the events to record with a step of a run.
func BuildRunEvents(seen RunFacts, step RunStep, now time.Time) []dstack.Event {
	run := seen.Run
	var all []dstack.Event
	add := func(kind dstack.EventKind, from, to string, message dstack.Reason) *dstack.Event {
		all = append(all, dstack.Event{At: now, Project: run.ProjectID, Run: run.ID, RunName: run.Name,
			Kind: kind, Revision: run.Revision, From: from, To: to, Message: string(message)})
		return &all[len(all)-1]
	}
	addScaled := func(group string, from, to int, why dstack.Reason) {
		if from != to {
			add(dstack.EventScaled, strconv.Itoa(from), strconv.Itoa(to), cmp.Or(why, "the configuration asks for it")).Group = group
		}
	}
	if step.DesiredByGroup == nil {
		addScaled("", run.DesiredReplicas, step.DesiredReplicas, seen.ScaleReason)
	} else {
		for _, g := range seen.Groups {
			addScaled(g.Group, run.Groups[g.Group].Desired, step.DesiredByGroup[g.Group], g.Reason)
		}
	}
	if step.Rollback != nil {
		why := dstack.Reason(fmt.Sprintf("revision %d did not become ready: %s", run.Revision, step.Rollback.Reason))
		add(dstack.EventRolledBack, strconv.Itoa(run.Revision), strconv.Itoa(step.Rollback.ToRevision), why)
	}
	for _, group := range groupsOf(step.Add) {
		why := describeAdded(numsOf(step.Add, group))
		if step.AddReason != "" {
			why += ": " + step.AddReason
		}
		add(dstack.EventReplica, "", string(dstack.ReplicaWaiting), why).Group = shownGroup(run, group)
	}
	if step.Ready && run.ReadyAt.IsZero() {
		add(dstack.EventReady, "", "", dstack.Reason(fmt.Sprintf("revision %d serves", run.Revision)))
	}
	leave := map[dstack.ReplicaID]dstack.ReplicaStatus{}
	for _, id := range step.Drain {
		leave[id] = dstack.ReplicaDraining
	}
	for _, id := range step.Terminate {
		leave[id] = dstack.ReplicaTerminating
	}
	for _, r := range seen.Replicas {
		if to, ok := leave[r.ID]; ok && to != r.Status {
			e := add(dstack.EventReplica, string(r.Status), string(to), step.StopReason)
			e.Replica, e.Group, e.Revision = &r.Num, shownGroup(run, r.Group), r.Revision
		}
	}
	if step.To != run.Status {
		add(dstack.EventRun, string(run.Status), string(step.To), step.Reason)
	}
	return all
}

// shownGroup returns the group that an event of a run names: none where the service has no
// groups.
func shownGroup(run dstack.Run, group string) string {
	if len(run.Groups) == 0 {
		return ""
	}
	return group
}

// groupsOf returns the groups of new replicas, each once.
func groupsOf(added []NewNum) (groups []string) {
	for _, a := range added {
		if !slices.Contains(groups, a.Group) {
			groups = append(groups, a.Group)
		}
	}
	return groups
}

// numsOf returns the numbers of the new replicas of a group.
func numsOf(added []NewNum, group string) (nums []int) {
	for _, a := range added {
		if a.Group == group {
			nums = append(nums, a.Num)
		}
	}
	return nums
}

// describeAdded names the replicas that a run adds.
func describeAdded(nums []int) dstack.Reason {
	if len(nums) == 1 {
		return dstack.Reason(fmt.Sprintf("replica %d was created", nums[0]))
	}
	return dstack.Reason(fmt.Sprintf("%d replicas were created, number %d to %d",
		len(nums), nums[0], nums[len(nums)-1]))
}

// BuildReplicaEvents returns the events to record with a step of a replica.
func BuildReplicaEvents(seen ReplicaFacts, step ReplicaStep, now time.Time) []dstack.Event {
	r := seen.Replica
	if step.To == r.Status {
		return nil
	}
	why := step.Reason
	if step.Placement != nil {
		why = dstack.Reason("on " + step.Placement.Offer.Backend + " " + step.Placement.Offer.Type)
	}
	return []dstack.Event{{At: now, Project: seen.Run.ProjectID, Run: seen.Run.ID, RunName: seen.Run.Name,
		Kind: dstack.EventReplica, Revision: r.Revision, Replica: &r.Num, Group: shownGroup(seen.Run, r.Group), From: string(r.Status), To: string(step.To), Message: string(why)}}
}
