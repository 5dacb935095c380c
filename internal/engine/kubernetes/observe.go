package kubernetes

import (
	"cmp"
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// trackedPod is what this process knows about a pod beside the API server.
type trackedPod struct {
	pod        *corev1.Pod // as it was last seen
	seenAt     time.Time   // first
	isStopped  bool        // by Stop
	isRefused  bool        // it is being deleted, because it will not start
	refusal    error       // why, with isRefused
	wasReady   bool
	isPortOpen bool        // the last definite result of a port check
	kept       *keptOutput // of a pod that is being deleted; nil: not kept
	lastOutput []string    // of a pod that is over
	hasOutput  bool        // lastOutput is what there is
	sockets    readSockets
	eviction   *string // what the events tell of a pod that is over; empty: it was not evicted; nil: not asked
}

// podIndex is the copy of the pods at one time.
type podIndex struct {
	changed    <-chan struct{} // closed when the copy is older than the pods
	byAttempt  map[string]*corev1.Pod
	byInstance map[string][]*corev1.Pod
}

func (i *podIndex) isCurrent() bool {
	if i == nil {
		return false
	}
	select {
	case <-i.changed:
		return false
	default:
		return true
	}
}

// refresh returns the pods as they are now, and notes what has become of those that are gone.
func (c *Cluster) refresh() *podIndex {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.isCurrent() {
		return c.current
	}
	index := &podIndex{changed: c.pods.Changed(), byAttempt: map[string]*corev1.Pod{}, byInstance: map[string][]*corev1.Pod{}}
	if c.pods.FreshAt().IsZero() {
		return index // nothing was listed: nothing is gone
	}
	now, listed := time.Now().UTC(), map[types.UID]bool{}
	for _, pod := range c.pods.List() {
		if pod.Annotations[AnnotationAttempt] == "" {
			continue // of a gateway
		}
		listed[pod.UID] = true
		t := c.tracked[pod.UID]
		if t == nil {
			t = &trackedPod{seenAt: now}
			c.tracked[pod.UID] = t
		}
		t.pod = pod
		t.wasReady = t.wasReady || isReady(pod, false)
		c.keepOutput(t)
		if c.removed[pod.UID] {
			continue
		}
		index.byAttempt[pod.Labels[LabelAttempt]] = pod
		index.byInstance[pod.Labels[LabelInstance]] = append(index.byInstance[pod.Labels[LabelInstance]], pod)
	}
	for uid, t := range c.tracked {
		if !listed[uid] {
			c.noteGone(uid, t, now)
		}
	}
	c.current = index
	return index
}

// noteGone keeps the report of an attempt whose pod does not exist any more, until Remove.
func (c *Cluster) noteGone(uid types.UID, t *trackedPod, now time.Time) {
	delete(c.tracked, uid)
	delete(c.warnings, uid)
	wasRemoved := c.removed[uid]
	delete(c.removed, uid)
	id := dstack.AttemptID(t.pod.Annotations[AnnotationAttempt])
	if _, isKnown := c.ended[id]; wasRemoved || isKnown || id == "" {
		return
	}
	report := describeGone(t.pod, t.isStopped, now)
	if t.isRefused { // the call that deletes it has not returned yet
		report = engine.NewRefusedReport(id, t.refusal, now)
	}
	c.ended[id] = endedAttempt{
		instance: dstack.InstanceID(t.pod.Labels[LabelInstance]), pod: t.pod.Name, report: report, kept: t.kept, lastOutput: t.lastOutput,
	}
}

// markRemoved makes a pod count as gone: it is being deleted for good.
func (c *Cluster) markRemoved(pod *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed[pod.UID] = true
	c.current = nil
}

// describe returns what a pod means now.
func (c *Cluster) describe(pod *corev1.Pod, now time.Time) podState {
	isCutOff := c.opts.IsCutOff(pod.Spec.NodeName)
	c.mu.Lock()
	defer c.mu.Unlock()
	state := describePod(podFacts{
		pod: pod, warning: c.warnings[pod.UID], isCutOff: isCutOff, isAny: !isPinned(pod), wait: c.opts.NodeWait, now: now,
	})
	if t := c.tracked[pod.UID]; t != nil && (t.isStopped || t.isRefused) && state.report.State != dstack.AttemptRefused {
		forgetDisruption(&state.report)
	}
	if !isPinned(pod) {
		state.report.Node = pod.Spec.NodeName
	}
	return state
}

// isPinned reports whether only one node may run a pod.
func isPinned(pod *corev1.Pod) bool {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return len(terms) == 1 && len(terms[0].MatchFields) > 0
}

// maxObservePause is how long the pods are not looked at if none of them changes.
const maxObservePause = time.Minute

// followPods deletes pods that will not start.
func (c *Cluster) followPods(ctx context.Context) error {
	for {
		index := c.refresh()
		if err := loop.SleepUntil(ctx, c.refuseHopeless(index), index.changed); err != nil {
			return err
		}
	}
}

// refuseHopeless deletes pods that will not start. It returns when time alone may change that of others.
func (c *Cluster) refuseHopeless(index *podIndex) time.Duration {
	pause := maxObservePause
	for _, pod := range index.byAttempt {
		if isRunning(pod) || isOver(pod) || pod.DeletionTimestamp != nil {
			continue
		}
		state := c.describe(pod, time.Now())
		if state.refusal != nil {
			c.refuse(pod, state.refusal)
		} else if state.due > 0 {
			pause = min(pause, state.due)
		}
	}
	return pause
}

// refuse deletes a pod that will not start, and only then reports that its attempt is over: another may start at once.
func (c *Cluster) refuse(pod *corev1.Pod, refusal error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tracked[pod.UID]
	if t == nil || t.isRefused || c.ctx.Err() != nil {
		return
	}
	t.isRefused, t.refusal = true, refusal
	c.work.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
		defer cancel()
		err := kubeclient.Delete(ctx, c.client, kubeclient.Pods, pod.Name, kubeclient.DeleteOptions{UID: pod.UID, Grace: time.Second})
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			t.isRefused = false // the next change, or the next minute, tries again
			return
		}
		id := dstack.AttemptID(pod.Annotations[AnnotationAttempt])
		c.opts.Log.Info("a pod will not start, and is deleted", "pod", pod.Name, "attempt", id, "err", refusal)
		c.ended[id] = endedAttempt{instance: dstack.InstanceID(pod.Labels[LabelInstance]), pod: pod.Name, report: engine.NewRefusedReport(id, refusal, time.Now().UTC())}
		c.removed[pod.UID], c.current = true, nil
	})
}

// Times of reading events.
const (
	eventsDelay     = 2 * time.Second // most pods have started before
	eventsInterval  = 2 * time.Second
	eventsForbidden = time.Minute
)

// followEvents reads the events of pods while some of ours do not start: only they tell why.
func (c *Cluster) followEvents(ctx context.Context) error {
	for {
		index := c.refresh()
		pause := maxObservePause
		if waits, soonest := c.findWaiting(index, time.Now()); waits {
			pause = eventsInterval
			if err := c.readEvents(ctx); err != nil && !kubeclient.IsAway(err) {
				pause = eventsForbidden
			}
			c.refuseHopeless(index)
			index = &podIndex{} // no change makes the events due earlier
		} else if soonest > 0 {
			pause = soonest
		}
		if err := loop.SleepUntil(ctx, pause, index.changed); err != nil {
			return err
		}
	}
}

// findWaiting reports whether a pod has waited for long enough to ask why, and otherwise when the first will have.
func (c *Cluster) findWaiting(index *podIndex, now time.Time) (waits bool, soonest time.Duration) {
	for _, pod := range index.byAttempt {
		if isRunning(pod) || isOver(pod) || pod.DeletionTimestamp != nil {
			continue
		}
		left := pod.CreationTimestamp.Add(eventsDelay).Sub(now)
		if left <= 0 {
			return true, 0
		}
		if soonest == 0 || left < soonest {
			soonest = left
		}
	}
	return false, soonest
}

// readEvents keeps the newest event of each of our pods.
func (c *Cluster) readEvents(ctx context.Context) error {
	events, err := kubeclient.List(ctx, c.client, kubeclient.Events, kubeclient.Selection{Fields: "involvedObject.kind=Pod"})
	if err != nil {
		return err
	}
	newest := newestWarnings(events)
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid := range c.tracked {
		if w, ok := newest[uid]; ok && w != c.warnings[uid] {
			c.warnings[uid] = w
		}
	}
	return nil
}

// reasonNoLogin is the reason of the event that says that a kubelet pulls an image without the login of its pod.
const reasonNoLogin = "FailedToRetrieveImagePullSecret"

// newestWarnings returns the newest event of each pod, and when its login was missing.
func newestWarnings(events []*corev1.Event) map[types.UID]podWarning {
	newest := map[types.UID]podWarning{}
	for _, e := range events {
		w, old := podWarning{reason: e.Reason, message: e.Message, at: eventTime(e), isNormal: e.Type == corev1.EventTypeNormal}, newest[e.InvolvedObject.UID]
		noLoginAt := old.noLoginAt
		if e.Reason == reasonNoLogin && w.at.After(noLoginAt) {
			noLoginAt = w.at
		}
		if w.at.Before(old.at) {
			w = old
		}
		w.noLoginAt = noLoginAt
		newest[e.InvolvedObject.UID] = w
	}
	return newest
}

// eventTime returns when something last happened. The scheduler and the kubelet write it to other fields.
func eventTime(e *corev1.Event) time.Time {
	at := e.CreationTimestamp.Time
	for _, other := range []time.Time{e.LastTimestamp.Time, e.EventTime.Time} {
		if other.After(at) {
			at = other
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(at) {
		at = e.Series.LastObservedTime.Time
	}
	return at
}

// checkFresh returns an error if the copy of the pods is not current: nothing is known then about attempts.
func (c *Cluster) checkFresh() error {
	if c.pods.FreshAt().IsZero() {
		return cmp.Or(c.pods.Err(), error(&dstack.Error{Kind: dstack.Unavailable, Message: "the pods of the cluster " + c.opts.Key + " were not listed yet"}))
	}
	return c.pods.Err()
}
