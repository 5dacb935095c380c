// Package autoscale decides how many replicas a run should have under its
// current load, and explains the decision.
package autoscale

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Facts is the input of a decision.
type Facts struct {
	Replicas        spec.Replicas
	Scaling         *spec.Scaling // nil: the number of replicas is fixed
	DesiredReplicas int           // the current desired number
	ScaledAt        time.Time     // when DesiredReplicas last changed
	// Starting is the number of replicas that were placed on a machine, have
	// never been ready and have not crashed.
	Starting int
	ReadyAt  time.Time // when the newest ready replica became ready; zero: none is ready
	Load     dstack.Load
	// Others is how many replicas other groups of the run are to have, and OthersTake how
	// much of the load they take. Zero: the run has only one group.
	Others     int
	OthersTake float64
}

// Decision is the desired number of replicas and its explanation.
type Decision struct {
	DesiredReplicas int       `json:"wanted"`
	Target          int       `json:"target"` // the number that the load alone requires, within the range
	Rule            Rule      `json:"rule"`
	Reason          string    `json:"why"`              // for the user: 14.2 requests a second over the last 60s, target 10 a replica: ceil(14.2 / 10) = 2
	NextAt          time.Time `json:"next_at,omitzero"` // when DesiredReplicas may change without a change of the load; zero: never
}

// Rule identifies the rule that determined a decision.
type Rule string

// The rules.
const (
	RuleFixed     Rule = "fixed"      // the configuration sets a fixed number
	RuleNoLoad    Rule = "no_load"    // no gateway reported recently: no change
	RuleSteady    Rule = "steady"     // the load requires the current number
	RuleWake      Rule = "wake"       // scaled up from zero, without a delay
	RuleUp        Rule = "up"         // the load requires more
	RuleUpDelay   Rule = "up_delay"   // the load requires more, but scale_up_delay is not over
	RuleDown      Rule = "down"       // the load requires fewer
	RuleDownDelay Rule = "down_delay" // the load requires fewer, but scale_down_delay is not over
	RuleStarting  Rule = "starting"   // the load requires fewer, but a replica is still starting
	RuleWatching  Rule = "watching"   // the load requires fewer, but no gateway has observed a whole window yet
	RuleRange     Rule = "range"      // the current number is outside the range of the configuration
)
