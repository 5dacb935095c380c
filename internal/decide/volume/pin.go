package volume

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// FindPlannedPin returns the machines that a plan may use: those of volumes that are active or about to be.
func FindPlannedPin(s spec.Service, volumes []dstack.Volume) *dstack.Pin {
	return findPin(s, volumes, isExpected)
}

// FindPin returns the machines that a replica can start on now. nil: the service mounts no volume.
func FindPin(s spec.Service, volumes []dstack.Volume) *dstack.Pin {
	return findPin(s, volumes, isActive)
}

// location is a machine that has a volume, all machines of a backend, or a zone of a cloud.
type location struct {
	backend string
	machine dstack.InstanceID // empty: all of the backend
	region  string            // of a cloud; empty: it is not in a cloud
	zone    string            // empty: all of the region
}

// locationsOf returns where a volume can be mounted.
func locationsOf(v dstack.Volume) (found []location) {
	switch {
	case isInCloud(v):
		found = append(found, location{backend: v.Backend, region: v.Region, zone: v.Zone})
	case !isInCluster(v):
		if v.Instance != "" {
			found = append(found, location{backend: v.Backend, machine: v.Instance})
		}
	case !v.Reach.IsLimited:
		found = append(found, location{backend: v.Backend})
	default:
		for _, id := range v.Reach.Machines {
			found = append(found, location{backend: v.Backend, machine: id})
		}
	}
	return found
}

// newLocation returns where an instance is.
func newLocation(i dstack.Instance) location {
	if i.Offer.OwnedInstance != "" {
		return location{backend: i.Backend, machine: i.ID}
	}
	return location{backend: i.Backend, machine: i.ID, region: i.Offer.Region, zone: i.Offer.Zone}
}

// intersect returns the locations that are in both lists.
func intersect(a, b []location) (both []location) {
	for _, one := range a {
		for _, other := range b {
			if common, ok := one.intersect(other); ok {
				both = append(both, common)
			}
		}
	}
	return both
}

// intersect returns what two locations have in common, and whether there is anything.
func (l location) intersect(other location) (location, bool) {
	switch {
	case l.backend != other.backend || l.region != other.region:
		return location{}, false
	case l.machine != "" && other.machine != "" && l.machine != other.machine:
		return location{}, false
	case l.zone != "" && other.zone != "" && l.zone != other.zone:
		return location{}, false
	}
	l.machine, l.zone = cmp.Or(l.machine, other.machine), cmp.Or(l.zone, other.zone)
	return l, true
}

func findPin(s spec.Service, volumes []dstack.Volume, isUsable func(dstack.Volume) bool) *dstack.Pin {
	var common []location
	pin := dstack.Pin{}
	isFirst := true
	for _, m := range s.Volumes {
		if m.Name == "" {
			continue
		}
		var found []location
		for _, name := range namesOf(m) {
			if v, ok := findVolume(volumes, name); ok && isUsable(v) {
				found = append(found, locationsOf(v)...)
				addSharing(&pin, v)
			}
		}
		if isFirst {
			common = found
		} else {
			common = intersect(common, found)
		}
		isFirst = false
	}
	if isFirst {
		return nil
	}
	for _, l := range common {
		if l.region != "" {
			if zone := (dstack.Zone{Backend: l.backend, Region: l.region, Name: l.zone}); !slices.Contains(pin.Zones, zone) {
				pin.Zones = append(pin.Zones, zone)
			}
			continue
		}
		if l.machine == "" && !slices.Contains(pin.Clusters, l.backend) {
			pin.Clusters = append(pin.Clusters, l.backend)
		} else if l.machine != "" && !slices.Contains(pin.Machines, l.machine) {
			pin.Machines = append(pin.Machines, l.machine)
		}
	}
	pin.Reason = describePlaces(s, volumes)
	pin.Advice = advisePin(s, volumes)
	return &pin
}

// isEmpty reports whether no machine has all volumes.
func isEmpty(pin *dstack.Pin) bool {
	return len(pin.Machines) == 0 && len(pin.Clusters) == 0 && len(pin.Zones) == 0
}

// addSharing adds the users of a volume that not all replicas may mount at the same time.
func addSharing(pin *dstack.Pin, v dstack.Volume) {
	sharing := SharingOf(v)
	if sharing == dstack.SharedByAll {
		return
	}
	if pin.Sharing != dstack.SharedByNobody {
		pin.Sharing = sharing
	}
	for _, run := range v.Runs {
		if !slices.Contains(pin.Users, run) {
			pin.Users = append(pin.Users, run)
		}
	}
}

// SharingOf returns which replicas may mount a volume at the same time. The folders and Docker volumes of a machine are
// shared by all of its replicas. The disk of a cloud is attached to one rented machine, which one replica has.
func SharingOf(v dstack.Volume) dstack.VolumeSharing {
	if isInCloud(v) {
		return dstack.SharedByNobody
	}
	if !isInCluster(v) {
		return dstack.SharedByAll
	}
	modes := modesOf(v)
	switch {
	case slices.Contains(modes, spec.AccessReadWriteMany):
		return dstack.SharedByAll
	case slices.Contains(modes, spec.AccessReadWriteOncePod):
		return dstack.SharedByNobody
	case slices.Contains(modes, spec.AccessReadWriteOnce):
		return dstack.SharedByMachine
	}
	return dstack.SharedByAll
}

// modesOf returns the access modes of a claim. Those of an existing claim are known once it was looked for.
func modesOf(v dstack.Volume) []string {
	if len(v.Reach.AccessModes) > 0 || v.IsExternal {
		return v.Reach.AccessModes
	}
	return v.Configuration.NewClaimModes()
}

// isReadOnly reports whether replicas can only read a volume.
func isReadOnly(v dstack.Volume) bool {
	if v.Configuration.ReadOnly {
		return true
	}
	modes := modesOf(v)
	return isInCluster(v) && len(modes) > 0 &&
		!slices.ContainsFunc(modes, func(mode string) bool { return mode != spec.AccessReadOnlyMany })
}

// describePlaces says where the volumes of a service are, or why they cannot be used.
func describePlaces(s spec.Service, volumes []dstack.Volume) string {
	var parts []string
	for _, name := range Names(s) {
		v, ok := findVolume(volumes, name)
		switch {
		case !ok:
			parts = append(parts, fmt.Sprintf("the volume %s does not exist any more", name))
		case v.Status == dstack.VolumeFailed || v.Status == dstack.VolumeDeleting:
			parts = append(parts, fmt.Sprintf("the volume %s is %s: %s", name, v.Status, v.Reason))
		case v.Status != dstack.VolumeActive:
			parts = append(parts, fmt.Sprintf("the volume %s is not ready %s yet", name, describePlace(v)))
		default:
			parts = append(parts, fmt.Sprintf("the volume %s is %s", name, describePlace(v)))
		}
	}
	return strings.Join(parts, ", ")
}

// describePlace says where a volume is: on gpu-1; in the cluster kubernetes, on k1; in eu-west-1b of aws.
func describePlace(v dstack.Volume) string {
	switch {
	case isInCloud(v):
		return describeZone(v)
	case !isInCluster(v):
		return "on " + v.Machine
	case v.Reach.IsLimited && v.Reach.Place != "":
		return "in the cluster " + v.Machine + ", on " + v.Reach.Place
	case v.Reach.IsLimited:
		return "in the cluster " + v.Machine + ", on a node that it does not have now"
	}
	return "in the cluster " + v.Machine
}

// advisePin says what a user can do if no machine that has the volumes suits.
func advisePin(s spec.Service, volumes []dstack.Volume) string {
	for _, name := range Names(s) {
		v, ok := findVolume(volumes, name)
		if ok && isInCloud(v) {
			return adviseZone(v)
		}
		if ok && isInCluster(v) {
			return "see which nodes the cluster has: dstack offer --backend kubernetes --why; or use a volume that is elsewhere"
		}
	}
	return "see what is wrong with that machine, or whether it left its fleet: dstack fleet list -v; or use a volume that is elsewhere"
}

// Notes returns what the user should know about the volumes of a service before applying it: whether replicas share them,
// and warnings about them.
func Notes(s spec.Service, volumes []dstack.Volume) (notes []string) {
	if pin := FindPlannedPin(s, volumes); pin != nil {
		notes = append(notes, describeSharing(s, volumes, pin)...)
	}
	for _, name := range Names(s) {
		if v, ok := findVolume(volumes, name); ok && v.Warning != "" {
			notes = append(notes, fmt.Sprintf("volume %s: %s", name, v.Warning))
		}
	}
	return notes
}

// describeSharing says what several replicas see of the volumes, and what their access modes mean for replicas and updates.
func describeSharing(s spec.Service, volumes []dstack.Volume, pin *dstack.Pin) (notes []string) {
	replicas := countReplicas(s)
	if notes = describeDisks(s, volumes); len(notes) > 0 {
		return notes
	}
	for _, name := range Names(s) {
		v, ok := findVolume(volumes, name)
		if !ok || !isInCluster(v) {
			continue
		}
		switch SharingOf(v) {
		case dstack.SharedByMachine:
			if replicas > 1 {
				notes = append(notes, fmt.Sprintf("volumes: all replicas run on one node, because nodes mount the volume %s one at a time (%s); "+
					"access_modes: [%s] allows several nodes", name, spec.AccessReadWriteOnce, spec.AccessReadWriteMany))
			}
		case dstack.SharedByNobody:
			notes = append(notes, fmt.Sprintf("volumes: a replica stops before its successor starts, because replicas mount the volume %s one at a time (%s)",
				name, spec.AccessReadWriteOncePod))
		case dstack.SharedByAll:
		}
		if isReadOnly(v) {
			notes = append(notes, fmt.Sprintf("volumes: replicas can only read the volume %s", name))
		}
	}
	isInOneCluster := slices.ContainsFunc(volumes, func(v dstack.Volume) bool { return isInCluster(v) && slices.Contains(Names(s), v.Name) })
	switch {
	case replicas <= 1 || len(notes) > 0:
	case len(pin.Machines) == 1 && len(pin.Clusters) == 0:
		notes = append(notes, fmt.Sprintf("volumes: all replicas run on one machine and share the data, because %s", pin.Reason))
	case !isInOneCluster:
		notes = append(notes, "volumes: replicas on different machines see different data: "+pin.Reason)
	}
	return notes
}

// countReplicas returns how many replicas a service may have, of all its groups.
func countReplicas(s spec.Service) int {
	if len(s.Groups) == 0 {
		return s.Replicas.Max
	}
	sum := 0
	for _, g := range s.Groups {
		sum += g.Replicas.Max
	}
	return sum
}
