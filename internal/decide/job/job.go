// Package job decides what a replica of a service runs, and what it needs of
// a machine (spec §8.1–8.3).
package job

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// stopGrace is how long a replica has between SIGTERM and SIGKILL.
const stopGrace = 10 * time.Second

// ChooseImage is the image that a service runs in.
func ChooseImage(s dstack.RunSpec) string {
	c := s.Configuration
	if c.Image != "" {
		return string(c.Image)
	}
	python := string(c.Python)
	if python == "" {
		python = dstack.DefaultPython
	}
	image := fmt.Sprintf(dstack.BaseImage, python)
	if c.NVCC != nil && *c.NVCC {
		image += "-devel"
	}
	return image
}

// BuildArgv is a container's command line; empty: the image's own.
func BuildArgv(s dstack.RunSpec) []string {
	c := s.Configuration
	switch {
	case c.Entrypoint != "":
		words, _ := spec.Words(string(c.Entrypoint)) // the parser refuses the others
		return append(words, c.Commands...)
	case c.Image == "":
		return []string{"/bin/bash", "-i", "-c", joined(c.Commands)}
	case len(c.Commands) > 0:
		return []string{"/bin/sh", "-i", "-c", joined(c.Commands)}
	default:
		return nil
	}
}

// BuildScript is what a shell on the machine itself runs: a && b.
func BuildScript(s dstack.RunSpec) string {
	c := s.Configuration
	if c.Entrypoint == "" {
		return joined(c.Commands)
	}
	quoted := BuildArgv(s)
	for i, word := range quoted {
		quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// joined runs each command only when the one before succeeded; one that goes
// to the background counts as a success at once.
func joined(commands []string) string {
	parts := make([]string, 0, len(commands))
	for _, c := range commands {
		c = strings.TrimSpace(c)
		if strings.HasSuffix(c, "&") {
			c = "{ " + c + " }"
		}
		parts = append(parts, c)
	}
	return strings.Join(parts, " && ")
}

// BuildRequirements is what a replica needs of a machine. Profile fields fill what the
// configuration leaves open.
func BuildRequirements(s dstack.RunSpec) dstack.Requirements {
	c, p := s.Configuration, spec.Merge(s.Configuration, s.Profile)
	need := dstack.Requirements{
		Resources:     c.Resources,
		Port:          c.Port.Container,
		NeedsImage:    c.Image != "",
		Backends:      p.Backends,
		Regions:       p.Regions,
		InstanceTypes: p.InstanceTypes,
		MaxPrice:      p.MaxPrice,
	}
	if spot := p.SpotPolicy == "spot"; spot || p.SpotPolicy == "on-demand" {
		need.Spot = &spot
	}
	return need
}

// BuildAttemptSpec is all that an engine needs to run the present attempt of a replica.
func BuildAttemptSpec(run dstack.Run, r dstack.Replica) dstack.AttemptSpec {
	c := run.Spec.Configuration
	o := dstack.AttemptSpec{
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
		GPUs:            r.Claim.GPUs,
		CodeRepo:        run.Spec.RepoID,
		CodeProject:     run.ProjectID,
		StopGracePeriod: stopGrace,
	}
	if c.RegistryAuth != nil {
		o.Auth = &dstack.RegistryAuth{Username: c.RegistryAuth.Username, Password: c.RegistryAuth.Password}
	}
	if c.Resources.ShmSize != nil {
		o.ShmBytes = int64(float64(*c.Resources.ShmSize) * (1 << 30))
	}
	if res := c.Resources; res.Asked.CPU && res.CPU.Max != nil {
		o.CPUs = *res.CPU.Max
	}
	if res := c.Resources; res.Asked.Memory && res.Memory.Max != nil {
		o.MemoryMiB = int64(*res.Memory.Max * 1024)
	}
	if run.Spec.RepoCodeHash != nil {
		o.CodeHash = *run.Spec.RepoCodeHash
	}
	return o
}

// ResolveWorkingDir is the folder below the uploaded code that commands run in;
// empty when there are no commands, so that the image's own stays.
func ResolveWorkingDir(s dstack.RunSpec) string {
	switch {
	case len(s.Configuration.Commands) == 0:
		return ""
	case s.Configuration.WorkingDir != "":
		return string(s.Configuration.WorkingDir)
	case s.WorkingDir != "":
		return s.WorkingDir
	default:
		return "."
	}
}

// BuildEnv is the whole environment of a replica; what the user sets wins.
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
	}
	for _, v := range run.Spec.Configuration.Env {
		env[v.Name] = v.Value
	}
	return env
}
