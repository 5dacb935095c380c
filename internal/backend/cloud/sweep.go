package cloud

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const (
	sweepInterval = 10 * time.Minute
	sweepRetry    = 15 * time.Second // while the account cannot be used
	sweepTimeout  = 2 * time.Minute
	// maxLeftoverAge is how long an object may cost money that nothing needs.
	maxLeftoverAge = time.Hour
	// maxLeftDiskAge is maxLeftoverAge for disks, which have data: somebody may be about to restore the server's database.
	maxLeftDiskAge = 24 * time.Hour
	// minLeftoverAge is how old an object is before it is reported: what is being made has no row yet, or no mark.
	minLeftoverAge = 5 * time.Minute
)

// The kinds of leftovers that cost money and that this package finds itself.
const (
	KindMachine = "machine"
	KindDisk    = "disk"
)

// sweep looks for what dstack has made in the account and nothing needs any more. It reports that, and removes it after a time.
func (b *Backend) sweep(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	if err, wasMade := b.access.get(); !wasMade || isUnanswered(err) { // it is said already
		return sweepRetry, nil
	}
	found, err := b.findLeftovers(ctx, time.Now())
	if err != nil {
		if _, ok := b.failures.Admit("sweep", err.Error(), time.Now()); ok {
			b.Log.Warn("a cloud cannot be searched for what is left over", "backend", b.Key, "err", err)
		}
		return sweepInterval, nil
	}
	b.failures.Forget("sweep")
	return sweepInterval, b.removeLeftovers(ctx, found, time.Now())
}

// isUnanswered reports whether a check of the account says that the cloud answers nothing. With other problems, such as a
// missing right or a region without a network, it lists what costs money all the same.
func isUnanswered(access error) bool {
	kind := dstack.KindOf(access)
	return access != nil && (kind == dstack.Unauthorized || kind == dstack.Unavailable || kind == dstack.Timeout)
}

// leftover is something that nothing needs, and how it is removed.
type leftover struct {
	dstack.Leftover
	isUrgent bool // it is removed at once
	remove   func(ctx context.Context) error
}

func (l leftover) maxAge() time.Duration {
	if l.Kind == KindDisk {
		return maxLeftDiskAge
	}
	return maxLeftoverAge
}

// findLeftovers returns what nothing needs. The rows are read after the listings: what is listed has a row by then, unless it
// is a leftover.
func (b *Backend) findLeftovers(ctx context.Context, now time.Time) ([]leftover, error) {
	listing, err := b.listings.get(ctx, b.calmListingAge, time.Time{})
	if err != nil {
		return nil, err
	}
	var disks []cloud.Disk
	if d, ok := b.Provider.(cloud.Disks); ok {
		if disks, err = d.ListDisks(ctx, nil); err != nil {
			return nil, err
		}
	}
	var others []cloud.Leftover
	if l, ok := b.Provider.(cloud.Leftovers); ok {
		if others, err = l.ListLeftovers(ctx); err != nil {
			return nil, err
		}
	}
	instances, volumes, err := b.Store.ListRented(ctx)
	if err != nil {
		return nil, err
	}
	found := b.findLeftMachines(listing.machines, instances, now)
	found = append(found, b.findLeftDisks(disks, volumes)...)
	return append(found, b.findLeftObjects(others, now)...), nil
}

func (b *Backend) findLeftMachines(machines []cloud.Machine, instances map[dstack.InstanceID]bool, now time.Time) (found []leftover) {
	hosts := b.copyHosts()
	for _, m := range machines {
		isAlive := m.State == cloud.MachinePending || m.State == cloud.MachineRunning
		if !isAlive {
			continue // it ends already; if that stops, it is listed as alive again
		}
		isDouble := false
		if host, ok := hosts[m.Instance]; ok && instances[m.Instance] {
			best := chooseMachine(machines, host)
			isDouble = best != nil && best.Ref != m.Ref
		}
		if m.Instance != "" && instances[m.Instance] && !isDouble || !isDouble && now.Sub(m.LaunchedAt) < minLeftoverAge {
			continue
		}
		detail := m.Type + ", without an instance"
		switch {
		case isDouble:
			detail = m.Type + ", a double of instance " + string(m.Instance)
		case m.Instance != "":
			detail = m.Type + ", of instance " + string(m.Instance)
		}
		found = append(found, leftover{
			Leftover: dstack.Leftover{Backend: b.Key, Kind: KindMachine, Ref: m.Ref, Region: m.Region, Detail: detail}, isUrgent: isDouble,
			remove: func(ctx context.Context) error { return b.Provider.Terminate(ctx, []cloud.Machine{m}) },
		})
	}
	return found
}

func (b *Backend) findLeftDisks(disks []cloud.Disk, volumes map[dstack.VolumeID]bool) (found []leftover) {
	provider, _ := b.Provider.(cloud.Disks)
	for _, d := range disks {
		if d.IsExternal || d.Volume != "" && volumes[d.Volume] || d.State == cloud.DiskDeleting || d.State == cloud.DiskCreating {
			continue
		}
		detail := "without a volume"
		if d.Volume != "" {
			detail = "of volume " + string(d.Volume)
		}
		found = append(found, leftover{
			Leftover: dstack.Leftover{Backend: b.Key, Kind: KindDisk, Ref: d.Ref, Region: d.Region, Detail: detail},
			remove:   func(ctx context.Context) error { return provider.DeleteDisk(ctx, d) },
		})
	}
	return found
}

func (b *Backend) findLeftObjects(objects []cloud.Leftover, now time.Time) (found []leftover) {
	provider, _ := b.Provider.(cloud.Leftovers)
	for _, o := range objects {
		if o.IsShared || !o.CreatedAt.IsZero() && now.Sub(o.CreatedAt) < minLeftoverAge {
			continue
		}
		found = append(found, leftover{
			Leftover: dstack.Leftover{Backend: b.Key, Kind: o.Kind, Ref: o.Ref, Region: o.Region},
			remove:   func(ctx context.Context) error { return provider.DeleteLeftover(ctx, o) },
		})
	}
	return found
}

// removeLeftovers records what was found, and removes what has been left over for an hour; disks, for a day.
func (b *Backend) removeLeftovers(ctx context.Context, found []leftover, now time.Time) error {
	seen := make([]dstack.Leftover, len(found))
	for i, l := range found {
		seen[i] = l.Leftover
	}
	recorded, err := b.Store.SaveLeftovers(ctx, b.Key, seen, now)
	if err != nil {
		return err
	}
	known := map[string]dstack.Leftover{}
	for _, l := range recorded {
		known[leftoverKey(l)] = l
	}
	isChanged := false
	for _, l := range found {
		record := known[leftoverKey(l.Leftover)]
		isNew, isOld := record.FirstSeenAt.Equal(now), now.Sub(record.FirstSeenAt) >= l.maxAge()
		if isNew {
			b.Log.Warn("something that nothing needs costs money in a cloud", "backend", b.Key, "kind", l.Kind, "ref", l.Ref, "region", l.Region,
				"detail", l.Detail, "removed_in", l.maxAge())
		}
		if !isOld && !l.isUrgent {
			continue
		}
		err := l.remove(ctx)
		for i := range seen {
			if leftoverKey(seen[i]) == leftoverKey(l.Leftover) {
				seen[i].RemovedAt = now
				if err != nil {
					seen[i].LastError = err.Error()
				}
			}
		}
		isChanged = true
		if err != nil {
			b.Log.Warn("something that nothing needs was not removed from a cloud", "backend", b.Key, "kind", l.Kind, "ref", l.Ref, "err", err)
			continue
		}
		b.Log.Warn("something that nothing needs was removed from a cloud", "backend", b.Key, "kind", l.Kind, "ref", l.Ref, "region", l.Region, "detail", l.Detail)
	}
	if isChanged {
		recorded, err = b.Store.SaveLeftovers(ctx, b.Key, seen, now)
	}
	slices.SortFunc(recorded, func(x, y dstack.Leftover) int {
		return cmp.Or(strings.Compare(x.Kind, y.Kind), strings.Compare(x.Ref, y.Ref))
	})
	b.mu.Lock()
	b.leftovers = recorded
	b.mu.Unlock()
	return err
}

func leftoverKey(l dstack.Leftover) string { return l.Kind + "\x00" + l.Region + "\x00" + l.Ref }

// Leftovers returns what the latest sweep found.
func (b *Backend) Leftovers() []dstack.Leftover {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.leftovers)
}
