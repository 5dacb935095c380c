package kubernetes

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// Times of sweeping.
const (
	sweepDelay    = 5 * time.Second // after the start, and after something was left over
	sweepInterval = 30 * time.Minute
	sweepPause    = time.Minute     // after a failure
	leftoverAge   = 4 * time.Minute // of a secret without a pod: the pod is created right after it
	secretUse     = time.Minute     // of a secret by the startup that made it: later, a startup makes another one
	// budgetInterval is how often pods that start have the disruption budget looked at, at most.
	budgetInterval = time.Minute
)

// minAvailable is more pods than there can be, so that the budget allows no eviction.
const minAvailable = 1_000_000

// sweepLeftovers deletes secrets whose pods are gone: of pods that ended or were deleted while no server ran, and of servers that were
// killed before they created the pod. Other servers of the installation may be starting attempts meanwhile, and this one may know
// old pods: see findLeftovers.
func (c *Cluster) sweepLeftovers(ctx context.Context) error {
	pause := time.Duration(0)
	for {
		if err := loop.SleepUntil(ctx, pause, c.leftOver); err != nil {
			return err
		}
		if err := loop.Sleep(ctx, sweepDelay); err != nil { // what was left over has siblings
			return err
		}
		pause = sweepPause
		if err := c.waitUntilListed(ctx); err != nil {
			continue
		}
		for _, pod := range c.pods.List() {
			if pod.Annotations[AnnotationAttempt] != "" {
				c.ensureBudget(ctx, pod)
				break
			}
		}
		due, err := c.deleteLeftovers(ctx, time.Now())
		if err == nil {
			pause = due
		} else if ctx.Err() == nil {
			c.opts.Log.Warn("leftovers in a cluster were not deleted", "cluster", c.opts.Key, "err", err)
		}
	}
}

// sweepSoon lets the leftovers be deleted soon.
func (c *Cluster) sweepSoon() {
	select {
	case c.leftOver <- struct{}{}:
	default:
	}
}

// deleteLeftovers returns in how long there may be more to delete.
func (c *Cluster) deleteLeftovers(ctx context.Context, now time.Time) (due time.Duration, err error) {
	c.sweeping.Lock()
	defer c.sweeping.Unlock()
	secrets, err := kubeclient.List(ctx, c.client, kubeclient.Secrets, kubeclient.Selection{
		Labels: LabelInstallation + "=" + InstallationLabel(c.opts.Installation) + "," + LabelAttempt})
	if err != nil {
		return 0, err
	}
	for _, s := range c.findLeftovers(secrets, now) {
		pod, err := kubeclient.Get(ctx, c.client, kubeclient.Pods, s.Name)
		if pod != nil && err == nil && pod.Labels[LabelAttempt] == s.Labels[LabelAttempt] {
			continue
		}
		if err != nil && kubeclient.MeaningOf(err) != kubeclient.NotFound {
			return 0, err
		}
		delete(c.podless, s.UID)
		if err := kubeclient.Delete(ctx, c.client, kubeclient.Secrets, s.Name, kubeclient.DeleteOptions{UID: s.UID}); err != nil {
			return 0, err
		}
		c.opts.Log.Info("a secret without a pod was deleted", "cluster", c.opts.Key, "secret", s.Name)
	}
	due = sweepInterval
	for _, since := range c.podless {
		due = min(due, max(sweepDelay, since.Add(leftoverAge).Sub(now)))
	}
	return due, nil
}

// findLeftovers returns the secrets that had no pod for leftoverAge, each time that they were looked at. The time that counts is that of this
// process: the clock of the cluster may be another one.
func (c *Cluster) findLeftovers(secrets []*corev1.Secret, now time.Time) (leftovers []*corev1.Secret) {
	podless := map[types.UID]time.Time{}
	for _, s := range secrets {
		if len(s.OwnerReferences) > 0 || c.isKnown(dstack.AttemptID(s.Annotations[AnnotationAttempt])) {
			continue
		}
		since, ok := c.podless[s.UID]
		if !ok {
			since = now
		}
		podless[s.UID] = since
		if now.Sub(since) >= leftoverAge {
			leftovers = append(leftovers, s)
		}
	}
	c.podless = podless
	return leftovers
}

// isKnown reports whether an attempt has a pod, or is starting, or its end is still to be reported.
func (c *Cluster) isKnown(id dstack.AttemptID) bool {
	if len(c.findAllPods(id)) > 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, hasEnded := c.ended[id]
	return hasEnded || c.startups[id] != nil
}

// newBudget returns the disruption budget of an installation: whoever drains a node gets told to try again, until the server
// has seen the cordon and moved the replicas. A pod that is not ready may go at once.
func newBudget(installation dstack.Installation) *policyv1.PodDisruptionBudget {
	label := InstallationLabel(installation)
	most, always := intstr.FromInt32(minAvailable), policyv1.AlwaysAllow
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: kubeclient.NewName("dstack", kubeclient.HashLabel(string(installation))[:attemptHash]),
			Labels: map[string]string{LabelInstallation: label, labelManagedBy: "dstack"}},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &most, UnhealthyPodEvictionPolicy: &always,
			Selector: &metav1.LabelSelector{
				MatchLabels:      map[string]string{LabelInstallation: label},
				MatchExpressions: []metav1.LabelSelectorRequirement{{Key: LabelAttempt, Operator: metav1.LabelSelectorOpExists}},
			},
		},
	}
}

// ensureBudget makes the disruption budget, and again if someone has deleted it. Without the right to, drains end replicas like any pod. A
// pod that has two budgets cannot be evicted at all, so that one of the user's takes precedence.
func (c *Cluster) ensureBudget(ctx context.Context, pod *corev1.Pod) {
	c.budgetMu.Lock()
	defer c.budgetMu.Unlock()
	if time.Since(c.budgetAt) < budgetInterval {
		return
	}
	wanted, problem := newBudget(c.opts.Installation), ""
	other, err := c.findOtherBudget(ctx, pod, wanted.Name)
	switch {
	case err == nil && other != "":
		problem = "pods of replicas have the disruption budget " + other + " already, so that dstack makes none"
	case err == nil:
		_, err = kubeclient.Apply(ctx, c.client, kubeclient.Budgets, wanted)
	}
	if kubeclient.IsAway(err) {
		return
	}
	if err != nil {
		problem = "the cluster has no disruption budget for replicas: a drained node ends them before others serve: " + err.Error()
	}
	if problem != "" && problem != c.budgetProblem {
		c.opts.Log.Warn(problem, "cluster", c.opts.Key)
	}
	c.budgetAt, c.budgetProblem = time.Now(), problem
}

// findOtherBudget returns the name of another disruption budget that a pod has; empty: none.
func (c *Cluster) findOtherBudget(ctx context.Context, pod *corev1.Pod, own string) (string, error) {
	budgets, err := kubeclient.List(ctx, c.client, kubeclient.Budgets, kubeclient.Selection{})
	if kubeclient.MeaningOf(err) == kubeclient.NoRight {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, b := range budgets {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && b.Name != own && b.Labels[labelManagedBy] != "dstack" && selector.Matches(labels.Set(pod.Labels)) {
			return b.Name, nil
		}
	}
	return "", nil
}
