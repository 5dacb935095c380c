package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// statusBoard shows the progress of a run: on a terminal in a region that is
// redrawn, elsewhere as a line per change. Crashes become permanent lines on
// both.
type statusBoard struct {
	*screen
	region         liveRegion
	began          time.Time
	view           api.RunView
	unreachable    string                     // why the server cannot be reached; "" if it can
	printed        map[replicaKey]printedLine // of replicas, and of the run: its key is zero
	printedCrashes map[replicaKey]int         // crashes that were printed
	printedOutput  map[replicaKey][]string    // the output of the last crash
}

// replicaKey identifies a replica: during an update, one of the old and one of the
// new revision have the same number.
type replicaKey struct{ num, revision int }

func keyOf(r api.ReplicaView) replicaKey { return replicaKey{r.Num, max(1, r.Revision)} }

// printedLine is the last line that was printed about a subject.
type printedLine struct {
	text    string
	pattern string    // text without digits, or that of an earlier line
	at      time.Time // of pattern
}

func newStatusBoard(s *screen, first api.RunView, now time.Time) *statusBoard {
	b := &statusBoard{screen: s, region: liveRegion{to: s.err}, began: now, view: first,
		printed: map[replicaKey]printedLine{}, printedCrashes: map[replicaKey]int{}, printedOutput: map[replicaKey][]string{}}
	for _, r := range first.Replicas {
		b.printedCrashes[keyOf(r)] = countCrashes(r) // from before the command
	}
	return b
}

// update shows a newer view of the run.
func (b *statusBoard) update(v api.RunView, now time.Time) {
	b.view, b.unreachable = v, ""
	b.printCrashes(now)
	b.draw(now)
}

// showUnreachable shows that the server cannot be reached. The last view stays.
func (b *statusBoard) showUnreachable(err error, now time.Time) {
	if b.unreachable == "" && !b.err.terminal {
		b.printInfo(" %s; trying again", cleanLine(err.Error()))
	}
	b.unreachable = err.Error()
	b.draw(now)
}

func (b *statusBoard) clear() { b.region.clear() }

func (b *statusBoard) draw(now time.Time) {
	if b.err.terminal {
		b.region.draw(b.regionLines(now))
		return
	}
	if b.view.Status == api.StatusReady || b.view.Status == api.StatusSleeping {
		return // printReady says so
	}
	if line := describeRun(b.view); b.isNew(replicaKey{}, line, now) {
		b.printInfo(" %s (%s)", line, human.Duration(now.Sub(b.began)))
	}
	for _, r := range b.view.Replicas {
		if r.Status.IsFinished() || (r.Progress == "" && r.Reason == "") {
			continue
		}
		if line := describeReplica(r, now); b.isNew(keyOf(r), line, now) {
			b.printInfo("   %s  %s", b.replicaLabel(r), line)
		}
	}
}

// repeatDelay is the time after which a line is printed again if only its
// numbers have changed.
const repeatDelay = 10 * time.Second

// isNew reports whether a line about a replica or the run has to be printed, and
// remembers it: not if it repeats the previous one.
func (b *statusBoard) isNew(subject replicaKey, line string, now time.Time) bool {
	last, pattern := b.printed[subject], withoutDigits(line)
	isSimilar := pattern == last.pattern && now.Sub(last.at) < repeatDelay
	if line == last.text || isSimilar {
		return false
	}
	b.printed[subject] = printedLine{line, pattern, now}
	return true
}

// number finds a number, with the word before it if that is "code": 3.5, or code 137.
var number = regexp.MustCompile(`(\bcode )?[0-9.]+`)

// withoutDigits returns a line without its numbers, except exit codes: a program that ends
// and one that is killed are not the same.
func withoutDigits(line string) string {
	return number.ReplaceAllStringFunc(line, func(found string) string {
		if strings.HasPrefix(found, "code ") {
			return found
		}
		return ""
	})
}

func (b *statusBoard) regionLines(now time.Time) []string {
	width := min(b.err.width()-1, 100)
	elapsed := human.Duration(now.Sub(b.began))
	head := indentText(" ", "   ", describeRun(b.view), width-len(elapsed)-2)
	gap := max(2, width-lipgloss.Width(head[0])-len(elapsed))
	lines := append([]string{head[0] + strings.Repeat(" ", gap) + b.err.paint(dim, elapsed)}, head[1:]...)
	for _, r := range b.view.Replicas {
		if r.Status.IsFinished() {
			continue
		}
		first := "   " + b.replicaLabel(r) + "  "
		text := indentText(first, strings.Repeat(" ", len(first)), describeReplica(r, now), width)
		where := cleanLine(strings.TrimSpace(r.Backend + " " + r.Instance))
		if where != "" && len(text) == 1 && lipgloss.Width(text[0])+len(where)+6 <= width {
			text[0] += "      " + b.err.paint(dim, where)
		}
		lines = append(lines, text...)
	}
	if b.unreachable != "" {
		for _, line := range indentText("   ", "   ", cleanLine(b.unreachable)+"; trying again", width) {
			lines = append(lines, b.err.paint(yellow, line))
		}
	}
	return lines
}

// printCrashes prints each new crash and the last output before it.
func (b *statusBoard) printCrashes(now time.Time) {
	for _, r := range b.view.Replicas {
		crashes, key := countCrashes(r), keyOf(r)
		isKnown := crashes <= b.printedCrashes[key]
		b.printedCrashes[key] = crashes // less than before: a new replica has the number
		if isKnown {
			continue
		}
		b.region.clear()
		b.printInfo(" %s%s", b.err.paint(yellow, describeReason(r)), describeRetry(r, now))
		if isRepeated := len(r.LastOutput) > 0 && slices.Equal(r.LastOutput, b.printedOutput[key]); isRepeated {
			b.printWrapped("     ", dim, "(the same output as before)")
		} else {
			for _, line := range r.LastOutput {
				b.printWrapped("     ", dim, cleanLine(line))
			}
		}
		b.printedOutput[key] = r.LastOutput
		printed := b.printed[key]
		printed.text = describeReplica(r, now)
		b.printed[key] = printed
	}
}

// replicaLabel names a replica. During an update it names the revision of replicas
// of the old one.
func (b *statusBoard) replicaLabel(r api.ReplicaView) string {
	if b.view.Status == api.StatusUpdating && r.Revision > 0 && r.Revision != b.view.Revision {
		return fmt.Sprintf("replica %d of revision %d", r.Num, r.Revision)
	}
	return replicaTitle(r)
}

// countCrashes returns the restarts of a replica, including one that is due.
func countCrashes(r api.ReplicaView) int {
	if r.Status == dstack.ReplicaRestarting {
		return r.Restarts + 1
	}
	return r.Restarts
}

// describeRun returns the status of a run in words: llama31 is starting.
func describeRun(v api.RunView) string {
	status := map[api.RunStatus]string{
		api.StatusWaiting: "waits for a machine", api.StatusFailed: "failed", api.StatusStopped: "is stopped",
		api.StatusSleeping: "sleeps until a request comes",
		api.StatusUpdating: fmt.Sprintf("is updating to revision %d", v.Revision),
	}[v.Status]
	if status == "" {
		status = "is " + string(v.Status)
	}
	switch {
	case v.Status == api.StatusUpdating && v.DesiredReplicas > 1:
		status += fmt.Sprintf(", %d of %d replicas new", v.Ready, v.DesiredReplicas)
	case v.DesiredReplicas > 1:
		status += fmt.Sprintf(", %d of %d replicas ready", v.Ready, v.DesiredReplicas)
	}
	if v.Reason != "" && isReasonShown(v) {
		status += ": " + v.Reason
	}
	return cleanLine(v.Name + " " + status)
}

// isReasonShown reports whether a run's reason says more than its status.
func isReasonShown(v api.RunView) bool {
	switch v.Status {
	case api.StatusReady, api.StatusSleeping, api.StatusUpdating:
		return false // the status says it already
	case api.StatusWaiting, api.StatusStarting, api.StatusDegraded, api.StatusFailing,
		api.StatusStopping, api.StatusStopped, api.StatusFailed:
		return true
	}
	return true
}

// describeReplica returns the status of a replica in words.
func describeReplica(r api.ReplicaView, now time.Time) string {
	if r.Progress != "" {
		return cleanLine(r.Progress)
	}
	reason, _ := trimReplicaName(r)
	switch r.Status {
	case dstack.ReplicaRestarting:
		return describeEvent(r) + describeRetry(r, now)
	case dstack.ReplicaStarting, dstack.ReplicaWaiting:
		if reason != "" {
			return reason + describeRetry(r, now) // the reason says what the replica does
		}
	case dstack.ReplicaReady, dstack.ReplicaUnhealthy, dstack.ReplicaDraining,
		dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed:
		if reason != "" {
			return string(r.Status) + ": " + reason
		}
	}
	return string(r.Status)
}

// trimReplicaName returns a replica's reason without the replica's name at the
// beginning, and whether it began with the name. The API has no other sign that
// a reason is a sentence.
func trimReplicaName(r api.ReplicaView) (reason string, isSentence bool) {
	return strings.CutPrefix(cleanLine(r.Reason), fmt.Sprintf("replica %d ", r.Num))
}

// describeReason returns a sentence: replica 0 exited with code 1.
func describeReason(r api.ReplicaView) string {
	return fmt.Sprintf("replica %d %s", r.Num, describeEvent(r))
}

// describeEvent returns the sentence of describeReason without the replica's
// name.
func describeEvent(r api.ReplicaView) string {
	reason, isSentence := trimReplicaName(r)
	switch {
	case reason == "":
		reason = "ended and is restarted"
	case isSentence:
	case r.Status == dstack.ReplicaWaiting, r.Status == dstack.ReplicaUnhealthy,
		r.Status == dstack.ReplicaDraining, r.Status == dstack.ReplicaTerminating:
		reason = "is " + string(r.Status) + ": " + reason
	}
	return reason
}

// describeRetry returns when the next attempt of a replica begins, or "".
func describeRetry(r api.ReplicaView, now time.Time) string {
	if r.RetryAt == nil || r.RetryAt.Sub(now) < time.Second {
		return ""
	}
	return ", next try in " + human.Duration(r.RetryAt.Sub(now))
}
