package spec_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"dstack/internal/spec"
)

// paramValues has two values for each field of Params.
var paramValues = map[string][2]string{
	"backends":              {"[aws]", "[gcp]"},
	"regions":               {"[a, b]", "[c]"},
	"instance_types":        {"[x]", "[]"},
	"spot_policy":           {"spot", "on-demand"},
	"retry":                 {"true", "false"},
	"retry_policy":          {"{retry: true}", "{retry: true, duration: 1d}"},
	"max_duration":          {"1h", "off"},
	"max_price":             {"1", "2.5"},
	"pool_name":             {"p", "q"},
	"instance_name":         {"i", "j"},
	"creation_policy":       {"reuse", "reuse-or-create"},
	"termination_policy":    {"dont-destroy", "destroy-after-idle"},
	"termination_idle_time": {"0", "1h"},
	"fleets":                {"[a]", "[b]"},
	"availability_zones":    {"[a1]", "[b1, b2]"},
}

func parseServiceWith(t *testing.T, lines ...string) spec.Service {
	t.Helper()
	s, err := spec.ParseService("f", []byte("type: service\nport: 1\ncommands: [a]\n"+strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func parseProfileWith(t *testing.T, lines ...string) spec.Profile {
	t.Helper()
	all, err := spec.ParseProfiles("f", []byte("profiles:\n- name: p\n  "+strings.Join(lines, "\n  ")))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// Merge takes each value from the source that Origins returns.
func TestOrigins_AgreeWithMerge(t *testing.T) {
	fields := reflect.TypeFor[spec.Params]()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		if name == "-" {
			continue // not a field of the configuration
		}
		values, known := paramValues[name]
		if !known {
			t.Fatalf("this test has no value for %s", name)
		}
		high, low := name+": "+values[0], name+": "+values[1]
		field := strings.TrimSuffix(name, "_policy")
		if name != "retry_policy" {
			field = name
		}
		for _, c := range []struct {
			name string
			s    spec.Service
			p    spec.Profile
			want spec.Origin
			same spec.Params // parameters with the expected value
		}{
			{"nowhere", parseServiceWith(t), parseProfileWith(t), spec.FromDefault, spec.Merge(spec.Service{}, spec.Profile{})},
			{"the profile alone", parseServiceWith(t), parseProfileWith(t, low), spec.FromProfile, parseProfileWith(t, low).Params},
			{"the configuration alone", parseServiceWith(t, high), parseProfileWith(t), spec.FromConfiguration, parseServiceWith(t, high).Params},
			{"both", parseServiceWith(t, high), parseProfileWith(t, low), spec.FromConfiguration, parseServiceWith(t, high).Params},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				if got := spec.Origins(c.s, c.p)[field]; got != c.want {
					t.Errorf("it comes from %q, want %q", got, c.want)
				}
				if got, want := marshalParams(t, spec.Merge(c.s, c.p))[name], marshalParams(t, c.same)[name]; string(got) != string(want) {
					t.Errorf("merged: %s, want %s", got, want)
				}
			})
		}
	}
}

func marshalParams(t *testing.T, p spec.Params) map[string]json.RawMessage {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

func TestOrigins_RetrySpellingsAreOneField(t *testing.T) {
	for _, c := range []struct {
		configuration, profile string
		want                   spec.Origin
		retries                bool
	}{
		{"retry: false", "retry_policy: {retry: true}", spec.FromConfiguration, false},
		{"retry_policy: {retry: true}", "retry: false", spec.FromConfiguration, true},
		{"https: true", "retry_policy: {retry: true}", spec.FromProfile, true},
		{"https: true", "retry: {on_events: [error]}", spec.FromProfile, true},
	} {
		s, p := parseServiceWith(t, c.configuration), parseProfileWith(t, c.profile)
		origins := spec.Origins(s, p)
		events, _ := spec.Merge(s, p).RetryRule()
		if origins["retry"] != c.want || (len(events) > 0) != c.retries {
			t.Errorf("%s over %s: from %s, %v", c.configuration, c.profile, origins["retry"], events)
		}
		if _, apart := origins["retry_policy"]; apart {
			t.Error("retry_policy is a separate field")
		}
	}
}

func TestWrittenFields(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"type: service\nreplicas: 1\nimage:\nresources: {gpu: 24GB}\n", []string{"replicas", "resources", "type"}},
		{`{"type": "service", "port": 1, "python": null}`, []string{"port", "type"}},
		{"", nil},
		{"- a", nil},
		{"{", nil},
	} {
		var got []string
		written := spec.WrittenFields([]byte(c.text))
		for _, name := range slices.Sorted(maps.Keys(written)) {
			if written[name] {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.text, got, c.want)
		}
	}
}
