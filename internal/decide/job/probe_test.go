package job_test

import (
	"strings"
	"testing"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestModelCheckOf_Paths(t *testing.T) {
	openai := func(prefix string) *spec.Model { return &spec.Model{Format: "openai", Prefix: prefix} }
	for _, c := range []struct {
		name      string
		conf      spec.Service
		asks      bool
		modelList string
	}{
		{"no model", spec.Service{}, false, ""},
		{"a model", spec.Service{Model: openai("/v1")}, true, "/v1/models"},
		{"a model with a prefix", spec.Service{Model: openai("/llm/v1/")}, true, "/llm/v1/models"},
		{"a model without a prefix", spec.Service{Model: openai("")}, true, "/models"},
		{"a prefix that is no path", spec.Service{Model: openai("v1")}, true, ""},
		{"Text Generation Inference", spec.Service{Model: &spec.Model{Format: "tgi"}}, true, ""},
		{"no probes, explicitly", spec.Service{Model: openai("/v1"), Probes: []spec.Probe{}}, false, ""},
		{"probes of its own", spec.Service{Model: openai("/v1"), Probes: []spec.Probe{{URL: "/ready"}}}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			check, ok := job.ModelCheckOf(c.conf)
			if ok != c.asks || check.ModelList != c.modelList || ok && check.URL != "/health" {
				t.Errorf("got %+v, %v", check, ok)
			}
			if text := check.Describe(); ok && (!strings.Contains(text, "GET /health") || !strings.Contains(text, c.modelList)) {
				t.Errorf("described as %q", text)
			}
		})
	}
}

func TestPlanProbes_TheModelCheckIsForReplicasThatAreNotReady(t *testing.T) {
	model := spec.Service{Model: &spec.Model{Format: "openai", Prefix: "/v1"}}
	probed := spec.Service{Model: model.Model, Probes: []spec.Probe{{URL: "/a"}, {URL: "/b"}}}
	for status, want := range map[dstack.ReplicaStatus]int{
		dstack.ReplicaStarting: 1, dstack.ReplicaUnhealthy: 1, dstack.ReplicaReady: 0, dstack.ReplicaDraining: 0,
	} {
		r := dstack.Replica{Status: status}
		if probes := job.PlanProbes(r, model); len(probes) != want {
			t.Errorf("%s: %d model checks, want %d", status, len(probes), want)
		}
		if probes := job.PlanProbes(r, probed); len(probes) != 2 || probes[0].URL != "/a" || probes[0].IsModelCheck {
			t.Errorf("%s: probes %+v", status, probes)
		}
		if probes := job.PlanProbes(r, spec.Service{}); len(probes) != 0 {
			t.Errorf("%s: probes without a model %+v", status, probes)
		}
	}
}

func TestMayProbe(t *testing.T) {
	model := spec.Service{Model: &spec.Model{Format: "openai", Prefix: "/v1"}}
	probed := spec.Service{Probes: []spec.Probe{{URL: "/"}}}
	open := dstack.Report{State: dstack.AttemptRunning, Ready: true}
	closed := dstack.Report{State: dstack.AttemptRunning}
	for _, c := range []struct {
		name   string
		conf   spec.Service
		status dstack.ReplicaStatus
		rep    dstack.Report
		want   bool
	}{
		{"an open port", probed, dstack.ReplicaStarting, open, true},
		{"a port that never opened", probed, dstack.ReplicaStarting, closed, false},
		{"a port that closed", probed, dstack.ReplicaUnhealthy, closed, true},
		{"a model behind an open port", model, dstack.ReplicaStarting, open, true},
		{"a model behind a port that closed", model, dstack.ReplicaUnhealthy, closed, false},
		{"a model behind a port that opened again", model, dstack.ReplicaUnhealthy, open, true},
		{"a model that is there", model, dstack.ReplicaReady, open, false},
		{"an attempt that ended", probed, dstack.ReplicaReady, dstack.Report{State: dstack.AttemptExited, Ready: true}, false},
		{"no probes", spec.Service{}, dstack.ReplicaStarting, open, false},
	} {
		r := dstack.Replica{Status: c.status}
		if got := job.MayProbe(r, c.rep, job.PlanProbes(r, c.conf)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestProbe_Judge(t *testing.T) {
	check, _ := job.ModelCheckOf(spec.Service{Model: &spec.Model{Format: "openai", Prefix: "/v1"}})
	tgi, _ := job.ModelCheckOf(spec.Service{Model: &spec.Model{Format: "tgi"}})
	plain := job.Probe{Probe: spec.Probe{URL: "/health"}}
	for _, c := range []struct {
		probe  job.Probe
		path   string
		status int
		want   job.Verdict
	}{
		{plain, "/health", 204, job.Passed},
		{plain, "/health", 302, job.Failed},
		{plain, "/health", 404, job.Failed},
		{plain, "/health", 503, job.Failed},
		{check, "/health", 503, job.Failed},
		{check, "/health", 200, job.Passed},
		{check, "/health", 500, job.Passed},
		{check, "/health", 404, job.AskOther},
		{check, "/health", 501, job.AskOther},
		{check, "/v1/models", 404, job.Passed},
		{check, "/v1/models", 503, job.Failed},
		{tgi, "/health", 404, job.Passed},
		{tgi, "/health", 503, job.Failed},
	} {
		if got := c.probe.Judge(c.path, c.status); got != c.want {
			t.Errorf("%d from %s: %s, want %s", c.status, c.path, got, c.want)
		}
	}
}

// Others may send only what is no secret, changes nothing, and goes on.
func TestBuildAttemptSpec_ReadyProbe(t *testing.T) {
	for name, c := range map[string]struct {
		probes []spec.Probe
		want   string
	}{
		"none":            {nil, ""},
		"the first":       {[]spec.Probe{{Method: "get", URL: "/a"}, {Method: "get", URL: "/b"}}, "/a"},
		"the first plain": {[]spec.Probe{{Method: "post", URL: "/a"}, {Method: "get", URL: "/b"}}, "/b"},
		"with a header":   {[]spec.Probe{{Method: "get", URL: "/a", Headers: []spec.Header{{Name: "Authorization", Value: "secret"}}}}, ""},
		"with a body":     {[]spec.Probe{{Method: "get", URL: "/a", Body: "x"}}, ""},
		"ends when ready": {[]spec.Probe{{Method: "get", URL: "/a", UntilReady: true}}, ""},
		"an empty list":   {[]spec.Probe{}, ""},
	} {
		run := dstack.Run{Spec: dstack.RunSpec{Configuration: spec.Service{Probes: c.probes}}}
		got := ""
		if p := job.BuildAttemptSpec(run, dstack.Replica{}).ReadyProbe; p != nil {
			got = p.URL
		}
		if got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
