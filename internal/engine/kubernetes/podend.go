package kubernetes

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Reasons of the API that the meaning of an end depends on.
const (
	reasonOOM         = "OOMKilled"
	reasonStartError  = "StartError"
	reasonCannotRun   = "ContainerCannotRun"
	reasonUnknown     = "ContainerStatusUnknown"
	reasonEvicted     = "Evicted"
	exitKilled        = 137
	nodeLowOnResource = "The node was low on resource"
)

// disruptions are what ended a pod, if not its own process, by the reason of its condition DisruptionTarget.
var disruptions = map[string]string{
	"PreemptionByScheduler":  "a pod with a higher priority needed its place",
	"EvictionByEvictionAPI":  "it was evicted from its node, as by kubectl drain",
	"DeletionByPodGC":        "its node was removed from the cluster",
	"DeletionByTaintManager": "its node does not answer, or was tainted by its operator",
	"TerminationByKubelet":   "its node shut down, or was short of memory or disk",
}

// findDisruption returns what of the cluster ends a pod; empty: nothing.
func findDisruption(pod *corev1.Pod) string {
	c := findCondition(pod, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue {
		return ""
	}
	if known := disruptions[c.Reason]; known != "" {
		return known
	}
	return cmp.Or(c.Message, c.Reason)
}

// describeEnding returns why a pod is being deleted, and whether the cluster does that, and not someone.
func describeEnding(pod *corev1.Pod) (why string, isDisrupted bool) {
	if disruption := findDisruption(pod); disruption != "" {
		return "the pod is being ended: " + disruption, true
	}
	return fmt.Sprintf("the pod %s is being deleted, and not by this server", pod.Name), false
}

// describeEnd returns the report of a pod whose command has ended, or never began.
func describeEnd(pod *corev1.Pod, now time.Time) dstack.Report {
	id := dstack.AttemptID(pod.Annotations[AnnotationAttempt])
	r := dstack.Report{Attempt: id, State: dstack.AttemptExited, At: now}
	main := findContainer(pod, mainContainer)
	if main == nil || main.State.Terminated == nil {
		return describeNeverRun(pod, r)
	}
	ended := main.State.Terminated
	r.StartedAt, r.EndedAt, r.ExitCode = ended.StartedAt.UTC(), ended.FinishedAt.UTC(), int(ended.ExitCode)
	switch {
	case ended.Reason == reasonStartError || ended.Reason == reasonCannotRun:
		refusal := engine.NewRefusedReport(id, newStartError(pod.Spec.Containers[0].Image, ended.Message), now)
		refusal.EndedAt = r.EndedAt
		return refusal
	case ended.Reason == reasonOOM:
		r.OOM = true
	case pod.Status.Reason == reasonEvicted:
		r.Error = "the pod was evicted: " + oneLine(pod.Status.Message)
		r.Disrupted = strings.HasPrefix(pod.Status.Message, nodeLowOnResource) || findDisruption(pod) != "" && !isOwnExcess(pod.Status.Message)
	case findDisruption(pod) != "":
		r.Error, r.Disrupted = "the pod was ended: "+findDisruption(pod), true
	case ended.Reason == reasonUnknown || ended.Reason == "Unknown":
		r.Error, r.Disrupted = "the pod was ended: its node failed or was restarted", true
	case wasDeletedBefore(pod, ended.FinishedAt.Time):
		r.Error, r.Disrupted = newDeletedText(pod), true
	}
	return r
}

// wasDeletedBefore reports whether the deletion of a pod had begun at a time. DeletionTimestamp is when its grace period is over.
func wasDeletedBefore(pod *corev1.Pod, at time.Time) bool {
	if pod.DeletionTimestamp == nil {
		return false
	}
	grace := time.Duration(0)
	if pod.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	}
	return !pod.DeletionTimestamp.Add(-grace).After(at)
}

func newDeletedText(pod *corev1.Pod) string {
	return fmt.Sprintf("the pod %s was deleted, and not by this server", pod.Name)
}

// forgetDisruption removes what a report says of the one who deletes the pod: this server does.
func forgetDisruption(r *dstack.Report) {
	if r.Ending != "" || r.Disrupted {
		r.Error, r.Ending, r.Disrupted = "", "", false
	}
}

// isOwnExcess reports whether a pod was evicted because it used more than its own limits, not its node.
func isOwnExcess(message string) bool {
	return strings.Contains(message, "exceeds the")
}

// describeNeverRun returns the report of a pod that has ended, and whose command never began.
func describeNeverRun(pod *corev1.Pod, r dstack.Report) dstack.Report {
	r.StartedAt, r.EndedAt = pod.CreationTimestamp.UTC(), r.At
	for _, status := range pod.Status.InitContainerStatuses {
		if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 && pod.DeletionTimestamp == nil && findDisruption(pod) == "" {
			image := status.Image
			return engine.NewRefusedReport(r.Attempt, newStartError(cmp.Or(image, "of the upload"), cmp.Or(ended.Message, fmt.Sprintf("exit code %d", ended.ExitCode))), r.At)
		}
	}
	if disruption := findDisruption(pod); disruption != "" {
		r.Error, r.Disrupted, r.ExitCode = "the pod was ended: "+disruption, true, exitKilled
		return r
	}
	if pod.DeletionTimestamp != nil {
		stopped := newStoppedReport(r.Attempt, r.At)
		stopped.At = r.At
		return stopped
	}
	// The kubelet has refused the pod for good: OutOfcpu, OutOfnvidia.com/gpu, NodeAffinity, UnexpectedAdmissionError, NodeShutdown.
	why := cmp.Or(oneLine(pod.Status.Message), pod.Status.Reason, "it does not say why")
	return engine.NewRefusedReport(r.Attempt, &dstack.Error{Kind: dstack.NoCapacity,
		Message: fmt.Sprintf("node %s refuses the pod: %s", pod.Spec.NodeName, why)}, r.At)
}

// newStartError returns the error of a command that cannot be run in its image.
func newStartError(image, message string) error {
	message = oneLine(message)
	kind, hint := dstack.Invalid, "check that the image has it; commands need /bin/sh"
	switch lower := strings.ToLower(message); {
	case strings.Contains(lower, "no command specified"):
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("image %s does not say what to run", image),
			Hint: "add commands or entrypoint to the configuration"}
	case containsAny(lower, "no space left on device"):
		kind, hint = dstack.NoCapacity, "free some space on the node"
	case containsAny(lower, "executable file not found", "no such file or directory", "permission denied", "exec format error", "is a directory", "exec: "):
	default:
		kind, hint = dstack.Unavailable, ""
	}
	return &dstack.Error{Kind: kind, Message: fmt.Sprintf("the command cannot be run in image %s: %s", image, message), Hint: hint}
}

func containsAny(text string, phrases ...string) bool {
	for _, p := range phrases {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// maxMessageBytes is how much of a message of the API a report has. It is stored.
const maxMessageBytes = 500

// oneLine returns a text in one line of limited length.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= maxMessageBytes {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessageBytes], "") + "…"
}

// describeGone returns the report of an attempt whose pod does not exist any more, from the last that was seen of it.
func describeGone(pod *corev1.Pod, isStopped bool, now time.Time) dstack.Report {
	if isOver(pod) {
		r := describeEnd(pod, now)
		if isStopped && r.State == dstack.AttemptExited {
			forgetDisruption(&r)
		}
		return r
	}
	r := dstack.Report{Attempt: dstack.AttemptID(pod.Annotations[AnnotationAttempt]), State: dstack.AttemptExited, ExitCode: exitKilled, EndedAt: now, At: now}
	if main := findContainer(pod, mainContainer); main != nil && main.State.Running != nil {
		r.StartedAt = main.State.Running.StartedAt.UTC()
	} else {
		r.StartedAt = now
	}
	switch disruption := findDisruption(pod); {
	case isStopped && r.StartedAt.Equal(now):
		stopped := newStoppedReport(r.Attempt, now)
		stopped.At = now
		return stopped
	case isStopped:
	case disruption != "":
		r.Error, r.Disrupted = "the pod was ended: "+disruption, true
	default:
		r.Error, r.Disrupted = newDeletedText(pod), true
	}
	return r
}
