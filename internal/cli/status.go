package cli

import (
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// statusBoard shows a run on its way: on a terminal as one block that is
// redrawn, elsewhere as lines, one for each thing that changed. What must be
// read later (crashes) becomes lines that stay on both.
type statusBoard struct {
	*screen
	up      block
	began   time.Time
	view    api.RunView
	trouble string         // why there is no news
	said    map[string]any // what the lines said last
	crashes map[int]int    // how many of each replica's were told
}

func newBoard(s *screen, first api.RunView, now time.Time) *statusBoard {
	b := &statusBoard{screen: s, up: block{to: s.err}, began: now, view: first,
		said: map[string]any{}, crashes: map[int]int{}}
	for _, r := range first.Replicas {
		b.crashes[r.Num] = crashesOf(r) // an earlier revision's are old news
	}
	return b
}

// news takes a newer view in.
func (b *statusBoard) news(v api.RunView, now time.Time) {
	b.view, b.trouble = v, ""
	b.tellCrashes(now)
	b.draw(now)
}

// silence says that the server does not answer; what is shown stays.
func (b *statusBoard) silence(err error, now time.Time) {
	if b.trouble == "" && !b.err.terminal {
		b.say(" %s; trying again", cleanLine(err.Error()))
	}
	b.trouble = err.Error()
	b.draw(now)
}

func (b *statusBoard) clear() { b.up.clear() }

func (b *statusBoard) draw(now time.Time) {
	if b.err.terminal {
		b.up.draw(b.blockLines(now))
		return
	}
	if b.view.Status == api.StatusReady || b.view.Status == api.StatusSleeping {
		return // the lines that settle say so
	}
	b.say1("run", headline(b.view), now)
	for _, r := range b.view.Replicas {
		if !r.Status.IsFinished() && (r.Progress != "" || r.Reason != "") {
			b.say1(fmt.Sprint("replica ", r.Num), b.line(r, now), now)
		}
	}
}

// say1 says a line about something, if it differs in more than numbers from
// the one before, or ten seconds have passed.
func (b *statusBoard) say1(about, line string, now time.Time) {
	type told struct {
		text string
		at   time.Time
	}
	digitless := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '.' {
			return -1
		}
		return r
	}, line)
	last, _ := b.said[about].(told)
	same, exact := last.text == digitless, b.said[about+" exact"] == line
	if exact || (same && now.Sub(last.at) < 10*time.Second) {
		return
	}
	b.said[about], b.said[about+" exact"] = told{digitless, now}, line
	if about == "run" {
		b.say(" %s (%s)", line, human.Duration(now.Sub(b.began)))
	} else {
		b.say("   %s  %s", about, line)
	}
}

func (b *statusBoard) blockLines(now time.Time) []string {
	width := min(b.err.width()-1, 100)
	head := " " + headline(b.view)
	since := human.Duration(now.Sub(b.began))
	head = fit(head, width-len(since)-2)
	gap := max(2, width-lipgloss.Width(head)-len(since))
	lines := []string{head + strings.Repeat(" ", gap) + b.err.paint(dim, since)}
	for _, r := range b.view.Replicas {
		if r.Status.IsFinished() {
			continue
		}
		line := fmt.Sprintf("   replica %d  %s", r.Num, b.line(r, now))
		where := cleanLine(strings.TrimSpace(r.Backend + " " + r.Instance))
		if where != "" && lipgloss.Width(line)+len(where)+6 <= width {
			line += "      " + b.err.paint(dim, where)
		} else {
			line = fit(line, width)
		}
		lines = append(lines, line)
	}
	if b.trouble != "" {
		lines = append(lines, b.err.paint(yellow, fit("   "+cleanLine(b.trouble)+"; trying again", width)))
	}
	return lines
}

// tellCrashes leaves a line, and the last output, for each new crash.
func (b *statusBoard) tellCrashes(now time.Time) {
	for _, r := range b.view.Replicas {
		n := crashesOf(r)
		old := n <= b.crashes[r.Num]
		b.crashes[r.Num] = n // fewer than before: it is another replica of that number
		if old {
			continue
		}
		b.up.clear()
		b.say(" %s%s", b.err.paint(yellow, sentence(r)), nextTry(r, now))
		for _, line := range r.LastOutput {
			b.say("     %s", b.err.paint(dim, fit(cleanLine(line), b.err.width()-6)))
		}
		b.said[fmt.Sprint("replica ", r.Num, " exact")] = b.line(r, now)
	}
}

// line is what a replica does; beside those of a new revision, old ones say
// that they are.
func (b *statusBoard) line(r api.ReplicaView, now time.Time) string {
	line := replicaLine(r, now)
	if b.view.Status == api.StatusUpdating && r.Revision > 0 && r.Revision != b.view.Revision {
		line += fmt.Sprintf(", of revision %d", r.Revision)
	}
	return line
}

// crashesOf counts those that were, and the one that is being answered.
func crashesOf(r api.ReplicaView) int {
	if r.Status == dstack.ReplicaRestarting {
		return r.Restarts + 1
	}
	return r.Restarts
}

// headline is a run's status in words: llama31 is starting.
func headline(v api.RunView) string {
	words := map[api.RunStatus]string{
		api.StatusWaiting: "waits for a machine", api.StatusFailed: "failed", api.StatusStopped: "is stopped",
		api.StatusSleeping: "sleeps until a request comes",
		api.StatusUpdating: fmt.Sprintf("is updating to revision %d", v.Revision),
	}[v.Status]
	if words == "" {
		words = "is " + string(v.Status)
	}
	switch {
	case v.Status == api.StatusUpdating && v.DesiredReplicas > 1:
		words += fmt.Sprintf(", %d of %d replicas new", v.Ready, v.DesiredReplicas)
	case v.DesiredReplicas > 1:
		words += fmt.Sprintf(", %d of %d replicas ready", v.Ready, v.DesiredReplicas)
	}
	if v.Reason != "" && tellsMore(v) {
		words += ": " + v.Reason
	}
	return cleanLine(v.Name + " " + words)
}

// tellsMore says that a run's reason is worth reading beside its status.
func tellsMore(v api.RunView) bool {
	switch v.Status {
	case api.StatusReady, api.StatusSleeping, api.StatusUpdating:
		return false // the status says it all
	case api.StatusWaiting, api.StatusStarting, api.StatusDegraded, api.StatusFailing,
		api.StatusStopping, api.StatusStopped, api.StatusFailed:
		return true
	}
	return true
}

// replicaLine is what one replica does now.
func replicaLine(r api.ReplicaView, now time.Time) string {
	if r.Progress != "" {
		return cleanLine(r.Progress)
	}
	reason, _ := ownReason(r)
	switch r.Status {
	case dstack.ReplicaRestarting:
		return strings.TrimPrefix(sentence(r), fmt.Sprintf("replica %d ", r.Num)) + nextTry(r, now)
	case dstack.ReplicaStarting, dstack.ReplicaWaiting:
		if reason != "" {
			return reason + nextTry(r, now) // it says what it does
		}
	case dstack.ReplicaReady, dstack.ReplicaUnhealthy, dstack.ReplicaDraining,
		dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed:
		if strings.HasPrefix(reason, "finishes ") {
			return reason
		}
		if reason != "" {
			return string(r.Status) + ": " + reason
		}
	}
	return string(r.Status)
}

// ownReason is a replica's reason without its name. It is whole if it began
// with that, and so is a sentence.
func ownReason(r api.ReplicaView) (reason string, whole bool) {
	return strings.CutPrefix(cleanLine(r.Reason), fmt.Sprintf("replica %d ", r.Num))
}

// sentence says why a replica is as it is: replica 0 exited with code 1.
func sentence(r api.ReplicaView) string {
	reason, whole := ownReason(r)
	switch {
	case reason == "":
		reason = "ended and is started again"
	case whole, strings.HasPrefix(reason, "finishes "), strings.HasPrefix(reason, "waits "):
	case r.Status == dstack.ReplicaWaiting:
		reason = "waits: " + reason
	case r.Status == dstack.ReplicaUnhealthy, r.Status == dstack.ReplicaDraining, r.Status == dstack.ReplicaTerminating:
		reason = "is " + string(r.Status) + ": " + reason
	}
	return fmt.Sprintf("replica %d %s", r.Num, reason)
}

func nextTry(r api.ReplicaView, now time.Time) string {
	if r.RetryAt == nil || r.RetryAt.Sub(now) < time.Second {
		return ""
	}
	return ", next try in " + human.Duration(r.RetryAt.Sub(now))
}
