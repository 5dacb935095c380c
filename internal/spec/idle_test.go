package spec_test

import (
	"testing"

	"dstack/internal/spec"
)

// An idle_duration of the configuration overrides that of the profile, whether it is a time or
// off, although 0.18.10 has two fields for it.
func TestMerge_IdleDuration(t *testing.T) {
	for _, c := range []struct {
		configuration, profile string
		policy                 spec.Text
		idle                   spec.Seconds
	}{
		{"auth: true", "default: false", spec.DeleteIdle, 300},
		{"idle_duration: 1h", "idle_duration: off", spec.DeleteIdle, 3600},
		{"idle_duration: off", "idle_duration: 1h", spec.KeepIdle, 3600},
		{"auth: true", "idle_duration: -1", spec.KeepIdle, 300},
		{"idle_duration: 0", "termination_policy: dont-destroy", spec.DeleteIdle, 0},
		{"termination_idle_time: off", "default: false", spec.DeleteIdle, 0},
		{"termination_idle_time: 1h", "termination_policy: dont-destroy", spec.KeepIdle, 3600},
	} {
		s := parseWith(t, c.configuration)
		all, err := spec.ParseProfiles("f", []byte("profiles:\n- name: a\n  "+c.profile))
		if err != nil {
			t.Fatal(err)
		}
		got := spec.Merge(s, all[0])
		if got.TerminationPolicy != c.policy || *got.TerminationIdleTime != c.idle {
			t.Errorf("%s and %s: %s after %s", c.configuration, c.profile, got.TerminationPolicy, got.TerminationIdleTime)
		}
	}
}
