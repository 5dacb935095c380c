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

var cases = []struct {
	name string
	run  func(*bench)
}{
	{"it becomes ready and answers at its address", becomesReady},
	{"it sees its environment, and none of the server's tokens", seesEnvironment},
	{"it starts in its working folder, beside its code", hasCode},
	{"a working folder outside is refused", refusesOutside},
	{"its output has streams and growing times", hasOutput},
	{"its output is followed live", followsLive},
	{"its output can be read on from any line", readsOn},
	{"it exits with a code and its last output", exitsWithCode},
	{"a port that never opens is running and not ready", neverReady},
	{"SIGTERM reaches all of its processes", stopsGently},
	{"one that ignores SIGTERM is killed after its grace", killsAfterGrace},
	{"a second stop shortens the wait", shortensStop},
	{"it is stopped at once when there is no grace", aborts},
	{"what it leaves in the background ends with it", endsBackground},
	{"started twice, it runs once", startsOnce},
	{"a restarted server finds it again", survivesRestart},
	{"a restarted server finds how it ended", survivesRestartEnded},
	{"removed while it runs, nothing is left", removesRunning},
	{"an unknown attempt is no error", unknownIsFine},
	{"a killed keeper ends it", killedKeeper},
	{"twenty at once", twenty},
}

func becomesReady(b *bench) {
	id := b.start(b.order("echo hello > index.html; " + b.f.Serve))
	r := b.until(id, "ready", ready)
	if got := b.get(r.Address); got != "hello" {
		b.t.Errorf("it answered %q", got)
	}
	if r.StartedAt.IsZero() || time.Since(r.StartedAt) > limit || r.At.IsZero() {
		b.t.Errorf("times: %+v", r)
	}
}

func seesEnvironment(b *bench) {
	b.t.Setenv("DSTACK_SERVER_ADMIN_TOKEN", "canary-of-the-server")
	b.again() // the server's environment is read now
	id := b.start(b.order("env", func(o *dstack.AttemptSpec) {
		maps.Copy(o.Env, map[string]string{"SPACED": "a b  c", "QUOTED": `"$HOME"'`, "EMPTY": ""})
	}))
	b.until(id, "ended", exited)
	b.wantLines(id, "SPACED=a b  c", `QUOTED="$HOME"'`, "EMPTY=", "DSTACK_RUN_NAME=suite")
	all := strings.Join(texts(b.all(id, time.Time{})), "\n")
	if strings.Contains(all, "canary") {
		b.t.Errorf("the server's token is in it: %s", all)
	}
	for _, name := range []string{"HOME=", "PATH="} {
		if !strings.Contains("\n"+all, "\n"+name) {
			b.t.Errorf("no %s in %s", name, all)
		}
	}
}

func hasCode(b *bench) {
	id := b.start(b.order("cat hello.txt; echo; ../run.sh; pwd", func(o *dstack.AttemptSpec) {
		o.CodeHash, o.WorkingDir = codeHash, "app"
	}))
	b.until(id, "ended", exited)
	b.wantLines(id, "hello from the folder", "run by ../run.sh")
}

func refusesOutside(b *bench) {
	for _, dir := range []string{"..", "a/../..", "/etc"} {
		id := b.start(b.order("pwd", func(o *dstack.AttemptSpec) { o.WorkingDir = dir }))
		r := b.until(id, "over", over)
		if r.State != dstack.AttemptRefused || !r.Permanent || !strings.Contains(r.Error, "working_dir") {
			b.t.Errorf("%s: %+v", dir, r)
		}
	}
}

func hasOutput(b *bench) {
	id := b.start(b.order("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; printf 'no end'"))
	r := b.until(id, "ended", exited)
	lines := b.all(id, time.Time{})
	streams := map[string][]string{}
	last := r.StartedAt.Add(-time.Second)
	for _, l := range lines {
		streams[l.Stream] = append(streams[l.Stream], string(l.Text))
		if !l.At.After(last) || !l.At.Equal(l.At.Truncate(time.Microsecond)) {
			b.t.Errorf("%q at %v, after one at %v", l.Text, l.At, last)
		}
		last = l.At
	}
	if want := []string{"out 1", "out 2", "out 3", "out 4", "out 5", "no end"}; !slices.Equal(streams["stdout"], want) {
		b.t.Errorf("stdout is %q", streams["stdout"])
	}
	if want := []string{"err 1", "err 2", "err 3", "err 4", "err 5"}; !slices.Equal(streams["stderr"], want) {
		b.t.Errorf("stderr is %q", streams["stderr"])
	}
}

func followsLive(b *bench) {
	id := b.start(b.order("echo first; while :; do sleep 0.02; done"))
	b.waitFor(id, "first") // though it has not ended
	if r := b.report(id); !running(r) {
		b.t.Errorf("it does not run: %+v", r)
	}
	got := make(chan []string, 1)
	var wait sync.WaitGroup
	wait.Go(func() { got <- texts(b.all(id, time.Time{})) })
	b.stop(id, 0)
	wait.Wait()
	if lines := <-got; !slices.Equal(lines, []string{"first"}) {
		b.t.Errorf("followed: %q", lines)
	}
}

func readsOn(b *bench) {
	const n = 500
	id := b.start(b.order(fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done", n)))
	b.until(id, "ended", exited)
	lines := b.all(id, time.Time{})
	if len(lines) != n {
		b.t.Fatalf("%d lines, not %d", len(lines), n)
	}
	for _, i := range []int{0, 1, 250, n - 2, n - 1} {
		rest := b.all(id, lines[i].At)
		if len(rest) != n-1-i || len(rest) > 0 && string(rest[0].Text) != fmt.Sprint("line ", i+1) {
			b.t.Errorf("after line %d came %d lines: %.60q", i, len(rest), texts(rest))
		}
		for j, l := range rest {
			if !l.At.Equal(lines[i+1+j].At) {
				b.t.Fatalf("line %d is at %v now, and was at %v", i+1+j, l.At, lines[i+1+j].At)
			}
		}
	}
}

func exitsWithCode(b *bench) {
	id := b.start(b.order("i=0; while [ $i -lt 15 ]; do echo line $i; i=$((i+1)); done; sleep 0.1; echo broken >&2; exit 7"))
	r := b.until(id, "ended", exited)
	if r.ExitCode != 7 || r.Ready || r.OOM {
		b.t.Errorf("%+v", r)
	}
	if len(r.LastOutput) != 10 || !slices.Contains(r.LastOutput, "broken") || !slices.Contains(r.LastOutput, "line 14") {
		b.t.Errorf("last output: %q", r.LastOutput)
	}
	if r.EndedAt.Before(r.StartedAt) || r.EndedAt.IsZero() {
		b.t.Errorf("from %v to %v", r.StartedAt, r.EndedAt)
	}
}

func neverReady(b *bench) {
	id := b.start(b.order("echo up; exec sleep 600"))
	b.waitFor(id, "up")
	for range 5 {
		if r := b.report(id); !running(r) || r.Ready {
			b.t.Fatalf("%+v", r)
		}
	}
}

// Two processes tell that they were asked; the second one is a child.
const askable = `ask() { trap "echo $1 was asked; exit 0" TERM; echo $1 is up; while :; do sleep 0.02; done; }; ask one & ask two & wait; sleep 0.2`

func stopsGently(b *bench) {
	id := b.start(b.order(askable))
	b.waitFor(id, "one is up")
	b.waitFor(id, "two is up")
	b.stop(id, 20*time.Second)
	begun := time.Now()
	b.until(id, "ended", exited)
	if took := time.Since(begun); took > 15*time.Second {
		b.t.Errorf("it took %v", took)
	}
	b.wantLines(id, "one was asked", "two was asked")
}

const deaf = `trap "" TERM; echo up; while :; do sleep 0.02; done`

func killsAfterGrace(b *bench) {
	id := b.start(b.order(deaf))
	b.waitFor(id, "up")
	begun := time.Now()
	b.stop(id, 300*time.Millisecond)
	if r := b.report(id); !running(r) {
		b.t.Errorf("stop waited, or killed at once: %+v", r)
	}
	r := b.until(id, "ended", exited)
	if took := time.Since(begun); took < 250*time.Millisecond || took > 10*time.Second {
		b.t.Errorf("it took %v", took)
	}
	if r.ExitCode != 137 || r.OOM {
		b.t.Errorf("%+v", r)
	}
}

func shortensStop(b *bench) {
	id := b.start(b.order(deaf))
	b.waitFor(id, "up")
	begun := time.Now()
	b.stop(id, 10*time.Minute)
	b.stop(id, 200*time.Millisecond)
	b.stop(id, 10*time.Minute) // never lengthens
	b.until(id, "ended", exited)
	if took := time.Since(begun); took > 10*time.Second {
		b.t.Errorf("it took %v", took)
	}
}

func aborts(b *bench) {
	id := b.start(b.order(askable))
	b.waitFor(id, "one is up")
	b.stop(id, 0)
	b.until(id, "ended", exited)
	if got := texts(b.all(id, time.Time{})); slices.Contains(got, "one was asked") {
		b.t.Errorf("it was asked first: %q", got)
	}
}

func endsBackground(b *bench) {
	id := b.start(b.order("sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' & echo done; exit 4"))
	if r := b.until(id, "ended", exited); r.ExitCode != 4 {
		b.t.Errorf("%+v", r)
	}
	b.wantLines(id, "done")
}

func startsOnce(b *bench) {
	o := b.order("echo began; exec sleep 600")
	b.started = append(b.started, o.Attempt)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if err := b.Start(b.ctx(), o); err != nil {
				b.t.Errorf("start: %v", err)
			}
		})
	}
	wait.Wait()
	b.waitFor(o.Attempt, "began")
	for range 3 {
		if err := b.Start(b.ctx(), o); err != nil {
			b.t.Errorf("start: %v", err)
		}
	}
	b.stop(o.Attempt, 0)
	b.until(o.Attempt, "ended", exited)
	if err := b.Start(b.ctx(), o); err != nil {
		b.t.Errorf("start once ended: %v", err)
	}
	if r := b.report(o.Attempt); !exited(r) {
		b.t.Errorf("it was begun again: %+v", r)
	}
	if got := texts(b.all(o.Attempt, time.Time{})); !slices.Equal(got, []string{"began"}) {
		b.t.Errorf("output: %q", got)
	}
}

func survivesRestart(b *bench) {
	o := b.order("echo hello > index.html; echo up; " + b.f.Serve)
	id := b.start(o)
	b.until(id, "ready", ready)
	lines := b.output(id)
	b.again()
	r := b.until(id, "ready after the restart", ready)
	if got := b.get(r.Address); got != "hello" {
		b.t.Errorf("it answered %q", got)
	}
	if err := b.Start(b.ctx(), o); err != nil {
		b.t.Errorf("start: %v", err)
	}
	if got := b.output(id); len(got) < len(lines) || got[0] != "up" {
		b.t.Errorf("output was %q and is %q", lines, got)
	}
	b.stop(id, 5*time.Second)
	b.until(id, "ended", exited)
}

func survivesRestartEnded(b *bench) {
	id := b.start(b.order("echo up; exit 3"))
	before := b.until(id, "ended", exited)
	b.again()
	after := b.report(id)
	if after.ExitCode != 3 || !after.EndedAt.Equal(before.EndedAt) || !slices.Equal(after.LastOutput, before.LastOutput) {
		b.t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	b.wantLines(id, "up")
}

func removesRunning(b *bench) {
	id := b.start(b.order(askable))
	b.waitFor(id, "two is up")
	if err := b.Remove(b.ctx(), id); err != nil {
		b.t.Fatalf("remove: %v", err)
	}
	if r := b.report(id); r.State != dstack.AttemptAbsent {
		b.t.Errorf("%+v", r)
	}
	if left := b.f.Left(b.t, id); len(left) > 0 {
		b.t.Errorf("left: %v", left)
	}
	if err := b.Remove(b.ctx(), id); err != nil {
		b.t.Errorf("removed again: %v", err)
	}
}

func unknownIsFine(b *bench) {
	for _, id := range []dstack.AttemptID{"3ad7c9f3-0c0e-4e43-9e6c-9f6b34fba3b0", "", "..", "../x", ".gone-x"} {
		if err := b.Stop(b.ctx(), id, time.Second); err != nil {
			b.t.Errorf("stop %q: %v", id, err)
		}
		if err := b.Remove(b.ctx(), id); err != nil {
			b.t.Errorf("remove %q: %v", id, err)
		}
		if lines := b.all(id, time.Time{}); len(lines) > 0 {
			b.t.Errorf("logs of %q: %q", id, texts(lines))
		}
	}
}

func killedKeeper(b *bench) {
	if b.f.KillKeeper == nil {
		return // nothing but the engine itself keeps it there
	}
	id := b.start(b.order(askable))
	b.waitFor(id, "two is up")
	b.f.KillKeeper(b.t, id)
	r := b.until(id, "ended", exited)
	if !strings.Contains(r.Error, "keeper") || !slices.Contains(r.LastOutput, "two is up") {
		b.t.Errorf("%+v", r)
	}
}

func twenty(b *bench) {
	var ids []dstack.AttemptID
	for i := range 20 {
		ids = append(ids, b.start(b.order(fmt.Sprintf("echo %d > index.html; %s", i, b.f.Serve))))
	}
	for i, id := range ids {
		r := b.until(id, "ready", ready)
		if got := b.get(r.Address); got != fmt.Sprint(i) {
			b.t.Errorf("%d answered %q", i, got)
		}
	}
	for _, id := range ids {
		b.stop(id, 5*time.Second)
	}
	for _, id := range ids {
		b.until(id, "ended", exited)
	}
}
