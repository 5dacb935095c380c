package kubernetes

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/dstack"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// newPod returns a pod that was created and scheduled some time ago.
func newPod(age time.Duration, change ...func(*corev1.Pod)) *corev1.Pod {
	at := metav1.NewTime(now.Add(-age))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-0-0-1", CreationTimestamp: at, Annotations: map[string]string{AnnotationAttempt: "a", AnnotationPort: "8000"}},
		Spec: corev1.PodSpec{NodeName: "gpu-1", Affinity: newAffinity("gpu-1", nil),
			Containers: []corev1.Container{{Name: mainContainer, Image: "web:1"}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, PodIP: "10.1.2.3", Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: at}}},
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}

func withState(s corev1.ContainerState) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: mainContainer, State: s}}
	}
}

func waiting(reason, message string) func(*corev1.Pod) {
	return withState(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}})
}

func terminated(reason string, code int32, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodFailed
		withState(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, Message: message,
			StartedAt: metav1.NewTime(now.Add(-time.Minute)), FinishedAt: metav1.NewTime(now)}})(p)
	}
}

func runs(p *corev1.Pod) {
	p.Status.Phase = corev1.PodRunning
	withState(corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now.Add(-time.Minute))}})(p)
}

func condition(kind corev1.PodConditionType, status corev1.ConditionStatus, reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		c := corev1.PodCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: p.CreationTimestamp}
		if found := findCondition(p, kind); found != nil {
			*found = c
			return
		}
		p.Status.Conditions = append(p.Status.Conditions, c)
	}
}

func isDeleted(p *corev1.Pod) {
	at := metav1.NewTime(now)
	p.DeletionTimestamp = &at
}

func anyNode(p *corev1.Pod) { p.Spec.Affinity = nil }

func withLogin(p *corev1.Pod) {
	p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "login"}}
}

func status(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Reason, p.Status.Message = reason, message }
}

// TestDescribePod has a case for each rule of what was seen on clusters.
func TestDescribePod(t *testing.T) {
	const notFound = `rpc error: code = NotFound desc = failed to pull and unpack image "r:5000/x:1": failed to resolve reference "r:5000/x:1": r:5000/x:1: not found`
	const unauthorized = `failed to resolve image: pulling from host r:5000 failed with status code [manifests 1]: 401 Unauthorized`
	const refused = `failed to do request: Head "http://r:5000/v2/x/manifests/1": dial tcp 10.0.0.1:5000: connect: connection refused`
	const insufficient = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
	unscheduled := func(reason, message string) func(*corev1.Pod) {
		return condition(corev1.PodScheduled, corev1.ConditionFalse, reason, message)
	}
	for _, c := range []struct {
		name     string
		pod      *corev1.Pod
		warning  podWarning
		isCutOff bool
		state    dstack.AttemptState
		ready    bool
		refusal  dstack.Kind // of a pod that will not start
		text     string      // in its refusal, error or progress
		check    func(dstack.Report) bool
	}{
		{name: "1: it crashed", pod: newPod(time.Minute, terminated("Error", 3, "")), state: "exited", check: func(r dstack.Report) bool { return r.ExitCode == 3 && !r.Disrupted }},
		{name: "1: it ended, and the phase does not say so yet", pod: newPod(time.Minute, terminated("Completed", 0, ""), func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }), state: "exited"},
		{name: "3: no such command", pod: newPod(time.Minute, terminated("StartError", 128, `exec: "nosuch": executable file not found in $PATH`)), state: "refused",
			text: "the command cannot be run in image web:1", check: func(r dstack.Report) bool { return r.Permanent }},
		{name: "3: it waits and cannot be run", pod: newPod(time.Second, waiting("RunContainerError", `exec: "nosuch": permission denied`)), state: "starting", refusal: dstack.Invalid, text: "permission denied"},
		{name: "4: out of memory", pod: newPod(time.Minute, terminated("OOMKilled", 137, "")), state: "exited", check: func(r dstack.Report) bool { return r.OOM }},
		{name: "4: 137 is not out of memory", pod: newPod(time.Minute, terminated("Error", 137, "")), state: "exited", check: func(r dstack.Report) bool { return !r.OOM }},
		{name: "5: a limit below what a container needs", pod: newPod(time.Minute, waiting("ContainerCreating", "")), state: "starting", refusal: dstack.Invalid, text: "limit on memory is too low",
			warning: podWarning{reason: "FailedCreatePodSandBox", message: "container init was OOM-killed (memory limit too low?)"}},
		{name: "6: only the events tell", pod: newPod(time.Minute, waiting("ContainerCreating", "")), state: "starting", text: `secret "nosuch" not found`,
			warning: podWarning{reason: "FailedMount", message: `MountVolume.SetUp failed for volume "x": secret "nosuch" not found`}},
		{name: "6: and in the end it is given up", pod: newPod(time.Hour, waiting("ContainerCreating", "")), state: "starting", refusal: dstack.NoCapacity, text: "node gpu-1 cannot start the pod",
			warning: podWarning{reason: "FailedMount", message: "timed out"}},
		{name: "6: a claim is gone", pod: newPod(time.Second, unscheduled("Unschedulable", `persistentvolumeclaim "nosuch" not found. not found`)), state: "starting", refusal: dstack.NotFound, text: "nosuch"},
		{name: "6: a secret is missing", pod: newPod(time.Second, waiting("CreateContainerConfigError", `secret "nosuch" not found`)), state: "starting", text: "nosuch"},
		{name: "7: over its own disk", pod: newPod(time.Minute, terminated("Error", 137, ""), status("Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "),
			condition(corev1.DisruptionTarget, corev1.ConditionTrue, "TerminationByKubelet", "")), state: "exited", text: "exceeds the total limit", check: func(r dstack.Report) bool { return !r.Disrupted }},
		{name: "7: the node's disk", pod: newPod(time.Minute, terminated("Error", 137, ""), status("Evicted", "The node was low on resource: ephemeral-storage.")), state: "exited",
			text: "low on resource", check: func(r dstack.Report) bool { return r.Disrupted }},
		{name: "9: a pod that is being deleted is not ready, and is to be replaced", pod: newPod(time.Minute, runs, condition(corev1.PodReady, corev1.ConditionTrue, "", ""), isDeleted), state: "running",
			check: func(r dstack.Report) bool {
				return r.Ending == "the pod web-0-0-1 is being deleted, and not by this server" && !r.Disrupted
			}},
		{name: "9: also before it runs", pod: newPod(time.Minute, waiting("ContainerCreating", ""), isDeleted), state: "starting", text: "being deleted", check: func(r dstack.Report) bool { return r.Ending != "" }},
		{name: "35: its node is lost, and the cluster deletes it", pod: newPod(time.Minute, runs, condition(corev1.PodReady, corev1.ConditionFalse, "", ""),
			condition(corev1.DisruptionTarget, corev1.ConditionTrue, "DeletionByTaintManager", ""), isDeleted), state: "running",
			check: func(r dstack.Report) bool {
				return strings.Contains(r.Ending, "its node does not answer") && r.Disrupted
			}},
		{name: "9: its process has ended because it was deleted", pod: newPod(time.Minute, terminated("Error", 143, ""), isDeleted), state: "exited", text: "was deleted, and not by this server",
			check: func(r dstack.Report) bool { return r.Ending == "" && r.Disrupted }},
		{name: "9: it was deleted after it had crashed", pod: newPod(time.Minute, terminated("Error", 1, ""), func(p *corev1.Pod) {
			at, grace := metav1.NewTime(now.Add(time.Minute)), int64(30)
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
		}), state: "exited", check: func(r dstack.Report) bool { return !r.Disrupted && r.Error == "" }},
		{name: "15: ready", pod: newPod(time.Minute, runs, condition(corev1.PodReady, corev1.ConditionTrue, "", "")), state: "running", ready: true,
			check: func(r dstack.Report) bool { return r.Address == "10.1.2.3:8000" && !r.StartedAt.IsZero() }},
		{name: "17: preempted", pod: newPod(time.Minute, terminated("Error", 143, ""), condition(corev1.DisruptionTarget, corev1.ConditionTrue, "PreemptionByScheduler", "")), state: "exited",
			text: "higher priority", check: func(r dstack.Report) bool { return r.Disrupted }},
		{name: "18: the kubelet refuses it", pod: newPod(time.Minute, status("OutOfcpu", "Node didn't have enough resource: cpu"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
			state: "refused", text: "node gpu-1 refuses the pod", check: func(r dstack.Report) bool { return r.OtherMachine && !r.Permanent }},
		{name: "19: drained", pod: newPod(time.Minute, terminated("Error", 143, ""), condition(corev1.DisruptionTarget, corev1.ConditionTrue, "EvictionByEvictionAPI", "")), state: "exited",
			text: "kubectl drain", check: func(r dstack.Report) bool { return r.Disrupted }},
		{name: "25: the scheduler fails", pod: newPod(time.Minute, unscheduled("SchedulerError", "CEL runtime error: no such key: nosuch")), state: "starting", refusal: dstack.NoCapacity, text: "no such key"},
		{name: "34: all nodes are lost at once", isCutOff: true, pod: newPod(time.Minute, runs, condition(corev1.ContainersReady, corev1.ConditionTrue, "", ""), condition(corev1.PodReady, corev1.ConditionFalse, "", "")), state: "running", ready: true},
		{name: "34: not ready when all nodes were lost", isCutOff: true, pod: newPod(time.Minute, runs, condition(corev1.ContainersReady, corev1.ConditionFalse, "ContainersNotReady", ""), condition(corev1.PodReady, corev1.ConditionFalse, "ContainersNotReady", "")), state: "running"},
		{name: "34: its node is lost", pod: newPod(time.Minute, runs, condition(corev1.ContainersReady, corev1.ConditionTrue, "", ""), condition(corev1.PodReady, corev1.ConditionFalse, "", "")), state: "running"},
		{name: "36: its node came back", pod: newPod(time.Minute, terminated("Unknown", 255, "")), state: "exited", text: "its node failed", check: func(r dstack.Report) bool { return r.Disrupted }},
		{name: "59: no such image", pod: newPod(time.Second, waiting("ErrImagePull", notFound)), state: "pulling", refusal: dstack.NotFound, text: "there is no image web:1"},
		{name: "59: no such image, in the back-off", pod: newPod(time.Second, waiting("ImagePullBackOff", `Back-off pulling image "x": ErrImagePull: `+notFound)), state: "pulling", refusal: dstack.NotFound},
		{name: "59: a login is refused", pod: newPod(time.Second, waiting("ErrImagePull", unauthorized)), state: "pulling", refusal: dstack.Unauthorized, text: "refused the login"},
		{name: "59: a login that the node may not have had", pod: newPod(time.Second, withLogin, waiting("ErrImagePull", unauthorized)), state: "pulling", text: "is tried again"},
		{name: "59: nor the right to read events", pod: newPod(time.Minute, withLogin, waiting("ErrImagePull", unauthorized)), state: "pulling", refusal: dstack.Unauthorized, text: "refused the login"},
		{name: "59: a login that the node had", pod: newPod(3*time.Second, withLogin, waiting("ErrImagePull", unauthorized)), state: "pulling", refusal: dstack.Unauthorized, text: "refused the login",
			warning: podWarning{reason: "Failed", message: "Error: ErrImagePull"}},
		{name: "59: a login that the node did not get", pod: newPod(time.Minute, withLogin, waiting("ImagePullBackOff", unauthorized)), state: "pulling", text: "is tried again",
			warning: podWarning{reason: "BackOff", message: "Back-off pulling image", noLoginAt: now.Add(-20 * time.Second)}},
		{name: "59: it has got it since, and is refused", pod: newPod(time.Minute, withLogin, waiting("ImagePullBackOff", unauthorized)), state: "pulling", refusal: dstack.Unauthorized,
			warning: podWarning{reason: "BackOff", message: "Back-off pulling image", noLoginAt: now.Add(-40 * time.Second)}},
		{name: "59: no registry, tried again", pod: newPod(time.Minute, waiting("ErrImagePull", refused)), state: "pulling", text: "is tried again"},
		{name: "59: no registry for long", pod: newPod(time.Hour, waiting("ImagePullBackOff", refused)), state: "pulling", refusal: dstack.Unavailable, text: "cannot be reached"},
		{name: "59: an unknown name of a registry is no missing image", pod: newPod(time.Minute, waiting("ErrImagePull", "dial tcp: lookup r on 10.0.0.2:53: no such host: not found")), state: "pulling", text: "is tried again"},
		{name: "59: upper case", pod: newPod(time.Second, waiting("ErrImagePull", `failed to pull image "UPPER/b:1": repository name must be lowercase`)), state: "pulling", refusal: dstack.Invalid},
		{name: "61: no room on any node", pod: newPod(time.Minute, anyNode, unscheduled("Unschedulable", insufficient)), state: "starting", text: "waits for a node: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu"},
		{name: "61: no room for too long", pod: newPod(time.Hour, anyNode, unscheduled("Unschedulable", insufficient)), state: "starting", refusal: dstack.NoCapacity, text: "within 15m"},
		{name: "61: its node has no room yet", pod: newPod(time.Second, unscheduled("Unschedulable", insufficient)), state: "starting", text: "waits for its node"},
		{name: "61: its node has no room", pod: newPod(time.Minute, unscheduled("Unschedulable", insufficient)), state: "starting", refusal: dstack.NoCapacity, text: "its node does not take the pod"},
		{name: "61: other pods are leaving", pod: newPod(time.Minute, unscheduled("Unschedulable", insufficient), func(p *corev1.Pod) { p.Status.NominatedNodeName = "gpu-1" }), state: "starting", text: "other pods have left"},
		{name: "its code is awaited", pod: newPod(time.Minute, runs, func(p *corev1.Pod) { p.Annotations[annotationUploads] = uploadsAwaited }), state: "starting", text: "sending the code"},
		{name: "a folder of the node is missing", pod: newPod(time.Second, waiting("ContainerCreating", "")), state: "starting", refusal: dstack.NotFound, text: "does not exist on node gpu-1",
			warning: podWarning{reason: "FailedMount", message: "hostPath type check failed: /x is not a directory"}},
		{name: "an event without words", pod: newPod(time.Minute, waiting("ContainerCreating", "")), state: "starting", text: "waits for its container",
			warning: podWarning{reason: "Pulling", message: " ", isNormal: true}},
		{name: "pulling", pod: newPod(time.Minute, waiting("ContainerCreating", "")), state: "pulling", text: `pulling image "web:1"`,
			warning: podWarning{reason: "Pulling", message: `Pulling image "web:1"`, isNormal: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := describePod(podFacts{pod: c.pod, warning: c.warning, isCutOff: c.isCutOff, isAny: !isPinned(c.pod), wait: defaultNodeWait, now: now})
			r := s.report
			if r.State != c.state || r.Ready != c.ready || r.Attempt != "a" || c.check != nil && !c.check(r) {
				t.Errorf("%+v", r)
			}
			text := r.Error + r.Progress
			if (s.refusal != nil) != (c.refusal != "") || s.refusal != nil && dstack.KindOf(s.refusal) != c.refusal {
				t.Errorf("the refusal is %v, not %q", s.refusal, c.refusal)
			}
			if s.refusal != nil {
				text = s.refusal.Error()
			}
			if !strings.Contains(text, c.text) {
				t.Errorf("%q is not in %q", c.text, text)
			}
		})
	}
}

// A pod that does not exist any more means what was last seen of it, and who deleted it.
func TestDescribeGone(t *testing.T) {
	preempted := condition(corev1.DisruptionTarget, corev1.ConditionTrue, "PreemptionByScheduler", "")
	for _, c := range []struct {
		name      string
		pod       *corev1.Pod
		isStopped bool
		exit      int
		disrupted bool
		text      string
	}{
		{"stopped, and its end was seen", newPod(time.Minute, terminated("Error", 143, ""), isDeleted), true, 143, false, ""},
		{"stopped, and its end was not seen", newPod(time.Minute, runs, isDeleted), true, 137, false, ""},
		{"stopped before it began", newPod(time.Minute, waiting("ContainerCreating", ""), isDeleted), true, 143, false, "before it had started"},
		{"deleted by someone", newPod(time.Minute, runs, isDeleted), false, 137, true, "was deleted, and not by this server"},
		{"preempted", newPod(time.Minute, runs, isDeleted, preempted), false, 137, true, "higher priority"},
	} {
		r := describeGone(c.pod, c.isStopped, now)
		if r.State != dstack.AttemptExited || r.ExitCode != c.exit || r.Disrupted != c.disrupted || !strings.Contains(r.Error, c.text) || c.text == "" && r.Error != "" || r.StartedAt.IsZero() {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

// An event before the newest one says that a pod's image was pulled without its login.
func TestNewestWarnings(t *testing.T) {
	event := func(pod, reason string, age time.Duration) *corev1.Event {
		return &corev1.Event{InvolvedObject: corev1.ObjectReference{UID: types.UID(pod)}, Reason: reason, Message: reason, Type: corev1.EventTypeWarning,
			LastTimestamp: metav1.NewTime(now.Add(-age))}
	}
	found := newestWarnings([]*corev1.Event{event("a", "Failed", time.Second), event("a", reasonNoLogin, 9*time.Second), event("a", reasonNoLogin, 5*time.Second),
		event("b", reasonNoLogin, time.Second), event("b", "Failed", 2*time.Second), event("c", "BackOff", 0)})
	for pod, want := range map[types.UID]struct {
		reason    string
		noLoginAt time.Time
	}{"a": {"Failed", now.Add(-5 * time.Second)}, "b": {reasonNoLogin, now.Add(-time.Second)}, "c": {"BackOff", time.Time{}}} {
		if got := found[pod]; got.reason != want.reason || !got.noLoginAt.Equal(want.noLoginAt) {
			t.Errorf("pod %s: %+v", pod, got)
		}
	}
}
