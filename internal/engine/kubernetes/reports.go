package kubernetes

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
)

// minAbandonedAge is for how long this process has seen a pod that awaits uploads, and was not asked to go on with it, before
// the pod counts as left over from a server that was killed.
const minAbandonedAge = time.Minute

// ListReports implements engine.Engine. It asks the API server for nothing but the last lines of attempts that have ended.
func (e *Engine) ListReports(ctx context.Context) ([]dstack.Report, error) {
	if err := e.waitUntilListed(ctx); err != nil {
		return nil, err
	}
	if err := e.checkFresh(); err != nil {
		return nil, err
	}
	index := e.refresh()
	now := time.Now().UTC()
	reports := e.reportsWithoutPod(now)
	var pods []*corev1.Pod
	for _, pod := range index.byInstance[kubeclient.LabelValue(string(e.instance))] {
		id := dstack.AttemptID(pod.Annotations[AnnotationAttempt])
		r, isKnown := reports[id]
		if isKnown && r.State.IsOver() || e.isAbandoned(pod, isKnown) {
			continue
		}
		progress := r.Progress
		if r = e.describe(pod, now).report; r.State == dstack.AttemptStarting && progress != "" && awaitsUploads(pod) {
			r.Progress = progress
		}
		reports[id] = r
		pods = append(pods, pod)
	}
	e.complete(ctx, pods, reports)
	all := make([]dstack.Report, 0, len(reports))
	for _, r := range reports {
		r.At = now
		if r.Address != "" {
			r.Host = e.opts.Key
		}
		all = append(all, r)
	}
	return all, nil
}

// reportsWithoutPod returns the reports of attempts of the instance that are starting up or ended without a pod.
func (e *Engine) reportsWithoutPod(now time.Time) map[dstack.AttemptID]dstack.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	reports := map[dstack.AttemptID]dstack.Report{}
	for id, s := range e.startups {
		if s.instance == e.instance {
			progress, _ := s.state()
			reports[id] = dstack.Report{Attempt: id, State: dstack.AttemptStarting, Progress: progress, At: now}
		}
	}
	for id, ended := range e.ended {
		if kubeclient.LabelValue(string(ended.instance)) != kubeclient.LabelValue(string(e.instance)) {
			continue
		}
		r := ended.report
		if r.LastOutput = ended.lastOutput; ended.kept != nil {
			r.LastOutput = ended.kept.lastTexts()
		}
		reports[id] = r
	}
	return reports
}

// isAbandoned reports whether a pod awaits uploads that nobody sends. It is not reported, so that it is started again.
func (e *Engine) isAbandoned(pod *corev1.Pod, hasStartup bool) bool {
	if hasStartup || !awaitsUploads(pod) || isOver(pod) {
		return false
	}
	e.mu.Lock()
	t := e.tracked[pod.UID] // seenAt is set before it is there
	e.mu.Unlock()
	if t != nil && time.Since(t.seenAt) > minAbandonedAge {
		e.refuse(pod, &dstack.Error{Kind: dstack.Unavailable, Message: "the server was stopped before the code was sent to the pod"})
	}
	return true
}

// complete adds what the copy of a pod does not have: whether a port is open before the kubelet has found out, the sockets
// of a pod that is not ready, and the last lines of one that has ended.
func (e *Engine) complete(ctx context.Context, pods []*corev1.Pod, reports map[dstack.AttemptID]dstack.Report) {
	var work sync.WaitGroup
	var mu sync.Mutex // guards reports
	for _, pod := range pods {
		id := dstack.AttemptID(pod.Annotations[AnnotationAttempt])
		mu.Lock()
		r := reports[id]
		mu.Unlock()
		isDone := r.Ready || r.State != dstack.AttemptRunning && r.State != dstack.AttemptExited && r.State != dstack.AttemptRefused
		if isDone || r.State == dstack.AttemptRunning && pod.DeletionTimestamp != nil {
			continue
		}
		work.Go(func() {
			if r.State == dstack.AttemptRunning {
				r.Ready = e.checkPort(ctx, pod, r)
				e.readListeners(ctx, pod, &r)
			} else {
				r.LastOutput = e.readLastOutput(ctx, pod)
				e.addEviction(ctx, pod, &r)
			}
			mu.Lock()
			defer mu.Unlock()
			reports[id] = r
		})
	}
	work.Wait()
}

// checkPort reports whether the port of a pod that is not ready accepts connections: of one that was never ready, the kubelet
// finds out up to a second later, and of one whose service has a probe of its own, it does not say. Otherwise the kubelet alone
// decides.
func (e *Engine) checkPort(ctx context.Context, pod *corev1.Pod, r dstack.Report) bool {
	e.mu.Lock()
	t := e.tracked[pod.UID]
	wasReady := t != nil && t.wasReady
	e.mu.Unlock()
	if e.opts.Dialer == nil || t == nil || wasReady && !failsOwnProbe(pod) || r.Address == "" {
		return false
	}
	state := engine.CheckPortThrough(ctx, e.opts.Dialer, dstack.Endpoint{Host: e.opts.Key, Address: r.Address}, func(conn net.Conn) bool {
		return conn.RemoteAddr() == nil || conn.RemoteAddr().String() != r.Address // through the API server, or a port of a node
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if state != engine.PortSlow {
		t.isPortOpen = state == engine.PortAccepted
	}
	return t.isPortOpen
}

// readLastOutput returns the last lines of a pod that has ended, which are read once.
func (e *Engine) readLastOutput(ctx context.Context, pod *corev1.Pod) []string {
	e.mu.Lock()
	t := e.tracked[pod.UID]
	if t == nil || t.hasOutput {
		defer e.mu.Unlock()
		if t == nil {
			return nil
		}
		return t.lastOutput
	}
	kept := t.kept
	e.mu.Unlock()
	var lines []string
	var err error
	if kept != nil {
		lines = kept.lastTexts()
	} else {
		lines, err = e.fetchLastLines(ctx, pod.Name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t.lastOutput, t.hasOutput = lines, err == nil || !kubeclient.IsAway(err)
	return lines
}

// addEviction adds the reason to the report of an evicted pod whose process ended with code 0: the kubelet then calls it succeeded, and only
// the events tell about the eviction. They are asked once.
func (e *Engine) addEviction(ctx context.Context, pod *corev1.Pod, r *dstack.Report) {
	if r.State != dstack.AttemptExited || r.ExitCode != 0 || r.Error != "" || pod.DeletionTimestamp != nil {
		return
	}
	e.mu.Lock()
	t := e.tracked[pod.UID]
	var known *string
	isDone := t == nil || t.isStopped
	if !isDone {
		known = t.eviction
	}
	e.mu.Unlock()
	if isDone {
		return
	}
	if known == nil {
		events, err := kubeclient.List(ctx, e.client, kubeclient.Events, kubeclient.Selection{Fields: "involvedObject.uid=" + string(pod.UID) + ",reason=" + reasonEvicted})
		if err != nil && kubeclient.IsAway(err) {
			return
		}
		eviction := ""
		for _, found := range events {
			eviction = found.Message
		}
		known = &eviction
		e.mu.Lock()
		t.eviction = known
		e.mu.Unlock()
	}
	if message := *known; message != "" {
		r.Error, r.Disrupted = "the pod was evicted: "+oneLine(message), strings.HasPrefix(message, nodeLowOnResource)
	}
}

// Times between two readings of the sockets of a pod, by a command in it.
const (
	readSocketsInterval = 10 * time.Second
	readSocketsTimeout  = 3 * time.Second
)

// readSockets are the sockets of a pod that is not ready.
type readSockets struct {
	listening []dstack.Listener
	readAt    time.Time
}

// readListeners sets Listening in the report of a pod whose port is closed, not at every report.
func (e *Engine) readListeners(ctx context.Context, pod *corev1.Pod, r *dstack.Report) {
	now := time.Now()
	e.mu.Lock()
	t := e.tracked[pod.UID]
	if r.Ready || t == nil || t.wasReady {
		e.mu.Unlock()
		return
	}
	s := t.sockets
	isDue := engine.MayReadListeners(r.StartedAt, s.readAt, now, false) && now.Sub(s.readAt) >= readSocketsInterval
	if isDue {
		t.sockets.readAt = now
	}
	e.mu.Unlock()
	if isDue {
		ctx, cancel := context.WithTimeout(ctx, readSocketsTimeout)
		defer cancel()
		if out, err := e.runScript(ctx, pod.Name, mainContainer, nil, "exec cat /proc/net/tcp /proc/net/tcp6 2>/dev/null"); err == nil {
			s.listening = engine.ParseListeners(strings.NewReader(out))
		}
		e.mu.Lock()
		t.sockets.listening = s.listening
		e.mu.Unlock()
	}
	r.Listening = s.listening
}
