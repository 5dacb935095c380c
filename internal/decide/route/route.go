// Package route decides which run a request is for, and which replicas may
// serve it.
package route

import (
	"encoding/json"
	"net/netip"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Table is the complete route table at one version. It is immutable.
//
// Its JSON form is what a gateway in another process receives: a reader ignores
// fields that it does not know, and treats absent ones as zero. Durations are
// nanoseconds. The form has the digests of all tokens; only gateways may see
// it.
type Table struct {
	Version uint64 `json:"version"` // differs from that of every other table
	// DrainSequence counts the replicas that began to drain before the table was
	// read: none of them is in it.
	DrainSequence int64   `json:"drain_sequence"`
	Routes        []Route `json:"routes,omitempty"`
	// Tokens maps the SHA-256 (hexadecimal) of each token to the projects that it
	// opens, by lower-case name. "*" opens all.
	Tokens map[string][]string `json:"tokens,omitempty"`
	// TokensEnded says that Tokens and Keys are empty because no server has answered the gateway for too long.
	TokensEnded bool `json:"tokens_ended,omitempty"`
	// Projects lists all projects, by lower-case name. nil: they are not known.
	Projects []string `json:"projects,omitempty"`
	// Gateways are those that have a domain, by domain: all of them for a server, one for a process of it.
	Gateways []Gateway `json:"gateways,omitempty"`
	// Keys are the keys for callers that are neither revoked nor expired.
	Keys []Key `json:"keys,omitempty"`
}

// Gateway is a gateway of a project as a process that serves it knows it:
// services are at <run>.<domain>, and the project's models at gateway.<domain>.
type Gateway struct {
	ID        dstack.GatewayID `json:"id"`
	Project   string           `json:"project"` // lower case
	Name      string           `json:"name"`
	Domain    string           `json:"domain"` // lower case, without dots around it and without a star
	IsDefault bool             `json:"default,omitempty"`
	IsPlain   bool             `json:"plain,omitempty"` // it has no certificate: http only
	IsLocal   bool             `json:"local,omitempty"` // the server itself serves it
	// TrustedProxies are those in front of this gateway. nil: those of the process.
	TrustedProxies []netip.Prefix `json:"trusted_proxies,omitzero"`
}

// Key is a key for callers. It opens no more than what it lists.
type Key struct {
	Digest   string   `json:"digest"` // SHA-256 of the key, hexadecimal
	ID       string   `json:"id"`
	Project  string   `json:"project"` // lower case
	Name     string   `json:"name"`
	Services []string `json:"services,omitempty"` // names of runs
	Models   []string `json:"models,omitempty"`   // with Services empty, too: all services and models of the project
	RPS      float64  `json:"rps,omitempty"`      // over all gateways; 0: no limit
	// Expires is when the key ends, in unix seconds; 0: never. A gateway checks it itself.
	Expires int64 `json:"expires,omitempty"`
}

// Route is one run as a gateway knows it.
type Route struct {
	Run     dstack.RunID `json:"run"`
	Project string       `json:"project"` // lower case
	Name    string       `json:"name"`
	// Auth says that only callers with a token of the project may use the run.
	Auth   bool   `json:"auth"`
	Model  string `json:"model,omitempty"`  // name on the model endpoint; empty: no model
	Prefix string `json:"prefix,omitempty"` // where the model's API begins on the replica: /v1
	Format string `json:"format,omitempty"` // the API of the replica: openai, tgi
	// Template renders the prompts of a model of format tgi. It is nil where only
	// the replica may know it. It is immutable.
	Template *dstack.ChatTemplate `json:"template,omitempty"`
	Since    int64                `json:"since"` // unix seconds: when the run was submitted
	Ready    []Target             `json:"ready,omitempty"`
	// State says why there is no ready replica; empty when there is one.
	State dstack.Reason `json:"state,omitempty"`
	// IsStopping says that the run never has a replica again.
	IsStopping bool `json:"stopping,omitempty"`
	// IsSleeping says that the run has no replica because there is no demand: a
	// request that waits starts one.
	IsSleeping bool `json:"sleeping,omitempty"`
	// NeverServes says that the configuration allows no replica.
	NeverServes bool `json:"never_serves,omitempty"`
	// PanicMode says that Ready has replicas that run and fail their probes,
	// because none passes them.
	PanicMode bool  `json:"panic_mode,omitempty"`
	Rules     Rules `json:"rules,omitzero"`
	// Gateway is the only gateway of the project below whose domain the run is
	// published. Empty: all of them; NoGateway: none.
	Gateway dstack.GatewayID `json:"gateway,omitempty"`
}

// NoGateway is Route.Gateway of a run that is at the server's own address alone.
const NoGateway dstack.GatewayID = "none"

// Rules is what a configuration asks of gateways. They are immutable.
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

// targetJSON is the JSON form of Target.
type targetJSON struct {
	Replica dstack.ReplicaID `json:"replica"`
	Num     int              `json:"num"`
	Host    string           `json:"host,omitempty"` // see dstack.Endpoint
	Address string           `json:"address"`
}

// MarshalJSON writes the endpoint's fields beside the others.
func (t Target) MarshalJSON() ([]byte, error) {
	return json.Marshal(targetJSON{t.Replica, t.Num, t.Host, t.Address})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (t *Target) UnmarshalJSON(data []byte) error {
	var form targetJSON
	if err := json.Unmarshal(data, &form); err != nil {
		return err
	}
	*t = Target{form.Replica, form.Num, dstack.Endpoint{Host: form.Host, Address: form.Address}}
	return nil
}
