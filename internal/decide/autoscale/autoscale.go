// Package autoscale decides how many replicas a load needs, and why.
package autoscale

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Facts is all that a decision may use.
type Facts struct {
	Replicas        spec.Replicas
	Scaling         *spec.Scaling // nil: the number is fixed
	DesiredReplicas int           // how many were wanted until now
	ScaledAt        time.Time     // since when
	// Starting is how many replicas have a machine and start for the first
	// time: they have not crashed.
	Starting int
	ReadyAt  time.Time // when the latest of the present replicas became ready; zero: none is
	Load     dstack.Load
}

// Decision is how many replicas there should be.
type Decision struct {
	DesiredReplicas int       `json:"wanted"`
	Target          int       `json:"target"` // what the load alone asks for, within the range
	Rule            Rule      `json:"rule"`
	Reason          string    `json:"why"`     // 14.2 requests a second over the last 60s, target 10 a replica: ceil(14.2 / 10) = 2
	NextAt          time.Time `json:"next_at"` // when Wanted may change though the load stays; zero: never
}

// Rule names why a decision is as it is.
type Rule string

// Every rule there is.
const (
	RuleFixed     Rule = "fixed"      // the configuration names one number
	RuleNoLoad    Rule = "no_load"    // no gateway has told lately: all stays
	RuleSteady    Rule = "steady"     // the load asks for what there is
	RuleWake      Rule = "wake"       // from zero: at once
	RuleUp        Rule = "up"         // the load asks for more
	RuleUpDelay   Rule = "up_delay"   // it does, but scale_up_delay is not over
	RuleDown      Rule = "down"       // the load asks for fewer
	RuleDownDelay Rule = "down_delay" // it does, but scale_down_delay is not over
	RuleStarting  Rule = "starting"   // it does, but one that was asked for still starts
	RuleWatching  Rule = "watching"   // it does, but the gateway has not counted for a whole window yet
	RuleRange     Rule = "range"      // the configuration's range has changed
)
