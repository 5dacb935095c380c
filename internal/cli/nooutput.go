package cli

import (
	"fmt"
	"sync"
	"time"

	"dstack/internal/api"
)

// silenceDelay is how long `dstack logs -f` waits for output before it says that there is none yet.
const silenceDelay = time.Second

// silenceNotice calls a function once, unless output arrives first.
type silenceNotice struct {
	mu    sync.Mutex
	ended bool
	timer *time.Timer
}

func startSilenceNotice(delay time.Duration, report func()) *silenceNotice {
	n := &silenceNotice{}
	n.timer = time.AfterFunc(delay, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.ended {
			n.ended = true
			report()
		}
	})
	return n
}

// end prevents the call of report, and waits for a call that has begun. It may be repeated.
func (n *silenceNotice) end() {
	n.timer.Stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
}

// describeNoOutput says that the output of a run is empty, and why as far as the run's status tells.
func describeNoOutput(view api.RunView, request api.FollowLogs, since string, now time.Time) []string {
	if request.Tail != nil && *request.Tail == 0 {
		return nil
	}
	subject, yet := "no output", " yet"
	if request.Replica != nil {
		subject = fmt.Sprintf("no output of replica %d", *request.Replica)
	}
	if view.Status.IsFinished() {
		yet = ""
	}
	if request.StartTime != nil {
		yet = " since " + since
	}
	lines := []string{subject + yet + ": " + describeRun(view)}
	if !view.Status.IsFinished() {
		lines = append(lines, replicaProblems(view, false, now)...)
	}
	return append(lines, "see what happened: dstack events "+cleanLine(view.Name))
}

// printNoOutput prints describeNoOutput to stderr.
func (a *app) printNoOutput(view api.RunView, request api.FollowLogs, since string) {
	for i, line := range describeNoOutput(view, request, cleanLine(since), time.Now()) {
		a.printInfo("%s%s", map[bool]string{true: " ", false: "   "}[i == 0], line)
	}
}
