// Package job derives from a run's specification what its replicas run, what they
// require of a machine (spec §8.1–8.3), how they are probed, and which changes
// replace them.
package job

import (
	"fmt"
	"path"
	"strconv"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// stopGracePeriod is the time between SIGTERM and SIGKILL.
const stopGracePeriod = 10 * time.Second

// ChooseImage returns the image of a service: its own, or a base image for its
// Python version.
func ChooseImage(s dstack.RunSpec) string {
	c := s.Configuration
	if c.Image != "" {
		return string(c.Image)
	}
	python := string(c.Python)
	if python == "" {
		python = dstack.DefaultPython
	}
	if !spec.BaseImageHasPython(python) {
		return fmt.Sprintf(dstack.PythonImage, python)
	}
	image := fmt.Sprintf(dstack.BaseImage, python)
	if c.NVCC != nil && *c.NVCC {
		image += "-devel"
	}
	return image
}

// BuildArgv returns the command line of a container. It is empty if the image's
// own command is used.
func BuildArgv(s dstack.RunSpec) []string {
	c := s.Configuration
	switch {
	case c.Entrypoint != "":
		return c.EntrypointArgv()
	case c.Image == "":
		return []string{"/bin/bash", "-i", "-c", spec.JoinCommands(c.Commands)}
	case len(c.Commands) > 0:
		return []string{"/bin/sh", "-i", "-c", spec.JoinCommands(c.Commands)}
	default:
		return nil
	}
}

// BuildScript returns the commands as one shell script, for engines without
// containers.
func BuildScript(s dstack.RunSpec) string { return s.Configuration.Script() }

// BuildRequirements returns what a replica requires of a machine. Profile fields
// apply where the configuration sets nothing. The caller sets IsGlobalAdmin, Project and Pin.
func BuildRequirements(s dstack.RunSpec) dstack.Requirements {
	c, p := s.Configuration, spec.Merge(s.Configuration, s.Profile)
	requirements := dstack.Requirements{
		Resources:     c.Resources,
		Port:          c.Port.Container,
		AnyPort:       MayChoosePort(s),
		NeedsImage:    c.Image != "",
		OuterDir:      findOuterDir(s),
		OuterPath:     findOuterPath(s),
		HostPath:      findHostPath(s),
		Backends:      spec.TitleBackends(p.Backends),
		Regions:       p.Regions,
		Zones:         p.AvailabilityZones,
		InstanceTypes: p.InstanceTypes,
		Fleets:        p.Fleets,
		InstanceName:  string(p.InstanceName),
		OwnedOnly:     p.CreationPolicy == "reuse",
		MaxPrice:      p.MaxPrice,
	}
	if spot := p.SpotPolicy == "spot"; spot || p.SpotPolicy == "on-demand" {
		requirements.Spot = &spot
	}
	return requirements
}

// BuildAttemptSpec returns what an engine needs to run the current attempt of a
// replica. CPU and memory are limited only if the configuration sets an upper
// end for them.
func BuildAttemptSpec(run dstack.Run, r dstack.Replica) dstack.AttemptSpec {
	c := run.Spec.Configuration
	attempt := dstack.AttemptSpec{
		Attempt:         r.Attempt,
		AttemptNum:      r.AttemptNum,
		Replica:         r.ID,
		ReplicaNum:      r.Num,
		Run:             run.Name,
		Project:         run.Project,
		Image:           ChooseImage(run.Spec),
		Argv:            BuildArgv(run.Spec),
		Script:          BuildScript(run.Spec),
		WorkingDir:      ResolveWorkingDir(run.Spec),
		Env:             BuildEnv(run, r),
		Port:            c.Port.Container,
		ChoosePort:      MayChoosePort(run.Spec),
		GPUs:            r.Claim.GPUs,
		Claim:           r.Claim,
		Files:           run.Spec.FileArchives,
		CodeRepo:        run.Spec.RepoID,
		CodeProject:     run.ProjectID,
		StopGracePeriod: stopGracePeriod,
		ReadyProbe:      findReadyProbe(c),
		DrainTimeout:    c.EffectiveDrainTimeout(),
	}
	if c.RegistryAuth != nil {
		attempt.Auth = &dstack.RegistryAuth{Username: c.RegistryAuth.Username, Password: c.RegistryAuth.Password}
	}
	if c.Resources.ShmSize != nil {
		attempt.ShmBytes = int64(float64(*c.Resources.ShmSize) * (1 << 30))
	}
	if res := c.Resources; res.Explicit.CPU && res.CPU.Max != nil {
		attempt.CPUs = *res.CPU.Max
	}
	if res := c.Resources; res.Explicit.Memory && res.Memory.Max != nil {
		attempt.MemoryMiB = int64(*res.Memory.Max * 1024)
	}
	if repos := c.Repos; len(repos) > 0 {
		attempt.CodePath, attempt.KeepsCodePath = repos[0].Path, repos[0].IfExists == spec.IfExistsSkip
	}
	if !NeedsCode(run.Spec) {
		return attempt
	}
	if run.Spec.RepoCodeHash != nil {
		attempt.CodeHash = *run.Spec.RepoCodeHash
	}
	if checkout := FindCheckout(run.Spec); checkout != nil && run.Spec.RepoUser != "" {
		checkout.User = run.Spec.RepoUser
		attempt.Checkout = checkout
	}
	return attempt
}

// ResolveWorkingDir returns the directory for the commands: relative to the
// uploaded code, or absolute. It is empty if the image's own working directory
// stays: if there are no commands, and for runs of later published clients that
// upload no code, which name no directory.
func ResolveWorkingDir(s dstack.RunSpec) string {
	dir := string(s.Configuration.WorkingDir)
	switch {
	case path.IsAbs(dir):
		return dir
	case len(s.Configuration.Commands) == 0:
		return ""
	case dir != "":
		return dir
	case s.WorkingDir != "":
		return s.WorkingDir
	case s.Configuration.Image != "" && s.RepoCodeHash == nil && FindCheckout(s) == nil:
		return ""
	default:
		return "."
	}
}

// findOuterDir returns an absolute working directory outside of the code folder, or "".
func findOuterDir(s dstack.RunSpec) string {
	if dir := ResolveWorkingDir(s); path.IsAbs(dir) {
		if _, ok := dstack.FindPathInFolder(".", dir); !ok {
			return dir
		}
	}
	return ""
}

// NeedsCode reports whether replicas get the code of the run: with commands, or with a repo
// that the configuration names.
func NeedsCode(s dstack.RunSpec) bool {
	return s.Configuration.HasCommands() || len(s.Configuration.Repos) > 0
}

// findOuterPath returns the first path of a file, repo or volume that is outside of the code folder.
func findOuterPath(s dstack.RunSpec) string {
	var paths []string
	for _, repo := range s.Configuration.Repos {
		paths = append(paths, repo.Path)
	}
	for _, file := range s.Configuration.Files {
		paths = append(paths, file.Path)
	}
	for _, m := range s.Configuration.Volumes {
		if m.InstancePath != m.Path { // a plain process sees a folder of the machine at its own path
			paths = append(paths, m.Path)
		}
	}
	for _, name := range paths {
		if _, ok := dstack.FindPathInFolder(ResolveWorkingDir(s), name); !ok {
			return name
		}
	}
	return ""
}

// findHostPath returns the first folder of the machine that the replicas mount, or "".
func findHostPath(s dstack.RunSpec) string {
	for _, m := range s.Configuration.Volumes {
		if m.InstancePath != "" {
			return m.InstancePath
		}
	}
	return ""
}

// BuildEnv returns the complete environment of a replica. Variables of the
// configuration override those of dstack.
func BuildEnv(run dstack.Run, r dstack.Replica) map[string]string {
	gpus := strconv.Itoa(len(r.Claim.GPUs))
	env := map[string]string{
		"RUN_NAME":              run.Name,
		"REPO_ID":               run.Spec.RepoID,
		"DSTACK_RUN_NAME":       run.Name,
		"DSTACK_REPO_ID":        run.Spec.RepoID,
		"DSTACK_REPLICA_NUM":    strconv.Itoa(r.Num),
		"DSTACK_MASTER_NODE_IP": "127.0.0.1",
		"DSTACK_NODE_RANK":      "0",
		"DSTACK_NODES_NUM":      "1",
		"DSTACK_GPUS_PER_NODE":  gpus,
		"DSTACK_GPUS_NUM":       gpus,
		spec.PortVariable:       portText(run.Spec),
	}
	for _, v := range run.Spec.Configuration.Env {
		env[v.Name] = v.Value
	}
	return env
}

// AddHostEnv adds the variables of a fleet's hosts to an attempt. Those of the configuration and of dstack come first.
func AddHostEnv(attempt *dstack.AttemptSpec, env map[string]string) {
	for name, value := range env {
		if _, isSet := attempt.Env[name]; !isSet {
			attempt.Env[name] = value
		}
	}
}
