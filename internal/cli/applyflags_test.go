package cli

import (
	"strings"
	"testing"

	"dstack/internal/spec"
)

// Each flag overrides the field of the configuration.
func TestFlags_OverrideFields(t *testing.T) {
	contrary, err := spec.ParseService("", []byte(`{"type": "service", "port": 1, "commands": ["a"], "max_duration": "1d", "pool_name": "x", "instance_name": "x",
		"creation_policy": "reuse-or-create", "termination_policy": "destroy-after-idle", "termination_idle_time": 5}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		flags applyFlags
		want  func(*spec.Service) bool
	}{
		{"--max-duration", applyFlags{maxDuration: "2h"}, func(s *spec.Service) bool { return s.MaxDuration.Seconds == 7200 }},
		{"--pool", applyFlags{pool: "p"}, func(s *spec.Service) bool { return s.PoolName == "p" }},
		{"--instance", applyFlags{instance: "5"}, func(s *spec.Service) bool { return s.InstanceName == "5" }},
		{"--reuse", applyFlags{reuse: true}, func(s *spec.Service) bool { return s.CreationPolicy == "reuse" }},
		{"--dont-destroy", applyFlags{dontDestroy: true}, func(s *spec.Service) bool { return s.TerminationPolicy == "dont-destroy" }},
		{"--idle-duration", applyFlags{idleDuration: "90m"}, func(s *spec.Service) bool {
			return *s.TerminationIdleTime == 5400 && s.TerminationPolicy == spec.DeleteIdle
		}},
		{"--idle-duration off", applyFlags{idleDuration: "off"}, func(s *spec.Service) bool { return s.TerminationPolicy == spec.KeepIdle }},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := *contrary
			flags, problems := c.flags.overrideFields(&changed)
			if len(problems) > 0 || len(flags) != 1 || !c.want(&changed) {
				t.Errorf("%v, %v: %+v", flags, problems, changed.Params)
			}
		})
	}
}

func TestFlags_ErrorsNameTheFlag(t *testing.T) {
	for _, c := range []struct{ flag, value, says string }{
		{"--max-duration", "soon", "error: --max-duration: `soon` is not a duration"},
		{"--idle-duration", "-5m", "error: --idle-duration: "},
		{"--retry-duration", "1.5h", "error: --retry-duration: "},
		{"--spot-policy", "sopt", "error: --spot-policy: "},
		{"--backend", "awss", "error: --backend: "},
		{"--disk", "much", "error: --disk: "},
		{"--pool", "", "error: --pool needs a value"},
		{"--gpu", "", "error: --gpu needs a value"},
		{"--region", "", "error: --region needs a value"},
	} {
		t.Run(c.flag+" "+c.value, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			u.applyRefused(f, []string{c.says, "\n  try   "}, c.flag+"="+c.value)
		})
	}
}

func TestFlags_ReportsEachItemOfAList(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.applyRefused(f, []string{"--backend: `foo`", "--backend: `bar`", "2 problems in the command line"}, "-b", "foo", "-b", "bar")
}

func TestFlags_RejectsExclusiveFlags(t *testing.T) {
	for _, c := range []struct{ flags, says string }{
		{"--dont-destroy --idle-duration 1h", "--dont-destroy and --idle-duration do not go together"},
		{"--no-retry --retry-duration 1h", "--no-retry and --retry-duration do not go together"},
		{"--spot-auto --spot-policy spot", "--spot-auto and --spot-policy do not go together"},
	} {
		f, u := newApplyTest(t, readyView)
		u.applyRefused(f, []string{c.says, "leave one of them out"}, strings.Fields(c.flags)...)
	}
}

func TestFlags_PrintsHelpWithAnArgument(t *testing.T) {
	u := newTestUser(t, nil)
	for _, args := range []string{"apply -h service", "apply --help service", "apply -h", "apply -h task"} {
		u.run(strings.Fields(args)...).check(t, ExitDone, []string{"usage: dstack apply", "--profile NAME", "--env-file FILE"}, nil)
	}
	u.run("apply", "--profil", "x").check(t, ExitInvalid, nil, []string{"did you mean `--profile`?"})
	u.run("apply", "--envfile", "x").check(t, ExitInvalid, nil, []string{"did you mean `--env-file`?"})
}
