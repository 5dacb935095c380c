package kubernetes

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

const (
	// killGrace is the grace period of a pod that is killed: with none, the API server would forget the pod while its processes
	// may still run. The kubelet makes at least two seconds of it, and sends SIGTERM before SIGKILL.
	killGrace = time.Second
	// killTimeout limits the command that kills the processes of a pod, and the wait for their end.
	killTimeout = 2 * time.Second
)

// Stop implements engine.Engine. The grace period begins after the hook before SIGTERM.
func (e *Engine) Stop(ctx context.Context, id dstack.AttemptID, grace time.Duration) error {
	if s := e.findStartup(id); s != nil {
		s.abort()
		return nil
	}
	if err := e.waitUntilListed(ctx); err != nil {
		return err
	}
	pod := e.findPod(id)
	if pod == nil || isOver(pod) {
		return nil
	}
	isKill := grace <= 0
	if grace += preStopTime; isKill {
		grace = killGrace
	}
	if pod.DeletionTimestamp != nil && !shortens(pod, grace, time.Now()) {
		return nil
	}
	e.mu.Lock()
	var kept *keptOutput
	isAgain := pod.DeletionTimestamp != nil
	if t := e.tracked[pod.UID]; t != nil {
		isAgain = isAgain || t.isStopped
		t.isStopped = true
		e.startKeeping(t)
		kept = t.kept
	}
	e.mu.Unlock()
	if kept != nil {
		kept.waitUntilOpen(ctx)
	}
	if isKill {
		e.killProcesses(ctx, pod)
	}
	err := kubeclient.Delete(ctx, e.client, kubeclient.Pods, pod.Name, kubeclient.DeleteOptions{UID: pod.UID, Grace: grace})
	if err == nil && isAgain {
		e.killAfter(pod, grace)
	}
	return err
}

// killAfter kills the processes of a pod that still runs after a grace period. A kubelet that runs the hook before SIGTERM when the grace
// period is shortened goes on with the longer one (seen with Kubernetes 1.37.2).
func (c *Cluster) killAfter(pod *corev1.Pod, grace time.Duration) {
	c.work.Go(func() {
		if loop.Sleep(c.ctx, grace+time.Second) != nil {
			return
		}
		if found, ok := c.pods.Get(pod.Name); ok && found.UID == pod.UID && !isOver(found) {
			c.killProcesses(c.ctx, found)
		}
	})
}

// killProcesses kills the processes of a running pod at once, without SIGTERM, if a shell waits for them, and waits until the kubelet
// has seen that: otherwise it runs the hook before SIGTERM in a container that has ended, and reports that it failed. The deletion
// of the pod ends the processes of others.
func (c *Cluster) killProcesses(ctx context.Context, pod *corev1.Pod) {
	if hook := pod.Spec.Containers[0].Lifecycle; !isRunning(pod) || hook == nil || hook.PreStop == nil || hook.PreStop.Exec == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	_, _ = c.runScript(ctx, pod.Name, mainContainer, nil, "kill -KILL -1") // its own stream may be cut
	for ctx.Err() == nil {
		changed := c.pods.Changed()
		if found, ok := c.pods.Get(pod.Name); !ok || found.UID != pod.UID || isOver(found) {
			return
		}
		_ = loop.SleepUntil(ctx, removeLook, changed) // ctx
	}
}

// shortens reports whether a pod that is being deleted would end earlier with a grace period from now on.
func shortens(pod *corev1.Pod, grace time.Duration, now time.Time) bool {
	return pod.DeletionTimestamp.After(now.Add(grace + time.Second)) // it is in whole seconds
}

func (c *Cluster) findStartup(id dstack.AttemptID) *startup {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.startups[id]
}

// Times of Remove, for the end of the pods. The API server goes on with a deletion after that.
const (
	removeTimeout = 8 * time.Second
	removeLook    = time.Second
)

// Remove implements engine.Engine.
func (e *Engine) Remove(ctx context.Context, id dstack.AttemptID) error {
	if id == "" {
		return nil
	}
	if s := e.findStartup(id); s != nil {
		s.abort()
		select {
		case <-s.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := e.waitUntilListed(ctx); err != nil {
		return err
	}
	name, err := e.removePods(ctx, id)
	if err != nil {
		return err
	}
	if err := e.deleteSecrets(ctx, name, id); err != nil {
		e.sweepSoon() // without its pod, the attempt may not be reported any more
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.ended, id)
	return nil
}

// removePods deletes the pods of an attempt, and waits for their end. It returns the name that they have; empty: it is not known.
func (e *Engine) removePods(ctx context.Context, id dstack.AttemptID) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	name = e.findEndedName(id)
	for _, pod := range e.findAllPods(id) {
		name = pod.Name
		e.endCommands(id)
		e.killProcesses(ctx, pod)
		if found, ok := e.pods.Get(pod.Name); ok && found.UID == pod.UID {
			pod = found
		}
		options := kubeclient.DeleteOptions{UID: pod.UID, Grace: killGrace}
		options.Force = hasEnded(pod) // its node has nothing left to do that would matter
		if err := kubeclient.Delete(ctx, e.client, kubeclient.Pods, pod.Name, options); err != nil {
			return name, err
		}
		if err := e.waitUntilGone(ctx, pod); err != nil {
			return name, err
		}
	}
	return name, nil
}

// hasEnded reports whether the kubelet has said that nothing of a pod runs any more.
func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// findEndedName returns the name of the pod that an ended attempt had.
func (c *Cluster) findEndedName(id dstack.AttemptID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended[id].pod
}

// findAllPods returns the pods of an attempt, those that count as gone included.
func (c *Cluster) findAllPods(id dstack.AttemptID) []*corev1.Pod {
	var found []*corev1.Pod
	for _, pod := range c.pods.List() {
		if isOfAttempt(pod, id) {
			found = append(found, pod)
		}
	}
	return found
}

// waitUntilGone waits until a pod that is being deleted does not exist any more. Of a node that is lost, it stays until the
// node is back or removed from the cluster.
func (c *Cluster) waitUntilGone(ctx context.Context, pod *corev1.Pod) error {
	for {
		changed := c.pods.Changed()
		if found, ok := c.pods.Get(pod.Name); !ok || found.UID != pod.UID {
			c.markGone(pod)
			return nil
		}
		if err := loop.SleepUntil(ctx, removeLook, changed); err != nil {
			return &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("the pod %s is being deleted, and its node %s has not confirmed that yet",
				pod.Name, pod.Spec.NodeName), Cause: err}
		}
	}
}

// markGone forgets a pod that was removed.
func (c *Cluster) markGone(pod *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tracked, pod.UID)
	delete(c.warnings, pod.UID)
	delete(c.removed, pod.UID)
	c.current = nil
}

// deleteSecrets deletes the secret of an attempt, and with it everything that belongs to it. name is that of its pod, if it is
// known. It has time of its own, as a pod may take long to end before.
func (c *Cluster) deleteSecrets(ctx context.Context, name string, id dstack.AttemptID) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if name != "" {
		return c.deleteOwnSecret(ctx, name, id)
	}
	found, err := kubeclient.List(ctx, c.client, kubeclient.Secrets, kubeclient.Selection{
		Labels: LabelInstallation + "=" + InstallationLabel(c.opts.Installation) + "," + LabelAttempt + "=" + kubeclient.LabelValue(string(id))})
	if err != nil {
		return err
	}
	for _, secret := range found {
		if err := kubeclient.Delete(ctx, c.client, kubeclient.Secrets, secret.Name, kubeclient.DeleteOptions{UID: secret.UID}); err != nil {
			return err
		}
	}
	return nil
}

// deleteOwnSecret deletes a secret if it is that of an attempt. Somebody else's may have the name.
func (c *Cluster) deleteOwnSecret(ctx context.Context, name string, id dstack.AttemptID) error {
	found, err := kubeclient.Get(ctx, c.client, kubeclient.Secrets, name)
	if meaning := kubeclient.MeaningOf(err); meaning == kubeclient.NotFound || meaning == kubeclient.NamespaceMissing {
		return nil
	}
	if err != nil || found.Labels[LabelInstallation] != InstallationLabel(c.opts.Installation) || found.Labels[LabelAttempt] != kubeclient.LabelValue(string(id)) {
		return err
	}
	return kubeclient.Delete(ctx, c.client, kubeclient.Secrets, name, kubeclient.DeleteOptions{UID: found.UID})
}
