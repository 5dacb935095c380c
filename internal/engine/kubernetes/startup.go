package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// startup is an attempt between the call of Start and the start of its command.
type startup struct {
	instance dstack.InstanceID
	cancel   context.CancelFunc
	done     chan struct{}

	mu        sync.Mutex
	progress  string
	isStopped bool
}

func (s *startup) setProgress(progress string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress = progress
}

func (s *startup) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isStopped = true
	s.cancel()
}

func (s *startup) state() (progress string, isStopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.progress, s.isStopped
}

// endedAttempt is an attempt that ended and has no pod any more.
type endedAttempt struct {
	instance dstack.InstanceID
	pod      string // the name that it had, also of its secrets; empty: not known
	report   dstack.Report
	// lastOutput are its last lines, unless kept has them.
	lastOutput []string
	kept       *keptOutput
}

// Start implements engine.Engine.
func (e *Engine) Start(ctx context.Context, spec dstack.AttemptSpec) error {
	if err := e.waitUntilListed(ctx); err != nil {
		return err
	}
	if pod := e.findPod(spec.Attempt); pod != nil && !awaitsUploads(pod) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, isOver := e.ended[spec.Attempt]
	if e.startups[spec.Attempt] != nil || isOver || e.ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(e.ctx)
	s := &startup{instance: e.instance, cancel: cancel, done: make(chan struct{})}
	e.startups[spec.Attempt] = s
	e.work.Go(func() { e.runStartup(ctx, s, spec) })
	return nil
}

// runStartup creates the pod and gives it its code. If that fails, it deletes the pod and keeps the error for ListReports.
func (e *Engine) runStartup(ctx context.Context, s *startup, spec dstack.AttemptSpec) {
	err := e.recoverPanic(func() error { return e.createAndFill(ctx, s, spec) })
	_, isForbidden := errors.AsType[startForbiddenError](err)
	name := podName(e.opts.Installation, spec)
	_, isStopped := s.state()
	if err != nil && !isForbidden && e.ctx.Err() == nil {
		if deleteErr := e.deleteStarting(name, spec.Attempt); deleteErr != nil {
			e.opts.Log.Warn("a pod that does not start was not deleted", "pod", name, "err", deleteErr)
			e.sweepSoon()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().UTC()
	switch {
	case err == nil || e.ended[spec.Attempt].instance != "": // its pod was refused meanwhile
	case isForbidden:
		e.sweepSoon()
		e.opts.Log.Info("a pod is not started, and left as it is", "run", spec.Run, "attempt", spec.Attempt, "err", err)
	case isStopped:
		e.ended[spec.Attempt] = endedAttempt{instance: s.instance, pod: name, report: newStoppedReport(spec.Attempt, now)}
	case e.ctx.Err() == nil:
		e.opts.Log.Info("a pod was not started", "run", spec.Run, "attempt", spec.Attempt, "err", err)
		e.ended[spec.Attempt] = endedAttempt{instance: s.instance, pod: name, report: engine.NewRefusedReport(spec.Attempt, err, now)}
	}
	delete(e.startups, spec.Attempt)
	s.cancel()
	close(s.done)
}

// newStoppedReport returns the report of an attempt that was stopped before its command began.
func newStoppedReport(id dstack.AttemptID, at time.Time) dstack.Report {
	return dstack.Report{Attempt: id, State: dstack.AttemptExited, ExitCode: 143, Error: "stopped before it had started", StartedAt: at, EndedAt: at}
}

// createAndFill creates everything of an attempt, and uploads its code once the pod waits for it.
func (e *Engine) createAndFill(ctx context.Context, s *startup, spec dstack.AttemptSpec) error {
	if e.hasEmptyCode(ctx, spec) {
		spec.CodeHash = ""
	}
	m, err := newManifest(place{e.opts.Installation, e.instance, e.node, e.opts.InitImage}, spec)
	if err != nil {
		return err
	}
	if e.opts.Code == nil && e.opts.Files == nil {
		m.withoutUploads()
	}
	if err := e.retryWhileAway(ctx, s, func() error { return e.createAll(ctx, m, spec) }); err != nil {
		return err
	}
	if m.uploads.container == "" {
		return e.waitUntilSeen(ctx, spec.Attempt)
	}
	return e.retryWhileAway(ctx, s, func() error { return e.upload(ctx, s, m, spec) })
}

// Pauses between the tries to reach the API server.
const (
	minAwayPause = 500 * time.Millisecond
	maxAwayPause = 5 * time.Second
)

// retryWhileAway repeats what the API server does not answer: nothing is known then about what was asked.
func (c *Cluster) retryWhileAway(ctx context.Context, s *startup, do func() error) error {
	for pause := minAwayPause; ; pause = min(2*pause, maxAwayPause) {
		err := do()
		if err == nil || !kubeclient.IsAway(err) {
			return err
		}
		s.setProgress("waiting for the cluster: " + err.Error())
		if err := loop.SleepUntil(ctx, pause, nil); err != nil {
			return err
		}
	}
}

// createAll creates the secrets and then the pod, which they outlive by nothing.
func (e *Engine) createAll(ctx context.Context, m *manifest, spec dstack.AttemptSpec) error {
	if err := e.checkStart(ctx, spec.Attempt); err != nil {
		return err
	}
	env, err := e.createSecret(ctx, m.env)
	if err != nil {
		return err
	}
	m.own(env)
	if m.pull != nil {
		if _, err := createOnce(ctx, e.client, kubeclient.Secrets, m.pull); err != nil {
			return err
		}
	}
	if m.devices != nil {
		if _, err := createOnce(ctx, e.client, kubeclient.ResourceClaims, &m.devices.ResourceClaim); err != nil {
			return err
		}
	}
	if err := e.checkStart(ctx, spec.Attempt); err != nil {
		return err
	}
	e.ensureBudget(ctx, m.pod)
	_, err = createOnce(ctx, e.client, kubeclient.Pods, m.pod)
	return err
}

// createSecret creates the secret that owns a pod, or returns that of the same attempt. One that has no pod since long is made anew: another
// server may be about to sweep it.
func (c *Cluster) createSecret(ctx context.Context, wanted *corev1.Secret) (*corev1.Secret, error) {
	found, err := createOnce(ctx, c.client, kubeclient.Secrets, wanted)
	if err != nil || time.Since(found.CreationTimestamp.Time) < secretUse {
		return found, err
	}
	_, err = kubeclient.Get(ctx, c.client, kubeclient.Pods, wanted.Name)
	if kubeclient.MeaningOf(err) != kubeclient.NotFound {
		return found, err
	}
	if err := kubeclient.Delete(ctx, c.client, kubeclient.Secrets, found.Name, kubeclient.DeleteOptions{UID: found.UID}); err != nil {
		return nil, err
	}
	return createOnce(ctx, c.client, kubeclient.Secrets, wanted)
}

// seenTimeout is how long the copy of the pods may take to have a new pod. After that, another Start finds it.
const seenTimeout = 10 * time.Second

// waitUntilSeen waits until the copy of the pods has the pod of an attempt, or had it, so that its reports have no gap.
func (c *Cluster) waitUntilSeen(ctx context.Context, id dstack.AttemptID) error {
	limit, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	for {
		index := c.refresh()
		c.mu.Lock()
		_, isOver := c.ended[id]
		c.mu.Unlock()
		if isOver || index.byAttempt[kubeclient.LabelValue(string(id))] != nil {
			return nil
		}
		if err := loop.SleepUntil(limit, seenTimeout, index.changed); err != nil {
			return ctx.Err()
		}
	}
}

// object is what all objects of the API have.
type object interface {
	GetName() string
	GetLabels() map[string]string
}

// createOnce creates an object, or returns the one of the same attempt that exists.
func createOnce[T any, P interface {
	*T
	object
}](ctx context.Context, c *kubeclient.Client, r kubeclient.Resource[T], wanted *T) (*T, error) {
	created, err := kubeclient.Create(ctx, c, r, wanted)
	if kubeclient.MeaningOf(err) != kubeclient.AlreadyExists {
		return created, err
	}
	found, getErr := kubeclient.Get(ctx, c, r, P(wanted).GetName())
	if getErr != nil {
		return nil, getErr
	}
	for _, label := range []string{LabelInstallation, LabelAttempt} {
		if P(found).GetLabels()[label] != P(wanted).GetLabels()[label] {
			return nil, &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the namespace has a %s named %s already, and this server did not create it",
				r.Word, P(wanted).GetName()), Hint: "delete it, or use another namespace"}
		}
	}
	return found, nil
}

// deleteStarting deletes what there is of an attempt that does not start, and waits for that.
func (c *Cluster) deleteStarting(name string, id dstack.AttemptID) error {
	ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
	defer cancel()
	found, err := kubeclient.Get(ctx, c.client, kubeclient.Pods, name)
	switch {
	case kubeclient.MeaningOf(err) == kubeclient.NotFound:
	case err != nil:
		return err
	case found.Labels[LabelAttempt] != kubeclient.LabelValue(string(id)) || found.Labels[LabelInstallation] != InstallationLabel(c.opts.Installation):
		return nil
	default:
		c.markRemoved(found)
		if err := kubeclient.Delete(ctx, c.client, kubeclient.Pods, name, kubeclient.DeleteOptions{UID: found.UID, Grace: time.Second}); err != nil {
			return err
		}
		if found.Spec.NodeName != "" { // its command may have begun
			if err := c.waitUntilGone(ctx, found); err != nil {
				return err
			}
		}
	}
	return c.deleteSecrets(c.ctx, name, id)
}

// callTimeout limits calls that are expected to return at once.
const callTimeout = 10 * time.Second

// startForbiddenError says that the attempt may not be started by this server now.
type startForbiddenError struct{ cause error }

func (e startForbiddenError) Error() string { return e.cause.Error() }

// checkStart asks whether an attempt may still be started.
func (c *Cluster) checkStart(ctx context.Context, id dstack.AttemptID) error {
	if c.opts.MayStart == nil {
		return nil
	}
	if err := c.opts.MayStart(ctx, id); err != nil {
		return startForbiddenError{err}
	}
	return nil
}

// recoverPanic runs a function, and returns its panic as an error.
func (c *Cluster) recoverPanic(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.opts.Log.Error("work on a pod panicked", "panic", p, "stack", string(debug.Stack()))
			err = &dstack.Error{Kind: dstack.Internal, Message: "dstack failed on an answer of the cluster; its log has more about it"}
		}
	}()
	return do()
}

// waitUntilListed waits until the pods are known.
func (c *Cluster) waitUntilListed(ctx context.Context) error {
	if !c.pods.FreshAt().IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.pods.WaitUntilListed(ctx)
}

// findPod returns the pod of an attempt that is not the remainder of Remove; nil: none.
func (c *Cluster) findPod(id dstack.AttemptID) *corev1.Pod {
	if id == "" {
		return nil
	}
	return c.refresh().byAttempt[kubeclient.LabelValue(string(id))]
}

func isOfAttempt(pod *corev1.Pod, id dstack.AttemptID) bool {
	return id != "" && pod.Labels[LabelAttempt] == kubeclient.LabelValue(string(id))
}

// awaitsUploads reports whether a pod has not got its code yet.
func awaitsUploads(pod *corev1.Pod) bool { return pod.Annotations[annotationUploads] == uploadsAwaited }
