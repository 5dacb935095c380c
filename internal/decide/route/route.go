// Package route decides which run a request is for, and where it may go.
package route

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Table is every route a gateway serves, complete, at one version. It never
// changes once made.
type Table struct {
	Version uint64
	// DrainSequence is how often replicas were told to drain before the table was
	// read: none of those is in it.
	DrainSequence int64
	Routes        []Route
	// Tokens maps the SHA-256 (hexadecimal) of each token to the projects
	// that it opens, by lower-case name. "*" opens all.
	Tokens map[string][]string
}

// Route is one run as a gateway knows it.
type Route struct {
	Run     dstack.RunID
	Project string // lower case
	Name    string
	Auth    bool
	Model   string // name on the model endpoint; empty: not a model
	Prefix  string // where the model's API begins on the replica: /v1
	Format  string // what the replica speaks: openai, tgi
	// Template makes the prompts of a model of format tgi; nil: it is not
	// known here, and the replica may tell. Never changed once made.
	Template *dstack.ChatTemplate
	Since    int64 // unix seconds: when the run was submitted
	Ready    []Target
	// State tells people why there is no ready replica; empty when there is.
	State dstack.Reason
	// IsStopping says that the run is being stopped: it never has a replica again.
	IsStopping bool
	// IsSleeping says that it has no replica because nothing asked for one; a
	// request that waits brings one. False where it never gets one.
	IsSleeping bool
	// NeverServes says that its configuration allows no replica.
	NeverServes bool
	// PanicMode says that Ready holds those that run and fail their probes,
	// because no replica answers them well.
	PanicMode bool
	Rules     Rules
}

// Rules is what a configuration asks of a gateway. They never change once made.
type Rules struct {
	Window time.Duration    `json:"window,omitempty"` // over which load is averaged; 0: a minute
	Limits []spec.RateLimit `json:"limits,omitempty"`
	Hold   spec.Hold        `json:"hold,omitzero"`
}

// Target is one ready replica.
type Target struct {
	Replica dstack.ReplicaID
	Num     int
	dstack.Endpoint
}
