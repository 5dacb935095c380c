package kubernetes

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// How long a pod may be in states that mostly end by themselves.
const (
	nodePatience   = 15 * time.Second // for its node to have room again: an earlier pod may be leaving it
	pullPatience   = 3 * time.Minute  // for a registry that cannot be reached
	createPatience = 20 * time.Second // for a container that cannot be created
	mountPatience  = 10 * time.Minute // for volumes and the network of a pod
	warningDelay   = 3 * time.Second  // before a warning is shown: many end by themselves
	loginPatience  = 30 * time.Second // for a node that pulled without the login: it pulls again after 10 seconds
)

// describeWaiting describes a pod that has no node.
func (s *podState) describeWaiting(f podFacts) {
	c := findCondition(f.pod, corev1.PodScheduled)
	since := f.pod.CreationTimestamp.Time
	if c == nil {
		s.report.Progress = "waits for the cluster's scheduler"
		if f.warning.message != "" { // FailedResourceClaimCreation has no condition
			s.report.Progress += ": " + oneLine(f.warning.message)
		}
		s.refuseAfter(f, since, mountPatience, dstack.NoCapacity, "the cluster's scheduler did not choose a node for the pod", "see that it runs")
		return
	}
	words := describeScheduler(c.Message)
	switch {
	case c.Reason == "SchedulingGated":
		s.report.Progress = "waits until a scheduling gate of the pod is removed"
	case containsAny(c.Message, "persistentvolumeclaim \"") && containsAny(c.Message, "not found"):
		s.refusal = &dstack.Error{Kind: dstack.NotFound, Message: "the pod cannot be placed: " + words, Hint: "see that the volume still exists: dstack volume list"}
	case f.isAny:
		s.report.Progress = "waits for a node: " + words
		s.refuseAfter(f, since, f.wait, dstack.NoCapacity,
			fmt.Sprintf("the cluster had no node for the pod within %s: %s", human.Duration(f.wait), words), "")
	case f.pod.Status.NominatedNodeName != "":
		s.report.Progress = "waits until other pods have left its node"
	default:
		s.report.Progress = "waits for its node: " + words
		s.refuseAfter(f, since, nodePatience, dstack.NoCapacity, "its node does not take the pod: "+words, "")
	}
}

// describeScheduler returns the reason of the scheduler without what it says about preemption.
func describeScheduler(message string) string {
	words, _, _ := strings.Cut(oneLine(message), " preemption: ")
	return strings.TrimSuffix(cmp.Or(words, "the scheduler does not say why"), ".")
}

// refuseAfter refuses the pod once it has been in its state for some time.
func (s *podState) refuseAfter(f podFacts, since time.Time, patience time.Duration, kind dstack.Kind, message, hint string) {
	if left := since.Add(patience).Sub(f.now); left > 0 {
		s.due = left
		return
	}
	s.refusal = &dstack.Error{Kind: kind, Message: message, Hint: hint}
}

// describeStarting describes a pod that has a node, and whose command does not run yet.
func (s *podState) describeStarting(f podFacts) {
	since := f.pod.CreationTimestamp.Time
	if scheduled := findCondition(f.pod, corev1.PodScheduled); scheduled != nil {
		since = scheduled.LastTransitionTime.Time
	}
	name, image := mainContainer, f.pod.Spec.Containers[0].Image
	for _, c := range f.pod.Spec.InitContainers {
		if status := findContainer(f.pod, c.Name); status == nil || status.State.Terminated == nil {
			name, image = c.Name, c.Image
			break
		}
	}
	status := findContainer(f.pod, name)
	if status == nil || status.State.Waiting == nil {
		s.report.Progress = "waits for its container"
		if awaitsUploads(f.pod) && status != nil && status.State.Running != nil {
			s.report.Progress = "sending the code"
			return
		}
		s.describeWarning(f, since)
		return
	}
	message := oneLine(status.State.Waiting.Message)
	switch reason := status.State.Waiting.Reason; reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed":
		s.describePull(f, since, reason, image, message)
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError":
		err := newStartError(image, message)
		s.report.Progress = err.Error()
		if kind := dstack.KindOf(err); kind == dstack.Invalid {
			s.refusal = err
		} else {
			s.refuseAfter(f, since, createPatience, kind, err.Error(), "")
		}
	default: // ContainerCreating, PodInitializing
		s.report.Progress = "waits for its container"
		s.describeWarning(f, since)
	}
}

// describePull tells failed pulls apart: a missing image, a login that is refused, and what may end by itself. The API has only
// words for it, which are those of the registry and the container runtime.
func (s *podState) describePull(f podFacts, since time.Time, reason, image, message string) {
	s.report.State = dstack.AttemptPulling
	lower := strings.ToLower(message)
	refuse := func(kind dstack.Kind, text, hint string) {
		s.refusal = &dstack.Error{Kind: kind, Message: text + ": " + message, Hint: hint}
	}
	refuseLogin := func(kind dstack.Kind, text, hint string) {
		if s.due = f.untilLoginCounts(since); s.due > 0 {
			s.report.Progress = fmt.Sprintf("the image %s cannot be pulled now, and is tried again: %s", image, message)
			return
		}
		refuse(kind, text, hint)
	}
	switch {
	case reason == "ErrImageNeverPull":
		refuse(dstack.NotFound, "the node does not have image "+image+", and may not pull it", "load it on the node")
	case reason == "InvalidImageName", containsAny(lower, "must be lowercase", "invalid reference format", "couldn't parse image"):
		refuse(dstack.Invalid, fmt.Sprintf("%q is not an image name", image), "write it as registry/name:tag")
	case reason == "SignatureValidationFailed":
		refuse(dstack.Forbidden, "the cluster refuses the signature of image "+image, "sign it, or ask who runs the cluster")
	case containsAny(lower, "no match for platform", "no matching manifest"):
		refuse(dstack.NotFound, "image "+image+" is not made for the node's processor", "choose an image for that processor")
	case containsAny(lower, "pull access denied", "requested access to the resource is denied", "insufficient_scope"):
		refuseLogin(dstack.NotFound, "there is no image "+image+", or it needs a login", "check its name and registry_auth")
	case containsAny(lower, "401 unauthorized", "unauthorized", "403 forbidden", "authentication required", "no basic auth credentials", "authorization failed"):
		refuseLogin(dstack.Unauthorized, "the registry refused the login for "+image, "check username and password of registry_auth")
	case containsAny(lower, "code = notfound", "not found", "manifest unknown", "name unknown") && !containsAny(lower, "no such host", "lookup "):
		refuse(dstack.NotFound, "there is no image "+image, "check its name and tag")
	case containsAny(lower, "no space left on device"):
		refuse(dstack.NoCapacity, "the node's disk is too full for image "+image, "")
	case message == "":
		s.report.Progress = "pulling image " + image
	default:
		s.report.Progress = fmt.Sprintf("the image %s cannot be pulled now, and is tried again: %s", image, message)
		s.refuseAfter(f, since, pullPatience, dstack.Unavailable, fmt.Sprintf("the registry of image %s cannot be reached: %s", image, message),
			"check the network of the cluster's nodes, and the address of the registry")
	}
}

// untilLoginCounts returns for how long a login that a registry refuses may not have been the one of the pod; 0: it was. A kubelet that does not
// get the secret of the pod within a second, as on a busy node, pulls without it, and only an event before those of the failed pull says so.
func (f podFacts) untilLoginCounts(since time.Time) time.Duration {
	switch {
	case len(f.pod.Spec.ImagePullSecrets) == 0:
		return 0
	case !f.warning.noLoginAt.IsZero():
		since = f.warning.noLoginAt
	case f.warning.reason == "Failed" || f.warning.reason == "BackOff":
		return 0
	}
	return max(since.Add(loginPatience).Sub(f.now), 0)
}

// describeWarning adds what only the events tell: volumes that cannot be mounted, a sandbox that cannot be made.
func (s *podState) describeWarning(f podFacts, since time.Time) {
	w, message := f.warning, oneLine(f.warning.message)
	lower := strings.ToLower(message)
	switch {
	case message == "":
	case w.isNormal && w.reason == "Pulling":
		s.report.State, s.report.Progress = dstack.AttemptPulling, strings.ToLower(message[:1])+message[1:]
	case w.isNormal:
	case containsAny(lower, "memory limit too low"):
		s.refusal = &dstack.Error{Kind: dstack.Invalid, Message: "the limit on memory is too low for any container: " + message, Hint: "raise the upper end of memory in resources"}
	case containsAny(lower, "hostpath type check failed"):
		s.refusal = &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("a folder of the mounts does not exist on node %s, or is no folder: %s", f.pod.Spec.NodeName, message),
			Hint: "create it, or correct the path in the configuration"}
	case f.now.Sub(since) < warningDelay:
		s.due = warningDelay - f.now.Sub(since)
	default:
		s.report.Progress = "waits for its container: " + message
		s.refuseAfter(f, since, mountPatience, dstack.NoCapacity, "node "+f.pod.Spec.NodeName+" cannot start the pod: "+message, "")
	}
}
