package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/volume"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/store"
)

const (
	volumeBatch = 64 // volumes claimed at once
	maxVolumes  = 8  // worked on at the same time; each waits for its machine
)

// stepVolumes is one pass over some volumes.
func (r *Reconciler) stepVolumes(ctx context.Context, leases []store.Lease) bool {
	return r.forEach(ctx, leases, maxVolumes, func(l store.Lease) (bool, error) { return r.stepVolume(ctx, l) })
}

// stepVolume decides, performs and saves the next step of a volume.
func (r *Reconciler) stepVolume(ctx context.Context, l store.Lease) (changed bool, err error) {
	permit := r.Permit()
	v, err := r.Store.Volume(ctx, dstack.VolumeID(l.ID))
	if err != nil {
		return false, err
	}
	step, err := volume.Decide(v, time.Now())
	if err != nil {
		return false, err
	}
	if step.Action != volume.NoAction {
		found := r.actOnVolume(ctx, v, step.Action, permit)
		if err := cmp.Or(ctx.Err(), permit()); err != nil {
			return false, err
		}
		r.logVolumeAction(v, step.Action, found.Err)
		step = step.After(v, found, time.Now())
	}
	if err := r.Store.SaveVolumeStep(ctx, l, v, step, time.Now()); err != nil {
		return false, err
	}
	switch {
	case step.IsGone:
		r.logChange("volume", v.Name, v.Status, "gone", v.Reason)
	case step.To != v.Status:
		r.logChange("volume", v.Name, v.Status, step.To, step.Reason)
		r.wakes[store.Replicas].Signal()
	}
	return step.IsGone || step.To != v.Status || step.Reason != v.Reason, nil
}

// actOnVolume performs an action within ActTimeout.
func (r *Reconciler) actOnVolume(ctx context.Context, v dstack.Volume, action volume.Action, permit func() error) (found volume.Result) {
	ctx, cancel := context.WithTimeout(ctx, r.ActTimeout)
	defer cancel()
	if v.Instance == "" {
		return r.actOnBackendVolume(ctx, v, action, permit)
	}
	volumes, err := r.findVolumes(ctx, v)
	if err != nil {
		isGone := dstack.KindOf(err) == dstack.NotFound
		return volume.Result{Err: err, IsMachineGone: isGone}
	}
	if err := permit(); err != nil {
		return volume.Result{Err: err}
	}
	switch action {
	case volume.Create:
		found.Created, found.Err = volumes.CreateVolume(ctx, v)
	case volume.Check:
		var listed map[dstack.VolumeID]dstack.Volume
		listed, found.Err = volumes.ListVolumes(ctx)
		_, found.IsListed = listed[v.ID]
		if found.Err == nil {
			r.logLeakedVolumes(ctx, v, listed)
		}
	case volume.Delete:
		found.Err = volumes.DeleteVolume(ctx, v)
	default:
		found.Err = fmt.Errorf("unknown action %q", action)
	}
	return found
}

// actOnBackendVolume performs an action on a volume that its backend has, and no machine, and then asks the backend what
// became of it.
func (r *Reconciler) actOnBackendVolume(ctx context.Context, v dstack.Volume, action volume.Action, permit func() error) (found volume.Result) {
	b, err := r.Backends.Get(v.Backend)
	if err != nil {
		return volume.Result{Err: err}
	}
	volumes, ok := b.(backend.Volumes)
	if !ok {
		return volume.Result{Err: &dstack.Error{Kind: dstack.Unsupported, Message: "the backend " + v.Backend + " has no volumes"}}
	}
	if err := permit(); err != nil {
		return volume.Result{Err: err}
	}
	switch action {
	case volume.Create:
		found.Err = volumes.CreateVolume(ctx, v)
	case volume.Delete:
		found.Err = volumes.DeleteVolume(ctx, v)
	case volume.Check:
	default:
		found.Err = fmt.Errorf("unknown action %q", action)
	}
	if found.Err != nil {
		return found
	}
	listed, err := volumes.ListVolumes(ctx)
	if err != nil {
		return volume.Result{Err: err}
	}
	found.Created, found.IsListed = listed[v.ID]
	if action == volume.Check {
		r.logLeakedVolumes(ctx, v, listed)
	}
	return found
}

// findVolumes returns what keeps the volumes of a volume's machine. NotFound means that the machine left.
func (r *Reconciler) findVolumes(ctx context.Context, v dstack.Volume) (engine.Volumes, error) {
	b, err := r.Backends.Get(v.Backend)
	if err != nil {
		return nil, err
	}
	eng, err := b.Engine(ctx, v.Instance)
	if err != nil {
		return nil, err
	}
	volumes, ok := eng.(engine.Volumes)
	if !ok {
		return nil, &dstack.Error{Kind: dstack.Unsupported, Message: v.Machine + " keeps no volumes"}
	}
	return volumes, nil
}

// logVolumeAction logs the failure of an action, equal ones in a row with growing pauses.
func (r *Reconciler) logVolumeAction(v dstack.Volume, action volume.Action, failure error) {
	key := "volume " + string(v.ID)
	if failure == nil {
		r.failures.Forget(key)
		return
	}
	if skipped, ok := r.failures.Admit(key, failure.Error(), time.Now()); ok {
		r.Log.Warn("an action on a volume failed", "volume", v.Name, "machine", v.Machine, "act", action, "err", failure, "not_logged", skipped)
	}
}

// logLeakedVolumes logs the volumes of a machine that this installation created and does not know any more, such as those
// of a database that was restored from a backup. Nothing deletes them: they may have the only copy of their data.
func (r *Reconciler) logLeakedVolumes(ctx context.Context, of dstack.Volume, listed map[dstack.VolumeID]dstack.Volume) {
	known, err := r.Store.VolumesOn(ctx, of.Instance)
	if err != nil {
		return // it is only for the log
	}
	for id, v := range listed {
		if slices.Contains(known, id) {
			continue
		}
		if _, ok := r.failures.Admit("leaked volume "+string(id), "leaked", time.Now()); ok {
			r.Log.Warn("a volume of this installation is not known to it", "machine", of.Machine, "volume", v.Name, "as", v.ExternalID)
		}
	}
}

// readPin returns the machines that have the volumes of a replica; nil: it mounts none. The volumes of a project are read
// once in a pass, with the runs that name them if one of them cannot be mounted by all.
func (c *capacity) readPin(ctx context.Context, run dstack.Run) (*dstack.Pin, error) {
	if len(volume.Names(run.Spec.Configuration)) == 0 {
		return nil, nil
	}
	volumes, ok := c.volumes[run.ProjectID]
	if !ok {
		var err error
		if volumes, err = c.r.Store.ReadVolumes(ctx, run.ProjectID); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(volumes, func(v dstack.Volume) bool { return volume.SharingOf(v) != dstack.SharedByAll }) {
			if volumes, err = c.r.Store.Volumes(ctx, run.ProjectID); err != nil {
				return nil, err
			}
		}
		c.volumes[run.ProjectID] = volumes
	}
	pin := volume.FindPin(run.Spec.Configuration, volumes)
	if pin.Sharing != dstack.SharedByAll {
		if err := c.readAway(ctx); err != nil {
			return nil, err
		}
		pin.Away = slices.Collect(maps.Keys(c.away))
	}
	return pin, nil
}

// buildMounts returns the mounts of a replica on its instance. NotFound means that a volume is not there any more.
func (r *Reconciler) buildMounts(ctx context.Context, run dstack.Run, instance dstack.Instance) ([]dstack.Mount, error) {
	if len(run.Spec.Configuration.Volumes) == 0 {
		return nil, nil
	}
	volumes, err := r.Store.ReadVolumes(ctx, run.ProjectID)
	if err != nil {
		return nil, err
	}
	return volume.BuildMounts(run.Spec.Configuration, volumes, instance)
}
