package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/volume"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/spec"
)

// maxDetachWait limits how long the deletion of a machine waits until its disks were written and taken off. Deleting the
// machine takes them off, too.
const maxDetachWait = 10 * time.Second

// attachDisks attaches the disks that a replica mounts to its rented machine, before the replica starts. waits says what it
// waits for, for the user; empty: all are mounted. It fails with NotFound or Invalid if a volume cannot be mounted there.
func (r *Reconciler) attachDisks(ctx context.Context, run dstack.Run, instance dstack.Instance) (waits string, err error) {
	if len(run.Spec.Configuration.Volumes) == 0 || instance.Offer.OwnedInstance != "" {
		return "", nil
	}
	volumes, err := r.Store.ReadVolumes(ctx, run.ProjectID)
	if err != nil {
		return "", err
	}
	disks, err := volume.FindDisks(run.Spec.Configuration, volumes, instance)
	if err != nil || len(disks) == 0 {
		return "", err
	}
	attacher, err := r.findAttacher(instance.Backend)
	if err != nil {
		return "", err
	}
	for _, v := range disks {
		if waits, err := r.attachDisk(ctx, attacher, v, instance.ID); err != nil || waits != "" {
			return waits, err
		}
	}
	return "", nil
}

// attachDisk attaches one disk. The intent is committed first, which also keeps other machines from attaching it.
func (r *Reconciler) attachDisk(ctx context.Context, attacher backend.VolumeAttacher, v dstack.Volume, id dstack.InstanceID) (waits string, err error) {
	err = r.Store.BeginAttachment(ctx, v, id, time.Now())
	if dstack.KindOf(err) == dstack.Conflict {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	err = attacher.AttachVolume(ctx, v, id)
	switch kind := dstack.KindOf(err); {
	case err == nil:
		return "", r.Store.FinishAttachment(ctx, v, id)
	case kind == dstack.Invalid || kind == dstack.NotFound || kind == dstack.Forbidden:
		return "", fmt.Errorf("cannot attach the volume %s: %w", v.Name, err)
	}
	key := "attach " + string(v.ID)
	if skipped, ok := r.failures.Admit(key, err.Error(), time.Now()); ok {
		r.Log.Info("a volume is not attached yet", "volume", v.Name, "instance", id, "err", err, "not_logged", skipped)
	}
	return fmt.Sprintf("waits for the volume %s: %s", v.Name, describeDiskFailure(err)), nil
}

// describeDiskFailure returns the message of an error, with its hint.
func describeDiskFailure(err error) string {
	if e, ok := errors.AsType[*dstack.Error](err); ok && e.Hint != "" {
		return e.Error() + "; " + e.Hint
	}
	return err.Error()
}

// reportDisks returns the report of an attempt whose disks are not all mounted: it waits, or is refused.
func reportDisks(id dstack.AttemptID, waits string, err error, at time.Time) (dstack.Report, error) {
	switch dstack.KindOf(err) {
	case dstack.NotFound, dstack.Invalid, dstack.Forbidden:
		return engine.NewRefusedReport(id, err, at), nil
	default:
	}
	return dstack.Report{Attempt: id, State: dstack.AttemptAbsent, Progress: waits}, err
}

// detachUnneeded takes the disks off a machine that none of its replicas mounts any more. Containers that mount them have
// ended and were removed before.
func (r *Reconciler) detachUnneeded(
	ctx context.Context, b backend.Backend, seen lifecycle.InstanceFacts, reports []dstack.Report, permit func() error,
) error {
	attacher, ok := b.(backend.VolumeAttacher)
	if !ok || seen.Instance.Offer.OwnedInstance != "" || reports == nil || hasOthers(seen, reports) {
		return nil
	}
	attached, err := r.Store.AttachedVolumes(ctx, seen.Instance.ID)
	if err != nil || len(attached) == 0 {
		return err
	}
	specs := make([]spec.Service, 0, len(seen.Replicas))
	for _, p := range seen.Replicas {
		specs = append(specs, p.Run.Spec.Configuration)
	}
	var failures []error
	for _, v := range volume.FindUnneeded(attached, specs) {
		if err := permit(); err != nil {
			return err
		}
		failures = append(failures, r.detachDisk(ctx, attacher, v, seen.Instance.ID))
	}
	return errors.Join(failures...)
}

// hasOthers reports whether a machine has attempts of replicas that left it: they may still mount disks.
func hasOthers(seen lifecycle.InstanceFacts, reports []dstack.Report) bool {
	return slices.ContainsFunc(reports, func(rep dstack.Report) bool {
		return !slices.ContainsFunc(seen.Replicas, func(p lifecycle.PlacedReplica) bool { return p.Replica.Attempt == rep.Attempt })
	})
}

func (r *Reconciler) detachDisk(ctx context.Context, attacher backend.VolumeAttacher, v dstack.Volume, id dstack.InstanceID) error {
	if err := attacher.DetachVolume(ctx, v, id); err != nil {
		return fmt.Errorf("the volume %s is not detached yet: %w", v.Name, err)
	}
	r.Log.Info("a volume was detached", "volume", v.Name, "instance", id)
	return r.Store.EndAttachment(ctx, v.ID, id, time.Now())
}

// detachBeforeDeletion writes what a machine keeps in memory to its disks and takes them off, if that is possible soon. A
// machine that does not answer is deleted nevertheless: the attachments end when it does not exist any more.
func (r *Reconciler) detachBeforeDeletion(ctx context.Context, b backend.Backend, seen lifecycle.InstanceFacts) {
	attacher, ok := b.(backend.VolumeAttacher)
	if !ok || seen.Instance.Offer.OwnedInstance != "" || seen.Machine == nil || !seen.Machine.IsAlive() || len(seen.Replicas) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxDetachWait)
	defer cancel()
	attached, err := r.Store.AttachedVolumes(ctx, seen.Instance.ID)
	for _, v := range attached {
		if err == nil {
			err = r.detachDisk(ctx, attacher, v, seen.Instance.ID)
		}
	}
	if err != nil && ctx.Err() == nil {
		r.Log.Warn("the volumes of a machine are detached by its deletion", "instance", seen.Instance.ID, "err", err)
	}
}

// detachFromEnded ends the attachments of a machine that has ended, so that another one can mount the disks before the row of
// the ended one is deleted. A cloud that still has a disk there refuses to attach it elsewhere.
func (r *Reconciler) detachFromEnded(ctx context.Context, b backend.Backend, seen lifecycle.InstanceFacts, permit func() error) error {
	attacher, ok := b.(backend.VolumeAttacher)
	if !ok || !seen.Listed || seen.Machine != nil || !lifecycle.HasEnded(seen.Instance, time.Now()) {
		return nil
	}
	attached, err := r.Store.AttachedVolumes(ctx, seen.Instance.ID)
	for _, v := range attached {
		if err == nil {
			err = permit()
		}
		if err == nil {
			err = r.detachDisk(ctx, attacher, v, seen.Instance.ID)
		}
	}
	return err
}

// findAttacher returns what attaches the volumes of a backend.
func (r *Reconciler) findAttacher(key string) (backend.VolumeAttacher, error) {
	b, err := r.Backends.Get(key)
	if err != nil {
		return nil, err
	}
	attacher, ok := b.(backend.VolumeAttacher)
	if !ok {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the backend " + key + " cannot attach volumes"}
	}
	return attacher, nil
}
