package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/human"
)

func newExplainCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "explain RUN",
		Short: "Explain a run's number of replicas, and when it may change.",
		Example: "dstack explain llama31\n" +
			"dstack explain llama31 -o json",
	}
	addRunQuery(a, c, (*api.Client).Explain, func(x api.Explanation, asJSON bool) error {
		if asJSON {
			x.Obstacles = orEmpty(x.Obstacles)
			return a.printJSON(x)
		}
		for _, line := range explanationLines(x, time.Now()) {
			a.printResult("%s", line)
		}
		return nil
	})
	return c
}

// explanationLines formats an explanation for people.
func explanationLines(x api.Explanation, now time.Time) []string {
	if x.Status.IsFinished() {
		return explainEnd(x)
	}
	lines := []string{fmt.Sprintf("%s desired, %d ready", human.Count(x.DesiredReplicas, "replica"), x.Ready)}
	add := func(line string) {
		if line = cleanLine(line); line != "" {
			lines = append(lines, "   "+line)
		}
	}
	for _, g := range x.Groups {
		add(fmt.Sprintf("group %s: %s desired, %d ready; %s", g.Name, human.Count(g.DesiredReplicas, "replica"), g.Ready, g.Decision.Reason))
		if next := describeNextChange(api.Explanation{Decision: g.Decision, Scaling: g.Scaling, ScaledAt: g.ScaledAt}, now); next != "" {
			add("   " + next)
		}
	}
	if len(x.Groups) == 0 {
		add(x.Decision.Reason)
	}
	add(describeLoad(x))
	add(describeNextChange(x, now))
	for _, why := range x.Obstacles {
		add(why)
	}
	return lines
}

// explainEnd says that a run has ended, why, and what to look at.
func explainEnd(x api.Explanation) []string {
	name := cleanLine(x.RunName)
	lines := []string{fmt.Sprintf("%s is %s and needs no replicas", name, x.Status)}
	if x.Status == api.StatusFailed {
		lines[0] = name + " failed and has no replicas any more"
	}
	for _, why := range x.Obstacles {
		if why = cleanLine(why); why != "" {
			lines = append(lines, "   "+why)
		}
	}
	if x.Status == api.StatusFailed {
		lines = append(lines, "   see what happened: dstack events "+name, "   see its output: dstack logs "+name)
	}
	return lines
}

// describeLoad returns the range of replicas and the load of a run.
func describeLoad(x api.Explanation) string {
	var facts []string
	if x.Min != x.Max {
		facts = append(facts, fmt.Sprintf("range %d..%d", x.Min, x.Max))
	}
	if x.Load.Known || x.Load.InFlight+x.Load.Held > 0 {
		facts = append(facts, fmt.Sprintf("in flight %d", x.Load.InFlight), fmt.Sprintf("held %d", x.Load.Held))
	} else {
		facts = append(facts, "no recent load report from a gateway")
	}
	return strings.Join(facts, " · ")
}

// describeNextChange says when the number of replicas may change if the load
// stays as it is, and which delay that follows from.
func describeNextChange(x api.Explanation, now time.Time) string {
	at := x.Decision.NextAt
	if at.IsZero() {
		return ""
	}
	direction := "could change"
	switch {
	case x.Decision.Target > x.Decision.DesiredReplicas:
		direction = "could go up"
	case x.Decision.Target < x.Decision.DesiredReplicas:
		direction = "could go down"
	}
	clock := at.Local().Format("15:04:05")
	if at.Sub(now) > 12*time.Hour {
		clock = at.Local().Format("Jan 02 15:04:05")
	}
	line := fmt.Sprintf("%s at %s at the earliest, in %s", direction, clock, human.Duration(at.Sub(now)))
	if x.Scaling == nil || x.ScaledAt.IsZero() || direction == "could change" {
		return line
	}
	field, delay := "scale_up_delay", x.Scaling.UpDelay
	if direction == "could go down" {
		field, delay = "scale_down_delay", x.Scaling.DownDelay
	}
	wait := time.Duration(delay) * time.Second
	if difference := at.Sub(x.ScaledAt) - wait; difference > time.Second || difference < -time.Second {
		return line // another rule decides
	}
	return fmt.Sprintf("%s: %s %s since the last change", line, field, human.Duration(wait))
}
