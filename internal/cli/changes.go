package cli

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"dstack/internal/api"
)

// maxChangeWidth is the column at which the strategy of a change ends on a wide
// terminal.
const maxChangeWidth = 100

// printChanges prints how the plan changes a run that exists.
func (j *applyCommand) printChanges(preview api.Preview) {
	run := preview.Existing
	if run == nil || (len(preview.Changes) == 0 && !j.flags.force) {
		return
	}
	next := run.Revision + 1
	if rollback := run.RolledBack; rollback != nil {
		next = max(next, rollback.From+1) // the number of a failed revision is not used again
	}
	j.printInfo(" %s changes from revision %d to %d", j.err.paint(bold, cleanLine(run.Name)), run.Revision, next)
	j.printInfo("")
	j.printChangeList(preview.Changes)
	j.printInfo(" %s", describeStrategy(preview.Changes, preview.Strategy))
}

// printChangeList prints a change per line, with its strategy aligned at the end.
func (a *app) printChangeList(changes []api.Change) {
	if len(changes) == 0 {
		return
	}
	lines, strategyWidth, maxWidth := formatChanges(changes), 0, 0
	for i, c := range changes {
		strategyWidth = max(strategyWidth, len(c.Strategy))
		maxWidth = max(maxWidth, lipgloss.Width(lines[i]))
	}
	width := min(a.err.width(), maxChangeWidth) - 4 - strategyWidth
	if a.err.width() <= 0 { // a pipe is not cut
		width = min(maxWidth, maxChangeWidth) + 5
	}
	for i, line := range lines {
		var rest []string
		if a.err.width() > 0 && lipgloss.Width(line) > width-2 {
			line, rest = cleanLine(changes[i].Path), changeValues(changes[i])
		}
		strategy := strings.Repeat(" ", strategyWidth-len(changes[i].Strategy)) + changes[i].Strategy
		a.printCommand("   " + strings.TrimRight(padRight(line+"  ", width)+a.err.paint(dim, strategy), " "))
		for j, value := range rest {
			label := map[bool]string{true: "       ", false: "     → "}[j == 0]
			for _, line := range indentText(label, "       ", value, a.err.width()) {
				a.printCommand(line)
			}
		}
	}
	a.printInfo("")
}

// changeValues returns both values of a change, without the words that they share.
func changeValues(c api.Change) []string {
	from, to := shortenCommon(orNone(c.From), orNone(c.To))
	return []string{from, to}
}

// formatChanges returns a line per change: commands.1   a  →  b.
func formatChanges(changes []api.Change) []string {
	pathWidth, fromWidth := 0, 0
	for _, c := range changes {
		pathWidth = max(pathWidth, lipgloss.Width(cleanLine(c.Path)))
	}
	values := make([][2]string, len(changes))
	for i, c := range changes {
		values[i] = [2]string(changeValues(c))
		if w := lipgloss.Width(values[i][0]); w <= maxAlignedWidth {
			fromWidth = max(fromWidth, w)
		}
	}
	lines := make([]string, 0, len(changes))
	for i, c := range changes {
		path, from := padRight(cleanLine(c.Path), pathWidth), padRight(values[i][0], fromWidth)
		lines = append(lines, fmt.Sprintf("%s   %s  →  %s", path, from, values[i][1]))
	}
	return lines
}

const (
	maxAlignedWidth = 24 // longer values are not aligned
	maxUncutWidth   = 24 // shorter values are shown in full
	minSharedLength = 8  // shorter shared text is shown in full
)

// shortenCommon replaces the words that two long values share by an ellipsis:
// vllm serve … --port 1 and … --port 2.
func shortenCommon(from, to string) (short, other string) {
	if max(lipgloss.Width(from), lipgloss.Width(to)) <= maxUncutWidth {
		return from, to
	}
	x, y := strings.Split(from, " "), strings.Split(to, " ")
	head := 0
	for head < min(len(x), len(y))-1 && x[head] == y[head] {
		head++
	}
	if head > 0 && strings.HasPrefix(x[head-1], "-") {
		head-- // keep a flag with its value
	}
	tail := 0
	for tail < min(len(x), len(y))-head-1 && x[len(x)-1-tail] == y[len(y)-1-tail] {
		tail++
	}
	return cutWords(x, head, tail, 2), cutWords(y, head, tail, 0)
}

// cutWords replaces words[:head] and the last tail words by an ellipsis. It keeps
// the first lead words, and shared text that is shorter than minSharedLength.
func cutWords(words []string, head, tail, lead int) string {
	start, end := strings.Join(words[:head], " "), strings.Join(words[len(words)-tail:], " ")
	middle := strings.Join(words[head:len(words)-tail], " ")
	switch {
	case start == "":
	case len(start) < minSharedLength, head <= lead:
		middle = start + " " + middle
	case lead > 0:
		middle = strings.Join(words[:lead], " ") + " … " + middle
	default:
		middle = "… " + middle
	}
	switch {
	case end == "":
	case len(end) < minSharedLength:
		middle += " " + end
	default:
		middle += " …"
	}
	return middle
}

// describeStrategy says how a change affects the users of the service. No change
// is a forced restart.
func describeStrategy(changes []api.Change, strategy string) string {
	switch {
	case strategy == api.StrategyInPlace:
		return "Nothing is restarted."
	case strategy == api.StrategyRecreate:
		return "No machine has capacity for both: an old replica stops before a new one starts." +
			" Requests wait in the meantime."
	case len(changes) == 0:
		return "Nothing changed: its replicas are replaced one by one."
	}
	return "One new replica becomes ready before an old one stops. Nothing is interrupted."
}

// combineStrategies returns the most disruptive strategy of the changes.
func combineStrategies(changes []api.Change) string {
	strategy := ""
	for _, rank := range []string{api.StrategyInPlace, api.StrategyRolling, api.StrategyRecreate} {
		if slices.ContainsFunc(changes, func(c api.Change) bool { return c.Strategy == rank }) {
			strategy = rank
		}
	}
	return strategy
}

func orNone(value string) string {
	if value = cleanLine(value); value == "" {
		return "(none)"
	}
	return value
}
