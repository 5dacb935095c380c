package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/store"
)

// ClusterGatewayOptions is what the processes of gateways in clusters get.
type ClusterGatewayOptions struct {
	Image      string   // of dstack, for clusters that are configured with none; empty: none is known
	PullSecret string   // a secret of the namespace with which the image is pulled; empty: none is needed
	Servers    []string // URLs of servers as pods reach them; empty: none is known
	// Token returns a new token with which any number of processes join a gateway.
	Token func(ctx context.Context, g dstack.Gateway, host dstack.InstanceID) (string, error)
}

// explainUnable returns why the server cannot launch processes in a cluster; empty: it can.
func (o ClusterGatewayOptions) explainUnable() string {
	switch {
	case o.Image == "":
		return "no image of dstack is known that pods could run; set gateway_image of the backend in config.yml, or DSTACK_GATEWAY_IMAGE at the server"
	case len(o.Servers) == 0:
		return "no URL is known at which pods reach this server; set DSTACK_GATEWAY_SERVER_URL, or DSTACK_SERVER_URL, at the server"
	}
	return ""
}

// splitPlacements separates the placements on hosts from those in clusters.
func splitPlacements(all []dstack.GatewayPlacement) (onHosts, inClusters []dstack.GatewayPlacement) {
	for _, p := range all {
		if dstack.ClusterOf(p.Host) != "" {
			inClusters = append(inClusters, p)
		} else {
			onHosts = append(onHosts, p)
		}
	}
	return onHosts, inClusters
}

// stepClusters observes what clusters have of a gateway, decides, and acts.
func (r *Reconciler) stepClusters(ctx context.Context, seen store.GatewayFacts, placements []dstack.GatewayPlacement, permit func() error) (gateway.PlacementPlan, error) {
	facts := gateway.ClusterFacts{Gateway: seen.Gateway, Placements: placements, Cluster: gateway.ClusterOf(seen.Gateway.Configuration),
		Clusters: map[string]gateway.ClusterSight{}}
	if facts.Cluster == "" && len(placements) == 0 {
		return gateway.PlacementPlan{}, nil
	}
	options := r.clusterOptions(facts.Cluster)
	facts.Unable = options.explainUnable()
	for _, p := range placements {
		cluster := dstack.ClusterOf(p.Host)
		facts.Clusters[cluster] = r.seeCluster(ctx, cluster, seen.Gateway.ID)
	}
	facts.Program = dstack.GatewayProgram{Digest: newClusterLaunch(options, seen.Gateway, false).Digest, Version: options.Image, Owner: r.Host}
	facts.NodePortProgram = facts.Program
	facts.NodePortProgram.Digest = newClusterLaunch(options, seen.Gateway, true).Digest
	if err := cmp.Or(ctx.Err(), permit()); err != nil {
		return gateway.PlacementPlan{}, err
	}
	plan := gateway.DecideCluster(facts, time.Now())
	for i, step := range plan.Steps {
		if step.Action == gateway.NoPlacementAction {
			continue
		}
		if err := recoverPanic(func() error { return r.actOnCluster(ctx, seen.Gateway, step, permit) }); err != nil {
			plan.Steps[i] = step.AfterFailure(describeFailure(err), time.Now())
			if skipped, ok := r.failures.Admit(placementKey(step.ID), err.Error(), time.Now()); ok {
				r.Log.Warn("an action for a gateway failed", "gateway", seen.Gateway.Name, "cluster", step.HostName, "act", step.Action, "err", err, "not_logged", skipped)
			}
			continue
		}
		r.failures.Forget(placementKey(step.ID))
	}
	return plan, nil
}

// findClusterGateways returns what runs the processes of gateways in a cluster.
func (r *Reconciler) findClusterGateways(cluster string) (engine.ClusterGateways, error) {
	b, err := r.Backends.Get(cluster)
	if err != nil {
		return nil, err
	}
	gateways, ok := b.(engine.ClusterGateways)
	if !ok {
		return nil, &dstack.Error{Kind: dstack.Unsupported, Message: "the backend " + cluster + " runs no gateways"}
	}
	return gateways, nil
}

func (r *Reconciler) seeCluster(ctx context.Context, cluster string, id dstack.GatewayID) (sight gateway.ClusterSight) {
	ctx, cancel := context.WithTimeout(ctx, gatewayAskTimeout)
	defer cancel()
	sight.Silence = recoverPanic(func() error {
		gateways, err := r.findClusterGateways(cluster)
		if err == nil {
			sight.Found, err = gateways.FindGateway(ctx, id)
		}
		return err
	})
	return sight
}

func (r *Reconciler) actOnCluster(ctx context.Context, g dstack.Gateway, step gateway.PlacementStep, permit func() error) error {
	ctx, cancel := context.WithTimeout(ctx, r.ActTimeout)
	defer cancel()
	gateways, err := r.findClusterGateways(dstack.ClusterOf(step.Host))
	if err != nil {
		return err
	}
	if err := permit(); err != nil {
		return err
	}
	switch step.Action {
	case gateway.ApplyGateway:
		launch := newClusterLaunch(r.clusterOptions(dstack.ClusterOf(step.Host)), g, step.UsesNodePorts)
		launch.Token = func(ctx context.Context) (string, error) { return r.Gateways.Cluster.Token(ctx, g, step.Host) }
		return gateways.ApplyGateway(ctx, launch)
	case gateway.DeleteGateway:
		return gateways.DeleteGateway(ctx, g.ID)
	case gateway.NoPlacementAction, gateway.StartContainer, gateway.RemoveContainer, gateway.DeleteState: // of hosts
	}
	return fmt.Errorf("unknown action %q for a cluster", step.Action)
}

// clusterOptions returns what the processes of gateways in a cluster get.
func (r *Reconciler) clusterOptions(cluster string) ClusterGatewayOptions {
	o := r.Gateways.Cluster
	if gateways, err := r.findClusterGateways(cluster); err == nil {
		o.Image = cmp.Or(gateways.GatewayImage(), o.Image)
	}
	return o
}

// newClusterLaunch returns how the processes of a gateway run in a cluster.
func newClusterLaunch(o ClusterGatewayOptions, g dstack.Gateway, usesNodePorts bool) engine.ClusterGatewayLaunch {
	conf := g.Configuration
	launch := engine.ClusterGatewayLaunch{
		ID: g.ID, Gateway: g.Name, Project: g.ProjectName, Domain: g.Domain, Replicas: conf.ReplicaCount(), Image: o.Image, PullSecret: o.PullSecret,
		Env:    map[string]string{"DSTACK_GATEWAY_SERVER": strings.Join(o.Servers, ",")},
		HasTLS: conf.Certificate != nil, IsPublic: conf.PublicIP, UsesNodePorts: usesNodePorts, ParentRef: conf.ParentRef,
	}
	text, err := json.Marshal(struct {
		engine.ClusterGatewayLaunch
		Token any
	}{ClusterGatewayLaunch: launch})
	if err != nil { // it consists of texts and numbers
		panic(err)
	}
	sum := sha256.Sum256(text)
	launch.Digest = hex.EncodeToString(sum[:])
	return launch
}
