package status_test

import (
	"testing"
	"time"

	"dstack/internal/decide/status"
	"dstack/internal/dstack"
)

const current, older = 2, 1

func replica(template int, s dstack.ReplicaStatus) status.Replica {
	return status.Replica{Status: s, TemplateRevision: template}
}

func TestSummarize_State(t *testing.T) {
	const waiting, starting, ready, unhealthy, restarting = dstack.ReplicaWaiting, dstack.ReplicaStarting, dstack.ReplicaReady, dstack.ReplicaUnhealthy, dstack.ReplicaRestarting
	active := func(desired int, rs ...status.Replica) status.Facts {
		return status.Facts{Status: dstack.RunActive, TemplateRevision: current, DesiredReplicas: desired, Replicas: rs}
	}
	served := func(f status.Facts) status.Facts { f.HasServed = true; return f }
	scales := func(f status.Facts) status.Facts { f.Scales, f.CanSleep = true, true; return f }
	for _, c := range []struct {
		name  string
		facts status.Facts
		want  status.State
	}{
		{"the run pass has not seen it", status.Facts{Status: dstack.RunSubmitted}, status.Submitted},
		{"stopped before the run pass saw it", status.Facts{Status: dstack.RunSubmitted, Stop: dstack.StopAbort}, status.Stopping},
		{"stop requested", status.Facts{Status: dstack.RunActive, Stop: dstack.StopGraceful}, status.Stopping},
		{"ending", status.Facts{Status: dstack.RunTerminating}, status.Stopping},
		{"ended", status.Facts{Status: dstack.RunTerminated, Stop: dstack.StopGraceful}, status.Stopped},
		{"gave up", status.Facts{Status: dstack.RunFailed}, status.Failed},
		{"a status of a later version", status.Facts{Status: "paused"}, status.Unknown},

		{"no replica created yet", active(1), status.Waiting},
		{"all replicas wait for a machine", active(2, replica(current, waiting), replica(current, waiting)), status.Waiting},
		{"one has a machine", active(2, replica(current, waiting), replica(current, starting)), status.Starting},
		{"the last attempts crashed before any was ready", active(1, replica(current, restarting)), status.Starting},
		{"between two revisions", active(1, replica(older, dstack.ReplicaTerminated)), status.Starting},
		{"as many ready as desired", active(1, replica(current, ready)), status.Ready},
		{"more ready than desired", active(1, replica(current, ready), replica(current, ready)), status.Ready},
		{"fewer ready than desired", active(2, replica(current, ready), replica(current, starting)), status.Degraded},
		{"one fails its probes", served(active(2, replica(current, ready), replica(current, unhealthy))), status.Degraded},
		{"an older revision serves", active(1, replica(older, ready), replica(current, starting)), status.Updating},
		{"an older replica drains, the current one is ready", active(1, replica(older, dstack.ReplicaDraining), replica(current, ready)), status.Ready},
		{"all fail their probes", served(active(2, replica(current, unhealthy), replica(current, unhealthy))), status.Failing},
		{"served, starts again", served(active(1, replica(current, starting))), status.Failing},
		{"every replica gave up", active(1, replica(current, dstack.ReplicaFailed)), status.Failing},
		{"a failure of an older revision does not count", active(1, replica(older, dstack.ReplicaFailed)), status.Starting},

		{"scaled to zero", scales(active(0)), status.Sleeping},
		{"scaled to zero, the last replica drains", scales(active(0, replica(current, dstack.ReplicaDraining))), status.Sleeping},
		{"scaled to zero, a replica is left", scales(active(0, replica(current, starting))), status.Starting},
		{"replicas: 0", active(0), status.Disabled},
		{"wakes", served(scales(active(1, replica(current, starting)))), status.Starting},
		{"crashed after it woke", served(scales(active(1, status.Replica{Status: restarting, TemplateRevision: current, HasRun: true}))), status.Failing},
	} {
		if got := status.Summarize(c.facts).State; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSummarize_CountsAndFurthest(t *testing.T) {
	f := status.Facts{Status: dstack.RunActive, TemplateRevision: current, DesiredReplicas: 3, Replicas: []status.Replica{
		replica(current, dstack.ReplicaReady), replica(older, dstack.ReplicaReady), replica(older, dstack.ReplicaDraining),
		replica(current, dstack.ReplicaUnhealthy), replica(current, dstack.ReplicaTerminated),
	}}
	if got := status.Summarize(f); got.Ready != 1 || got.Serving != 2 || got.Furthest != dstack.ReplicaReady {
		t.Errorf("%+v", got)
	}
	for _, want := range []dstack.ReplicaStatus{dstack.ReplicaReady, dstack.ReplicaUnhealthy, dstack.ReplicaStarting, dstack.ReplicaWaiting} {
		f.Replicas = []status.Replica{replica(current, dstack.ReplicaWaiting), replica(current, want), replica(current, dstack.ReplicaRestarting)}
		if got := status.Summarize(f).Furthest; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f.Replicas = []status.Replica{replica(current, dstack.ReplicaRestarting), replica(current, dstack.ReplicaDraining)}
	if got := status.Summarize(f).Furthest; got != "" {
		t.Errorf("%q, want none", got)
	}
}

func TestNewFacts(t *testing.T) {
	run := dstack.Run{Status: dstack.RunActive, Stop: dstack.StopGraceful, TemplateRevision: 2, DesiredReplicas: 1, ReadyAt: time.Unix(1, 0)}
	run.Spec.Configuration.Replicas.Max = 3
	f := status.NewFacts(run, []dstack.Replica{
		{Status: dstack.ReplicaReady, TemplateRevision: 2, ReadyAt: time.Unix(1, 0)}, {Status: dstack.ReplicaStarting, Crashes: 1}, {Status: dstack.ReplicaStarting},
	})
	if f.Status != dstack.RunActive || f.Stop != dstack.StopGraceful || f.TemplateRevision != 2 || f.DesiredReplicas != 1 || !f.HasServed || !f.Scales || !f.CanSleep {
		t.Errorf("%+v", f)
	}
	if !f.Replicas[0].HasRun || !f.Replicas[1].HasRun || f.Replicas[2].HasRun {
		t.Errorf("%+v", f.Replicas)
	}
	run.Spec.Configuration.Replicas.Min = 3
	if f := status.NewFacts(run, nil); f.Scales || f.CanSleep {
		t.Errorf("a fixed number scales: %+v", f)
	}
}
