package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// volumePoll is the time between two requests for a volume that is waited for.
const volumePoll = 200 * time.Millisecond

// applyVolumeCommand is one `dstack apply` of a volume.
type applyVolumeCommand struct {
	*app
	flags         *applyFlags
	file          sourceFile
	configuration *spec.Volume
}

// readVolume returns the command for a file if it is the configuration of a volume; nil: it is of another type, or has
// problems that the command for that type reports.
func (a *app) readVolume(file sourceFile, flags *applyFlags) (*applyVolumeCommand, error) {
	if !isVolumeFile(file) {
		return nil, nil
	}
	c, err := spec.ParseConfiguration(file.name, file.text)
	if err != nil {
		return nil, err
	}
	conf := c.(*spec.Volume) // as isVolumeFile says
	if flags.name != "" {
		conf.Name = spec.Text(flags.name)
	}
	problems := spec.Locate(file.name, file.text, conf.Unsupported())
	if err := spec.CheckName(string(conf.Name)); conf.Name != "" && err != nil {
		problem := spec.Problem{Path: "name", Message: err.Error()}
		if p, ok := errors.AsType[spec.Problem](err); ok {
			problem.Message, problem.Hint = p.Message, p.Hint
		}
		problems = append(problems, spec.Locate(file.name, file.text, spec.Problems{problem})...)
	}
	for _, flag := range flags.given {
		if !slices.Contains(volumeFlags, flag) {
			problems = append(problems, flagProblem("--"+flag, "leave it out", "it does not fit a volume"))
		}
	}
	if len(problems) > 0 {
		return nil, problemsError(problems)
	}
	return &applyVolumeCommand{app: a, flags: flags, file: file, configuration: conf}, nil
}

// volumeFlags are the flags of `dstack apply` that fit a volume.
var volumeFlags = []string{"file", "name", "yes", "detach", "wait", "timeout", "output", "project", "verbose", "no-color"}

// isVolumeFile reports whether a file is meant as a volume.
func isVolumeFile(file sourceFile) bool {
	return spec.FindType(file.text) == "volume"
}

// findSameName returns a problem if a volume of another file has the same name.
func (v *applyVolumeCommand) findSameName(others []*applyVolumeCommand) spec.Problems {
	for _, other := range others {
		if name := v.configuration.Name; name != "" && name == other.configuration.Name {
			return spec.Locate(v.file.name, v.file.text, spec.Problems{{Path: "name",
				Message: fmt.Sprintf("`%s` is also the name in %s", name, other.file.name), Hint: "give each volume a name of its own"}})
		}
	}
	return nil
}

func (v *applyVolumeCommand) run(ctx context.Context) error {
	client, project, err := v.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	volume, err := v.apply(ctx, client, project)
	if volume == nil || err != nil {
		return err
	}
	if v.flags.json {
		return v.printJSON(volume)
	}
	return nil
}

// apply shows what it would create, asks, creates the volume and waits until it is active. It returns nil if the user does
// not want it.
func (v *applyVolumeCommand) apply(ctx context.Context, client *api.Client, project string) (*api.Volume, error) {
	conf := v.configuration
	known, err := v.findExisting(ctx, client, project)
	if err != nil {
		return nil, err
	}
	if known == nil {
		v.printVolumePlan(project)
		if !v.flags.yes {
			if yes, err := v.confirm(ctx, "Create the volume?"); err != nil || !yes {
				v.printInfo("nothing was created")
				return nil, err
			}
		}
	}
	applied, err := client.ApplyVolume(ctx, project, *conf)
	if err != nil {
		return nil, err
	}
	volume := applied.Volume
	if !applied.Created {
		v.printInfo(" volume %s exists already and nothing changed", cleanLine(volume.Name))
	} else if known != nil {
		v.printInfo(" volume %s had failed, and is applied again", cleanLine(volume.Name))
	}
	if v.flags.detach || !applied.Created && volume.State == dstack.VolumeActive {
		return &volume, nil
	}
	return v.waitUntilActive(ctx, client, project, volume)
}

// findExisting returns the volume with the name of the configuration; nil: there is none.
func (v *applyVolumeCommand) findExisting(ctx context.Context, client *api.Client, project string) (*api.Volume, error) {
	if v.configuration.Name == "" {
		return nil, nil
	}
	known, err := client.Volume(ctx, project, string(v.configuration.Name))
	if dstack.KindOf(err) == dstack.NotFound {
		return nil, nil
	}
	return &known, err
}

func (v *applyVolumeCommand) printVolumePlan(project string) {
	conf := v.configuration
	name := string(conf.Name)
	if name == "" {
		name = "with a new name"
	}
	v.printInfo(" volume %s · project %s", v.err.paint(bold, cleanLine(name)), cleanLine(project))
	v.printInfo("")
	place := "the server's machine"
	if conf.Backend == spec.BackendSSH {
		place = "the only host of the project's fleets"
	}
	if machine := conf.Machine(); machine != "" {
		place = machine
	}
	if conf.IsInCluster() {
		v.printClaimPlan()
		return
	}
	if conf.IsInCloud() {
		v.printDiskPlan(conf)
		return
	}
	v.printInfo("   host   %s", cleanLine(place))
	if conf.VolumeID != "" {
		v.printInfo("   folder %s, which must exist there and is left as it is", cleanLine(string(conf.VolumeID)))
	} else if conf.Size != nil {
		v.printInfo("   size   %gGB", float64(*conf.Size))
	}
	v.printInfo("")
}

// printClaimPlan says which claim of which cluster the volume will be.
func (v *applyVolumeCommand) printClaimPlan() {
	conf := v.configuration
	v.printInfo("   cluster %s", cleanLine(cmp.Or(conf.Region, "the only one of the project")))
	if claim := conf.ExistingClaim(); claim != "" {
		v.printInfo("   claim   %s, which must exist in its namespace and is left as it is", cleanLine(claim))
	} else {
		v.printInfo("   claim   a new one of %gGB, storage class %s", float64(*conf.Size), cleanLine(cmp.Or(string(conf.StorageClass), "the default one")))
		v.printInfo("   access  %s", strings.Join(conf.NewClaimModes(), ", "))
	}
	if conf.ReadOnly {
		v.printInfo("   replicas can only read it")
	}
	v.printInfo("")
}

// waitUntilActive waits until a volume is active or has failed.
func (v *applyVolumeCommand) waitUntilActive(ctx context.Context, client *api.Client, project string, volume api.Volume) (*api.Volume, error) {
	timeout := v.flags.timeout
	if timeout == 0 {
		timeout = defaultWaitTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeout, errWaitTimeout)
	defer cancel()
	latest := volume
	describe := func() string { return fmt.Sprintf("volume %s: %s", volume.Name, describeVolume(latest)) }
	err := v.withProgress(describe, func() error {
		for latest.State == dstack.VolumeSubmitted || latest.State == dstack.VolumeProvisioning {
			if err := loop.Sleep(limited, volumePoll); err != nil {
				return err
			}
			next, err := client.Volume(limited, project, volume.Name)
			if err != nil {
				return err // with what was seen last
			}
			latest = next
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		v.printInfo("detached; the volume is created nevertheless: dstack volume get %s", cleanLine(volume.Name))
		return nil, &dstack.Error{Kind: dstack.Conflict, Message: "interrupted before the volume was active"}
	case limited.Err() != nil:
		return nil, &dstack.Error{Kind: dstack.Timeout, Message: fmt.Sprintf("the volume %s is not active after %s: %s", volume.Name,
			human.Duration(timeout), describeVolume(latest)), Hint: "it goes on; see: dstack volume get " + volume.Name}
	case err != nil:
		return nil, err
	case latest.State == dstack.VolumeFailed:
		return nil, &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the volume %s has failed: %s", volume.Name, latest.Reason),
			Hint: "when it is mended, apply the volume again; or delete it: dstack volume delete " + volume.Name}
	}
	where := "on " + latest.Host
	if latest.Configuration.IsInCluster() {
		where = "in the cluster " + volumePlace(latest)
	} else if latest.Configuration.IsInCloud() {
		where = "in " + volumePlace(latest)
	}
	v.printInfo(" volume %s is %s %s", v.err.paint(bold, cleanLine(latest.Name)), cleanLine(string(latest.State)), cleanLine(where))
	if latest.Warning != "" {
		v.printNote(latest.Warning)
	}
	return &latest, nil
}

// describeVolume returns the state of a volume, with its reason.
func describeVolume(v api.Volume) string {
	return strings.TrimSuffix(fmt.Sprintf("%s, %s", v.State, v.Reason), ", ")
}

// printDiskPlan prints where the disk of a cloud is, and whether it is made.
func (v *applyVolumeCommand) printDiskPlan(conf *spec.Volume) {
	place := conf.Region
	if conf.Zone != "" {
		place = string(conf.Zone)
	}
	v.printInfo("   cloud  %s, %s", cleanLine(conf.Backend), cleanLine(place))
	if conf.VolumeID != "" {
		v.printInfo("   disk   %s, which must exist there and is left as it is", cleanLine(string(conf.VolumeID)))
	} else if conf.Size != nil {
		v.printInfo("   size   %gGB, which the cloud bills until the volume is deleted", float64(*conf.Size))
	}
}
