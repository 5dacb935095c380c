// Package route decides which run a request is for, and where it may go.
package route

import (
	"dstack/internal/dstack"
)

// Table is every route a gateway serves, complete, at one version. It never
// changes once made.
type Table struct {
	Version uint64
	Routes  []Route
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
}

// Target is one ready replica.
type Target struct {
	Replica dstack.ReplicaID
	Num     int
	Address string // host:port
}
