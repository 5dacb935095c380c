package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/gateway"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// answerGateway decides the status of a gateway.
func (s *Server) answerGateway(g dstack.Gateway) wire.GatewayAnswer {
	at := now()
	summary := gateway.Summarize(g, at)
	g.Status, g.Reason = summary.Status, summary.Reason
	serving := gateway.ServingProcesses(g, at)
	if host := trimPort(s.site.Server.Host); g.Configuration.Backend == spec.BackendLocal && !route.IsLoopback(host) {
		for i := range serving {
			serving[i].Address = cmp.Or(serving[i].Address, host)
		}
	}
	return wire.GatewayAnswer{Gateway: g, Hint: summary.Hint, Serving: serving, Certificates: gateway.ListCertificates(serving),
		Published: route.Publish(g, serving, summary.Reason)}
}

func (s *Server) answerGateways(found []dstack.Gateway) []wire.GatewayAnswer {
	answers := make([]wire.GatewayAnswer, len(found))
	for i, g := range found {
		answers[i] = s.answerGateway(g)
	}
	return answers
}

// listPublished returns how all gateways publish services now. A gateway that cannot be read is logged: the others publish.
func (s *Server) listPublished(ctx context.Context) []route.Published {
	found, err := s.store.ListGateways(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("cannot read the gateways; addresses are those of the server itself", "err", err)
		}
		return nil
	}
	published := make([]route.Published, len(found))
	for i, g := range found {
		published[i] = s.answerGateway(g).Published
	}
	return published
}

func (s *Server) buildGatewayViews(c *apiCall, names []string) (api.GatewayViews, error) {
	found, err := s.store.ListGateways(c.ctx, c.project.ID)
	if err != nil {
		return api.GatewayViews{}, err
	}
	views := api.GatewayViews{Gateways: []api.GatewayView{}}
	at := now()
	for _, g := range found {
		if len(names) > 0 && !slices.Contains(names, g.Name) {
			continue
		}
		view, err := buildGatewayView(s.answerGateway(g), at)
		if err != nil {
			return views, err
		}
		views.Gateways = append(views.Gateways, view)
	}
	slices.SortFunc(views.Gateways, func(a, b api.GatewayView) int { return strings.Compare(a.Name, b.Name) })
	views.Version, err = hashGatewayViews(views.Gateways)
	return views, err
}

// hashGatewayViews returns a hash of everything but the times at which serving processes were seen.
func hashGatewayViews(views []api.GatewayView) (string, error) {
	still := slices.Clone(views)
	for i := range still {
		still[i].Processes = slices.Clone(still[i].Processes)
		for j := range still[i].Processes {
			if still[i].Processes[j].IsServing {
				still[i].Processes[j].SeenAt = time.Time{}
			}
		}
	}
	text, err := json.Marshal(still)
	if err != nil {
		return "", fmt.Errorf("compare gateways: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), nil
}

// showGateway returns the view of a gateway that was just applied.
func showGateway(a wire.GatewayAnswer) api.GatewayView {
	view, _ := buildGatewayView(a, now()) // what was read from JSON can be written
	return view
}

// buildGatewayView returns a gateway as our command line shows it.
func buildGatewayView(a wire.GatewayAnswer, at time.Time) (api.GatewayView, error) {
	g := a.Gateway
	v := api.GatewayView{ID: string(g.ID), Project: g.ProjectName, Name: g.Name, Domain: g.Domain, Backend: spec.TitleBackends([]string{g.Configuration.Backend})[0],
		IsDefault: g.IsDefault, IsDeleting: g.IsDeleting, IsChanging: gateway.IsChanging(g, at), Status: g.Status, Reason: string(g.Reason), Hint: a.Hint, User: g.Author,
		CreatedAt: g.CreatedAt.UTC(), AppliedAt: g.AppliedAt.UTC(), Processes: []api.GatewayProcessView{}, Certificates: []api.GatewayCertView{}}
	var err error
	if v.Configuration, err = json.Marshal(g.Configuration.WithoutSecrets()); err != nil {
		return v, fmt.Errorf("show the configuration of gateway %s: %w", g.Name, err)
	}
	if origin, _ := a.Published.URL("<run>", at); !origin.IsZero() {
		v.ServicesURL = origin.String()
	}
	if models, missing := a.Published.URL(route.ModelsLabel, at); missing == "" {
		v.ModelsURL = models.String() + route.APIPath
	}
	for _, p := range g.Processes {
		v.Processes = append(v.Processes, api.GatewayProcessView{ID: p.ID, Name: p.Name, Version: p.Version, Address: p.Address, HTTPSPort: p.HTTPSPort,
			HTTPPort: p.HTTPPort, JoinedAt: p.JoinedAt.UTC(), SeenAt: p.SeenAt.UTC(), Problems: append([]string{}, p.Problems...),
			IsServing: slices.ContainsFunc(a.Serving, func(s dstack.GatewayProcess) bool { return s.ID == p.ID })})
	}
	for _, cert := range a.Certificates {
		v.Certificates = append(v.Certificates, api.GatewayCertView{Name: cert.Name, State: cert.State, Issuer: cert.Issuer, NotAfter: nullIfZero(cert.NotAfter),
			Reason: cert.Reason, Hint: cert.Hint, NextAt: nullIfZero(cert.NextAt), Queue: cert.Queue, Queued: cert.Queued})
	}
	return v, nil
}
