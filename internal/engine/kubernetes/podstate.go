package kubernetes

import (
	"net"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
)

// podWarning is the newest event of a pod that does not start.
type podWarning struct {
	reason, message string
	at              time.Time
	isNormal        bool      // it says what the kubelet does: Pulling
	noLoginAt       time.Time // when the kubelet last pulled without the pod's login, which it did not get; zero: never
}

// podFacts is everything that the meaning of a pod depends on.
type podFacts struct {
	pod     *corev1.Pod
	warning podWarning
	// isCutOff says that the cluster has lost all of its nodes at once, and so the node of the pod.
	isCutOff bool
	isAny    bool          // any node may run it, and the cluster may add one
	wait     time.Duration // how long it may wait for a node then
	now      time.Time
}

// podState is what a pod means for its attempt.
type podState struct {
	report  dstack.Report
	refusal error         // the pod will not start, and has to be deleted; nil: it may
	due     time.Duration // until time alone may change the state; 0: never
}

// findContainer returns the status of a container; nil: the kubelet has not reported it yet.
func findContainer(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, all := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
	}
	return nil
}

func findCondition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func hasCondition(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	found := findCondition(pod, kind)
	return found != nil && found.Status == corev1.ConditionTrue
}

// isOver reports whether the command of a pod has ended, or never will begin. The phase alone comes late.
func isOver(pod *corev1.Pod) bool {
	if hasEnded(pod) {
		return true
	}
	main := findContainer(pod, mainContainer)
	return main != nil && main.State.Terminated != nil
}

// isRunning reports whether the command of a pod runs, as far as is known.
func isRunning(pod *corev1.Pod) bool {
	main := findContainer(pod, mainContainer)
	return !isOver(pod) && main != nil && main.State.Running != nil && !awaitsUploads(pod)
}

// isReady reports whether a pod accepts connections. A pod that is being deleted stays Ready until its process has ended, and
// must get no more connections. Of a node that is lost, only this condition tells; the kubelet, which alone knows, says it of
// the containers, too, which counts if the cluster is cut off from its nodes.
func isReady(pod *corev1.Pod, isCutOff bool) bool {
	kind := corev1.PodReady
	if isCutOff {
		kind = corev1.ContainersReady
	}
	return pod.DeletionTimestamp == nil && hasCondition(pod, kind) && isRunning(pod)
}

// failsOwnProbe reports whether a pod is not ready because of a probe of its service, and not because its node is lost: then its
// containers stay ready.
func failsOwnProbe(pod *corev1.Pod) bool {
	return !hasCondition(pod, corev1.ContainersReady) && slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return c.Name == mainContainer && c.ReadinessProbe != nil && c.ReadinessProbe.HTTPGet != nil
	})
}

// describePod returns what a pod means.
func describePod(f podFacts) podState {
	id := dstack.AttemptID(f.pod.Annotations[AnnotationAttempt])
	s := podState{report: dstack.Report{Attempt: id, State: dstack.AttemptStarting, At: f.now}}
	switch {
	case isOver(f.pod):
		s.report = describeEnd(f.pod, f.now)
	case isRunning(f.pod):
		s.report.State = dstack.AttemptRunning
		s.report.StartedAt = findContainer(f.pod, mainContainer).State.Running.StartedAt.UTC()
		s.report.Address = findAddress(f.pod)
		s.report.Ready = isReady(f.pod, f.isCutOff)
	case f.pod.DeletionTimestamp != nil:
		s.report.Progress = "being deleted"
	case !hasCondition(f.pod, corev1.PodScheduled):
		s.describeWaiting(f)
	default:
		s.describeStarting(f)
	}
	if f.pod.DeletionTimestamp != nil && !s.report.State.IsOver() {
		s.report.Ending, s.report.Disrupted = describeEnding(f.pod)
	}
	return s
}

// findAddress returns the host:port of a pod; empty: it has none yet.
func findAddress(pod *corev1.Pod) string {
	port := pod.Annotations[AnnotationPort]
	if pod.Status.PodIP == "" || port == "" {
		return ""
	}
	return net.JoinHostPort(pod.Status.PodIP, port)
}
