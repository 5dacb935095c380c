// Package kubegateway runs the processes of gateways in a Kubernetes cluster: as a deployment of pods, behind a service.
package kubegateway

import (
	"cmp"
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
)

// Gateways runs the gateways of one installation in one namespace of a cluster. Several goroutines may use it at once.
type Gateways struct {
	client       *kubeclient.Client
	installation dstack.Installation
	image        string
}

var _ engine.ClusterGateways = (*Gateways)(nil)

// New returns the gateways of an installation. image is that of dstack for this cluster; empty: none is configured.
func New(client *kubeclient.Client, installation dstack.Installation, image string) *Gateways {
	return &Gateways{client, installation, image}
}

// GatewayImage implements engine.ClusterGateways.
func (g *Gateways) GatewayImage() string { return g.image }

// ApplyGateway implements engine.ClusterGateways. The deployment is the last object: its mark says that all others are there.
func (g *Gateways) ApplyGateway(ctx context.Context, launch engine.ClusterGatewayLaunch) error {
	m := manifest{g.installation, launch}
	if err := g.ensureToken(ctx, m); err != nil {
		return err
	}
	if _, err := kubeclient.Apply(ctx, g.client, kubeclient.Services, m.service()); err != nil {
		return err
	}
	if _, err := kubeclient.Apply(ctx, g.client, kubeclient.Budgets, m.budget()); err != nil {
		return err
	}
	if err := g.applyRoute(ctx, m); err != nil {
		return err
	}
	_, err := kubeclient.Apply(ctx, g.client, kubeclient.Deployments, m.deployment())
	return err
}

// ensureToken makes the secret with the token by which pods join, if it does not exist.
func (g *Gateways) ensureToken(ctx context.Context, m manifest) error {
	_, err := kubeclient.Get(ctx, g.client, kubeclient.Secrets, m.name())
	if kubeclient.MeaningOf(err) != kubeclient.NotFound {
		return err
	}
	token, err := m.launch.Token(ctx)
	if err != nil {
		return err
	}
	_, err = kubeclient.Create(ctx, g.client, kubeclient.Secrets, m.secret(token))
	if kubeclient.MeaningOf(err) == kubeclient.AlreadyExists { // another server was faster
		return nil
	}
	return err
}

// applyRoute makes the route of a Gateway, or deletes the one that an earlier launch had.
func (g *Gateways) applyRoute(ctx context.Context, m manifest) error {
	if m.launch.ParentRef != "" && m.launch.Domain == "" {
		return &dstack.Error{Kind: dstack.Invalid, Message: "a gateway without a domain gets no route of the Gateway " + m.launch.ParentRef + ": it would take every name of it",
			Hint: "set a domain"}
	}
	if m.launch.ParentRef != "" {
		_, err := kubeclient.Apply(ctx, g.client, kubeclient.HTTPRoutes, m.route())
		if kubeclient.MeaningOf(err) == kubeclient.NotServed {
			return &dstack.Error{Kind: dstack.Unsupported, Message: "the cluster has no Gateway API (httproutes of gateway.networking.k8s.io/v1), which parent_ref needs",
				Hint: "remove parent_ref, or install the Gateway API and a controller for it", Cause: err}
		}
		return err
	}
	deployed, err := kubeclient.Get(ctx, g.client, kubeclient.Deployments, m.name())
	switch {
	case kubeclient.MeaningOf(err) == kubeclient.NotFound:
		return nil
	case err != nil:
		return err
	case deployed.Annotations[annotationParent] == "":
		return nil
	}
	return ignoreNotServed(kubeclient.Delete(ctx, g.client, kubeclient.HTTPRoutes, m.name(), kubeclient.DeleteOptions{}))
}

func ignoreNotServed(err error) error {
	if kubeclient.MeaningOf(err) == kubeclient.NotServed {
		return nil
	}
	return err
}

// FindGateway implements engine.ClusterGateways.
func (g *Gateways) FindGateway(ctx context.Context, id dstack.GatewayID) (dstack.ClusterGateway, error) {
	var seen sight
	selection := kubeclient.Selection{Labels: selectGateway(g.installation, id)}
	deployments, err := kubeclient.List(ctx, g.client, kubeclient.Deployments, selection)
	if err != nil {
		return dstack.ClusterGateway{}, err
	}
	services, err := kubeclient.List(ctx, g.client, kubeclient.Services, selection)
	if err != nil {
		return dstack.ClusterGateway{}, err
	}
	if seen.pods, err = kubeclient.List(ctx, g.client, kubeclient.Pods, selection); err != nil {
		return dstack.ClusterGateway{}, err
	}
	if len(deployments) > 0 {
		seen.deployment = deployments[0]
		switch _, err := kubeclient.Get(ctx, g.client, kubeclient.Secrets, seen.deployment.Name); {
		case err == nil:
			seen.hasToken = true
		case kubeclient.MeaningOf(err) != kubeclient.NotFound:
			return dstack.ClusterGateway{}, err
		}
		if seen.route, err = g.findRoute(ctx, seen.deployment.Name, seen.deployment.Annotations[annotationParent]); err != nil {
			return dstack.ClusterGateway{}, err
		}
	}
	if len(services) > 0 {
		seen.service = services[0]
	}
	slices.SortFunc(seen.pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return seen.describe(), nil
}

// findRoute returns how the Gateway of parent_ref leads to a gateway.
func (g *Gateways) findRoute(ctx context.Context, name, parent string) (routeSight, error) {
	if parent == "" {
		return routeSight{}, nil
	}
	route, err := kubeclient.Get(ctx, g.client, kubeclient.HTTPRoutes, name)
	switch meaning := kubeclient.MeaningOf(err); {
	case meaning == kubeclient.NotFound || meaning == kubeclient.NotServed:
		return routeSight{parent: parent}, nil
	case err != nil:
		return routeSight{}, err
	}
	return routeSight{parent: parent, isThere: true, object: route.Object}, nil
}

// DeleteGateway implements engine.ClusterGateways. What FindGateway lists goes last, so that a crash in between repeats all.
func (g *Gateways) DeleteGateway(ctx context.Context, id dstack.GatewayID) error {
	selection := kubeclient.Selection{Labels: selectGateway(g.installation, id)}
	deployments, err := kubeclient.List(ctx, g.client, kubeclient.Deployments, selection)
	if err != nil {
		return err
	}
	for _, d := range deployments {
		if d.Annotations[annotationParent] == "" {
			continue
		}
		if err := ignoreNotServed(kubeclient.Delete(ctx, g.client, kubeclient.HTTPRoutes, d.Name, kubeclient.DeleteOptions{})); err != nil {
			return err
		}
	}
	return errors.Join(deleteAll(ctx, g.client, kubeclient.Budgets, selection), deleteAll(ctx, g.client, kubeclient.Secrets, selection),
		deleteAll(ctx, g.client, kubeclient.Services, selection), deleteAll(ctx, g.client, kubeclient.Deployments, selection))
}

func deleteAll[T any, P interface {
	*T
	metav1.Object
}](ctx context.Context, c *kubeclient.Client, r kubeclient.Resource[T], s kubeclient.Selection) error {
	all, err := kubeclient.List(ctx, c, r, s)
	for _, object := range all {
		err = errors.Join(err, kubeclient.Delete(ctx, c, r, P(object).GetName(), kubeclient.DeleteOptions{UID: P(object).GetUID()}))
	}
	return err
}

// Rights returns what Gateways needs in its namespace.
func Rights() []kubeclient.Right {
	var rights []kubeclient.Right
	add := func(purpose, group, resource string, isOptional bool, verbs ...string) {
		for _, verb := range verbs {
			rights = append(rights, kubeclient.Right{Verb: verb, Group: group, Resource: resource, Purpose: purpose, IsOptional: isOptional})
		}
	}
	const purpose = "run gateways (type: gateway, backend: kubernetes)"
	add(purpose, "apps", "deployments", true, "get", "list", "create", "patch", "delete")
	add(purpose, "", "services", true, "get", "list", "create", "patch", "delete")
	add(purpose, "policy", "poddisruptionbudgets", true, "list", "create", "patch", "delete")
	add(purpose, "", "secrets", true, "get", "list", "create", "delete")
	add(purpose, "", "pods", true, "list")
	add("lead a Gateway to gateways (parent_ref)", "gateway.networking.k8s.io", "httproutes", true, "get", "create", "patch", "delete")
	return rights
}
