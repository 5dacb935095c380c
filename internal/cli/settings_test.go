package cli

import (
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

// newTestRequest returns the request of a configuration, a profile and flags.
func newTestRequest(t *testing.T, configuration, profile string, f applyFlags) *runRequest {
	t.Helper()
	r := &runRequest{file: sourceFile{"deploy/service.dstack.yml", []byte("type: service\nport: 8000\ncommands: [a]\n" + configuration)}, env: map[string]string{}}
	var err error
	if r.service, err = spec.ParseService(r.file.name, r.file.text); err != nil {
		t.Fatal(err)
	}
	all, err := spec.ParseProfiles("profiles.yml", []byte("profiles:\n- name: mine\n  "+profile))
	if err != nil {
		t.Fatal(err)
	}
	r.profile.Profile = all[0]
	var problems spec.Problems
	if r.flags, problems = f.overrideFields(r.service); len(problems) > 0 {
		t.Fatal(problems)
	}
	return r
}

func TestSettings_NameTheOriginOfEachValue(t *testing.T) {
	for _, c := range []struct {
		name, configuration, profile string
		flags                        applyFlags
		want                         string
	}{
		{"defaults", "", "", applyFlags{}, `
replicas | 1 | default
port | 8000 | service.dstack.yml
resources | cpu 2.. · memory 8GB.. · disk 100GB.. | default
spot | auto | default`},
		{"by the configuration", "replicas: 1\nimage: nginx\nauth: false\nspot_policy: spot\nregions: [a, b]\nbackends: []\nmax_price: 2\nretry: true\nmax_duration: off\nresources: {cpu: 4}", "spot_policy: auto\n  regions: [c]", applyFlags{}, `
replicas | 1 | service.dstack.yml
image | nginx | service.dstack.yml
port | 8000 | service.dstack.yml
auth | off: anyone who reaches the address may use it | service.dstack.yml
resources | cpu 4 · memory 8GB.. · disk 100GB.. | service.dstack.yml
backends | any | service.dstack.yml
regions | a, b | service.dstack.yml
spot | spot | service.dstack.yml
max price | $2 an hour | service.dstack.yml
retry | no-capacity, interruption, error for 1h | service.dstack.yml
max duration | off | service.dstack.yml`},
		{"by the profile", "", "spot_policy: on-demand\n  instance_types: [x]\n  retry_policy: {retry: true, duration: 2h}\n  max_duration: 1d\n  termination_idle_time: 90m\n  pool_name: p\n  instance_name: i\n  creation_policy: reuse\n  termination_policy: dont-destroy", applyFlags{}, `
replicas | 1 | default
port | 8000 | service.dstack.yml
resources | cpu 2.. · memory 8GB.. · disk 100GB.. | default
instances | x | profile mine
spot | on-demand | profile mine
retry | no-capacity, interruption, error for 2h | profile mine
max duration | 1d | profile mine
pool | p | profile mine
instance | i | profile mine
creation | reuse | profile mine
termination | dont-destroy | profile mine
idle time | 90m | profile mine`},
		{"by flags", "spot_policy: auto\nretry: true\nresources: {gpu: 8GB}", "backends: [local]\n  max_price: 1",
			applyFlags{spot: true, noRetry: true, backends: []string{"gcp"}, maxPrice: "3", gpu: "24GB", disk: "50GB..", idleDuration: "1h", reuse: true, pool: "p", instance: "i", maxDuration: "off"}, `
replicas | 1 | default
port | 8000 | service.dstack.yml
resources | gpu 24GB · cpu 2.. · memory 8GB.. · disk 50GB.. | service.dstack.yml, --gpu, --disk
backends | gcp | --backend
spot | spot | --spot
max price | $3 an hour | --max-price
retry | no | --no-retry
max duration | off | --max-duration
pool | p | --pool
instance | i | --instance
creation | reuse | --reuse
idle time | 1h | --idle-duration`},
		{"a part by a flag, the rest by default", "", "", applyFlags{gpu: "24GB", dontDestroy: true}, `
replicas | 1 | default
port | 8000 | service.dstack.yml
resources | gpu 24GB · cpu 2.. · memory 8GB.. · disk 100GB.. | --gpu
spot | auto | default
termination | dont-destroy | --dont-destroy`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			for _, row := range newTestRequest(t, c.configuration, c.profile, c.flags).planSettings() {
				got += "\n" + row.key + " | " + row.value + " | " + row.origin
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestSettings_FitTheTerminal(t *testing.T) {
	rows := []setting{
		{"image", strings.Repeat("registry.example.com/", 6), "a-rather-long-name-of-a-file.dstack.yml"},
		{"spot", "auto", "profile \x1b[31mde\nfault"}, {"max duration", "2h", "--max-duration"}, {"env", strings.Repeat("NAME (from .env), ", 8), ""},
	}
	for _, width := range []int{20, 40, 60, 68, 80, 100, 200} {
		var out strings.Builder
		j := &applyCommand{runWatcher: runWatcher{app: &app{screen: newScreen(nil, &out, &out)}}}
		j.err.width = func() int { return width }
		j.printSettings(rows)
		for line := range strings.Lines(out.String()) {
			if w := lipgloss.Width(strings.TrimSuffix(line, "\n")); w > width {
				t.Errorf("a line has %d columns, the terminal %d: %q", w, width, line)
			}
		}
		words := strings.Join(strings.Fields(out.String()), "")
		for _, row := range rows { // everything is shown, whatever the width
			for _, want := range []string{row.key, cleanLine(row.value), cleanLine(row.origin)} {
				if !strings.Contains(words, strings.Join(strings.Fields(want), "")) {
					t.Errorf("%d columns: %q is missing in\n%s", width, want, out.String())
				}
			}
		}
		if strings.ContainsAny(out.String(), "\x1b…") {
			t.Errorf("%d columns: control characters, or cut text: %q", width, out.String())
		}
	}
}

func TestSettings_AreNotCutInAPipe(t *testing.T) {
	var out strings.Builder
	j := &applyCommand{runWatcher: runWatcher{app: &app{screen: newScreen(nil, &out, &out)}}}
	j.printSettings([]setting{{"replicas", "1", "default"}, {"max duration", "2h 5m", "--max-duration"}, {"image", strings.Repeat("x", 60), "f.yml"}, {"env", "A, B", ""}})
	want := " replicas     1      default\n max duration 2h 5m  --max-duration\n image        " + strings.Repeat("x", 60) + "  f.yml\n env          A, B\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
