package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
)

// Reasons of the events of a claim.
const (
	eventWaitsForConsumer = "WaitForFirstConsumer"
	eventWaitsForPod      = "WaitForPodScheduled"
	eventNoDisk           = "FailedBinding"
	eventProvisionFailed  = "ProvisioningFailed"
)

// noProvisioner is the provisioner of storage classes whose disks people make.
const noProvisioner = "kubernetes.io/no-provisioner"

// unboundWarning is shown for a claim that gets its disk with its first pod.
const unboundWarning = "the cluster makes its disk when the first replica starts"

// claimLook is one look at the claims of a cluster.
type claimLook struct {
	*claims
	ctx        context.Context
	classes    map[string]*storagev1.StorageClass // nil: it does not exist, or may not be read
	isChanging bool                               // a claim is about to change
}

// read returns a volume as its claim is.
func (l *claimLook) read(v dstack.Volume, claim *corev1.PersistentVolumeClaim) (dstack.Volume, error) {
	v.Backend, v.Region, v.ExternalID, v.Status = l.key, l.key, claim.Name, dstack.VolumeActive
	size, modes := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Spec.AccessModes
	if claim.Status.Phase == corev1.ClaimBound {
		size, modes = claim.Status.Capacity[corev1.ResourceStorage], claim.Status.AccessModes
	}
	v.SizeMiB = readQuantity(size, 0) >> 20
	for _, mode := range modes {
		v.Reach.AccessModes = append(v.Reach.AccessModes, string(mode))
	}
	switch {
	case claim.DeletionTimestamp != nil:
		l.isChanging = true
		v.Status, v.Reason = dstack.VolumeFailed, dstack.Reason(fmt.Sprintf("the claim %s is being deleted in the cluster", claim.Name))
	case claim.Status.Phase == corev1.ClaimLost:
		v.Status, v.Reason = dstack.VolumeFailed, dstack.Reason(fmt.Sprintf("its data is lost: the persistent volume %s of the claim %s does not exist any more",
			claim.Spec.VolumeName, claim.Name))
	case claim.Status.Phase == corev1.ClaimBound:
		return v, l.addReach(&v, claim)
	default:
		return v, l.addPending(&v, claim)
	}
	return v, nil
}

// addPending says what a claim waits for. One that waits for its first pod can be used.
func (l *claimLook) addPending(v *dstack.Volume, claim *corev1.PersistentVolumeClaim) error {
	l.isChanging = true
	events, err := l.listEvents(claim)
	if err != nil {
		return err
	}
	waits := slices.ContainsFunc(events, func(e *corev1.Event) bool { return e.Reason == eventWaitsForConsumer || e.Reason == eventWaitsForPod })
	class := l.findClass(claim)
	if class != nil && class.VolumeBindingMode != nil {
		waits = *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	}
	if !waits {
		v.Status, v.Reason = dstack.VolumeProvisioning, dstack.Reason(l.explainPending(claim, events))
		return nil
	}
	v.Warning = unboundWarning
	if len(events) > 0 && events[0].Type == corev1.EventTypeWarning {
		v.Reason = dstack.Reason(l.explainPending(claim, events))
	}
	return nil
}

// listEvents returns the events of a claim, the newest first; none if the account may not read events.
func (l *claimLook) listEvents(claim *corev1.PersistentVolumeClaim) ([]*corev1.Event, error) {
	events, err := kubeclient.List(l.ctx, l.client, kubeclient.Events, kubeclient.Selection{Fields: "involvedObject.uid=" + string(claim.UID)})
	if kubeclient.MeaningOf(err) == kubeclient.NoRight {
		return nil, nil
	}
	slices.SortStableFunc(events, func(a, b *corev1.Event) int { return cmp.Compare(timeOf(b), timeOf(a)) })
	return events, err
}

// timeOf returns when an event was last seen.
func timeOf(e *corev1.Event) int64 {
	last := e.LastTimestamp.UnixNano()
	if e.LastTimestamp.IsZero() {
		last = e.EventTime.UnixNano()
	}
	return last
}

// explainPending says why a claim has no disk yet: only its events tell.
func (l *claimLook) explainPending(claim *corev1.PersistentVolumeClaim, events []*corev1.Event) string {
	if len(events) == 0 {
		return fmt.Sprintf("the claim %s waits for its disk", claim.Name)
	}
	class := ""
	if claim.Spec.StorageClassName != nil {
		class = *claim.Spec.StorageClassName
	}
	e := events[0]
	switch {
	case e.Reason == eventNoDisk && class == "":
		return "the cluster has no default storage class, and no persistent volume without a class suits: write storage_class_name" + l.describeClasses()
	case l.classes[class] != nil && l.classes[class].Provisioner == noProvisioner:
		return fmt.Sprintf("the storage class %s makes no disks, and no free persistent volume of it suits the claim %s: ask the cluster's administrator for one",
			class, claim.Name)
	case e.Reason == eventProvisionFailed && class != "" && l.classes[class] == nil && strings.Contains(e.Message, class) && strings.Contains(e.Message, "not found"):
		return fmt.Sprintf("the cluster has no storage class %s, and no persistent volume of that class suits%s", class, l.describeClasses())
	}
	return fmt.Sprintf("the claim %s waits for its disk: %s", claim.Name, strings.TrimSpace(e.Message))
}

// describeClasses names the storage classes of the cluster; nothing if they may not be listed.
func (l *claimLook) describeClasses() string {
	classes, err := kubeclient.List(l.ctx, l.client, kubeclient.StorageClasses, kubeclient.Selection{})
	if err != nil {
		return ""
	}
	var names []string
	for _, class := range classes {
		names = append(names, class.Name)
	}
	if len(names) == 0 {
		return "; the cluster has no storage class at all: ask its administrator for one"
	}
	return "; there is: " + strings.Join(names[:min(len(names), maxNamedStorageHint)], ", ")
}

// findClass returns the storage class of a claim; nil: it has none, or it may not be read.
func (l *claimLook) findClass(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		return nil
	}
	name := *claim.Spec.StorageClassName
	if class, ok := l.classes[name]; ok {
		return class
	}
	class, err := kubeclient.Get(l.ctx, l.client, kubeclient.StorageClasses, name)
	if err != nil {
		class = nil // the events of the claim say the rest
	}
	l.classes[name] = class
	return class
}
