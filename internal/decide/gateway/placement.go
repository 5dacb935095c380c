package gateway

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// PlacementFacts is what a decision about the processes of a gateway on hosts may use.
type PlacementFacts struct {
	Name       string   // of the gateway
	Wanted     int      // how many processes it is to have; 0: it has other ones, or is being deleted
	HostNames  []string // the hosts that may serve, as HOST or FLEET/HOST; empty: all hosts of the project
	Placements []dstack.GatewayPlacement
	Hosts      []dstack.Host                // of the fleets of its project
	Occupied   map[dstack.InstanceID]string // hosts that serve another gateway, by its name: two would need the same ports
	Processes  []dstack.GatewayProcess      // that joined
	// Containers are those on the hosts of the placements that were asked and answered.
	Containers map[dstack.GatewayPlacementID][]dstack.GatewayContainer
	Unanswered map[dstack.GatewayPlacementID]error // why the host of a placement did not answer
	Unreached  map[dstack.InstanceID]string        // why processes on a host cannot reach the server through SSH, for the user
	Program    dstack.GatewayProgram               // of the server that decides; Owner is that server
}

// PlacementPlan is what is to be done for a gateway.
type PlacementPlan struct {
	New   []NewPlacement
	Steps []PlacementStep // one for each placement
	// Missing is why processes have no host, for the user; empty: all have one.
	Missing string
	Gone    []string // processes that do not exist any more
}

// Problem returns why the gateway has fewer processes than it is to have, for the user; empty: all serve, or are being started.
func (p PlacementPlan) Problem() string {
	var reasons []string
	if p.Missing != "" {
		reasons = append(reasons, p.Missing)
	}
	for _, step := range p.Steps {
		if step.Phase != dstack.GatewayLeaving && step.IsProblem {
			reasons = append(reasons, fmt.Sprintf("on %s: %s", step.HostName, step.Reason))
		}
	}
	return strings.Join(reasons, "; ")
}

// NewPlacement is a process that is to be placed.
type NewPlacement struct {
	Host     dstack.InstanceID
	HostName string
}

// PlacementStep is the next state of a placement, and one action.
type PlacementStep struct {
	dstack.GatewayPlacement // as it is to be saved
	Action                  PlacementAction
	Target                  string // with RemoveContainer: the digest of its program
	IsGone                  bool   // the placement does not exist any more
	IsProblem               bool   // Reason is one that the user may have to do something about, not the progress
	UsesNodePorts           bool   // with ApplyGateway: without a load balancer
	Address                 string // at which clients reach its processes; empty: what they say themselves
}

// PlacementAction is what a pass does on the host of a placement. Each may be repeated.
type PlacementAction string

// The actions.
const (
	NoPlacementAction PlacementAction = ""
	StartContainer    PlacementAction = "start"       // of the placement's program, beside one of another program
	RemoveContainer   PlacementAction = "remove"      // of the program Target, after its requests have ended
	DeleteState       PlacementAction = "delete data" // what its process keeps on the host
	ApplyGateway      PlacementAction = "apply"       // what a cluster has of the gateway
	DeleteGateway     PlacementAction = "delete"      // all that a cluster has of the gateway
)

const (
	gatewayLostAfter   = time.Minute      // a silent host's processes are placed elsewhere, unless they report
	ownerGoneAfter     = 10 * time.Minute // another server may choose the program then
	silentProcessAfter = time.Minute      // a container runs for so long without joining: the user is told
	takeOverLimit      = 2 * time.Minute  // for a new program to take over from the one before
	drainLimit         = time.Hour        // for the requests of the program before
	minStartBackoff    = 5 * time.Second
	maxStartBackoff    = 5 * time.Minute
)

// DecidePlacements decides what is to be done for the processes of a gateway on hosts. Each state is saved before an action
// follows from it.
func DecidePlacements(facts PlacementFacts, now time.Time) PlacementPlan {
	d := placementDecision{facts: facts, now: now}
	for _, p := range facts.Placements {
		d.steps = append(d.steps, d.observe(p))
	}
	d.placeAndLeave()
	for i := range d.steps {
		step := &d.steps[i]
		d.act(step)
		if why := d.explainUnsuitable(*step); why != "" && step.Phase != dstack.GatewayLeaving {
			step.Reason, step.IsProblem = dstack.Reason(why+"; it goes on until another host serves"), true
		}
	}
	return PlacementPlan{New: d.added, Steps: d.steps, Missing: d.explainMissing()}
}

type placementDecision struct {
	facts PlacementFacts
	now   time.Time
	steps []PlacementStep
	added []NewPlacement
	// suitable counts the placements that may stay, with those in added.
	suitable int
	// rejected has the reasons why hosts were not chosen, for the user.
	rejected []string
}

// observe takes over what is known of a placement's host.
func (d *placementDecision) observe(p dstack.GatewayPlacement) PlacementStep {
	switch _, isSilent := d.facts.Unanswered[p.ID]; {
	case !isSilent:
		p.SilentSince = time.Time{}
	case p.SilentSince.IsZero():
		p.SilentSince = d.now
	}
	if p.Program.Owner == d.facts.Program.Owner {
		p.Program.OwnerSeenAt = d.now
	}
	return PlacementStep{GatewayPlacement: p}
}

// placeAndLeave adds placements until the gateway has enough on suitable hosts, and lets those leave that are not needed
// once the others serve.
func (d *placementDecision) placeAndLeave() {
	var suitable, others []*PlacementStep
	serving := 0
	for i := range d.steps {
		step := &d.steps[i]
		switch {
		case step.Phase == dstack.GatewayLeaving:
		case d.explainUnsuitable(*step) != "":
			others = append(others, step)
		default:
			suitable = append(suitable, step)
			if d.isServing(*step) {
				serving++
			}
		}
	}
	for len(suitable)+len(d.added) < d.facts.Wanted {
		if !d.addPlacement() {
			break
		}
	}
	// The newest ones that do not serve leave first.
	slices.SortStableFunc(suitable, func(a, b *PlacementStep) int {
		if sa, sb := d.isServing(*a), d.isServing(*b); sa != sb {
			if sb {
				return -1
			}
			return 1
		}
		return b.CreatedAt.Compare(a.CreatedAt)
	})
	for len(suitable) > d.facts.Wanted {
		d.leave(suitable[0], "is not needed any more")
		suitable = suitable[1:]
	}
	for _, step := range others {
		if serving >= d.facts.Wanted || d.mustLeave(*step, len(suitable)+len(d.added)) {
			d.leave(step, d.explainUnsuitable(*step))
		}
	}
	d.suitable = len(suitable) + len(d.added)
}

func (d *placementDecision) leave(step *PlacementStep, why string) {
	step.Phase, step.Reason, step.Since = dstack.GatewayLeaving, dstack.Reason(why), d.now
}

// explainUnsuitable returns why a placement is to be moved; empty: it may stay.
func (d *placementDecision) explainUnsuitable(step PlacementStep) string {
	h := d.findHost(step.Host)
	switch {
	case h == nil:
		return "its host belongs to no fleet of the project any more"
	case h.IsLeaving:
		return "its host is being removed from its fleet"
	case !d.mayServe(*h):
		return "its host is not in `hosts` any more"
	case h.IsDraining:
		return "its host is drained"
	case d.isLost(step):
		return "its host has not answered for " + human.RoundDuration(gatewayLostAfter)
	}
	return ""
}

// mustLeave reports whether a placement leaves its host before another one serves: its host is to go, and no other can get it.
func (d *placementDecision) mustLeave(step PlacementStep, suitable int) bool {
	h := d.findHost(step.Host)
	return h == nil || h.IsLeaving && suitable < d.facts.Wanted
}

// isLost reports whether a host is silent for long, and the process on it does not report by another way either.
func (d *placementDecision) isLost(step PlacementStep) bool {
	return !step.SilentSince.IsZero() && d.now.Sub(step.SilentSince) >= gatewayLostAfter && d.findProcess(step) == nil
}

// isServing reports whether the process of a placement reports to a server.
func (d *placementDecision) isServing(step PlacementStep) bool { return d.findProcess(step) != nil }

// findProcess returns the process of a placement if it reported lately.
func (d *placementDecision) findProcess(step PlacementStep) *dstack.GatewayProcess {
	for i, p := range d.facts.Processes {
		if p.Host == step.Host && d.now.Sub(p.SeenAt) < dstack.GatewaySilence {
			return &d.facts.Processes[i]
		}
	}
	return nil
}

func (d *placementDecision) findHost(id dstack.InstanceID) *dstack.Host {
	i := slices.IndexFunc(d.facts.Hosts, func(h dstack.Host) bool { return h.ID == id })
	if i < 0 {
		return nil
	}
	return &d.facts.Hosts[i]
}

func (d *placementDecision) mayServe(h dstack.Host) bool {
	return len(d.facts.HostNames) == 0 || slices.ContainsFunc(d.facts.HostNames, func(name string) bool {
		fleet, host, hasFleet := strings.Cut(name, "/")
		return name == h.Name || hasFleet && host == h.Name && fleet == h.FleetName
	})
}

// addPlacement chooses one more host, in the order of `hosts`, or else of fleets. It reports false if there is none.
func (d *placementDecision) addPlacement() bool {
	d.rejected = nil
	for _, h := range d.sortHosts() {
		switch why := d.explainRejection(h); why {
		case "":
			d.added = append(d.added, NewPlacement{Host: h.ID, HostName: h.Name})
			return true
		case alreadyServes:
		default:
			d.rejected = append(d.rejected, h.Name+" "+why)
		}
	}
	return false
}

func (d *placementDecision) sortHosts() []dstack.Host {
	hosts := slices.Clone(d.facts.Hosts)
	rank := func(h dstack.Host) int {
		at := slices.IndexFunc(d.facts.HostNames, func(name string) bool { return name == h.Name || name == h.FleetName+"/"+h.Name })
		if at < 0 {
			return len(d.facts.HostNames)
		}
		return at
	}
	slices.SortStableFunc(hosts, func(a, b dstack.Host) int { return rank(a) - rank(b) })
	return hosts
}

const alreadyServes = "serves it already"

// explainRejection returns why a host cannot get a process of the gateway; empty: it can.
func (d *placementDecision) explainRejection(h dstack.Host) string {
	isPlaced := func(p PlacementStep) bool { return p.Host == h.ID }
	isAdded := func(p NewPlacement) bool { return p.Host == h.ID }
	switch other := d.facts.Occupied[h.ID]; {
	case slices.ContainsFunc(d.steps, isPlaced) || slices.ContainsFunc(d.added, isAdded):
		return alreadyServes
	case !d.mayServe(h):
		return "is not in `hosts`"
	case h.IsLeaving:
		return "is being removed from its fleet"
	case h.IsDraining:
		return "is drained"
	case h.Check.Status != dstack.HostReady:
		return fmt.Sprintf("is %s", h.Check.Status)
	case other != "":
		return "serves the gateway " + other + ", which needs the same ports"
	}
	return ""
}

// explainMissing returns why processes have no host.
func (d *placementDecision) explainMissing() string {
	if d.suitable >= d.facts.Wanted {
		return ""
	}
	text := fmt.Sprintf("%d of %s found a host", d.suitable, human.CountOf(d.facts.Wanted, "process", "processes"))
	switch {
	case len(d.facts.Hosts) == 0:
		return text + ": the project has no hosts; `dstack apply` a fleet first"
	case len(d.rejected) > 0:
		return text + ": " + strings.Join(d.rejected, "; ")
	}
	return text + ": there are no further hosts"
}
