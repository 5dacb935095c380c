package spec_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

func parseWith(t *testing.T, extra string) spec.Service {
	t.Helper()
	s, err := spec.ParseService("f", []byte(withRequiredFields(extra)))
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func TestResources_Explicit(t *testing.T) {
	for input, want := range map[string]spec.Explicit{
		"{}":                             {},
		"{cpu: 2..}":                     {CPU: true},
		"{memory: 8GB..}":                {Memory: true},
		"{disk: 100GB..}":                {Disk: true},
		"{disk: {size: 100GB..}}":        {Disk: true},
		"{cpu: 4, memory: 1GB, disk: 5}": {CPU: true, Memory: true, Disk: true},
		"{disk: null}":                   {},
		"{cpu: {min: 2, max: null}, memory: {min: 8.0, max: null}, disk: {size: {min: 100.0, max: null}}}": {},
		"{cpu: {min: 4}}": {CPU: true},
	} {
		if got := parseWith(t, "resources: "+input).Resources.Explicit; got != want {
			t.Errorf("%s: got %+v, want %+v", input, got, want)
		}
	}
}

func TestSourceJSON_KeepsExplicitSizes(t *testing.T) {
	for _, input := range []string{
		"resources: {}",
		"resources: {cpu: 2.., memory: 8GB.., disk: 100GB..}",
		"resources: {cpu: 4..8, gpu: 'A100:2', shm_size: 1MB}",
		"resources: {memory: 1MB..0.3GB, disk: null}",
		"env: [A=\"resources\", 'B={\"resources\":{\"cpu\":1}}', C]\nmax_price: 1\nretry: true\nmodel: {type: chat, name: m, format: tgi}",
		"env: {resources: {key: X}}\nmax_duration: off\nreplicas: 1..2\nscaling: {metric: rps, target: 3}",
	} {
		s := parseWith(t, input)
		text, err := s.SourceJSON()
		if err != nil {
			t.Fatal(err)
		}
		var again spec.Service
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if diff := cmp.Diff(s, again); diff != "" {
			t.Errorf("%s unmarshals to another service (-before +after):\n%s", input, diff)
		}
	}
}

func TestUnmarshalJSON_ReportsProblemsLikeAFile(t *testing.T) {
	var s spec.Service
	err := json.Unmarshal([]byte(`{"type":"service","port":"80:9000","commands":["echo \ud83d\ude00\/"],"resources":{"gpu":"A100:2"},"retry":null,"env":["A=1"]}`), &s)
	if err != nil {
		t.Fatal(err)
	}
	if s.Port.Container != 9000 || s.Commands[0] != "echo 😀/" || s.Resources.GPU.Name[0] != "A100" {
		t.Errorf("it is %+v", s)
	}
	err = json.Unmarshal([]byte(`{"type":"service","port":0,"comands":["a"],"port":1}`), &s)
	problems, ok := errors.AsType[spec.Problems](err)
	if !ok {
		t.Fatalf("the error is not Problems: %v", err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Path+" "+p.Message)
	}
	slices.Sort(got)
	want := []string{"comands unknown field `comands`", "port `port` is set twice", "port port 0 is not between 1 and 65535"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnmarshalJSON_Parts(t *testing.T) {
	for _, c := range []struct {
		text string
		into any
	}{
		{`{"backends":null,"regions":null,"instance_types":null,"spot_policy":"spot","retry":true,"retry_policy":null,"max_duration":"off","max_price":1.5,"pool_name":null,"instance_name":null,"creation_policy":null,"termination_policy":null,"termination_idle_time":60,"name":"p","default":true}`, &spec.Profile{}},
		{`{"cpu":{"min":4,"max":null},"memory":{"min":8.0,"max":null},"shm_size":null,"gpu":null,"disk":null}`, &spec.Resources{}},
		{`{"on_events":["error"],"duration":60}`, &spec.Retry{}},
		{`false`, &spec.Retry{}},
		{`"7200"`, &spec.MaxDuration{}},
		{`{"type":"chat","name":"m","format":"openai","prefix":"/x"}`, &spec.Model{}},
		{`{"B":"1","A":{"key":"X"}}`, &spec.Env{}},
		{`null`, new(spec.Text)},
		{`"x"`, new(spec.Text)},
	} {
		if err := json.Unmarshal([]byte(c.text), c.into); err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		got, err := json.Marshal(c.into)
		if err != nil || string(got) != c.text {
			t.Errorf("%s marshals to\n%s (%v)", c.text, got, err)
		}
	}
}

func TestMerge_Precedence(t *testing.T) {
	profile, err := spec.ParseProfiles("p", []byte("profiles: [{name: p, default: true, spot_policy: spot, regions: [a], backends: [aws], retry: true, max_price: 2}]"))
	if err != nil {
		t.Fatal(err)
	}
	got := spec.Merge(parseWith(t, "spot_policy: auto\nbackends: [gcp, aws]\nretry_policy: {retry: false}"), profile[0])
	if got.SpotPolicy != "auto" || !slices.Equal(got.Backends, []string{"gcp", "aws"}) || !slices.Equal(got.Regions, []string{"a"}) || *got.MaxPrice != 2 {
		t.Errorf("merged: %+v", got)
	}
	if events, _ := got.RetryRule(); len(events) > 0 {
		t.Errorf("the profile overrides the configuration: %v", events)
	}
	none := spec.Merge(parseWith(t, "auth: true"), spec.Profile{})
	if none.SpotPolicy != "auto" || none.CreationPolicy != "reuse-or-create" || none.TerminationPolicy != "destroy-after-idle" || *none.TerminationIdleTime != 300 || none.Backends != nil {
		t.Errorf("the defaults are %+v", none)
	}
}

func TestRetryRule(t *testing.T) {
	for _, c := range []struct {
		input, events string
		window        spec.Seconds
	}{
		{"auth: true", "", 3600},
		{"retry: true", "no-capacity interruption error", 3600},
		{"retry: false\nretry_policy: {retry: true}", "", 3600},
		{"retry: {on_events: [error]}", "error", 3600},
		{"retry: {on_events: [error], duration: 0}", "error", 0},
		{"retry: {on_events: [error, no-capacity], duration: 1d}", "error no-capacity", 86400},
		{"retry_policy: {retry: true}", "no-capacity interruption error", 3600},
		{"retry_policy: {duration: 5m}", "no-capacity interruption error", 300},
		{"retry_policy: {retry: false}", "", 3600},
	} {
		events, window := parseWith(t, c.input).RetryRule()
		if strings.Join(events, " ") != c.events || window != c.window {
			t.Errorf("%s retries after %v for %s", c.input, events, window)
		}
	}
}

func TestUnsupported(t *testing.T) {
	s := parseWith(t, `setup: [a]
home_dir: /home/me
replicas: 0..2
scaling: {metric: rps, target: 1}
model: {type: chat, name: m, format: tgi}
max_duration: 1h
reservation: r`)
	var got []string
	for _, p := range spec.Unsupported(&s, spec.Profile{Params: spec.Params{MaxDuration: &spec.MaxDuration{Seconds: 1}}}) {
		if !p.Unsupported || !strings.HasPrefix(p.Message, "not supported yet: ") || p.Hint == "" {
			t.Errorf("%+v is not an unsupported feature with a hint", p)
		}
		got = append(got, p.Path)
	}
	want := []string{"home_dir", "setup", "reservation"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, fine := range []string{
		"auth: true", "max_duration: off", "home_dir: /root", "replicas: 3", "replicas: 0", "idle_duration: off",
		"pool_name: p\ninstance_name: i\ncreation_policy: reuse\ntermination_policy: dont-destroy\ntermination_idle_time: 5m",
		"retry: true\nbackends: [aws]\nregions: [a]\ninstance_types: [b]\nspot_policy: spot\nmax_price: 1\nretry_policy: {retry: true}",
	} {
		s := parseWith(t, fine)
		if problems := spec.Unsupported(&s, spec.Profile{}); problems != nil {
			t.Errorf("%s is rejected: %v", fine, problems)
		}
	}
	profile := parseProfileWith(t, "reservation: x", "idle_duration: 1h", "max_duration: 1h", "tags: {a: b}")
	got = nil
	over := parseWith(t, "max_duration: off")
	for _, p := range spec.Unsupported(&over, profile) {
		got = append(got, p.Path)
	}
	if diff := cmp.Diff([]string{"profile.reservation", "profile.tags"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestLocate(t *testing.T) {
	text := []byte("# a service\ntype: service\nscaling:\n  target: 1\nenv:\n  - A=1\n  - TOKEN\nname: Bad_Name\n")
	got := spec.Locate("f.yml", text, spec.Problems{
		{Path: "profile.pool_name", Message: "p"}, {Path: "name"}, {Path: "scaling"}, {Path: "env.TOKEN"}, {Path: "scaling.target"}, {Path: "port"},
	})
	want := []struct {
		path             string
		line, col, width int
		source           string
	}{
		{"profile.pool_name", 0, 0, 0, ""}, {"port", 0, 0, 0, ""}, {"scaling", 3, 1, 7, "scaling:"},
		{"scaling.target", 4, 11, 1, "  target: 1"}, {"env.TOKEN", 7, 5, 5, "  - TOKEN"}, {"name", 8, 7, 8, "name: Bad_Name"},
	}
	for i, w := range want {
		p := got[i]
		if p.Path != w.path || p.Line != w.line || p.Col != w.col || p.Width != w.width || p.Source != w.source || p.File != "f.yml" {
			t.Errorf("%+v is not at %+v", p, w)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"ab", "a-b", "a-", "a1", "a" + strings.Repeat("b", 40)} {
		if err := spec.CheckName(good); err != nil {
			t.Errorf("%s is rejected: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a", "A1", "1a", "a_b", "a b", "ab\n", "a" + strings.Repeat("b", 41), "gateway"} {
		err := spec.CheckName(bad)
		if p, ok := errors.AsType[spec.Problem](err); !ok || p.Hint == "" || p.Path != "name" {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestDiff(t *testing.T) {
	a := parseWith(t, "env: [A=old-secret, B=same, C=gone]\ncommands: [a, serve --len 4096]\nimage: x\nregistry_auth: {username: u, password: old-secret}\nreplicas: 1..4\nscaling: {metric: rps, target: 10}")
	b := parseWith(t, "env: [A=new-secret, B=same, D]\ncommands: [a, serve --len 8192, b]\nimage: x\nregistry_auth: {username: u, password: new-secret}\nreplicas: 1..4\nscaling: {metric: rps, target: 20}\nresources: {gpu: 24GB, cpu: 2..}")
	want := []spec.Change{
		{Path: "scaling.target", From: "10", To: "20"},
		{Path: "registry_auth.password", From: "•••", To: "•••"},
		{Path: "env.A", From: "•••", To: "•••"},
		{Path: "env.C", From: "•••"},
		{Path: "env.D", To: "from your environment: D"},
		{Path: "resources.cpu", From: "2.. by default", To: "2.."},
		{Path: "resources.gpu", To: "24GB"},
		{Path: "commands.1", From: "serve --len 4096", To: "serve --len 8192"},
		{Path: "commands.2", To: "b"},
	}
	if diff := cmp.Diff(want, spec.Diff(a, b)); diff != "" {
		t.Error(diff)
	}
	ours := []spec.Change{
		{Path: "drain_timeout", From: "5m"}, {Path: "hold.requests", From: "5", To: "6"}, {Path: "hold.timeout", To: "2m"},
	}
	if diff := cmp.Diff(ours, spec.Diff(parseWith(t, "drain_timeout: 5m\nhold: {requests: 5}"), parseWith(t, "hold: {requests: 6, timeout: 2m}"))); diff != "" {
		t.Error(diff)
	}
	if same := spec.Diff(a, a); same != nil {
		t.Errorf("it differs from itself: %v", same)
	}
}

func TestDiff_ShowsProbesAndLimitsInTheWordsOfTheFile(t *testing.T) {
	a := parseWith(t, "probes: [{type: http, url: /health}, {type: http, headers: [{name: Authorization, value: old-secret}]}]\nrate_limits: [{rps: 1}]")
	b := parseWith(t, "probes: [{type: http, url: /health, interval: 5s, ready_after: 3, until_ready: true}, "+
		"{type: http, method: post, body: x, headers: [{name: Authorization, value: new-secret}]}]\n"+
		"rate_limits: [{rps: 2.5, key: {type: header, header: X-Key}}, {prefix: /v1/, rps: 1, burst: 4}]")
	want := []spec.Change{
		{Path: "probes.0", From: "get /health timeout=10s interval=15s", To: "get /health timeout=10s interval=5s ready_after=3 until_ready=true"},
		{Path: "probes.1", From: "get / timeout=10s interval=15s headers=Authorization:•••", To: "post / timeout=10s interval=15s headers=Authorization:••• body=x"},
		{Path: "rate_limits.0", From: "prefix=/ rps=1 burst=0 key=ip_address", To: "prefix=/ rps=2.5 burst=0 key=header:X-Key"},
		{Path: "rate_limits.1", To: "prefix=/v1/ rps=1 burst=4 key=ip_address"},
	}
	if diff := cmp.Diff(want, spec.Diff(a, b)); diff != "" {
		t.Error(diff)
	}
	secret := []string{"headers: [{name: X, value: a}]", "headers: [{name: X, value: b}]"}
	if got := spec.Diff(parseWith(t, "probes: [{type: http, "+secret[0]+"}]"), parseWith(t, "probes: [{type: http, "+secret[1]+"}]")); len(got) != 1 {
		t.Errorf("another value of a header: %v", got)
	}
}
