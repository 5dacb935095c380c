package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// keeps puts a file into the user's home.
func (u *user) keeps(name, text string) {
	u.t.Helper()
	path := filepath.Join(u.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		u.t.Fatal(err)
	}
}

const applyIt = "apply -y -d -f service.dstack.yml"

// sends applies, and returns what the server got.
func (u *user) sends(f *fake, more ...string) dstack.RunSpec {
	u.t.Helper()
	before := len(f.applied)
	u.types(append(strings.Fields(applyIt), more...)...).want(u.t, ExitDone, nil, nil)
	if len(f.applied) != before+1 {
		u.t.Fatalf("applied %d times more, want once", len(f.applied)-before)
	}
	return f.applied[before].RunSpec
}

// refused applies, wants it refused before the server is asked, and returns
// what was said.
func (u *user) refused(f *fake, says []string, more ...string) string {
	u.t.Helper()
	got := u.types(append(strings.Fields(applyIt), more...)...)
	got.want(u.t, ExitInvalid, nil, says)
	if len(f.asked) > 0 {
		u.t.Errorf("the server was asked: %v", f.asked)
	}
	return got.err
}

func profiles(lines ...string) string { return "profiles:\n" + strings.Join(lines, "\n") + "\n" }

func TestProfile_WhichIsChosen(t *testing.T) {
	for _, c := range []struct {
		name         string
		folder, home string
		flags        []string
		variable     string
		want         string // its name and its first region
	}{
		{"no file at all", "", "", nil, "", "default "},
		{"none is the default", profiles("- name: gpu"), profiles("- name: cpu"), nil, "", "default "},
		{"a file without profiles", "profiles: []\n", "", nil, "", "default "},
		{"an empty file", "", "\n", nil, "", "default "},
		{"by flag, in the folder", profiles("- name: gpu\n  regions: [folder]"), profiles("- name: gpu\n  regions: [home]"), []string{"--profile", "gpu"}, "", "gpu folder"},
		{"by flag, only at home", profiles("- name: cpu"), profiles("- name: gpu\n  regions: [home]"), []string{"--profile", "gpu"}, "", "gpu home"},
		{"by variable", profiles("- name: cpu", "- name: gpu\n  regions: [folder]"), "", nil, "gpu", "gpu folder"},
		{"the flag wins over the variable", profiles("- name: cpu\n  regions: [x]", "- name: gpu"), "", []string{"--profile", "cpu"}, "gpu", "cpu x"},
		{"a name wins over the default", profiles("- name: a\n  default: true", "- name: b"), "", []string{"--profile", "b"}, "", "b "},
		{"the folder's default", profiles("- name: a", "- name: b\n  default: true"), profiles("- name: c\n  default: true"), nil, "", "b "},
		{"the first of two defaults", profiles("- name: a\n  default: true", "- name: b\n  default: true"), "", nil, "", "a "},
		{"the home's default", profiles("- name: a\n  default: false"), profiles("- name: c\n  default: true"), nil, "", "c "},
		{"an empty variable names none", profiles("- name: a\n  default: true"), "", nil, "", "a "},
		{"files are not merged", profiles("- name: gpu\n  max_price: 1"), profiles("- name: gpu\n  regions: [home]"), []string{"--profile", "gpu"}, "", "gpu "},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := applier(t, ready)
			u.env["DSTACK_PROFILE"] = c.variable
			if c.folder != "" {
				u.write(".dstack/profiles.yml", c.folder)
			}
			if c.home != "" {
				u.keeps(".dstack/profiles.yml", c.home)
			}
			got := u.sends(f, c.flags...).Profile
			if name := got.Name + " " + strings.Join(got.Regions, ","); name != c.want {
				t.Errorf("it is %q, want %q", name, c.want)
			}
		})
	}
}

func TestProfile_TheOtherNameOfTheFile(t *testing.T) {
	f, u := applier(t, ready)
	u.write(".dstack/profiles.yaml", profiles("- name: gpu\n  default: true"))
	if got := u.sends(f).Profile.Name; got != "gpu" {
		t.Errorf("it is %q, want gpu", got)
	}
	f.asked = nil
	u.write(".dstack/profiles.yml", profiles("- name: cpu"))
	u.refused(f, []string{".dstack/profiles.yaml: there is also .dstack/profiles.yml", "keep one of them"})
}

func TestProfile_EveryFieldIsSentAndRetryIsNotLost(t *testing.T) {
	f, u := applier(t, ready)
	u.write(".dstack/profiles.yml", profiles("- name: all\n  default: true\n  backends: [local]\n  regions: [a, b]\n  instance_types: [x]\n"+
		"  spot_policy: auto\n  max_price: 1.5\n  max_duration: off\n  retry: {on_events: [no-capacity, error], duration: 2h}"))
	text, err := json.Marshal(u.sends(f).Profile)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"backends":["local"],"regions":["a","b"],"instance_types":["x"],"spot_policy":"auto",` +
		`"retry":{"on_events":["no-capacity","error"],"duration":7200},"retry_policy":null,"max_duration":"off","max_price":1.5,` +
		`"pool_name":null,"instance_name":null,"creation_policy":null,"termination_policy":null,"termination_idle_time":null,"name":"all","default":true}`
	if string(text) != want {
		t.Errorf("sent\n%s\nwant\n%s", text, want)
	}
}

func TestProfile_ItsRetryLetsARunWait(t *testing.T) {
	f, u := applier(t, ready)
	f.preview.Placements = nil
	u.types(strings.Fields(applyIt)...).want(t, ExitNoCapacity, nil, nil)
	u.write(".dstack/profiles.yml", profiles("- name: patient\n  default: true\n  retry: true"))
	u.sends(f)
	u.types(append(strings.Fields(applyIt), "--no-retry")...).want(t, ExitNoCapacity, nil, nil)
}

func TestProfile_IsNotThere(t *testing.T) {
	for _, c := range []struct {
		name         string
		folder, home string
		flag         string
		variable     string
		says         []string
	}{
		{"near to one", profiles("- name: gpu", "- name: cpu"), "", "gpuu", "", []string{"error: --profile: no such profile: gpuu\n  try   did you mean `gpu`?"}},
		{"near to one at home", "", profiles("- name: production"), "prodction", "", []string{"did you mean `production`?"}},
		{"far from all", profiles("- name: gpu"), profiles("- name: cpu", "- name: gpu"), "whatever", "", []string{"no such profile: whatever\n  try   there is: gpu, cpu\n"}},
		{"without a file", "", "", "gpu", "", []string{"no such profile: gpu\n  try   write it into .dstack/profiles.yml or "}},
		{"by variable", "", "", "", "gpu", []string{"error: DSTACK_PROFILE: no such profile: gpu"}},
		{"the empty name", "", "", "", "", []string{"--profile needs a value"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := applier(t, ready)
			if c.folder != "" {
				u.write(".dstack/profiles.yml", c.folder)
			}
			if c.home != "" {
				u.keeps(".dstack/profiles.yml", c.home)
			}
			args := []string{"--profile", c.flag}
			if c.variable != "" {
				u.env["DSTACK_PROFILE"], args = c.variable, nil
			}
			u.refused(f, c.says, args...)
		})
	}
}

func TestProfile_BadFiles(t *testing.T) {
	for _, c := range []struct {
		name, text string
		says       []string
	}{
		{"an unknown field", profiles("- name: a\n  spot_polic: spot"), []string{".dstack/profiles.yml:3:3: unknown field `spot_polic`", "did you mean `spot_policy`?", "1 problem in "}},
		{"no YAML", "profiles: [", []string{".dstack/profiles.yml:2:", "this is not YAML"}},
		{"no name", profiles("- spot_policy: spot"), []string{".dstack/profiles.yml:2:3"}},
		{"two of one name", profiles("- name: a", "- name: b", "- name: a"), []string{".dstack/profiles.yml:4:9: there are two profiles called `a`", "line 2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := applier(t, ready)
			u.write(".dstack/profiles.yml", c.text)
			u.refused(f, c.says)
		})
		t.Run(c.name+" at home", func(t *testing.T) {
			f, u := applier(t, ready)
			u.keeps(".dstack/profiles.yml", c.text)
			u.refused(f, c.says)
			u.write(".dstack/profiles.yml", profiles("- name: own\n  default: true"))
			if got := u.sends(f).Profile.Name; got != "own" {
				t.Errorf("it is %q, want own: the home's file is not needed", got)
			}
		})
	}
}

func TestProfile_AFileThatCannotBeRead(t *testing.T) {
	f, u := applier(t, ready)
	u.write(".dstack/profiles.yml/x", "")
	u.refused(f, []string{".dstack/profiles.yml: this file cannot be read: is a directory", "1 problem in .dstack/profiles.yml"})
}

// What nothing acts on stands in its own file, and all files are told about.
func TestProfile_WhatNothingActsOn(t *testing.T) {
	f, u := applier(t, ready)
	u.write(".dstack/profiles.yml", profiles("- name: first", "- name: mine\n  spot_policy: auto\n  termination_idle_time: 1h\n  pool_name: gpus"))
	u.write("service.dstack.yml", serviceFile+"creation_policy: reuse\n")
	u.refused(f, []string{
		"service.dstack.yml:9:18: not supported yet: creation_policy", "1 problem in service.dstack.yml\n\n.dstack/profiles.yml:5:26: not supported yet: termination_idle_time",
		".dstack/profiles.yml:6:14: not supported yet: pool_name", "2 problems in .dstack/profiles.yml\n\n--instance: not supported yet: instance_name", "1 problem in the command line",
	}, "--profile", "mine", "--instance", "box")
}

// A configuration that cannot be read does not hide what else is wrong.
func TestProfile_AllThatIsWrongAtOnce(t *testing.T) {
	f, u := applier(t, ready)
	u.write(".dstack/profiles.yml", profiles("- name: mine\n  default: true\n  instance_name: gpus"))
	u.write("service.dstack.yml", "type: service\nport: 8000\ncomands: [a]\n")
	u.write("bad.env", "A=1\n2B=secret\n")
	said := u.refused(f, []string{
		"service.dstack.yml:3:1", "1 problem in service.dstack.yml\n\n.dstack/profiles.yml:4:18: not supported yet: instance_name",
		"1 problem in .dstack/profiles.yml\n\nbad.env:2:1", "1 problem in bad.env\n\n--env: ", "--gpu: ", "--name: ", "--pool: not supported yet: pool_name", "4 problems in the command line",
	}, "--gpu", "16G", "--pool", "x", "--env-file", "bad.env", "-e", "1C", "--name", "UP")
	if strings.Contains(said, "secret") || strings.Contains(said, "NaN") {
		t.Errorf("a value is shown:\n%s", said)
	}
}

// From the flag down to the default, field by field.
func TestPrecedence(t *testing.T) {
	for _, c := range []struct {
		name, profile, configuration string
		flags                        []string
		want                         func(spec.Params) bool
	}{
		{"the default", "", "", nil, func(p spec.Params) bool { return p.SpotPolicy == "auto" && p.Regions == nil }},
		{"the profile over the default", "spot_policy: on-demand", "", nil, func(p spec.Params) bool { return p.SpotPolicy == "on-demand" }},
		{"the configuration over the profile", "spot_policy: on-demand", "spot_policy: spot", nil, func(p spec.Params) bool { return p.SpotPolicy == "spot" }},
		{"a flag over the configuration", "spot_policy: on-demand", "spot_policy: spot", []string{"--spot-auto"}, func(p spec.Params) bool { return p.SpotPolicy == "auto" }},
		{"a flag over the profile", "max_price: 1", "", []string{"--max-price", "2"}, func(p spec.Params) bool { return *p.MaxPrice == 2 }},
		{"lists are replaced by the configuration", "regions: [a, b]", "regions: [c]", nil, func(p spec.Params) bool { return strings.Join(p.Regions, "") == "c" }},
		{"lists are replaced by a flag", "backends: [aws]", "backends: [gcp, azure]", []string{"-b", "local", "-b", "oci"}, func(p spec.Params) bool { return strings.Join(p.Backends, " ") == "local oci" }},
		{"each field by itself", "regions: [a]\n  max_price: 1", "max_price: 2", []string{"--instance-type", "x"}, func(p spec.Params) bool {
			return p.Regions[0] == "a" && *p.MaxPrice == 2 && p.InstanceTypes[0] == "x"
		}},
		{"--no-retry over the configuration's retry", "", "retry: true", []string{"--no-retry"}, retries(0, 0)},
		{"--no-retry over the configuration's retry_policy", "", "retry_policy: {retry: true}", []string{"--no-retry"}, retries(0, 0)},
		{"--no-retry over the profile's retry", "retry: true", "", []string{"--no-retry"}, retries(0, 0)},
		{"--retry-duration over both", "retry: false", "retry: {on_events: [error]}", []string{"--retry-duration", "2h"}, retries(3, 7200)},
		{"the configuration's retry over the profile's retry_policy", "retry_policy: {retry: true}", "retry: false", nil, retries(0, 0)},
		{"the profile's retry", "retry: {on_events: [error], duration: 1m}", "", nil, retries(1, 60)},
		{"--max-duration off over the configuration", "", "max_duration: off", []string{"--max-duration", "off"}, func(p spec.Params) bool { return p.MaxDuration.Off }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := applier(t, ready)
			u.write(".dstack/profiles.yml", profiles("- name: mine\n  default: true\n  "+c.profile))
			u.write("service.dstack.yml", serviceFile+c.configuration+"\n")
			sent := u.sends(f, c.flags...)
			if got := spec.Merge(sent.Configuration, sent.Profile); !c.want(got) {
				t.Errorf("it is %+v", got)
			}
		})
	}
}

func retries(events int, window spec.Seconds) func(spec.Params) bool {
	return func(p spec.Params) bool {
		got, long := p.RetryRule()
		return len(got) == events && (events == 0 || long == window)
	}
}
