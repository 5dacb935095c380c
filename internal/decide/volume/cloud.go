package volume

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// maxDiskLag is how long a cloud may leave a disk out of its lists after it was created.
const maxDiskLag = 3 * time.Minute

// isInCloud reports whether a volume is a disk of a cloud.
func isInCloud(v dstack.Volume) bool { return v.Configuration.IsInCloud() }

// isOfBackend reports whether a backend has the volume, and no machine.
func isOfBackend(v dstack.Volume) bool { return isInCluster(v) || isInCloud(v) }

// Cloud is a configured backend of a cloud.
type Cloud struct {
	Key     string   // in backend.Set: aws, or aws-NAME
	Regions []string // that it uses; empty: not known
}

// ChooseCloud returns the backend that a new disk is in: the first of its type that uses the region.
func ChooseCloud(v spec.Volume, clouds []Cloud) (Cloud, error) {
	var regions []string
	for _, c := range clouds {
		if len(c.Regions) == 0 || slices.Contains(c.Regions, v.Region) {
			return c, nil
		}
		regions = append(regions, c.Regions...)
	}
	if len(clouds) == 0 {
		return Cloud{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no cloud for the volume: this project has no backend of type %s", v.Backend),
			Hint: "add one to the server's config.yml: type: " + v.Backend}
	}
	slices.Sort(regions)
	regions = slices.Compact(regions)
	hint := "its regions are: " + joinNames(regions)
	if near := human.Nearest(v.Region, regions); near != "" {
		hint = "did you mean " + near + "?"
	}
	return Cloud{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the backend %s does not use the region %s", v.Backend, v.Region), Hint: hint}
}

// describeKeeper names what has a volume that no machine has: the cluster k1; aws.
func describeKeeper(v dstack.Volume) string {
	if isInCloud(v) {
		return v.Machine
	}
	return "the cluster " + v.Machine
}

// describeData names the data of a volume for its backend: the claim data-1; the disk vol-0123.
func describeData(v dstack.Volume) string {
	if isInCloud(v) {
		return "the disk " + v.ExternalID
	}
	return "the claim " + v.ExternalID
}

// describeZone says where the disk of a cloud is: in eu-west-1b of aws.
func describeZone(v dstack.Volume) string {
	if v.Zone == "" {
		return fmt.Sprintf("in %s of %s", v.Region, v.Machine)
	}
	return fmt.Sprintf("in %s of %s", v.Zone, v.Machine)
}

// maybeUnlisted reports whether the cloud of a disk may leave it out of its lists, because it was created lately.
func maybeUnlisted(v dstack.Volume, now time.Time) bool {
	return isInCloud(v) && v.Status != dstack.VolumeFailed && now.Sub(v.Since) < maxDiskLag
}

// FindDisks returns the disks of clouds that a replica mounts on a machine, so that they are attached to it first. It fails
// with NotFound if a volume cannot be mounted there.
func FindDisks(s spec.Service, volumes []dstack.Volume, on dstack.Instance) (disks []dstack.Volume, err error) {
	for _, m := range s.Volumes {
		if m.InstancePath != "" {
			continue
		}
		v, ok := findOn(volumes, namesOf(m), on)
		if !ok {
			return nil, newUnmountableError(m, s, volumes)
		}
		isSame := func(d dstack.Volume) bool { return d.ID == v.ID }
		if isInCloud(v) && !slices.ContainsFunc(disks, isSame) {
			disks = append(disks, v)
		}
	}
	return disks, nil
}

// FindUnneeded returns the attached disks that no replica on their machine mounts. specs are the configurations of its
// unfinished replicas.
func FindUnneeded(attached []dstack.Volume, specs []spec.Service) (unneeded []dstack.Volume) {
	needed := map[string]bool{}
	for _, s := range specs {
		for _, name := range Names(s) {
			needed[name] = true
		}
	}
	for _, v := range attached {
		if !needed[v.Name] {
			unneeded = append(unneeded, v)
		}
	}
	return unneeded
}

// describeDisks says what it means for replicas that a disk is attached to one machine at a time, and where that is.
func describeDisks(s spec.Service, volumes []dstack.Volume) (notes []string) {
	for _, name := range Names(s) {
		v, ok := findVolume(volumes, name)
		if !ok || !isInCloud(v) {
			continue
		}
		notes = append(notes, fmt.Sprintf("volumes: only machines %s can mount the volume %s, one at a time: a replica stops before its successor starts",
			describeZone(v), name))
	}
	return notes
}

// adviseZone says what a user can do if no machine suits in the zone of the disks.
func adviseZone(v dstack.Volume) string {
	command := fmt.Sprintf("dstack offer --backend %s --region %s", v.Configuration.Backend, v.Region)
	return fmt.Sprintf("see what can be rented where the volume %s is (%s): %s; or use a volume that is elsewhere",
		v.Name, strings.TrimPrefix(describeZone(v), "in "), command)
}
