//go:build ignore

// Mutate checks the tests of internal/decide: it puts one deliberate fault
// after the other into the code, with `go test -overlay` and without touching
// a file, and expects a test to fail each time. It prints every fault and the
// score, and exits with 1 when a fault survives, or its text is not found.
//
//	go run scripts/mutate.go [-checks N] [-timeout D] [-only TEXT]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// fault is a change of one place in a file below internal/decide. old is
// unique in the file.
type fault struct {
	name, file, old, new string
}

// usesRapid lists the packages whose tests know rapid's flags.
var usesRapid = map[string]bool{"lifecycle": true, "autoscale": true, "job": true}

var faults = []fault{
	// The run.
	{"ReadyAt of a run moves with each step", "lifecycle/run_step.go", "step.Ready && run.ReadyAt.IsZero() {", "step.Ready {"},
	{"StartedAt of a run moves with each step", "lifecycle/run_step.go", "step.Started && run.StartedAt.IsZero() {", "step.Started {"},
	{"the number of replicas changes and ScaledAt does not", "lifecycle/run_step.go", "next.ScaledAt = now", "_ = now"},
	{"a rollback is not applied", "lifecycle/run_step.go", "next = RollBack(next, target, now)", "_ = target"},
	{"a late stable revision is not saved", "lifecycle/run_step.go", "next.StableRevision = step.StableRevision", "_ = step"},
	{"a late stable revision is not seen", "lifecycle/run.go", "latest = max(latest, r.Revision)", "_ = r"},
	{"a machine counts as gone right after its deletion", "lifecycle/rented.go", "now.Sub(gone) >= settleTime", "true"},
	{"a deletion is given up", "lifecycle/rented.go", "step.Action = DeleteMachine", "step.To = dstack.InstanceDeleted"},
	{"a deletion is repeated each second for days", "lifecycle/rented.go", "max(retryDelay(i), min(now.Sub(i.Since)/4, maxDeletePace))", "retryDelay(i)"},
	{"a conflict with an earlier launch is tried again for ever", "lifecycle/rented.go", "|| dstack.KindOf(failure) == dstack.Conflict {", "{"},
	{"the wait that a cloud asks for is not kept", "lifecycle/rented.go", "f.RetryAfter > 0 {", "false {"},
	{"an offer that failed is tried again at once", "lifecycle/rented.go", "Action: step.Action, Failed: refusal, Due: now}", "Action: step.Action, Due: now}"},
	{"wrong credentials exclude one offer", "lifecycle/rented.go", "f.Scope = dstack.ScopeBackend", "_ = f"},
	{"a machine that boots is away", "lifecycle/instance.go", "isRemote(i) && hasAnswered(i) &&", "isRemote(i) &&"},
	{"a rented machine that is away is never deleted", "lifecycle/host.go", "if step, ok := deleteRented(seen, now); ok {", "if step, ok := deleteRented(seen, now); ok && false {"},
	{"a run waits for machines that have ended", "lifecycle/replica.go", "|| hasEnded(*seen.Instance, now)", ""},
	{"a notice is forgotten", "lifecycle/instance_step.go", "i.TakenBackAt = m.TakenBackAt.Truncate(time.Microsecond)", "_ = m"},
	{"a notice replaces nothing", "lifecycle/host.go", "case !i.TakenBackAt.IsZero():", "case false:"},
	{"replicas of a machine that is taken back serve to its end", "lifecycle/takeback.go", "d.isForced = !now.Before(drainAt); d.isForced", "d.isForced"},
	{"a replica is not stopped before its machine is taken back", "lifecycle/takeback.go", "return stop", "_ = stop"},
	{"a replacement leaves when the machine is lost for good", "lifecycle/host.go", "isLost(&i) && isRented(i) && seen.hasReplacement()", "false"},
	{"an interruption is not recorded", "lifecycle/replica.go", "step.EndedAttempt = endAttempt(seen, now, why, dstack.AttemptAbsent)", "_ = rep"},
	{"an interruption is not retried", "lifecycle/replica.go", "!lost.IsZero() && now.Sub(lost) < window", "lost.IsZero() && false"},
	{"a wait for capacity begins anew with each try", "lifecycle/replica.go", "now.Sub(waitingSince(seen.Replica)) >= window", "now.Sub(since) >= window"},
	{"an idle machine is given twice", "placement/sizes.go", "claim.Whole = true", "_ = claim"},
	{"an idle machine is used before owned ones", "placement/order.go", "key.class = idleMachine", "_ = key"},
	{"spot machines have no preference", "placement/order.go", "case a.onDemand != b.onDemand:", "case false:"},
	{"a machine that cannot be had is tried", "placement/rented.go", "return o.OwnedInstance == \"\" && (o.Availability", "return false && (o.Availability"},
	{"a full zone excludes the region", "placement/exclusions.go", "case dstack.ScopeZone, dstack.ScopeTypes:", "case dstack.ScopeTypes:\n\tcase dstack.ScopeZone:\n\t\tkey.zone = \"\""},
	{"a quota excludes as long as capacity", "placement/exclusions.go", "limit = quotaExcludes", "_ = limit"},
	{"zones that have room are not preferred", "placement/exclusions.go", "x.zones = f.Zones", "_ = f"},
	{"a stop is ignored", "lifecycle/run.go", "seen.Run.Stop != dstack.StopNone", "false"},
	{"an abort drains", "lifecycle/run.go", "seen.Run.Stop != dstack.StopAbort", "true"},
	{"a later abort changes nothing", "lifecycle/run.go", "if run.Stop == dstack.StopAbort {", "if false {"},
	{"a run does not wait for its replicas", "lifecycle/run.go", "if left > 0 {", "if left > 1 {"},
	{"nothing looks at a run when its max_duration is over", "lifecycle/run.go", "step.Due = earliestDue(now, seen.ScaleDue, over)", "step.Due = earliestDue(now, seen.ScaleDue)"},
	{"max_duration does not end a run", "lifecycle/run.go", "limited && !now.Before(over)", "limited && false"},
	{"a failed update is not rolled back", "lifecycle/run.go", "seen.Run.StableRevision > 0 {\n\t\t\treturn runRollsBack", "false {\n\t\t\treturn runRollsBack"},
	{"serving replicas end without draining", "lifecycle/run.go", "drain = append(drain, r.ID)", "drop = append(drop, r.ID)"},
	{"a run that cannot work is not given up", "lifecycle/run.go", "return runGivesUp(seen, c.failed[0])", "_ = c"},

	// Rollouts.
	{"the whole update starts at once", "lifecycle/rollout.go", "max(1, wanted/4)", "max(1, wanted)"},
	{"outdated replicas leave before new ones are ready", "lifecycle/rollout.go", "max(seen.DesiredReplicas-c.ready, 0)", "0"},
	{"a blocked replica frees no place", "lifecycle/rollout.go", "surplus = max(surplus, blocked-c.terminating-len(leave))", "_ = blocked"},
	{"a number is given twice", "lifecycle/rollout.go", "if !taken[num] {", "if true {"},
	{"an update has taken over with one ready replica", "lifecycle/rollout.go", "c.ready >= desired ||", "c.ready >= 1 ||"},
	{"failed replicas are replaced without end", "lifecycle/rollout.go", "missing -= len(c.failed)", "_ = missing"},
	{"the busiest replica leaves first", "lifecycle/rollout.go", "cmp.Compare(c.inFlight[a.ID], c.inFlight[b.ID])", "cmp.Compare(c.inFlight[b.ID], c.inFlight[a.ID])"},

	// Revisions.
	{"what has served is not remembered", "lifecycle/revision.go", "run.StableRevision = run.Revision", "_ = served"},
	{"a replica that is ready since a moment ago does not count", "lifecycle/revision.go", "return seen.HasReadyReplica", "return false"},
	{"a rollout keeps the template", "lifecycle/revision.go", "run.TemplateRevision, run.ReadyAt = num, time.Time{}", "run.ReadyAt = time.Time{}"},
	{"a rollback leaves the range", "lifecycle/revision.go", "to.TemplateRevision, 0, now\n\treturn limitReplicas(run, now)", "to.TemplateRevision, 0, now\n\treturn run"},
	{"a revision that another user changed is overwritten", "lifecycle/revision.go", "run.Revision != present", "false"},

	// The replica.
	{"ReadyAt of a replica moves when it comes back", "lifecycle/replica_step.go", "step.To == dstack.ReplicaReady && !r.ReadyAt.After(r.AttemptAt)", "step.To == dstack.ReplicaReady"},
	{"a replica that waits keeps its claim", "lifecycle/replica_step.go", `r.Instance, r.Claim = "", dstack.Claim{}`, `r.Instance = ""`},
	{"attempts are not counted", "lifecycle/replica_step.go", "r.AttemptNum++", "_ = now"},
	{"a terminating replica gets its grace period back", "lifecycle/run_step.go", "r.Graceful = r.Graceful && step.Graceful", "r.Graceful = step.Graceful"},
	{"a replica that became ready ends without draining", "lifecycle/run_step.go", "step.Graceful && isServing(r)", "false"},
	{"a second order to drain moves the deadline", "lifecycle/run_step.go", "r.Status.IsFinished() || isLeaving(r)", "r.Status.IsFinished()"},
	{"a replica is ended though it may still run", "lifecycle/replica.go", "!rep.At.Before(r.Since)", "true"},
	{"a replica restarts while its last attempt runs", "lifecycle/replica.go", "case seen.Report != nil && !seen.Report.State.IsOver():", "case false:"},
	{"nothing looks at a replica that drains without a machine", "lifecycle/replica.go", "step.Due = now // no report", "_ = now // no report"},
	{"draining has no deadline", "lifecycle/replica.go", "!now.Before(r.DrainDeadline) ||", ""},
	{"draining waits for nothing", "lifecycle/replica.go", "case load.Drained[r.ID] ||", "case true ||"},
	{"nothing looks for another machine for a replica", "lifecycle/replica.go", "step.Due = now\n\treturn step", "return step"},
	{"nothing looks at a replica after its back-off", "lifecycle/replica.go", "step.Due = r.RetryAt", "_ = r"},
	{"nothing looks again for a place", "lifecycle/replica.go", "step := seen.stayWith(why)\n\tstep.Due = now.Add(placeInterval)", "step := seen.stayWith(why)"},
	{"a replica stays on a machine that is gone", "lifecycle/replica.go", "return i == nil || i.Status == dstack.InstanceDeleting || i.Status == dstack.InstanceDeleted", "return false"},
	{"all unhealthy replicas restart at once", "lifecycle/health.go", "case dstack.ReplicaStarting, dstack.ReplicaRestarting:\n\t\t\treturn false", "case dstack.ReplicaStarting, dstack.ReplicaRestarting:"},
	{"what has served is given up", "lifecycle/crash.go", "case seen.hasServedTemplate():", "case false:"},
	{"a broken replica is retried without end", "lifecycle/crash.go", "crashes >= maxFirstAttempts", "false"},
	{"the back-off does not grow", "lifecycle/crash.go", "firstBackoff<<min(crashes-1, 10)", "firstBackoff"},

	// The instance.
	{"a silent owned machine is deleted", "lifecycle/instance.go", "!isRented(i) || !seen.Listed", "!seen.Listed"},
	{"a silent rented machine stays", "lifecycle/instance.go", "if silentFor(i, maxSilence, now) {", "if false {"},
	{"silence counts while the engine is not asked", "lifecycle/instance.go", "gap <= maxCheckGap", "true"},
	{"an empty machine stays", "lifecycle/instance.go", "now.Sub(empty) >= i.IdleTime {", "false {"},
	{"an unlimited idle time ends at once", "lifecycle/instance.go", "i.IdleTime >= 0 && now.Sub(empty)", "now.Sub(empty)"},
	{"one list without a machine deletes it", "lifecycle/instance.go", "if unlisted := unlistedSince(seen, now); !unlisted.IsZero() && now.Sub(unlisted) >= maxUnlisted {",
		"if unlisted := unlistedSince(seen, now); !unlisted.IsZero() {"},
	{"one list without a machine ends its deletion", "lifecycle/instance.go", "case now.Sub(gone) >= settleTime:", "case true:"},
	{"a failed machine stays", "lifecycle/instance.go", "m == nil || m.State != dstack.MachineFailed ||", "true ||"},
	{"a failed owned machine is deleted", "lifecycle/instance.go", "m.State != dstack.MachineFailed || !isRented(seen.Instance):", "m.State != dstack.MachineFailed:"},
	{"a refused creation is repeated", "lifecycle/instance_step.go", "case dstack.NoCapacity, dstack.Unauthorized, dstack.Forbidden:", "case \"\":"},
	{"consecutive failures are not counted", "lifecycle/instance_step.go", "i.ConsecutiveFailures+1", "1"},
	{"nothing looks for a machine for a replica that lost its own", "lifecycle/replica.go", "is gone\")\n\tstep.Due = now\n", "is gone\")\n"},
	{"a machine is created twice", "lifecycle/instance.go", "case !seen.Listed:\n\t\treturn InstanceStep{To: dstack.InstanceCreating", "case false:\n\t\treturn InstanceStep{To: dstack.InstanceCreating"},
	{"a report that was asked for too early is an answer", "lifecycle/report.go", "!f.SinceAtSync.Equal(f.Since)", "false"},
	{"an absent report is never saved again", "lifecycle/report.go", "f.Since.After(f.Saved.At)", "false"},
	{"a wanted attempt is stopped", "lifecycle/sync.go", "case p != nil && isWanted(p.Replica):", "case false:"},
	{"a ready attempt that the engine lost is started again", "lifecycle/sync.go", "r.Status != dstack.ReplicaStarting || r.Attempt", "!isWanted(r) || r.Attempt"},
	{"an attempt starts beside an earlier one of its replica", "lifecycle/sync.go", "return runs[past.ID]", "return false"},

	// Hosts that go away or drain.
	{"a host is away late", "lifecycle/host.go", "awayAfter      = 10 *", "awayAfter      = 20 *"},
	{"a host that answers stays away", "lifecycle/host.go", "step.To == dstack.InstanceAway && step.Action", "false && step.Action"},
	{"a lost replica is not replaced", "lifecycle/host.go", "silentFor(*i, lostAfter, now)", "silentFor(*i, time.Hour, now)"},
	{"displaced replicas leave before others are ready", "lifecycle/rollout.go", "len(c.displaced)-max(desired-c.steadyReady, 0)", "len(c.displaced)"},
	{"something starts beside what is left on a host", "lifecycle/sync.go", "case left > 0:", "case left > 99:"},
	{"a run that is stopped waits for a lost host", "lifecycle/replica.go", "if isLostHost(seen.Instance, now) {", "if false {"},
	{"nothing looks at a replica that ends on a lost host", "lifecycle/replica.go", "\tif isAway(seen.Instance) {\n\t\tstep.Due = now\n", "\tif false {\n\t\tstep.Due = now\n"},
	{"a replica is placed on a host that is away", "placement/exclusions.go", "if !isAway {", "if !isAway || true {"},
	{"a machine that is away is a target", "route/availability.go", "r.IsAway ||", "false ||"},
	{"a full disk is tried again", "lifecycle/crash.go", "rep.OtherMachine && i != nil", "false && i != nil"},

	// Placement.
	{"claimed CPUs count as free", "placement/allocation.go", "held.CPUs += claim.CPUs", "_ = claim.CPUs"},
	{"released memory stays held", "placement/allocation.go", "held.MemoryMiB -= claim.MemoryMiB", "_ = claim.MemoryMiB"},
	{"a released GPU stays held", "placement/allocation.go", "delete(held.GPUs, g.ID)", "_ = g"},
	{"runs of other projects are named", "placement/allocation.go", "if g.Project == viewer {", "if true {"},
	{"memory is never exceeded", "placement/allocation.go", "claim.MemoryMiB > 0 && total", "false && total"},
	{"a replica is never blocked", "placement/placement.go", "outdated)).Suitable() > 0", "outdated)).Suitable() > 99"},
	{"a taken GPU is given again", "placement/gpu.go", "return found\n", "return found && false\n"},
	{"a taken port is given again", "placement/sizes.go", "return o.Engine.SharesPorts && held.Ports", "return false && held.Ports"},

	// Routes and load.
	{"a closed port is a target", "route/availability.go", "!r.Report.Ready ||", "false ||"},
	{"an attempt that does not run is a target", "route/availability.go", "r.Report.State != dstack.AttemptRunning", "false"},
	{"no replica serves in panic mode", "route/availability.go", "r.Ready = findTargets(f.Replicas, dstack.ReplicaUnhealthy)", "r.Ready = nil"},
	{"unhealthy replicas serve beside ready ones", "route/availability.go", "r.Status != status", "r.Status != status && r.Status != dstack.ReplicaUnhealthy"},
	{"an old report counts", "autoscale/load.go", "if !g.isRecent(now) {", "if false {"},
	{"a silent gateway has drained", "autoscale/load.go", "load.Known && allRecent", "load.Known || allRecent"},
	{"a replica in an old route table is drained", "autoscale/load.go", "sequence <= oldest", "true"},
	{"a replica with a request in flight is drained", "autoscale/load.go", "load.Replicas[id] == 0", "true"},

	// The rest.
	{"a failed call to a backend is repeated without a back-off", "lifecycle/instance.go", "backoffAfter(i.ConsecutiveFailures + 1)", "syncCalm"},
	{"a refused offer is tried again at once", "placement/exclusions.go", "until: now.Add(excludeTime(f))", "until: now"},
	{"wrong credentials exclude one offer only", "lifecycle/instance_step.go", "failure.Error(), WholeBackend: true", "failure.Error()"},
	{"a creation is waited for without limit", "lifecycle/instance.go", "now.Sub(i.Since) >= createTimeout", "seen.Listed && now.Sub(i.Since) >= createTimeout"},
	{"a stranger is let into a project", "access/access.go", "allowIf(p.Exists && (isGlobalAdmin || p.Member), Hidden)", "allowIf(p.Exists, Hidden)"},
	{"a member is let in as an admin", "access/access.go", "p.Member && p.Role == dstack.RoleAdmin", "p.Member"},
	{"a replica is taken away while one starts", "autoscale/decide.go", "case f.Starting > 0:", "case false:"},
	{"a sleeping service waits for its delay", "autoscale/decide.go", "case f.DesiredReplicas == 0 && f.Others == 0:", "case false:"},
	{"code changes without new containers", "job/change.go", "oldCode != newCode {", "false && oldCode != newCode {"},
	{"a user's variable does not win", "job/job.go", "env[v.Name] = v.Value", "_ = v"},
}

type result struct {
	verdict string // caught, survived, or what is wrong with the fault
	took    time.Duration
}

func main() {
	checks := flag.Int("checks", 40, "how many worlds rapid simulates for a fault")
	limit := flag.Duration("timeout", 90*time.Second, "limit for the tests of one fault")
	only := flag.String("only", "", "only faults whose name or file contains this")
	flag.Parse()
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
	defer os.RemoveAll(dir)

	caught, tried := 0, 0
	for _, f := range faults {
		if !strings.Contains(f.name, *only) && !strings.Contains(f.file, *only) {
			continue
		}
		tried++
		r := try(dir, f, *checks, *limit)
		if r.verdict == "caught" {
			caught++
		}
		fmt.Printf("%-10s %5.1fs  %-26s %s\n", r.verdict, r.took.Seconds(), f.file, f.name)
	}
	fmt.Printf("%d of %d caught\n", caught, tried)
	if caught < tried {
		os.RemoveAll(dir)
		os.Exit(1)
	}
}

// try runs the tests of a package with a fault in it.
func try(dir string, f fault, checks int, limit time.Duration) result {
	path, err := filepath.Abs(filepath.Join("internal", "decide", f.file))
	if err != nil {
		return result{verdict: err.Error()}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return result{verdict: err.Error()}
	}
	switch strings.Count(string(text), f.old) {
	case 0:
		return result{verdict: "NOT FOUND"}
	case 1:
	default:
		return result{verdict: "NOT UNIQUE"}
	}
	overlay, err := writeOverlay(dir, path, strings.Replace(string(text), f.old, f.new, 1))
	if err != nil {
		return result{verdict: err.Error()}
	}
	pkg := filepath.Dir(f.file)
	args := []string{"test", "-overlay", overlay, "-failfast", "-count=1", "-vet=off", "./internal/decide/" + pkg}
	if usesRapid[pkg] {
		args = append(args, fmt.Sprintf("-rapid.checks=%d", checks), "-rapid.nofailfile", "-rapid.shrinktime=0s")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	began := time.Now()
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	r := result{verdict: "caught", took: time.Since(began)}
	switch {
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "[setup failed]"):
		r.verdict = "NO BUILD"
		fmt.Print(string(out))
	case ctx.Err() != nil:
		r.verdict = "TIMEOUT"
	case err == nil:
		r.verdict = "SURVIVED"
	case !strings.Contains(string(out), "FAIL"):
		r.verdict = "NO TEST"
		fmt.Print(string(out))
	}
	return r
}

// writeOverlay writes a changed file and the overlay that puts it in place of
// the real one.
func writeOverlay(dir, path, text string) (string, error) {
	changed := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}
