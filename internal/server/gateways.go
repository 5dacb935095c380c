package server

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// maxProjectGateways is how many gateways a project may have.
const maxProjectGateways = 100

// listGateways lists the gateways of a project, the oldest first.
func (s *Server) listGateways(c *apiCall, _ wire.Null) ([]wire.GatewayAnswer, error) {
	found, err := s.store.ListGateways(c.ctx, c.project.ID)
	return s.answerGateways(found), err
}

func (s *Server) getGateway(c *apiCall, in api.GatewayName) (wire.GatewayAnswer, error) {
	g, err := s.findGateway(c, in.Name)
	if err != nil {
		return wire.GatewayAnswer{}, err
	}
	return s.answerGateway(g), nil
}

// findGateway returns a gateway of the project of a call. The error suggests a name.
func (s *Server) findGateway(c *apiCall, name string) (dstack.Gateway, error) {
	g, err := s.store.FindGateway(c.ctx, c.project.ID, name)
	if dstack.KindOf(err) != dstack.NotFound {
		return g, err
	}
	return g, wire.Error{Msg: "Resource not found", Err: s.newGatewayNotFoundError(c, name)}
}

// newGatewayNotFoundError returns the error for a gateway that does not exist, with the names of those that do.
func (s *Server) newGatewayNotFoundError(c *apiCall, name string) error {
	found, err := s.store.ListGateways(c.ctx, c.project.ID)
	if err != nil {
		return err
	}
	var names []string
	for _, g := range found {
		names = append(names, g.Name)
	}
	hint := "list them: dstack gateway list"
	switch near := human.Nearest(name, names); {
	case near != "":
		hint = "did you mean " + near + "?"
	case len(names) == 0:
		hint = "create one: dstack apply -f gateway.dstack.yml, with type: gateway"
	}
	return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no gateway %s in project %s", quote(name), c.project.Name), Hint: hint}
}

// createGateway applies a gateway that does not exist yet.
func (s *Server) createGateway(c *apiCall, in spec.Gateway) (wire.GatewayAnswer, error) {
	if in.Name != "" {
		_, err := s.store.FindGateway(c.ctx, c.project.ID, string(in.Name))
		if err == nil {
			return wire.GatewayAnswer{}, wire.Error{Code: "resource_exists", Msg: "Resource exists", Err: &dstack.Error{Kind: dstack.Conflict,
				Message: fmt.Sprintf("a gateway named %q exists", string(in.Name)), Hint: "change it: dstack apply; or delete it: dstack gateway delete " + string(in.Name)}}
		}
		if dstack.KindOf(err) != dstack.NotFound {
			return wire.GatewayAnswer{}, err
		}
	}
	return s.putGateway(c, in)
}

// putGateway creates a gateway, or replaces the configuration of one.
func (s *Server) putGateway(c *apiCall, in spec.Gateway) (wire.GatewayAnswer, error) {
	if err := s.checkGateway(c, in); err != nil {
		return wire.GatewayAnswer{}, err
	}
	g := dstack.Gateway{Project: c.project.ID, ProjectName: c.project.Name, Name: string(in.Name), Configuration: in, Author: c.user.Name}
	if g.Name == "" {
		s.namingMu.Lock()
		defer s.namingMu.Unlock()
		if err := s.nameGateway(c, &g); err != nil {
			return wire.GatewayAnswer{}, err
		}
	}
	applied, err := s.store.ApplyGateway(c.ctx, g, now())
	s.audit(c, "gateway applied", slog.String("project", c.project.Name), slog.String("gateway", g.Name), slog.String("domain", in.DomainName()),
		slog.Bool("refused", err != nil))
	if err != nil {
		return wire.GatewayAnswer{}, err
	}
	s.wake()
	s.notifyChange()
	return s.answerGateway(applied), nil
}

// nameGateway generates the name of a gateway.
func (s *Server) nameGateway(c *apiCall, g *dstack.Gateway) error {
	found, err := s.store.ListGateways(c.ctx, c.project.ID)
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, other := range found {
		taken[other.Name] = true
	}
	g.Name = generateName(taken)
	g.Configuration.Name = spec.Text(g.Name)
	return nil
}

// checkGateway checks a configuration: what this server can do, what the caller may do, and whether its domain is free.
func (s *Server) checkGateway(c *apiCall, in spec.Gateway) error {
	if problems := in.Unsupported(); len(problems) > 0 {
		return newUnsupportedError(problems)
	}
	if err := checkMayServe(c, in); err != nil {
		return err
	}
	if err := s.checkServerDomain(c, in.DomainName()); err != nil {
		return err
	}
	found, err := s.store.ListGateways(c.ctx)
	if err != nil {
		return err
	}
	if err := checkDomain(c, in, found); err != nil {
		return err
	}
	if err := checkRelatedDomains(c, in, found); err != nil {
		return err
	}
	if err := s.checkBackendChange(c, in, found); err != nil {
		return err
	}
	if err := s.checkGatewaySecrets(c, in); err != nil {
		return err
	}
	if err := s.checkGatewayCluster(c, in); err != nil {
		return err
	}
	return s.checkGatewayHosts(c, in)
}

// checkMayServe returns an error if the caller may not have the server's own machine read files, run programs and call
// addresses that only this machine may reach.
func checkMayServe(c *apiCall, in spec.Gateway) error {
	cert := in.Certificate
	if in.Backend != spec.BackendLocal || cert == nil || c.isGlobalAdmin() {
		return nil
	}
	const hint = "ask one of them to apply it, or use another certificate or backend"
	switch {
	case cert.Type == spec.CertificateFiles:
		return &dstack.Error{Kind: dstack.Forbidden, Hint: hint, Message: "only global admins may use certificates in files of the server's own machine"}
	case cert.DNS != nil && cert.DNS.Provider == "exec":
		return &dstack.Error{Kind: dstack.Forbidden, Hint: hint, Message: "only global admins may have the server's own machine run a program: dns.command"}
	case cert.DNS != nil && cert.DNS.Provider == "webhook":
		return &dstack.Error{Kind: dstack.Forbidden, Hint: hint, Message: "only global admins may have the server's own machine call an address of their choice: dns.url"}
	}
	return nil
}

// checkDomain returns Conflict if another gateway has the domain. The store checks it again.
func checkDomain(c *apiCall, in spec.Gateway, found []dstack.Gateway) error {
	domain, count := in.DomainName(), 0
	for _, g := range found {
		isSame := g.Project == c.project.ID && g.Name == string(in.Name)
		if g.Project == c.project.ID && !isSame {
			count++
		}
		if domain == "" || g.Domain != domain || isSame {
			continue
		}
		whose := "a gateway of another project"
		if g.Project == c.project.ID {
			whose = "the gateway " + g.Name
		}
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the domain %s belongs to %s", domain, whose),
			Hint: "choose another domain, or delete that gateway first"}
	}
	if count >= maxProjectGateways {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("project %s has %d gateways, which is the most that it may have", c.project.Name, count),
			Hint: "delete those that are not needed: dstack gateway list"}
	}
	return nil
}

// checkGatewaySecrets returns an error if a secret that a configuration refers to does not exist.
func (s *Server) checkGatewaySecrets(c *apiCall, in spec.Gateway) error {
	names := in.SecretNames()
	if len(names) == 0 {
		return nil
	}
	known, err := s.store.Secrets(c.ctx, c.project.ID)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(known, func(k dstack.Secret) bool { return k.Name == name }) {
			return &dstack.Error{Kind: dstack.Invalid, Message: "project " + c.project.Name + " has no secret " + name, Hint: "set it: dstack secret set " + name}
		}
	}
	return nil
}

// checkGatewayCluster returns an error if the project of a call does not have the cluster that is to run a gateway.
func (s *Server) checkGatewayCluster(c *apiCall, in spec.Gateway) error {
	key := gateway.ClusterOf(in)
	if key == "" {
		return nil
	}
	var names []string // as region has them
	for _, known := range s.backends.Of(c.project.Name) {
		if known == key {
			return nil
		}
		if name, isNamed := strings.CutPrefix(known, spec.BackendKubernetes+"-"); isNamed {
			names = append(names, name)
		} else if known == spec.BackendKubernetes {
			names = append(names, spec.BackendKubernetes)
		}
	}
	if len(names) == 0 {
		return &dstack.Error{Kind: dstack.Invalid, Message: "project " + c.project.Name + " has no cluster that could run the gateway",
			Hint: "add a backend of type kubernetes to the server's config.yml; or write backend: local, ssh or external"}
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("project %s has no cluster %s", c.project.Name, quote(in.Region)),
		Hint: "write the name of one in region: " + strings.Join(names, ", ")}
}

// checkGatewayHosts returns an error if a configuration names a host that no fleet of the project has.
func (s *Server) checkGatewayHosts(c *apiCall, in spec.Gateway) error {
	if in.Backend != spec.BackendSSH {
		return nil
	}
	fleets, err := s.store.ListFleets(c.ctx, []dstack.ProjectID{c.project.ID})
	if err != nil {
		return err
	}
	var names []string
	for _, f := range fleets {
		for _, h := range f.Hosts {
			if !h.IsLeaving {
				names = append(names, h.Name, f.Name+"/"+h.Name)
			}
		}
	}
	if len(names) == 0 {
		return &dstack.Error{Kind: dstack.Invalid, Message: "project " + c.project.Name + " has no host that could serve the gateway",
			Hint: "apply a fleet first: dstack apply -f fleet.dstack.yml; or write backend: local or backend: external"}
	}
	for _, name := range in.Hosts {
		if slices.Contains(names, name) {
			continue
		}
		hint := "list them: dstack fleet list -v"
		if near := human.Nearest(name, names); near != "" {
			hint = "did you mean " + near + "?"
		}
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("no fleet of project %s has a host %s", c.project.Name, quote(name)), Hint: hint}
	}
	return nil
}

func (s *Server) deleteGateways(c *apiCall, in api.GatewayNames) (wire.Null, error) {
	err := s.store.DeleteGateways(c.ctx, c.project.ID, in.Names)
	s.audit(c, "gateways deleted", slog.String("project", c.project.Name), slog.String("gateways", strings.Join(in.Names, ",")), slog.Bool("refused", err != nil))
	if dstack.KindOf(err) == dstack.NotFound {
		return wire.Null{}, wire.Error{Msg: "Resource not found", Err: err}
	}
	if err == nil {
		s.wake()
		s.notifyChange()
	}
	return wire.Null{}, err
}

func (s *Server) setDefaultGateway(c *apiCall, in api.GatewayName) (wire.Null, error) {
	if _, err := s.findGateway(c, in.Name); err != nil {
		return wire.Null{}, err
	}
	err := s.store.SetDefaultGateway(c.ctx, c.project.ID, in.Name)
	s.audit(c, "default gateway set", slog.String("project", c.project.Name), slog.String("gateway", in.Name), slog.Bool("refused", err != nil))
	if err == nil {
		s.notifyChange()
	}
	return wire.Null{}, err
}

// setGatewayDomain changes the domain of a gateway, and nothing else.
func (s *Server) setGatewayDomain(c *apiCall, in api.SetGatewayDomain) (wire.GatewayAnswer, error) {
	g, err := s.findGateway(c, in.Name)
	if err != nil {
		return wire.GatewayAnswer{}, err
	}
	if wrong, isWrong := errors.AsType[spec.Problem](spec.CheckDomain(in.WildcardDomain)); isWrong {
		return wire.GatewayAnswer{}, &dstack.Error{Kind: dstack.Invalid, Message: wrong.Message, Hint: wrong.Hint}
	}
	conf := g.Configuration
	conf.Domain, conf.Default = spec.Text(in.WildcardDomain), false // which gateway is the default does not change
	return s.putGateway(c, conf)
}

// previewGateway returns what applying a gateway would do.
func (s *Server) previewGateway(c *apiCall, in api.GatewayRequest) (api.GatewayPreview, error) {
	conf := in.Configuration
	if err := s.checkGateway(c, conf); err != nil {
		return api.GatewayPreview{}, err
	}
	found, err := s.store.ListGateways(c.ctx, c.project.ID)
	if err != nil {
		return api.GatewayPreview{}, err
	}
	p := api.GatewayPreview{Project: c.project.Name, User: c.user.Name, Name: string(conf.Name), Domain: conf.DomainName(), Changes: []api.GatewayChange{},
		IsDefault: conf.Default || len(found) == 0, Notes: noteGateway(conf)}
	for _, g := range found {
		if g.Name != p.Name {
			continue
		}
		view, err := buildGatewayView(s.answerGateway(g), now())
		if err != nil {
			return p, err
		}
		p.Current, p.IsDefault = &view, g.IsDefault || conf.Default
		differences, err := spec.DiffGateways(g.Configuration, conf)
		if err != nil {
			return p, err
		}
		for _, d := range differences {
			if d.Path != "default" { // it matters only if it becomes true, which is shown by itself
				p.Changes = append(p.Changes, api.GatewayChange{Path: d.Path, From: d.From, To: d.To})
			}
		}
		if conf.Default && !g.IsDefault {
			p.Changes = append(p.Changes, api.GatewayChange{Path: "default", From: "false", To: "true"})
		}
	}
	return p, nil
}

// noteGateway returns what the user of a configuration should know.
func noteGateway(conf spec.Gateway) []string {
	notes := []string{}
	isLocal := strings.HasSuffix("."+conf.DomainName(), ".localhost")
	if domain := conf.DomainName(); domain != "" && !isLocal {
		notes = append(notes, fmt.Sprintf("the DNS record *.%s must point at the gateway", domain))
	}
	if c := conf.Certificate; c != nil && c.Type == spec.CertificateLetsEncrypt && isLocal {
		notes = append(notes, "Let's Encrypt issues no certificates for names below localhost; write certificate: {type: internal}")
	} else if c != nil && c.Type == spec.CertificateLetsEncrypt && c.DNS == nil {
		notes = append(notes, "each service gets a certificate of its own, and Let's Encrypt issues 50 a week for a domain; with dns: below certificate:, one wildcard certificate is enough")
	}
	if c := conf.Certificate; c != nil && c.Type == spec.CertificateInternal {
		notes = append(notes, "clients have to trust the internal authority: dstack gateway ca")
	}
	return notes
}

func (s *Server) applyGateway(c *apiCall, in api.GatewayRequest) (wire.GatewayAnswer, error) {
	return s.putGateway(c, in.Configuration)
}

// listGatewayViews returns gateways as our command line shows them. With the version of an earlier answer, it waits until the
// version has changed or the time is over.
func (s *Server) listGatewayViews(c *apiCall, in api.GatewayViewsRequest) (api.GatewayViews, error) {
	var deadline <-chan time.Time // nil: do not wait
	if in.After != "" && in.WaitSeconds > 0 {
		defer c.endWhenStopping()()
		timer := time.NewTimer(time.Duration(in.WaitSeconds) * time.Second)
		defer timer.Stop()
		deadline = timer.C
	}
	for {
		changed := s.broadcast.Changed()
		views, err := s.buildGatewayViews(c, in.Names)
		if err != nil || deadline == nil || views.Version != in.After {
			return views, err
		}
		if again, err := waitForChange(c.ctx, changed, deadline); !again {
			return views, err
		}
	}
}

// checkServiceGateway returns an error if a service asks for a gateway that its project does not have.
func (s *Server) checkServiceGateway(c *apiCall, choice spec.Text) error {
	switch choice {
	case "", spec.GatewayNone:
		return nil
	case spec.GatewayDefault:
		found, err := s.store.ListGateways(c.ctx, c.project.ID)
		if err != nil || len(found) == 0 || slices.ContainsFunc(found, func(g dstack.Gateway) bool { return g.IsDefault }) {
			return err
		}
		return &dstack.Error{Kind: dstack.Invalid, Message: "gateway: true needs a default gateway, and project " + c.project.Name + " has none",
			Hint: "set one: dstack gateway update " + found[0].Name + " --set-default; or write its name: gateway: " + found[0].Name}
	}
	owner, name, isQualified := strings.Cut(string(choice), "/")
	if !isQualified {
		name = string(choice)
	} else if !strings.EqualFold(owner, c.project.Name) {
		return &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: gateways of other projects, such as " + string(choice),
			Hint: "apply a gateway in the project " + c.project.Name}
	}
	_, err := s.store.FindGateway(c.ctx, c.project.ID, name)
	if dstack.KindOf(err) == dstack.NotFound {
		missing := s.newGatewayNotFoundError(c, name)
		if e, ok := errors.AsType[*dstack.Error](missing); ok && e.Kind == dstack.NotFound {
			return &dstack.Error{Kind: dstack.Invalid, Message: "gateway: " + e.Message, Hint: e.Hint}
		}
		return missing
	}
	return err
}
