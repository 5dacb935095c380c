package job

import (
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Probe is a request whose answer tells whether a replica is ready: a probe of the
// configuration, or a model check.
//
// Many model servers open their port before the model is loaded, and answer 503
// until then. A replica with a model and without probes is therefore asked by a
// model check, and is not ready while the answer is 503. Any other answer, and none,
// counts as ready, because not every server has the path that is asked.
type Probe struct {
	spec.Probe
	IsModelCheck bool
	ModelList    string // the path that a model check asks where the replica does not know URL; empty: none
}

const (
	healthPath         = "/health"
	modelCheckTimeout  = 5 // seconds
	modelCheckInterval = 1 // seconds
)

// Statuses of HTTP that a model check tells apart.
const (
	statusNotFound           = 404
	statusMethodNotAllowed   = 405
	statusNotImplemented     = 501
	statusServiceUnavailable = 503
)

// ModelCheckOf returns the model check of a configuration. ok is false if it has no
// model, or says which probes there are, if only with an empty list.
func ModelCheckOf(conf spec.Service) (check Probe, ok bool) {
	if conf.Model == nil || conf.Probes != nil {
		return Probe{}, false
	}
	check = Probe{IsModelCheck: true, Probe: spec.Probe{Type: "http", URL: healthPath, Method: "get",
		Timeout: modelCheckTimeout, Interval: modelCheckInterval, ReadyAfter: 1, UntilReady: true}}
	if conf.Model.Format == "openai" {
		if prefix := strings.TrimSuffix(conf.Model.Prefix, "/"); prefix == "" || prefix[0] == '/' {
			check.ModelList = prefix + "/models"
		}
	}
	return check, true
}

// findReadyProbe returns the first probe that others may send, too: a GET without headers, which may be secret, and without a
// body, that goes on once the replica is ready. nil: there is none.
func findReadyProbe(conf spec.Service) *spec.Probe {
	i := slices.IndexFunc(conf.Probes, func(p spec.Probe) bool {
		return p.Method == "get" && len(p.Headers) == 0 && p.Body == "" && !p.UntilReady
	})
	if i < 0 {
		return nil
	}
	return &conf.Probes[i]
}

// PlanProbes returns the probes that a running replica gets now. The model check is
// only for a replica that is not ready: it never takes a replica out of rotation.
func PlanProbes(r dstack.Replica, conf spec.Service) []Probe {
	probes := make([]Probe, 0, len(conf.Probes)+1)
	for _, p := range conf.Probes {
		probes = append(probes, Probe{Probe: p})
	}
	check, ok := ModelCheckOf(conf)
	if ok && (r.Status == dstack.ReplicaStarting || r.Status == dstack.ReplicaUnhealthy) {
		probes = append(probes, check)
	}
	return probes
}

// MayProbe reports whether the port of a running attempt lets its probes be sent. A
// port that never opened answers none. One that closed later answers with a failure,
// which a model check would not notice.
func MayProbe(r dstack.Replica, rep dstack.Report, probes []Probe) bool {
	switch {
	case len(probes) == 0 || rep.State != dstack.AttemptRunning:
		return false
	case rep.Ready:
		return true
	}
	hasBeenReady := r.Status == dstack.ReplicaReady || r.Status == dstack.ReplicaUnhealthy || r.Status == dstack.ReplicaDraining
	return hasBeenReady && !slices.ContainsFunc(probes, func(p Probe) bool { return p.IsModelCheck })
}

// Verdict is what the status of an answer means for a probe.
type Verdict string

// All verdicts.
const (
	Passed   Verdict = "passed"
	Failed   Verdict = "failed"
	AskOther Verdict = "ask the other path" // the replica does not know this one
)

// Judge returns what an answer to the path means.
func (p Probe) Judge(path string, status int) Verdict {
	switch {
	case !p.IsModelCheck && status >= 200 && status <= 299:
		return Passed
	case !p.IsModelCheck, status == statusServiceUnavailable:
		return Failed
	case path != p.ModelList && p.ModelList != "" && isUnknownPath(status):
		return AskOther
	default:
		return Passed
	}
}

func isUnknownPath(status int) bool {
	return status == statusNotFound || status == statusMethodNotAllowed || status == statusNotImplemented
}

// Describe says when a replica with this model check is ready, for the user.
func (p Probe) Describe() string {
	asked := "GET " + p.URL
	if p.ModelList != "" {
		asked += " (or GET " + p.ModelList + ", if there is no " + p.URL + ")"
	}
	return "without probes, a replica is ready when its port is open and " + asked + " does not answer 503; " +
		"set `probes` to ask something else"
}
