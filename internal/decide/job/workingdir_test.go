package job_test

import (
	"testing"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestResolveWorkingDir(t *testing.T) {
	hash := "0123"
	commands := []string{"a"}
	for _, c := range []struct {
		name        string
		conf        spec.Service
		dir         string // of the run
		hash        *string
		want, outer string
	}{
		{"the folder of the code", spec.Service{Commands: commands}, ".", &hash, ".", ""},
		{"a folder of the code", spec.Service{Commands: commands, WorkingDir: "app"}, ".", &hash, "app", ""},
		{"the client's folder", spec.Service{Commands: commands}, "sub", &hash, "sub", ""},
		{"without commands, the image's own", spec.Service{Image: "x", WorkingDir: "app"}, ".", nil, "", ""},
		{"an absolute one", spec.Service{Commands: commands, WorkingDir: "/app"}, ".", &hash, "/app", "/app"},
		{"an absolute one without commands", spec.Service{Image: "x", WorkingDir: "/app"}, ".", nil, "/app", "/app"},
		{"an absolute one of the code", spec.Service{Commands: commands, WorkingDir: "/workflow/app"}, ".", &hash, "/workflow/app", ""},
		{"another folder with the name as a prefix", spec.Service{Commands: commands, WorkingDir: "/workflows"}, ".", &hash, "/workflows", "/workflows"},
		{"a later client without code: the image's own", spec.Service{Image: "x", Commands: commands}, "", nil, "", ""},
		{"a later client without code in the base image", spec.Service{Commands: commands}, "", nil, ".", ""},
		{"a later client with code", spec.Service{Image: "x", Commands: commands}, "", &hash, ".", ""},
	} {
		rs := dstack.RunSpec{Configuration: c.conf, WorkingDir: c.dir, RepoCodeHash: c.hash}
		if got := job.ResolveWorkingDir(rs); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := job.BuildRequirements(rs).OuterDir; got != c.outer {
			t.Errorf("%s: it needs the folder %q of a container, want %q", c.name, got, c.outer)
		}
	}
}

// An image that runs its own command gets no code, whatever its working directory is.
func TestBuildAttemptSpec_CodeIsForCommands(t *testing.T) {
	hash := "0123"
	for _, c := range []struct {
		commands []string
		want     string
	}{{nil, ""}, {[]string{"a"}, hash}} {
		rs := dstack.RunSpec{Configuration: spec.Service{Image: "x", WorkingDir: "/app", Commands: c.commands}, RepoCodeHash: &hash}
		if got := job.BuildAttemptSpec(dstack.Run{Spec: rs}, dstack.Replica{}); got.CodeHash != c.want || got.WorkingDir != "/app" {
			t.Errorf("%v: the code %q in %q", c.commands, got.CodeHash, got.WorkingDir)
		}
	}
}
