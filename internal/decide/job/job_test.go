package job_test

import (
	"slices"
	"testing"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func newRunSpec(c spec.Service) dstack.RunSpec {
	return dstack.RunSpec{WorkingDir: ".", Configuration: c}
}

func TestBuildArgv(t *testing.T) {
	for _, c := range []struct {
		name string
		s    spec.Service
		want []string
	}{
		{"the base image runs bash", spec.Service{Commands: []string{"a", " b "}}, []string{"/bin/bash", "-i", "-c", "a && b"}},
		{"other images run sh", spec.Service{Image: "x", Commands: []string{"a"}}, []string{"/bin/sh", "-i", "-c", "a"}},
		{"a background command is wrapped", spec.Service{Commands: []string{"a &", "b"}}, []string{"/bin/bash", "-i", "-c", "{ a & } && b"}},
		{"a comment ends with its command", spec.Service{Image: "x", Commands: []string{"echo a # b", "c"}}, []string{
			"/bin/sh", "-i", "-c", "eval 'echo a # b'; case $? in 0) ;; *) exit $? ;; esac\neval 'c'",
		}},
		{"an entrypoint takes commands as arguments", spec.Service{Image: "x", Entrypoint: `serve --name "two words"`, Commands: []string{"--port", "80"}}, []string{"serve", "--name", "two words", "--port", "80"}},
		{"without commands, the image's own command runs", spec.Service{Image: "x"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := job.BuildArgv(newRunSpec(c.s)); !slices.Equal(got, c.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestBuildScript_QuotesEntrypoint(t *testing.T) {
	got := job.BuildScript(newRunSpec(spec.Service{Entrypoint: "a 'b c'", Commands: []string{"it's"}}))
	if want := `'a' 'b c' 'it'\''s'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestChooseImage(t *testing.T) {
	yes := true
	for want, s := range map[string]spec.Service{
		"dstackai/base:py3.10-0.5-cuda-12.1":       {},
		"dstackai/base:py3.12-0.5-cuda-12.1":       {Python: "3.12"},
		"dstackai/base:py3.10-0.5-cuda-12.1-devel": {NVCC: &yes},
		"mine:1": {Image: "mine:1"},
	} {
		if got := job.ChooseImage(newRunSpec(s)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestBuildEnv_ConfigurationWins(t *testing.T) {
	run := dstack.Run{Name: "llama", Spec: newRunSpec(spec.Service{Env: spec.Env{{Name: "A", Value: "1"}, {Name: "DSTACK_RUN_NAME", Value: "mine"}}})}
	run.Spec.RepoID = "repo-1"
	env := job.BuildEnv(run, dstack.Replica{Num: 2, Claim: dstack.Claim{GPUs: []dstack.GPU{{}, {}}}})
	for k, want := range map[string]string{
		"A": "1", "DSTACK_RUN_NAME": "mine", "RUN_NAME": "llama", "DSTACK_REPO_ID": "repo-1",
		"DSTACK_REPLICA_NUM": "2", "DSTACK_GPUS_NUM": "2", "DSTACK_NODES_NUM": "1",
	} {
		if env[k] != want {
			t.Errorf("%s is %q, want %q", k, env[k], want)
		}
	}
}

func TestBuildAttemptSpec_LimitsOnlyExplicitResources(t *testing.T) {
	two, eight := 2, spec.GB(8)
	s := spec.Service{Resources: spec.Resources{CPU: spec.Range[int]{Min: &two, Max: &two}, Memory: spec.Range[spec.GB]{Min: &eight, Max: &eight}}}
	if o := job.BuildAttemptSpec(dstack.Run{Spec: newRunSpec(s)}, dstack.Replica{}); o.CPUs != 0 || o.MemoryMiB != 0 {
		t.Errorf("defaults became limits: %+v", o)
	}
	s.Resources.Explicit = spec.Explicit{CPU: true, Memory: true}
	if o := job.BuildAttemptSpec(dstack.Run{Spec: newRunSpec(s)}, dstack.Replica{}); o.CPUs != 2 || o.MemoryMiB != 8192 {
		t.Errorf("got %d CPUs, %d MiB", o.CPUs, o.MemoryMiB)
	}
}

// The variables of a fleet override neither those of the service nor those of dstack.
func TestAddHostEnv(t *testing.T) {
	attempt := dstack.AttemptSpec{Env: map[string]string{"A": "service", "DSTACK_RUN_NAME": "web"}}
	job.AddHostEnv(&attempt, map[string]string{"A": "fleet", "B": "fleet", "DSTACK_RUN_NAME": "fleet"})
	if attempt.Env["A"] != "service" || attempt.Env["B"] != "fleet" || attempt.Env["DSTACK_RUN_NAME"] != "web" {
		t.Errorf("%v", attempt.Env)
	}
}
