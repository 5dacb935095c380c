package volume

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// The pauses between two looks at a claim that is not bound yet: a part of its age, within these limits.
const (
	minBindPoll = time.Second
	maxBindPoll = 20 * time.Second
)

// isInCluster reports whether a volume is a claim of a Kubernetes cluster, so that its backend has it and no machine.
func isInCluster(v dstack.Volume) bool { return v.Configuration.IsInCluster() }

// Cluster is a configured backend that has volumes.
type Cluster struct {
	Key  string // in backend.Set
	Name string // in config.yml, which is also the region of its nodes
}

// ChooseCluster returns the cluster that a new volume is in: the one that its configuration names as the region, or the
// only one.
func ChooseCluster(v spec.Volume, clusters []Cluster) (Cluster, error) {
	var names []string
	var found []Cluster
	for _, c := range clusters {
		names = append(names, c.Name)
		if v.Region == "" || strings.EqualFold(v.Region, c.Key) || strings.EqualFold(v.Region, c.Name) {
			found = append(found, c)
		}
	}
	slices.Sort(names)
	switch {
	case len(clusters) == 0:
		return Cluster{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no cluster for the volume: this project has no backend of type kubernetes",
			Hint: "add one to the server's config.yml: type: kubernetes"}
	case len(found) == 0:
		hint := "there is: " + joinNames(names)
		if near := human.Nearest(v.Region, names); near != "" {
			hint = "did you mean " + near + "?"
		}
		return Cluster{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no cluster %s", v.Region), Hint: hint}
	case len(found) > 1:
		return Cluster{}, &dstack.Error{Kind: dstack.Invalid, Message: "several clusters could have the volume: " + joinNames(names),
			Hint: "add region: followed by one of them"}
	}
	return found[0], nil
}

// afterInBackend returns the step of a volume of a cluster or a cloud with what its action found.
func (s Step) afterInBackend(v dstack.Volume, found Result, now time.Time) Step {
	switch {
	case s.Action == NoAction:
		return s
	case s.Action == Delete:
		return s.afterBackendDeletion(v, found, now)
	case found.Err != nil && s.Action == Create && isFinal(found.Err):
		return s.failForNow(describe(found.Err), now)
	case found.Err != nil && v.Status == dstack.VolumeProvisioning:
		return s.retry(v, fmt.Sprintf("waits for %s: %s", describeKeeper(v), describe(found.Err)), now)
	case found.Err != nil:
		return s.retry(v, fmt.Sprintf("%s does not answer: %s", describeKeeper(v), describe(found.Err)), now)
	case !found.IsListed && (s.Action == Create || maybeUnlisted(v, now)): // created, and deleted at once by somebody else
		return s.retry(v, describeKeeper(v)+" does not list it yet", now)
	case !found.IsListed:
		return s.failForNow(fmt.Sprintf("its data is lost: %s does not have %s any more; "+
			"delete the volume and apply it again to begin without data", describeKeeper(v), describeData(v)), now)
	}
	return s.afterLook(v, found.Created, now)
}

// afterLook takes over what the cluster says about a claim, or the cloud about a disk.
func (s Step) afterLook(v, seen dstack.Volume, now time.Time) Step {
	s.Created, s.Failures, s.Reason = &seen, 0, seen.Reason
	s.To, s.Due = seen.Status, now.Add(checkInterval)
	if seen.Status == dstack.VolumeProvisioning || len(seen.Warning) > 0 {
		s.Due = now.Add(min(max(now.Sub(v.Since)/4, minBindPoll), maxBindPoll))
	}
	return s
}

// afterBackendDeletion waits until a claim or a disk is gone: pods that mount a claim keep it.
func (s Step) afterBackendDeletion(v dstack.Volume, found Result, now time.Time) Step {
	switch {
	case found.Err == nil && (v.IsExternal || !found.IsListed):
		s.IsGone = true
		return s
	case found.Err == nil && isInCloud(v):
		return s.retry(v, fmt.Sprintf("%s deletes %s", describeKeeper(v), describeData(v)), now)
	case found.Err == nil:
		return s.retry(v, fmt.Sprintf("%s deletes %s when no pod mounts it", describeKeeper(v), describeData(v)), now)
	case dstack.KindOf(found.Err) == dstack.Conflict:
		return s.retry(v, describe(found.Err), now)
	}
	return s.retry(v, fmt.Sprintf("its deletion waits for %s: %s", describeKeeper(v), describe(found.Err)), now)
}

// failForNow fails a volume that is looked at again: the backend can tell when it is mended.
func (s Step) failForNow(reason string, now time.Time) Step {
	s = s.fail(reason)
	s.Due = now.Add(checkInterval)
	return s
}
