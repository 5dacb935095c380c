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

// writeHomeFile writes a file into the home folder.
func (u *testUser) writeHomeFile(name, text string) {
	u.t.Helper()
	path := filepath.Join(u.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		u.t.Fatal(err)
	}
}

const applyDetached = "apply -y -d -f service.dstack.yml"

// apply runs apply and returns the specification that the server received.
func (u *testUser) apply(f *fakeServer, more ...string) dstack.RunSpec {
	u.t.Helper()
	before := len(f.applied)
	u.run(append(strings.Fields(applyDetached), more...)...).check(u.t, ExitDone, nil, nil)
	if len(f.applied) != before+1 {
		u.t.Fatalf("applied %d times, want once", len(f.applied)-before)
	}
	return f.applied[before].RunSpec
}

// applyRefused runs apply, expects an error before the first request, and
// returns stderr.
func (u *testUser) applyRefused(f *fakeServer, says []string, more ...string) string {
	u.t.Helper()
	got := u.run(append(strings.Fields(applyDetached), more...)...)
	got.check(u.t, ExitInvalid, nil, says)
	if len(f.requests) > 0 {
		u.t.Errorf("there were requests: %v", f.requests)
	}
	return got.err
}

func profilesFile(lines ...string) string { return "profiles:\n" + strings.Join(lines, "\n") + "\n" }

func TestProfile_Choice(t *testing.T) {
	for _, c := range []struct {
		name         string
		folder, home string
		flags        []string
		variable     string
		want         string // its name and its regions
	}{
		{"no file at all", "", "", nil, "", "default "},
		{"none is the default", profilesFile("- name: gpu"), profilesFile("- name: cpu"), nil, "", "default "},
		{"a file without profiles", "profiles: []\n", "", nil, "", "default "},
		{"an empty file", "", "\n", nil, "", "default "},
		{"by flag, in the folder", profilesFile("- name: gpu\n  regions: [folder]"), profilesFile("- name: gpu\n  regions: [home]"), []string{"--profile", "gpu"}, "", "gpu folder"},
		{"by flag, only at home", profilesFile("- name: cpu"), profilesFile("- name: gpu\n  regions: [home]"), []string{"--profile", "gpu"}, "", "gpu home"},
		{"by variable", profilesFile("- name: cpu", "- name: gpu\n  regions: [folder]"), "", nil, "gpu", "gpu folder"},
		{"the flag wins over the variable", profilesFile("- name: cpu\n  regions: [x]", "- name: gpu"), "", []string{"--profile", "cpu"}, "gpu", "cpu x"},
		{"a name wins over the default", profilesFile("- name: a\n  default: true", "- name: b"), "", []string{"--profile", "b"}, "", "b "},
		{"the folder's default", profilesFile("- name: a", "- name: b\n  default: true"), profilesFile("- name: c\n  default: true"), nil, "", "b "},
		{"the first of two defaults", profilesFile("- name: a\n  default: true", "- name: b\n  default: true"), "", nil, "", "a "},
		{"the home's default", profilesFile("- name: a\n  default: false"), profilesFile("- name: c\n  default: true"), nil, "", "c "},
		{"an empty variable names none", profilesFile("- name: a\n  default: true"), "", nil, "", "a "},
		{"files are not merged", profilesFile("- name: gpu\n  max_price: 1"), profilesFile("- name: gpu\n  regions: [home]"), []string{"--profile", "gpu"}, "", "gpu "},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			u.env["DSTACK_PROFILE"] = c.variable
			if c.folder != "" {
				u.writeFile(".dstack/profiles.yml", c.folder)
			}
			if c.home != "" {
				u.writeHomeFile(".dstack/profiles.yml", c.home)
			}
			got := u.apply(f, c.flags...).Profile
			if name := got.Name + " " + strings.Join(got.Regions, ","); name != c.want {
				t.Errorf("it is %q, want %q", name, c.want)
			}
		})
	}
}

func TestProfile_ReadsBothFileNames(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.writeFile(".dstack/profiles.yaml", profilesFile("- name: gpu\n  default: true"))
	if got := u.apply(f).Profile.Name; got != "gpu" {
		t.Errorf("it is %q, want gpu", got)
	}
	f.requests = nil
	u.writeFile(".dstack/profiles.yml", profilesFile("- name: cpu"))
	u.applyRefused(f, []string{".dstack/profiles.yaml: there is also .dstack/profiles.yml", "keep one of them"})
}

func TestProfile_SendsEveryField(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.writeFile(".dstack/profiles.yml", profilesFile("- name: all\n  default: true\n  backends: [local]\n  regions: [a, b]\n  instance_types: [x]\n"+
		"  spot_policy: auto\n  max_price: 1.5\n  max_duration: off\n  retry: {on_events: [no-capacity, error], duration: 2h}"))
	text, err := json.Marshal(u.apply(f).Profile)
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

func TestProfile_RetryLetsARunWait(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	f.preview.Placements = nil
	u.run(strings.Fields(applyDetached)...).check(t, ExitNoCapacity, nil, nil)
	u.writeFile(".dstack/profiles.yml", profilesFile("- name: patient\n  default: true\n  retry: true"))
	u.apply(f)
	u.run(append(strings.Fields(applyDetached), "--no-retry")...).check(t, ExitNoCapacity, nil, nil)
}

func TestProfile_ReportsAnUnknownProfile(t *testing.T) {
	for _, c := range []struct {
		name         string
		folder, home string
		flag         string
		variable     string
		says         []string
	}{
		{"near to one", profilesFile("- name: gpu", "- name: cpu"), "", "gpuu", "", []string{"error: --profile: no such profile: gpuu\n  try   did you mean `gpu`?"}},
		{"near to one at home", "", profilesFile("- name: production"), "prodction", "", []string{"did you mean `production`?"}},
		{"far from all", profilesFile("- name: gpu"), profilesFile("- name: cpu", "- name: gpu"), "whatever", "", []string{"no such profile: whatever\n  try   there is: gpu, cpu\n"}},
		{"without a file", "", "", "gpu", "", []string{"no such profile: gpu\n  try   write it into .dstack/profiles.yml or "}},
		{"by variable", "", "", "", "gpu", []string{"error: DSTACK_PROFILE: no such profile: gpu"}},
		{"the empty name", "", "", "", "", []string{"--profile needs a value"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			if c.folder != "" {
				u.writeFile(".dstack/profiles.yml", c.folder)
			}
			if c.home != "" {
				u.writeHomeFile(".dstack/profiles.yml", c.home)
			}
			args := []string{"--profile", c.flag}
			if c.variable != "" {
				u.env["DSTACK_PROFILE"], args = c.variable, nil
			}
			u.applyRefused(f, c.says, args...)
		})
	}
}

func TestProfile_ReportsMalformedFiles(t *testing.T) {
	for _, c := range []struct {
		name, text string
		says       []string
	}{
		{"a field like no other", profilesFile("- name: a\n  qqqqqq: spot"), []string{"remove it; `dstack schema profiles` lists the valid fields"}},
		{"an unknown field", profilesFile("- name: a\n  spot_polic: spot"), []string{".dstack/profiles.yml:3:3: unknown field `spot_polic`", "did you mean `spot_policy`?", "1 problem in "}},
		{"no YAML", "profiles: [", []string{".dstack/profiles.yml:2:", "invalid YAML"}},
		{"no name", profilesFile("- spot_policy: spot"), []string{".dstack/profiles.yml:2:3"}},
		{"two of one name", profilesFile("- name: a", "- name: b", "- name: a"), []string{".dstack/profiles.yml:4:9: there are two profiles called `a`", "line 2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			u.writeFile(".dstack/profiles.yml", c.text)
			u.applyRefused(f, c.says)
		})
		t.Run(c.name+" at home", func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			u.writeHomeFile(".dstack/profiles.yml", c.text)
			u.applyRefused(f, c.says)
			u.writeFile(".dstack/profiles.yml", profilesFile("- name: own\n  default: true"))
			if got := u.apply(f).Profile.Name; got != "own" {
				t.Errorf("the profile is %q, want own: the home's file is not read", got)
			}
		})
	}
}

func TestProfile_ReportsAnUnreadableFile(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.writeFile(".dstack/profiles.yml/x", "")
	u.applyRefused(f, []string{".dstack/profiles.yml: this file cannot be read: is a directory", "1 problem in .dstack/profiles.yml"})
}

// The problems of each file are reported with positions in that file.
func TestProfile_RejectsUnsupportedFields(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.writeFile(".dstack/profiles.yml", profilesFile("- name: first", "- name: mine\n  spot_policy: auto\n  termination_idle_time: 1h\n  pool_name: gpus"))
	u.writeFile("service.dstack.yml", serviceFile+"creation_policy: reuse\n")
	u.applyRefused(f, []string{
		"service.dstack.yml:9:18: not supported yet: creation_policy", "1 problem in service.dstack.yml\n\n.dstack/profiles.yml:5:26: not supported yet: termination_idle_time",
		".dstack/profiles.yml:6:14: not supported yet: pool_name", "2 problems in .dstack/profiles.yml\n\n--instance: not supported yet: instance_name", "1 problem in the command line",
	}, "--profile", "mine", "--instance", "box")
}

// A malformed configuration does not hide the problems of other sources.
func TestProfile_ReportsAllProblemsAtOnce(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.writeFile(".dstack/profiles.yml", profilesFile("- name: mine\n  default: true\n  instance_name: gpus"))
	u.writeFile("service.dstack.yml", "type: service\nport: 8000\ncomands: [a]\n")
	u.writeFile("bad.env", "A=1\n2B=secret\n")
	output := u.applyRefused(f, []string{
		"service.dstack.yml:3:1", "1 problem in service.dstack.yml\n\n.dstack/profiles.yml:4:18: not supported yet: instance_name",
		"1 problem in .dstack/profiles.yml\n\nbad.env:2:1", "1 problem in bad.env\n\n--env: ", "--gpu: ", "--name: ", "--pool: not supported yet: pool_name", "4 problems in the command line",
	}, "--gpu", "16G", "--pool", "x", "--env-file", "bad.env", "-e", "1C", "--name", "UP")
	if strings.Contains(output, "secret") || strings.Contains(output, "NaN") {
		t.Errorf("a value was printed:\n%s", output)
	}
}

// Flags override the configuration, which overrides the profile, per field.
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
		{"--no-retry over the configuration's retry", "", "retry: true", []string{"--no-retry"}, hasRetries(0, 0)},
		{"--no-retry over the configuration's retry_policy", "", "retry_policy: {retry: true}", []string{"--no-retry"}, hasRetries(0, 0)},
		{"--no-retry over the profile's retry", "retry: true", "", []string{"--no-retry"}, hasRetries(0, 0)},
		{"--retry-duration over both", "retry: false", "retry: {on_events: [error]}", []string{"--retry-duration", "2h"}, hasRetries(3, 7200)},
		{"the configuration's retry over the profile's retry_policy", "retry_policy: {retry: true}", "retry: false", nil, hasRetries(0, 0)},
		{"the profile's retry", "retry: {on_events: [error], duration: 1m}", "", nil, hasRetries(1, 60)},
		{"--max-duration off over the configuration", "", "max_duration: off", []string{"--max-duration", "off"}, func(p spec.Params) bool { return p.MaxDuration.Off }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			u.writeFile(".dstack/profiles.yml", profilesFile("- name: mine\n  default: true\n  "+c.profile))
			u.writeFile("service.dstack.yml", serviceFile+c.configuration+"\n")
			sent := u.apply(f, c.flags...)
			if got := spec.Merge(sent.Configuration, sent.Profile); !c.want(got) {
				t.Errorf("it is %+v", got)
			}
		})
	}
}

func hasRetries(events int, window spec.Seconds) func(spec.Params) bool {
	return func(p spec.Params) bool {
		got, long := p.RetryRule()
		return len(got) == events && (events == 0 || long == window)
	}
}
