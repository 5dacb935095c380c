package enginetest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
)

// contractCase is one promise of the contract, and its test.
type contractCase struct {
	name string
	run  func(*harness)
}

var contractCases = []contractCase{
	{"an attempt becomes ready and answers at its address", becomesReady},
	{"an attempt sees its environment and no tokens of the server", seesEnvironment},
	{"the longest commands and variables run", runsLongestStrings},
	{"longer commands and variables are refused", refusesLongerStrings},
	{"an attempt starts in its working folder, with its code", seesCode},
	{"files and folders are at their paths, after the code", seesFiles},
	{"a path outside of the folder needs a container", seesOuterFiles},
	{"the code is at its path", seesCodeAtPath},
	{"a working folder outside of the code is refused", refusesOutsideDir},
	{"an absolute working folder is the container's", runsInContainerDir},
	{"output lines have increasing times", recordsOutput},
	{"output lines of stdout and stderr keep the order in which they were written", keepsOrder},
	{"output is followed live", followsLive},
	{"output can be read from any line on", resumesLogs},
	{"an exited attempt has an exit code and its last output", exitsWithCode},
	{"an attempt whose port never opens is running and not ready", neverReady},
	{"a report shows that an attempt listens on another port", reportsOtherPort},
	{"a report shows on which addresses an attempt listens", reportsAddresses},
	{"an attempt listens on the port that its engine chose", choosesPort},
	{"SIGTERM reaches all processes", stopsGracefully},
	{"no signal is ignored at the start", startsWithDefaultSignals},
	{"an attempt that ignores SIGTERM is killed after its grace period", killsAfterGrace},
	{"a second stop shortens the grace period", shortensStop},
	{"a stop without a grace period kills at once", killsWithoutGrace},
	{"background processes end with the attempt", endsBackground},
	{"an attempt that is started twice runs once", startsOnce},
	{"a reopened engine finds a running attempt", survivesRestart},
	{"a reopened engine finds an ended attempt", survivesRestartEnded},
	{"the removal of a running attempt leaves nothing", removesRunning},
	{"an unknown attempt is no error", acceptsUnknown},
	{"an attempt ends if its keeper is killed", endsWithoutKeeper},
	{"twenty attempts run at the same time", runsTwentyAttempts},
	{"a writable host path is mounted", mountsHostPath},
	{"a read-only host path cannot be written to", mountsReadOnly},
	{"a missing host path is refused", refusesMissingPath},
	{"a volume outlives its attempts", keepsVolume},
	{"a created volume outlives its attempts and the engine", keepsCreatedVolume},
	{"a volume that is created again is the same", createsVolumeOnce},
	{"an attempt does not start without its volume", refusesLostVolume},
	{"a mounted volume is not deleted", keepsMountedVolume},
	{"an external volume is used and left", usesExternalVolume},
	{"an optional folder that does not exist is left out", leavesOutOptionalPath},
	{"an invalid mount is refused", refusesInvalidMount},
}

func becomesReady(h *harness) {
	id := h.startAttempt(h.newSpec("echo hello > index.html; " + h.f.Serve))
	r := h.waitForReport(id, "ready", isReady)
	if got := h.fetchIndex(r); got != "hello" {
		h.t.Errorf("the response is %q", got)
	}
	if r.StartedAt.IsZero() || time.Since(r.StartedAt) > caseTimeout || r.At.IsZero() {
		h.t.Errorf("times: %+v", r)
	}
}

func seesEnvironment(h *harness) {
	// It stays, so that engines may be tested beside each other. No test reads it.
	if err := os.Setenv("DSTACK_SERVER_ADMIN_TOKEN", "canary-of-the-server"); err != nil {
		h.t.Fatal(err)
	}
	h.reopen() // the engine reads the server's environment when it opens
	id := h.startAttempt(h.newSpec("env", func(spec *dstack.AttemptSpec) {
		maps.Copy(spec.Env, map[string]string{"SPACED": "a b  c", "QUOTED": `"$HOME"'`, "EMPTY": ""})
	}))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "SPACED=a b  c", `QUOTED="$HOME"'`, "EMPTY=", "DSTACK_RUN_NAME=suite")
	all := strings.Join(lineTexts(h.readAllLogs(id, time.Time{})), "\n")
	if strings.Contains(all, "canary") {
		h.t.Errorf("the environment has a token of the server: %s", all)
	}
	for _, name := range []string{"HOME=", "PATH="} {
		if !strings.Contains("\n"+all, "\n"+name) {
			h.t.Errorf("no %s in %s", name, all)
		}
	}
}

// runsLongestStrings starts what spec.LaunchProblems just accepts: a script of 127 KiB, a
// variable of 128 KiB with its name and its terminating zero byte, and 1 MiB in all.
func runsLongestStrings(h *harness) {
	script := "echo ${#AB} ${#C7}; : "
	script += strings.Repeat("x", 127<<10-len(script))
	id := h.startAttempt(h.newSpec(script, func(spec *dstack.AttemptSpec) {
		spec.Env["AB"] = strings.Repeat("x", 128<<10-len("AB=")-1)
		for i := 1; i <= 7; i++ {
			spec.Env[fmt.Sprint("C", i)] = strings.Repeat("y", (1<<20-256<<10+1<<10)/7-8)
		}
	}))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "131068 112485")
}

func refusesLongerStrings(h *harness) {
	h.expectRefusal(h.newSpec(": "+strings.Repeat("x", 127<<10-1)), "the commands have 130049 bytes, the limit is 130048")
	h.expectRefusal(h.newSpec("true", func(spec *dstack.AttemptSpec) {
		spec.Env["AB"] = strings.Repeat("x", 128<<10-len("AB="))
	}), "the environment variable AB has 131072 bytes with its name, the limit is 131071")
}

func seesCode(h *harness) {
	id := h.startAttempt(h.newSpec("cat hello.txt; echo; ../run.sh; pwd", func(spec *dstack.AttemptSpec) {
		spec.CodeHash, spec.WorkingDir = codeHash, "app"
	}))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "hello from the folder", "run by ../run.sh")
}

func refusesOutsideDir(h *harness) {
	outside := []string{"..", "a/../.."}
	if !h.f.Capabilities.Containers {
		outside = append(outside, "/etc")
	}
	for _, dir := range outside {
		id := h.startAttempt(h.newSpec("pwd", func(spec *dstack.AttemptSpec) { spec.WorkingDir = dir }))
		r := h.waitForReport(id, "over", isOver)
		if r.State != dstack.AttemptRefused || !r.Permanent || !strings.Contains(r.Error, "working_dir") {
			h.t.Errorf("%s: %+v", dir, r)
		}
	}
}

// runsInContainerDir checks that an absolute working directory is that of the container, which
// makes it.
func runsInContainerDir(h *harness) {
	if !h.f.Capabilities.Containers {
		return // refusesOutsideDir
	}
	id := h.startAttempt(h.newSpec("pwd; cat /workflow/app/hello.txt", withCode, func(spec *dstack.AttemptSpec) { spec.WorkingDir = "/made/here/" }))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "/made/here", "hello from the folder")
}

func recordsOutput(h *harness) {
	id := h.startAttempt(h.newSpec("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; printf 'no end'"))
	r := h.waitForReport(id, "ended", isExited)
	lines := h.readAllLogs(id, time.Time{})
	last := r.StartedAt.Add(-time.Second)
	for _, l := range lines {
		if !l.At.After(last) || !l.At.Equal(l.At.Truncate(time.Microsecond)) {
			h.t.Errorf("line %q is at %v, and the line before it at %v", l.Text, l.At, last)
		}
		if l.Stream != "stdout" {
			h.t.Errorf("line %q is on %s, and shells have one stream", l.Text, l.Stream)
		}
		last = l.At
	}
	want := "out 1,err 1,out 2,err 2,out 3,err 3,out 4,err 4,out 5,err 5,no end"
	if got := strings.Join(lineTexts(lines), ","); got != want {
		h.t.Errorf("the output is %s", got)
	}
}

// keepsOrder writes pairs of lines: a thousand at once, six, and six hundred milliseconds of
// pairs that are 5 ms apart.
func keepsOrder(h *harness) {
	const pairs = "i=0; while [ $i -lt %d ]; do echo out $i; echo err $i >&2; %s i=$((i+1)); done"
	for _, c := range []struct {
		count int
		pause string
	}{{1000, ""}, {6, ""}, {120, "sleep 0.005;"}} {
		id := h.startAttempt(h.newSpec(fmt.Sprintf(pairs, c.count, c.pause)))
		h.waitForReport(id, "ended", isExited)
		var want []string
		for i := range c.count {
			want = append(want, fmt.Sprint("out ", i), fmt.Sprint("err ", i))
		}
		if got := lineTexts(h.readAllLogs(id, time.Time{})); !slices.Equal(got, want) {
			h.t.Errorf("%d pairs are out of order: %.300q", c.count, got)
		}
	}
}

func followsLive(h *harness) {
	id := h.startAttempt(h.newSpec("echo first; while :; do sleep 0.02; done"))
	h.waitForLine(id, "first")                // before the attempt has ended
	h.waitForReport(id, "running", isRunning) // output may arrive before the report of the start
	got := make(chan []string, 1)
	var wait sync.WaitGroup
	wait.Go(func() { got <- lineTexts(h.readAllLogs(id, time.Time{})) })
	h.stopAttempt(id, 0)
	wait.Wait()
	if lines := <-got; !slices.Equal(lines, []string{"first"}) {
		h.t.Errorf("followed: %q", lines)
	}
}

func resumesLogs(h *harness) {
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
			h.t.Errorf("line %d is followed by %d lines: %.60q", i, len(rest), lineTexts(rest))
		}
		for j, l := range rest {
			if !l.At.Equal(lines[i+1+j].At) {
				h.t.Fatalf("line %d is at %v now, and was at %v", i+1+j, l.At, lines[i+1+j].At)
			}
		}
	}
}

// A shell cannot trap a signal that was ignored when it started.
func startsWithDefaultSignals(h *harness) {
	id := h.startAttempt(h.newSpec(`caught=; for s in INT HUP QUIT TERM USR1 PIPE; do trap "caught=\"\$caught $s\"" $s; kill -$s $$; done; ` +
		`[ "$caught" = " INT HUP QUIT TERM USR1 PIPE" ] && exit 7; echo "caught:$caught"; exit 8`))
	if r := h.waitForReport(id, "exited", isOver); r.ExitCode != 7 {
		h.t.Errorf("the exit code is %d, the output %q", r.ExitCode, r.LastOutput)
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

// reportsSIGTERM runs two processes that report SIGTERM; the second is a child.
const reportsSIGTERM = `report() { trap "echo $1 got SIGTERM; exit 0" TERM; echo $1 is up; while :; do sleep 0.02; done; }; report one & report two & wait; sleep 0.2`

func stopsGracefully(h *harness) {
	id := h.startAttempt(h.newSpec(reportsSIGTERM))
	h.waitForLine(id, "one is up")
	h.waitForLine(id, "two is up")
	h.stopAttempt(id, 20*time.Second)
	start := time.Now()
	h.waitForReport(id, "ended", isExited)
	if elapsed := time.Since(start); elapsed > h.stretch(15*time.Second) {
		h.t.Errorf("the end took %v", elapsed)
	}
	h.expectLines(id, "one got SIGTERM", "two got SIGTERM")
}

// ignoresSIGTERM runs until it is killed.
const ignoresSIGTERM = `trap "" TERM; echo up; while :; do sleep 0.02; done`

func killsAfterGrace(h *harness) {
	id := h.startAttempt(h.newSpec(ignoresSIGTERM))
	h.waitForLine(id, "up")
	h.waitForReport(id, "running", isRunning)
	start := time.Now()
	h.stopAttempt(id, 300*time.Millisecond)
	if r := h.findReport(id); !isRunning(r) {
		h.t.Errorf("Stop waited for the end, or killed at once: %+v", r)
	}
	r := h.waitForReport(id, "ended", isExited)
	if elapsed := time.Since(start); elapsed < 250*time.Millisecond || elapsed > h.stretch(10*time.Second) {
		h.t.Errorf("the end took %v", elapsed)
	}
	if r.ExitCode != 137 || r.OOM {
		h.t.Errorf("%+v", r)
	}
}

func shortensStop(h *harness) {
	id := h.startAttempt(h.newSpec(ignoresSIGTERM))
	h.waitForLine(id, "up")
	start := time.Now()
	h.stopAttempt(id, 10*time.Minute)
	h.stopAttempt(id, 200*time.Millisecond)
	h.stopAttempt(id, 10*time.Minute) // does not lengthen it
	h.waitForReport(id, "ended", isExited)
	if elapsed := time.Since(start); elapsed > h.stretch(10*time.Second) {
		h.t.Errorf("the end took %v", elapsed)
	}
}

func killsWithoutGrace(h *harness) {
	id := h.startAttempt(h.newSpec(reportsSIGTERM))
	h.waitForLine(id, "one is up")
	h.stopAttempt(id, 0)
	h.waitForReport(id, "ended", isExited)
	if got := lineTexts(h.readAllLogs(id, time.Time{})); slices.Contains(got, "one got SIGTERM") {
		h.t.Errorf("the attempt got SIGTERM first: %q", got)
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
	spec := h.newSpec("echo started; exec sleep 600")
	h.started = append(h.started, spec.Attempt)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if err := h.Start(h.ctx(), spec); err != nil {
				h.t.Errorf("start: %v", err)
			}
		})
	}
	wait.Wait()
	h.waitForLine(spec.Attempt, "started")
	for range 3 {
		if err := h.Start(h.ctx(), spec); err != nil {
			h.t.Errorf("start: %v", err)
		}
	}
	h.stopAttempt(spec.Attempt, 0)
	h.waitForReport(spec.Attempt, "ended", isExited)
	if err := h.Start(h.ctx(), spec); err != nil {
		h.t.Errorf("start after the end: %v", err)
	}
	if r := h.findReport(spec.Attempt); !isExited(r) {
		h.t.Errorf("the attempt was started again: %+v", r)
	}
	if got := lineTexts(h.readAllLogs(spec.Attempt, time.Time{})); !slices.Equal(got, []string{"started"}) {
		h.t.Errorf("output: %q", got)
	}
}

func survivesRestart(h *harness) {
	spec := h.newSpec("echo hello > index.html; echo up; " + h.f.Serve)
	id := h.startAttempt(spec)
	h.waitForReport(id, "ready", isReady)
	lines := h.outputSoFar(id)
	h.reopen()
	r := h.waitForReport(id, "ready after the restart", isReady)
	if got := h.fetchIndex(r); got != "hello" {
		h.t.Errorf("the response is %q", got)
	}
	if err := h.Start(h.ctx(), spec); err != nil {
		h.t.Errorf("start: %v", err)
	}
	if got := h.outputSoFar(id); len(got) < len(lines) || got[0] != "up" {
		h.t.Errorf("the output was %q and is %q", lines, got)
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
		h.t.Errorf("left after remove: %v", left)
	}
	if err := h.Remove(h.ctx(), id); err != nil {
		h.t.Errorf("second remove: %v", err)
	}
}

func acceptsUnknown(h *harness) {
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

func endsWithoutKeeper(h *harness) {
	if h.f.KillKeeper == nil {
		return // the engine has no keepers
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
		if got := h.fetchIndex(r); got != fmt.Sprint(i) {
			h.t.Errorf("the response of attempt %d is %q", i, got)
		}
	}
	for _, id := range ids {
		h.stopAttempt(id, 5*time.Second)
	}
	for _, id := range ids {
		h.waitForReport(id, "ended", isExited)
	}
}
