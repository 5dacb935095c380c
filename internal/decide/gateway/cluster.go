package gateway

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// ClusterFacts is what a decision about the processes of a gateway in a cluster may use.
type ClusterFacts struct {
	Gateway    dstack.Gateway
	Placements []dstack.GatewayPlacement // of the gateway, in clusters; usually one
	Cluster    string                    // the key of the cluster that is to run it; empty: none is to
	Clusters   map[string]ClusterSight   // by key: those of Placements and Cluster
	// Program is what this server would run: the digest of its launch, and the server.
	Program dstack.GatewayProgram
	// NodePortProgram is the same without a load balancer.
	NodePortProgram dstack.GatewayProgram
	Unable          string // why this server cannot launch processes in clusters, for the user; empty: it can
}

// ClusterSight is what was seen of a gateway in a cluster.
type ClusterSight struct {
	Found   dstack.ClusterGateway
	Silence error // why the cluster did not answer
}

// Limits for the gateways of clusters.
const (
	// balancerLimit is how long a load balancer may take to have an address. After that, node ports are used.
	balancerLimit = 2 * time.Minute
	// podsQuietTime is how long pods may start until the user is told what they wait for.
	podsQuietTime = 20 * time.Second
)

// DecideCluster decides what is to be done for the processes of a gateway in clusters. Each state is saved before an action
// follows from it.
func DecideCluster(facts ClusterFacts, now time.Time) PlacementPlan {
	var plan PlacementPlan
	wanted := facts.Cluster
	if facts.Gateway.IsDeleting {
		wanted = ""
	}
	isPlaced := false
	for _, p := range facts.Placements {
		cluster := dstack.ClusterOf(p.Host)
		d := clusterDecision{facts: facts, now: now, sight: facts.Clusters[cluster], step: PlacementStep{GatewayPlacement: p}}
		if cluster == wanted {
			isPlaced = true
			plan.Gone = append(plan.Gone, d.findGoneProcesses()...)
			d.keepRunning()
		} else {
			d.leave(wanted == "" || facts.isServedIn(wanted, now))
		}
		plan.Steps = append(plan.Steps, d.step)
	}
	if wanted != "" && !isPlaced {
		plan.New = append(plan.New, NewPlacement{Host: dstack.NewClusterHost(wanted, facts.Gateway.ID), HostName: wanted})
	}
	return plan
}

// isServedIn reports whether processes in a cluster report.
func (f ClusterFacts) isServedIn(cluster string, now time.Time) bool {
	return slices.ContainsFunc(ServingProcesses(f.Gateway, now), func(p dstack.GatewayProcess) bool { return dstack.ClusterOf(p.Host) == cluster })
}

type clusterDecision struct {
	facts ClusterFacts
	now   time.Time
	sight ClusterSight
	step  PlacementStep
}

// leave deletes what a cluster has, once another one serves.
func (d *clusterDecision) leave(mayGo bool) {
	switch {
	case d.step.Phase != dstack.GatewayLeaving && mayGo:
		d.step.setPhase(dstack.GatewayLeaving, d.now) // the intent is saved first
		d.step.Reason = "is not needed any more"
	case d.step.Phase != dstack.GatewayLeaving:
		d.step.Reason = "it goes on until the other cluster serves"
	case d.sight.Silence != nil:
		d.step.Reason, d.step.IsProblem = dstack.Reason("it cannot be removed from the cluster: "+d.sight.Silence.Error()), true
	case d.sight.Found.Exists:
		d.step.Action, d.step.Reason = DeleteGateway, "its pods finish their requests"
	default:
		d.step.IsGone = true
	}
}

// keepRunning makes the cluster have what this server would run. Nothing is changed while the cluster does not answer: its pods
// serve all the same.
func (d *clusterDecision) keepRunning() {
	if d.step.Phase == dstack.GatewayLeaving { // it was to leave, and is wanted again
		d.step.setPhase(dstack.GatewayStarting, d.now)
	}
	if d.sight.Silence != nil {
		d.describeSilence()
		return
	}
	if d.facts.Program.Owner == d.step.Program.Owner {
		d.step.Program.OwnerSeenAt = d.now
	}
	switch program := d.chooseProgram(); {
	case d.facts.Unable != "":
		d.describe()
		d.step.Reason, d.step.IsProblem = dstack.Reason(d.facts.Unable), true
	case d.mayReplace(program):
		d.step.Program = program
		d.step.Program.OwnerSeenAt = d.now
		d.describe() // the intent is saved first
	case program.Digest != d.step.Program.Digest, program.Digest == d.sight.Found.Applied:
		d.describe()
	case d.now.Before(d.step.NextAt): // the last try failed; its reason stays
		d.step.IsProblem = true
	default:
		d.step.Action, d.step.UsesNodePorts = ApplyGateway, program.Digest != d.facts.Program.Digest
		d.describe()
	}
}

// AfterFailure returns the step of a cluster's placement after its action failed: it is tried again after a pause that grows.
func (s PlacementStep) AfterFailure(why string, now time.Time) PlacementStep {
	s.Failures++
	s.NextAt = now.Add(startBackoff(s.Failures))
	s.Reason, s.IsProblem, s.IsGone = dstack.Reason(why), true, false
	return s
}

// mayReplace reports whether this server's program replaces that of the placement. Servers with one configuration have the same.
func (d *clusterDecision) mayReplace(program dstack.GatewayProgram) bool {
	present := d.step.Program
	if program.Digest == present.Digest {
		return false
	}
	return present.Digest == "" || present.Owner == program.Owner || d.now.Sub(present.OwnerSeenAt) >= ownerGoneAfter
}

// chooseProgram returns the program without a load balancer if the one that was asked for has had no address for long. It is
// not asked for again until something else changes.
func (d *clusterDecision) chooseProgram() dstack.GatewayProgram {
	found := d.sight.Found
	isLate := found.HasBalancer && len(found.Addresses) == 0 && !found.ServiceSince.IsZero() && d.now.Sub(found.ServiceSince) >= balancerLimit
	if isLate && found.Applied == d.facts.Program.Digest || d.step.Program.Digest == d.facts.NodePortProgram.Digest {
		return d.facts.NodePortProgram
	}
	return d.facts.Program
}

func (d *clusterDecision) describeSilence() {
	if d.step.SilentSince.IsZero() {
		d.step.SilentSince = d.now
	}
	d.step.Reason = ""
	if !d.facts.isServedIn(dstack.ClusterOf(d.step.Host), d.now) || d.now.Sub(d.step.SilentSince) >= gatewayLostAfter {
		d.step.Reason, d.step.IsProblem = dstack.Reason("the cluster does not answer: "+d.sight.Silence.Error()), true
	}
}

// describe sets the phase, the reason and the address of a placement from what the cluster has.
func (d *clusterDecision) describe() {
	found := d.sight.Found
	d.step.SilentSince, d.step.Reason, d.step.Address = time.Time{}, "", d.address()
	if found.Applied == d.step.Program.Digest {
		d.step.Failures, d.step.NextAt = 0, time.Time{}
	}
	isServing := d.facts.isServedIn(dstack.ClusterOf(d.step.Host), d.now)
	if isServing {
		d.step.setPhase(dstack.GatewayServing, d.now)
	} else {
		d.step.setPhase(dstack.GatewayStarting, d.now)
	}
	var texts []string
	if isComplete := found.Wanted > 0 && found.Ready >= found.Wanted && found.Updated >= found.Wanted; !isComplete {
		texts = append(texts, d.describePods())
		d.step.IsProblem = found.Problem != "" || d.now.Sub(d.step.Since) >= podsQuietTime && d.hasPodProblem()
	} else if runs := d.now.Sub(d.step.Since); !isServing {
		text := "its pods are joining"
		if runs >= silentProcessAfter {
			text = fmt.Sprintf("its pods have not reached a server for %s: see `kubectl logs` of a pod", human.RoundDuration(runs))
			d.step.IsProblem = true
		}
		texts = append(texts, text)
	}
	if text := d.describeWay(); text != "" {
		texts, d.step.IsProblem = append(texts, text), true
	}
	d.step.Reason = dstack.Reason(strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), "; "))
}

// describePods says how many pods serve, and what the first of the others waits for.
func (d *clusterDecision) describePods() string {
	found := d.sight.Found
	text := fmt.Sprintf("%d of %s serve", min(found.Ready, found.Wanted), human.Count(found.Wanted, "pod"))
	if found.Wanted == 0 {
		text = "its pods are being made"
	} else if found.Updated < found.Wanted && found.Ready >= found.Wanted {
		text = fmt.Sprintf("%d of %s are replaced", found.Updated, human.Count(found.Wanted, "pod"))
	}
	if found.Problem != "" {
		return text + ": " + found.Problem
	}
	for _, p := range found.Pods {
		if !p.IsReady && p.Message != "" {
			return text + ": " + p.Name + ": " + p.Message
		}
	}
	return text
}

func (d *clusterDecision) hasPodProblem() bool {
	return slices.ContainsFunc(d.sight.Found.Pods, func(p dstack.ClusterGatewayPod) bool { return !p.IsReady && p.Message != "" })
}

// describeWay says what is missing on the way from clients to the pods; empty: nothing is.
func (d *clusterDecision) describeWay() string {
	found := d.sight.Found
	conf := d.facts.Gateway.Configuration
	switch {
	case found.Applied == "":
		return ""
	case found.RouteProblem != "":
		return found.RouteProblem
	case conf.ParentRef != "" || !conf.PublicIP || len(found.Addresses) > 0:
		return ""
	case found.HasBalancer && d.now.Sub(found.ServiceSince) < podsQuietTime:
		return ""
	case found.HasBalancer:
		return "waits for the address of its load balancer"
	}
	ports := "port " + strconv.Itoa(found.HTTPNodePort) + " for http"
	if found.HTTPSNodePort != 0 {
		ports += " and " + strconv.Itoa(found.HTTPSNodePort) + " for https"
	}
	at := ""
	if len(found.NodeAddresses) > 0 {
		at = " (" + strings.Join(found.NodeAddresses, ", ") + ")"
	}
	return "the cluster has no load balancers: lead ports 80 and 443 of one of yours to the nodes" + at + ", " + ports
}

// address returns the address at which clients reach the pods; empty: it is not known.
func (d *clusterDecision) address() string {
	found := d.sight.Found
	if len(found.Addresses) > 0 {
		return found.Addresses[0]
	}
	if !found.HasBalancer && found.HTTPNodePort != 0 && len(found.NodeAddresses) > 0 {
		host := found.NodeAddresses[0]
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return host + ":" + strconv.Itoa(found.HTTPNodePort)
	}
	return ""
}

// findGoneProcesses returns the processes whose pods do not exist any more: they never come back.
func (d *clusterDecision) findGoneProcesses() []string {
	if d.sight.Silence != nil || !d.sight.Found.Exists {
		return nil
	}
	var gone []string
	for _, p := range d.facts.Gateway.Processes {
		isHere := func(pod dstack.ClusterGatewayPod) bool { return pod.Name == p.Name }
		if p.Host == d.step.Host && d.now.Sub(p.JoinedAt) >= podsQuietTime && d.now.Sub(p.SeenAt) >= goneProcessSilence &&
			!slices.ContainsFunc(d.sight.Found.Pods, isHere) {
			gone = append(gone, p.ID)
		}
	}
	return gone
}

// goneProcessSilence is how long the process of a pod that does not exist any more is kept, in case that the pod was not seen.
const goneProcessSilence = 3 * time.Second

// ClusterOf returns the key of the backend whose cluster is to run the processes of a gateway; empty: none is.
func ClusterOf(conf spec.Gateway) string {
	switch {
	case conf.Backend != spec.BackendKubernetes:
		return ""
	case conf.Region == "" || conf.Region == spec.BackendKubernetes:
		return spec.BackendKubernetes
	}
	return spec.BackendKubernetes + "-" + conf.Region
}
