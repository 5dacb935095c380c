package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// runsTable returns the list of runs as a table.
func runsTable(views []api.RunView, why map[dstack.RunID][]string, verbose bool, now time.Time) *table {
	t := &table{head: []string{"NAME", "STATUS", "REPLICAS", "URL", "AGE"}, movable: []int{3}, shrinkable: []int{0}}
	for _, v := range views {
		t.rows = append(t.rows, runRow(v, now))
		if verbose {
			for _, r := range v.Replicas {
				t.rows = append(t.rows, replicaRow(r, now), []string{"  " + replicaNote(r)})
			}
			if v.Model != nil && !v.Status.IsFinished() {
				t.rows = append(t.rows, []string{fmt.Sprintf("  model %s at %s", cleanLine(v.Model.Name), cleanLine(modelBaseURL(v.Model)))})
			}
			if line := metricsLine(v); line != "" {
				t.rows = append(t.rows, []string{line})
			}
			for _, line := range why[v.ID] {
				t.rows = append(t.rows, []string{"  " + line})
			}
		}
		for _, line := range problemLines(v, verbose, now) {
			t.rows = append(t.rows, []string{line})
		}
	}
	t.style = func(row, column int) (textStyle, bool) {
		if column != 1 {
			return 0, false
		}
		return statusPaint(t.rows[row][1])
	}
	return t
}

func runRow(v api.RunView, now time.Time) []string {
	replicas := "-"
	if !v.Status.IsFinished() {
		serving := max(v.Ready, v.Serving) // during an update, replicas of the old revision count
		replicas = fmt.Sprintf("%d of %d", serving, v.DesiredReplicas)
		if v.Min != v.Max {
			replicas = fmt.Sprintf("%d of %d..%d", serving, v.Min, v.Max)
		}
	}
	return []string{cleanLine(v.Name), string(v.Status), replicas, cleanLine(v.URL), human.Age(now.Sub(v.SubmittedAt))}
}

func replicaRow(r api.ReplicaView, now time.Time) []string {
	return []string{"  " + replicaTitle(r), string(r.Status), "", "", human.Age(now.Sub(r.Since))}
}

// replicaTitle names a replica, with its group.
func replicaTitle(r api.ReplicaView) string {
	return fmt.Sprint("replica ", r.Num) + inParentheses(r.Group)
}

// replicaNote returns where a replica runs, what it has and costs, and how often
// it was restarted.
func replicaNote(r api.ReplicaView) string {
	var parts []string
	for _, part := range []string{r.Backend + " " + r.Instance, r.Resources} {
		if part = cleanLine(part); part != "" {
			parts = append(parts, part)
		}
	}
	parts = append(parts, formatPrice(r.Price)+"/h", human.Count(r.Restarts, "restart"))
	return strings.Join(parts, " · ")
}

// metricsLine returns the metrics of a run, or "" without any.
func metricsLine(v api.RunView) string {
	metrics := v.Metrics
	if metrics == nil || v.Status.IsFinished() {
		return ""
	}
	parts := []string{human.Count(int(metrics.Requests), "request"), fmt.Sprintf("%d in flight", metrics.InFlight)}
	if metrics.Held > 0 {
		parts = append(parts, fmt.Sprintf("%d held", metrics.Held))
	}
	if v.Model != nil {
		if metrics.FirstToken != nil {
			parts = append(parts, "first token after "+human.Latency(time.Duration(*metrics.FirstToken*float64(time.Second))))
		}
		parts = append(parts, fmt.Sprintf("tokens %s in, %s out",
			human.ShortNumber(metrics.TokensIn), human.ShortNumber(metrics.TokensOut)))
	}
	return "  " + strings.Join(parts, " · ")
}

func orDash(text string) string {
	if text = cleanLine(text); text == "" {
		return "-"
	}
	return text
}

// statusPaint returns the colour of the status of a run or a replica.
func statusPaint(status string) (textStyle, bool) {
	switch api.RunStatus(status) {
	case api.StatusReady:
		return green, true
	case api.StatusDegraded, api.StatusFailing, api.StatusWaiting:
		return yellow, true
	case api.StatusFailed:
		return red, true
	case api.StatusStopped, api.StatusSleeping:
		return dim, true
	case api.StatusStarting, api.StatusStopping, api.StatusUpdating:
		return 0, false
	}
	switch dstack.ReplicaStatus(status) {
	case dstack.ReplicaUnhealthy, dstack.ReplicaRestarting:
		return yellow, true
	case dstack.ReplicaDraining, dstack.ReplicaTerminating, dstack.ReplicaTerminated:
		return dim, true
	case dstack.ReplicaWaiting, dstack.ReplicaStarting, dstack.ReplicaReady, dstack.ReplicaFailed:
		// The same words as statuses of runs.
	}
	return 0, false
}

// readyWarning returns what the user should know about ready replicas, such as that
// other machines can reach them, or "". It names the first one.
func readyWarning(v api.RunView) string {
	warning, others := "", 0
	for _, r := range v.Replicas {
		switch {
		case r.Status != dstack.ReplicaReady || r.Reason == "":
		case warning == "":
			warning = describeReason(r)
		default:
			others++
		}
	}
	if others > 0 {
		warning += "; " + human.CountOf(others, "more replica does", "more replicas do")
	}
	return warning
}

// problemLines returns the reasons why a run is not as it should be.
func problemLines(v api.RunView, verbose bool, now time.Time) []string {
	var lines []string
	add := func(line string) {
		if line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if isReasonShown(v) && v.Status != api.StatusStopped {
		add(cleanLine(v.Reason))
	}
	if text := describeMissing(v.Publication); text != "" && !v.Status.IsFinished() {
		add(text)
	}
	for _, line := range replicaProblems(v, verbose, now) {
		add(line)
	}
	add(readyWarning(v))
	if b := v.RolledBack; b != nil && !v.Status.IsFinished() {
		add(fmt.Sprintf("revision %d was rolled back to %d: %s", b.From, b.To, orDash(b.Reason)))
	}
	return lines
}

// replicaProblems returns what is wrong with the replicas of a run. Replicas with
// the same reason share a line.
func replicaProblems(v api.RunView, verbose bool, now time.Time) []string {
	type problem struct {
		text string
		nums []string
	}
	var problems []problem
	for _, r := range v.Replicas {
		text := ""
		switch {
		case r.Status.IsFinished() && !verbose, r.Status == dstack.ReplicaReady:
		case r.Progress != "":
			text = cleanLine(r.Progress)
		case r.Reason != "":
			text = describeEvent(r) + describeRetry(r, now)
		}
		if text == "" {
			continue
		}
		at := slices.IndexFunc(problems, func(p problem) bool { return p.text == text })
		if at < 0 {
			at, problems = len(problems), append(problems, problem{text: text})
		}
		if num := fmt.Sprint(r.Num); !slices.Contains(problems[at].nums, num) {
			problems[at].nums = append(problems[at].nums, num)
		}
	}
	var lines []string
	for _, p := range problems {
		if len(p.nums) == 1 {
			lines = append(lines, fmt.Sprintf("replica %s %s", p.nums[0], p.text))
			continue
		}
		lines = append(lines, fmt.Sprintf("%d replicas (%s): %s", len(p.nums), strings.Join(p.nums, ", "), p.text))
	}
	return lines
}
