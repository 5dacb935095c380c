package enginetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
)

var contractCases = []struct {
	name string
	run  func(*harness)
}{
	{"it becomes ready and answers at its address", becomesReady},
	{"it sees its environment, and none of the server's tokens", seesEnvironment},
	{"it starts in its working folder, beside its code", seesCode},
	{"a working folder outside is refused", refusesOutside},
	{"its output has streams and growing times", recordsOutput},
	{"its output is followed live", followsLive},
	{"its output can be read on from any line", readsOn},
	{"it exits with a code and its last output", exitsWithCode},
	{"a port that never opens is running and not ready", neverReady},
	{"SIGTERM reaches all of its processes", stopsGently},
	{"one that ignores SIGTERM is killed after its grace", killsAfterGrace},
	{"a second stop shortens the wait", shortensStop},
	{"it is stopped at once when there is no grace", killsWithoutGrace},
	{"what it leaves in the background ends with it", endsBackground},
	{"started twice, it runs once", startsOnce},
	{"a restarted server finds it again", survivesRestart},
	{"a restarted server finds how it ended", survivesRestartEnded},
	{"removed while it runs, nothing is left", removesRunning},
	{"an unknown attempt is no error", unknownIsFine},
	{"a killed keeper ends it", killedKeeper},
	{"twenty at once", runsTwentyAttempts},
}

func becomesReady(h *harness) {
	id := h.startAttempt(h.newSpec("echo hello > index.html; " + h.f.Serve))
	r := h.waitForReport(id, "ready", isReady)
	if got := h.fetchIndex(r.Address); got != "hello" {
		h.t.Errorf("it answered %q", got)
	}
	if r.StartedAt.IsZero() || time.Since(r.StartedAt) > caseTimeout || r.At.IsZero() {
		h.t.Errorf("times: %+v", r)
	}
}

func seesEnvironment(h *harness) {
	h.t.Setenv("DSTACK_SERVER_ADMIN_TOKEN", "canary-of-the-server")
	h.reopen() // the server's environment is read now
	id := h.startAttempt(h.newSpec("env", func(o *dstack.AttemptSpec) {
		maps.Copy(o.Env, map[string]string{"SPACED": "a b  c", "QUOTED": `"$HOME"'`, "EMPTY": ""})
	}))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "SPACED=a b  c", `QUOTED="$HOME"'`, "EMPTY=", "DSTACK_RUN_NAME=suite")
	all := strings.Join(lineTexts(h.readAllLogs(id, time.Time{})), "\n")
	if strings.Contains(all, "canary") {
		h.t.Errorf("the server's token is in it: %s", all)
	}
	for _, name := range []string{"HOME=", "PATH="} {
		if !strings.Contains("\n"+all, "\n"+name) {
			h.t.Errorf("no %s in %s", name, all)
		}
	}
}

func seesCode(h *harness) {
	id := h.startAttempt(h.newSpec("cat hello.txt; echo; ../run.sh; pwd", func(o *dstack.AttemptSpec) {
		o.CodeHash, o.WorkingDir = codeHash, "app"
	}))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "hello from the folder", "run by ../run.sh")
}

func refusesOutside(h *harness) {
	for _, dir := range []string{"..", "a/../..", "/etc"} {
		id := h.startAttempt(h.newSpec("pwd", func(o *dstack.AttemptSpec) { o.WorkingDir = dir }))
		r := h.waitForReport(id, "over", isOver)
		if r.State != dstack.AttemptRefused || !r.Permanent || !strings.Contains(r.Error, "working_dir") {
			h.t.Errorf("%s: %+v", dir, r)
		}
	}
}

func recordsOutput(h *harness) {
	id := h.startAttempt(h.newSpec("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; printf 'no end'"))
	r := h.waitForReport(id, "ended", isExited)
	lines := h.readAllLogs(id, time.Time{})
	streams := map[string][]string{}
	last := r.StartedAt.Add(-time.Second)
	for _, l := range lines {
		streams[l.Stream] = append(streams[l.Stream], string(l.Text))
		if !l.At.After(last) || !l.At.Equal(l.At.Truncate(time.Microsecond)) {
			h.t.Errorf("%q at %v, after one at %v", l.Text, l.At, last)
		}
		last = l.At
	}
	if want := []string{"out 1", "out 2", "out 3", "out 4", "out 5", "no end"}; !slices.Equal(streams["stdout"], want) {
		h.t.Errorf("stdout is %q", streams["stdout"])
	}
	if want := []string{"err 1", "err 2", "err 3", "err 4", "err 5"}; !slices.Equal(streams["stderr"], want) {
		h.t.Errorf("stderr is %q", streams["stderr"])
	}
}

func followsLive(h *harness) {
	id := h.startAttempt(h.newSpec("echo first; while :; do sleep 0.02; done"))
	h.waitForLine(id, "first") // though it has not ended
	if r := h.findReport(id); !isRunning(r) {
		h.t.Errorf("it does not run: %+v", r)
	}
	got := make(chan []string, 1)
	var wait sync.WaitGroup
	wait.Go(func() { got <- lineTexts(h.readAllLogs(id, time.Time{})) })
	h.stopAttempt(id, 0)
	wait.Wait()
	if lines := <-got; !slices.Equal(lines, []string{"first"}) {
		h.t.Errorf("followed: %q", lines)
	}
}

func readsOn(h *harness) {
	const n = 500
	id := h.startAttempt(h.newSpec(fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done", n)))
	h.waitForReport(id, "ended", isExited)
	lines := h.readAllLogs(id, time.Time{})
	if len(lines) != n {
		h.t.Fatalf("%d lines, not %d", len(lines), n)
	}
	for _, i := range []int{0, 1, 250, n - 2, n - 1} {
		rest := h.readAllLogs(id, lines[i].At)
		if len(rest) != n-1-i || len(rest) > 0 && string(rest[0].Text) != fmt.Sprint("line ", i+1) {
			h.t.Errorf("after line %d came %d lines: %.60q", i, len(rest), lineTexts(rest))
		}
		for j, l := range rest {
			if !l.At.Equal(lines[i+1+j].At) {
				h.t.Fatalf("line %d is at %v now, and was at %v", i+1+j, l.At, lines[i+1+j].At)
			}
		}
	}
}

func exitsWithCode(h *harness) {
	id := h.startAttempt(h.newSpec("i=0; while [ $i -lt 15 ]; do echo line $i; i=$((i+1)); done; sleep 0.1; echo broken >&2; exit 7"))
	r := h.waitForReport(id, "ended", isExited)
	if r.ExitCode != 7 || r.Ready || r.OOM {
		h.t.Errorf("%+v", r)
	}
	if len(r.LastOutput) != 10 || !slices.Contains(r.LastOutput, "broken") || !slices.Contains(r.LastOutput, "line 14") {
		h.t.Errorf("last output: %q", r.LastOutput)
	}
	if r.EndedAt.Before(r.StartedAt) || r.EndedAt.IsZero() {
		h.t.Errorf("from %v to %v", r.StartedAt, r.EndedAt)
	}
}

func neverReady(h *harness) {
	id := h.startAttempt(h.newSpec("echo up; exec sleep 600"))
	h.waitForLine(id, "up")
	for range 5 {
		if r := h.findReport(id); !isRunning(r) || r.Ready {
			h.t.Fatalf("%+v", r)
		}
	}
}

// Two processes tell that they were asked; the second one is a child.
const reportsSIGTERM = `ask() { trap "echo $1 was asked; exit 0" TERM; echo $1 is up; while :; do sleep 0.02; done; }; ask one & ask two & wait; sleep 0.2`

func stopsGently(h *harness) {
	id := h.startAttempt(h.newSpec(reportsSIGTERM))
	h.waitForLine(id, "one is up")
	h.waitForLine(id, "two is up")
	h.stopAttempt(id, 20*time.Second)
	begun := time.Now()
	h.waitForReport(id, "ended", isExited)
	if took := time.Since(begun); took > 15*time.Second {
		h.t.Errorf("it took %v", took)
	}
	h.expectLines(id, "one was asked", "two was asked")
}

const ignoresSIGTERM = `trap "" TERM; echo up; while :; do sleep 0.02; done`

func killsAfterGrace(h *harness) {
	id := h.startAttempt(h.newSpec(ignoresSIGTERM))
	h.waitForLine(id, "up")
	begun := time.Now()
	h.stopAttempt(id, 300*time.Millisecond)
	if r := h.findReport(id); !isRunning(r) {
		h.t.Errorf("stop waited, or killed at once: %+v", r)
	}
	r := h.waitForReport(id, "ended", isExited)
	if took := time.Since(begun); took < 250*time.Millisecond || took > 10*time.Second {
		h.t.Errorf("it took %v", took)
	}
	if r.ExitCode != 137 || r.OOM {
		h.t.Errorf("%+v", r)
	}
}

func shortensStop(h *harness) {
	id := h.startAttempt(h.newSpec(ignoresSIGTERM))
	h.waitForLine(id, "up")
	begun := time.Now()
	h.stopAttempt(id, 10*time.Minute)
	h.stopAttempt(id, 200*time.Millisecond)
	h.stopAttempt(id, 10*time.Minute) // never lengthens
	h.waitForReport(id, "ended", isExited)
	if took := time.Since(begun); took > 10*time.Second {
		h.t.Errorf("it took %v", took)
	}
}

func killsWithoutGrace(h *harness) {
	id := h.startAttempt(h.newSpec(reportsSIGTERM))
	h.waitForLine(id, "one is up")
	h.stopAttempt(id, 0)
	h.waitForReport(id, "ended", isExited)
	if got := lineTexts(h.readAllLogs(id, time.Time{})); slices.Contains(got, "one was asked") {
		h.t.Errorf("it was asked first: %q", got)
	}
}

func endsBackground(h *harness) {
	id := h.startAttempt(h.newSpec("sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' & echo done; exit 4"))
	if r := h.waitForReport(id, "ended", isExited); r.ExitCode != 4 {
		h.t.Errorf("%+v", r)
	}
	h.expectLines(id, "done")
}

func startsOnce(h *harness) {
	o := h.newSpec("echo began; exec sleep 600")
	h.started = append(h.started, o.Attempt)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if err := h.Start(h.ctx(), o); err != nil {
				h.t.Errorf("start: %v", err)
			}
		})
	}
	wait.Wait()
	h.waitForLine(o.Attempt, "began")
	for range 3 {
		if err := h.Start(h.ctx(), o); err != nil {
			h.t.Errorf("start: %v", err)
		}
	}
	h.stopAttempt(o.Attempt, 0)
	h.waitForReport(o.Attempt, "ended", isExited)
	if err := h.Start(h.ctx(), o); err != nil {
		h.t.Errorf("start once ended: %v", err)
	}
	if r := h.findReport(o.Attempt); !isExited(r) {
		h.t.Errorf("it was begun again: %+v", r)
	}
	if got := lineTexts(h.readAllLogs(o.Attempt, time.Time{})); !slices.Equal(got, []string{"began"}) {
		h.t.Errorf("output: %q", got)
	}
}

func survivesRestart(h *harness) {
	o := h.newSpec("echo hello > index.html; echo up; " + h.f.Serve)
	id := h.startAttempt(o)
	h.waitForReport(id, "ready", isReady)
	lines := h.outputSoFar(id)
	h.reopen()
	r := h.waitForReport(id, "ready after the restart", isReady)
	if got := h.fetchIndex(r.Address); got != "hello" {
		h.t.Errorf("it answered %q", got)
	}
	if err := h.Start(h.ctx(), o); err != nil {
		h.t.Errorf("start: %v", err)
	}
	if got := h.outputSoFar(id); len(got) < len(lines) || got[0] != "up" {
		h.t.Errorf("output was %q and is %q", lines, got)
	}
	h.stopAttempt(id, 5*time.Second)
	h.waitForReport(id, "ended", isExited)
}

func survivesRestartEnded(h *harness) {
	id := h.startAttempt(h.newSpec("echo up; exit 3"))
	before := h.waitForReport(id, "ended", isExited)
	h.reopen()
	after := h.findReport(id)
	if after.ExitCode != 3 || !after.EndedAt.Equal(before.EndedAt) || !slices.Equal(after.LastOutput, before.LastOutput) {
		h.t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	h.expectLines(id, "up")
}

func removesRunning(h *harness) {
	id := h.startAttempt(h.newSpec(reportsSIGTERM))
	h.waitForLine(id, "two is up")
	if err := h.Remove(h.ctx(), id); err != nil {
		h.t.Fatalf("remove: %v", err)
	}
	if r := h.findReport(id); r.State != dstack.AttemptAbsent {
		h.t.Errorf("%+v", r)
	}
	if left := h.f.ListLeftovers(h.t, id); len(left) > 0 {
		h.t.Errorf("left: %v", left)
	}
	if err := h.Remove(h.ctx(), id); err != nil {
		h.t.Errorf("removed again: %v", err)
	}
}

func unknownIsFine(h *harness) {
	for _, id := range []dstack.AttemptID{"3ad7c9f3-0c0e-4e43-9e6c-9f6b34fba3b0", "", "..", "../x", ".gone-x"} {
		if err := h.Stop(h.ctx(), id, time.Second); err != nil {
			h.t.Errorf("stop %q: %v", id, err)
		}
		if err := h.Remove(h.ctx(), id); err != nil {
			h.t.Errorf("remove %q: %v", id, err)
		}
		if lines := h.readAllLogs(id, time.Time{}); len(lines) > 0 {
			h.t.Errorf("logs of %q: %q", id, lineTexts(lines))
		}
	}
}

func killedKeeper(h *harness) {
	if h.f.KillKeeper == nil {
		return // nothing but the engine itself keeps it there
	}
	id := h.startAttempt(h.newSpec(reportsSIGTERM))
	h.waitForLine(id, "two is up")
	h.f.KillKeeper(h.t, id)
	r := h.waitForReport(id, "ended", isExited)
	if !strings.Contains(r.Error, "keeper") || !slices.Contains(r.LastOutput, "two is up") {
		h.t.Errorf("%+v", r)
	}
}

func runsTwentyAttempts(h *harness) {
	var ids []dstack.AttemptID
	for i := range 20 {
		ids = append(ids, h.startAttempt(h.newSpec(fmt.Sprintf("echo %d > index.html; %s", i, h.f.Serve))))
	}
	for i, id := range ids {
		r := h.waitForReport(id, "ready", isReady)
		if got := h.fetchIndex(r.Address); got != fmt.Sprint(i) {
			h.t.Errorf("%d answered %q", i, got)
		}
	}
	for _, id := range ids {
		h.stopAttempt(id, 5*time.Second)
	}
	for _, id := range ids {
		h.waitForReport(id, "ended", isExited)
	}
}
