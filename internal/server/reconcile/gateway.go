package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/loop"
	"dstack/internal/server/store"
)

// GatewayOptions is what the processes of gateways on hosts get. Without a Program, none is started.
type GatewayOptions struct {
	// Program returns the server's own program and its version. It may take a moment at its first call.
	Program func() (engine.Program, string, error)
	// Token returns a new token with which a process on a host joins a gateway.
	Token func(ctx context.Context, g dstack.Gateway, host dstack.InstanceID) (string, error)
	// Servers are URLs of servers for processes on other machines. Each process also reaches a server through the SSH
	// connection to its host.
	Servers []string
	// Cluster is what processes in clusters get.
	Cluster ClusterGatewayOptions
	// Unreached returns why that is not possible on a host, for the user; empty: it is, or nothing is known. nil: always empty.
	Unreached func(host dstack.InstanceID) string
}

const (
	gatewayBatch      = 16               // gateways claimed at once
	gatewayAskTimeout = 10 * time.Second // for one host to list its containers
)

// newGatewayPass returns the pass over the gateways whose processes the server runs on hosts.
func (r *Reconciler) newGatewayPass() loop.Task {
	return loop.Repeat("gateway pass", r.wakes[store.GatewayWork], func(ctx context.Context) (time.Duration, error) {
		if r.Gateways.Program == nil {
			return idleInterval, nil
		}
		if err := r.Store.AddGatewayWork(ctx, time.Now()); err != nil {
			return 0, err
		}
		leases, err := r.Store.Claim(ctx, store.GatewayWork, r.Owner, r.Host, time.Now(), leaseTime, gatewayBatch)
		if err != nil {
			return 0, err
		}
		if len(leases) > 0 && r.forEach(ctx, leases, gatewayBatch, func(l store.Lease) (bool, error) { return r.stepGateway(ctx, l) }) {
			r.Broadcast.Notify()
		}
		return r.timeUntilDue(ctx, store.GatewayWork)
	})
}

// stepGateway observes the hosts of a gateway, decides, acts on each host, and saves.
func (r *Reconciler) stepGateway(ctx context.Context, l store.Lease) (changed bool, err error) {
	permit := r.Permit()
	seen, err := r.Store.ReadGatewayFacts(ctx, dstack.GatewayID(l.ID))
	if err != nil {
		return false, err
	}
	program, version, err := r.Gateways.Program()
	if err != nil {
		return false, err
	}
	onHosts, inClusters := splitPlacements(seen.Placements)
	seen.Placements = onHosts
	facts := gateway.PlacementFacts{
		Name: seen.Gateway.Name, Placements: onHosts, Hosts: seen.Hosts, Occupied: seen.Occupied, Processes: seen.Gateway.Processes,
		HostNames: seen.Gateway.Configuration.Hosts, Wanted: gateway.CountPlacements(seen.Gateway),
		Program: dstack.GatewayProgram{Digest: program.Digest, Version: version, Owner: r.Host},
	}
	facts.Containers, facts.Unanswered = r.askHosts(ctx, seen)
	facts.Unreached = map[dstack.InstanceID]string{}
	for _, p := range seen.Placements {
		if r.Gateways.Unreached != nil {
			facts.Unreached[p.Host] = r.Gateways.Unreached(p.Host)
		}
	}
	if err := cmp.Or(ctx.Err(), permit()); err != nil {
		return false, err
	}
	plan := gateway.DecidePlacements(facts, time.Now())
	r.actOnHosts(ctx, seen, program, &plan, permit)
	clusterPlan, err := r.stepClusters(ctx, seen, inClusters, permit)
	if err != nil {
		return false, err
	}
	seen.Placements = append(onHosts, inClusters...)
	plan.Steps, plan.New, plan.Gone = append(plan.Steps, clusterPlan.Steps...), append(plan.New, clusterPlan.New...), clusterPlan.Gone
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	now := time.Now()
	if err := r.Store.SaveGatewayPlan(ctx, l, seen, plan, plan.NextLook(seen.Placements, now), now); err != nil {
		return false, err
	}
	return r.logGatewayChanges(seen, plan), nil
}

// hostsBackend is the key of the backend that has the hosts of fleets.
const hostsBackend = "ssh"

// findGateways returns what runs the gateway processes of a host.
func (r *Reconciler) findGateways(ctx context.Context, host dstack.InstanceID) (engine.Gateways, error) {
	b, err := r.Backends.Get(hostsBackend)
	if err != nil {
		return nil, err
	}
	eng, err := b.Engine(ctx, host)
	if err != nil {
		return nil, err
	}
	gateways, ok := eng.(engine.Gateways)
	if !ok {
		return nil, &dstack.Error{Kind: dstack.Unsupported, Message: "the engine of the host runs no gateways"}
	}
	return gateways, nil
}

// askHosts lists the containers on the hosts of all placements at the same time.
func (r *Reconciler) askHosts(ctx context.Context, seen store.GatewayFacts) (
	found map[dstack.GatewayPlacementID][]dstack.GatewayContainer, unanswered map[dstack.GatewayPlacementID]error,
) {
	ctx, cancel := context.WithTimeout(ctx, gatewayAskTimeout)
	defer cancel()
	found, unanswered = map[dstack.GatewayPlacementID][]dstack.GatewayContainer{}, map[dstack.GatewayPlacementID]error{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, p := range seen.Placements {
		asking.Go(func() {
			var containers []dstack.GatewayContainer
			err := recoverPanic(func() error {
				gateways, err := r.findGateways(ctx, p.Host)
				if err == nil {
					containers, err = gateways.ListGateways(ctx)
				}
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				unanswered[p.ID] = err
				return
			}
			found[p.ID] = slices.DeleteFunc(containers, func(c dstack.GatewayContainer) bool { return c.Placement != p.ID })
		})
	}
	asking.Wait()
	return found, unanswered
}

// actOnHosts performs the actions of a plan at the same time. The failure of one becomes the reason of its placement.
func (r *Reconciler) actOnHosts(ctx context.Context, seen store.GatewayFacts, program engine.Program, plan *gateway.PlacementPlan, permit func() error) {
	ctx, cancel := context.WithTimeout(ctx, r.ActTimeout)
	defer cancel()
	var acting sync.WaitGroup
	for i := range plan.Steps {
		step := &plan.Steps[i]
		if step.Action == gateway.NoPlacementAction {
			continue
		}
		acting.Go(func() {
			err := recoverPanic(func() error { return r.actOnHost(ctx, seen, program, *step, permit) })
			if err == nil {
				r.failures.Forget(placementKey(step.ID))
				return
			}
			step.IsGone, step.IsProblem, step.Reason = false, true, dstack.Reason(describeFailure(err))
			if skipped, ok := r.failures.Admit(placementKey(step.ID), err.Error(), time.Now()); ok {
				r.Log.Warn("an action for a gateway failed", "gateway", seen.Gateway.Name, "host", step.HostName, "act", step.Action, "err", err, "not_logged", skipped)
			}
		})
	}
	acting.Wait()
}

func placementKey(id dstack.GatewayPlacementID) string { return "gateway placement " + string(id) }

// describeFailure returns the message of an error with its hint.
func describeFailure(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*dstack.Error](err); ok && e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

func (r *Reconciler) actOnHost(ctx context.Context, seen store.GatewayFacts, program engine.Program, step gateway.PlacementStep, permit func() error) error {
	gateways, err := r.findGateways(ctx, step.Host)
	if err != nil {
		return err
	}
	if err := permit(); err != nil {
		return err
	}
	switch step.Action {
	case gateway.StartContainer:
		return gateways.StartGateway(ctx, r.newLaunch(seen, program, step.GatewayPlacement))
	case gateway.RemoveContainer:
		return gateways.RemoveGateway(ctx, step.ID, step.Target)
	case gateway.DeleteState:
		return gateways.DeleteGatewayState(ctx, step.ID)
	case gateway.NoPlacementAction:
		return nil
	case gateway.ApplyGateway, gateway.DeleteGateway: // of clusters
	}
	return fmt.Errorf("unknown action %q", step.Action)
}

// freshTokenFailures is after how many failures in a row a process that has joined before gets another token: what it keeps
// on its host may be lost.
const freshTokenFailures = 2

// newLaunch returns how the process of a placement is started.
func (r *Reconciler) newLaunch(seen store.GatewayFacts, program engine.Program, p dstack.GatewayPlacement) engine.GatewayLaunch {
	g := seen.Gateway
	hasJoined := slices.ContainsFunc(g.Processes, func(process dstack.GatewayProcess) bool { return process.Host == p.Host })
	forwarded := url.URL{Scheme: "https", Host: "127.0.0.1:" + strconv.Itoa(p.Port)}
	return engine.GatewayLaunch{
		Placement: p.ID, Gateway: g.Name, Program: program,
		Env: map[string]string{
			"HOME": engine.GatewayStateFolder, "DSTACK_GATEWAY_DIR": engine.GatewayStateFolder,
			"DSTACK_GATEWAY_TOKEN_FILE": engine.GatewayTokenFile, "DSTACK_GATEWAY_NAME": p.HostName,
			"DSTACK_GATEWAY_ADDRESS": findPublicAddress(seen.Hosts, p.Host),
			"DSTACK_GATEWAY_SERVER":  strings.Join(append(slices.Clone(r.Gateways.Servers), forwarded.String()), ","),
		},
		Token: func(ctx context.Context) (string, error) {
			if hasJoined && p.Failures < freshTokenFailures {
				return "", nil
			}
			return r.Gateways.Token(ctx, g, p.Host)
		},
	}
}

// findPublicAddress returns the address at which clients probably reach a host; empty: it is not known.
func findPublicAddress(hosts []dstack.Host, id dstack.InstanceID) string {
	for _, h := range hosts {
		if h.ID == id && h.Jump == nil {
			address, _, _ := net.SplitHostPort(h.Login.Address)
			return address
		}
	}
	return ""
}

// logGatewayChanges logs what changed, and reports whether anything did.
func (r *Reconciler) logGatewayChanges(seen store.GatewayFacts, plan gateway.PlacementPlan) (changed bool) {
	for _, n := range plan.New {
		r.logChange("gateway process", seen.Gateway.Name+" on "+n.HostName, "", dstack.GatewayStarting, "")
		changed = true
	}
	for i, step := range plan.Steps {
		before := seen.Placements[i]
		to := step.Phase
		if step.IsGone {
			to = "gone"
		}
		if to != before.Phase {
			r.logChange("gateway process", seen.Gateway.Name+" on "+step.HostName, before.Phase, to, step.Reason)
		}
		changed = changed || to != before.Phase || step.Reason != before.Reason
	}
	return changed || dstack.Reason(plan.Problem()) != seen.Gateway.Problem
}
