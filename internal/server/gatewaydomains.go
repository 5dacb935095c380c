package server

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// localDomain is the domain below which the server publishes services for its own machine.
const localDomain = "localhost"

const globalAdminHint = "ask a global admin to apply it, or use another domain"

// checkServerDomain returns an error if a domain would give the caller names of the server itself, or names below which the
// server publishes the services of another project.
func (s *Server) checkServerDomain(c *apiCall, domain string) error {
	public := strings.ToLower(s.site.PublicDomain())
	switch {
	case domain == "":
		return nil
	case domain == localDomain:
		return &dstack.Error{Kind: dstack.Invalid, Message: "the domain localhost belongs to the server itself", Hint: "use one below it, such as apps.localhost"}
	case !c.isGlobalAdmin() && !strings.Contains(domain, "."):
		return &dstack.Error{Kind: dstack.Forbidden, Message: "only global admins may use the domain " + domain + ", which has no dot", Hint: globalAdminHint}
	case !c.isGlobalAdmin() && (s.hasServerName(domain) || isBelow(public, domain)):
		return &dstack.Error{Kind: dstack.Forbidden, Message: "only global admins may use the domain " + domain + ": names of the server itself are in it", Hint: globalAdminHint}
	case domain == public && !strings.EqualFold(c.project.Name, s.site.Main):
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the domain %s belongs to the server itself, with the services of the project %s", domain, s.site.Main),
			Hint: "use one below it, such as " + strings.ToLower(c.project.Name) + "-apps." + domain}
	}
	return s.checkProjectDomain(c, domain)
}

// hasServerName reports whether the server's own name is a domain or below it. The processes of a gateway have the private
// keys of the names in its domain.
func (s *Server) hasServerName(domain string) bool {
	name := strings.ToLower(strings.TrimSuffix(trimPort(s.site.Server.Host), "."))
	return domain != "" && (name == domain || isBelow(name, domain))
}

// isBelow reports whether a name is below a domain, both in lower case.
func isBelow(name, domain string) bool { return strings.HasSuffix(name, "."+domain) }

// projectDomains returns the domains below which the server itself publishes the services of a project.
func (s *Server) projectDomains(project string) []string {
	domains := []string{strings.ToLower(project) + "." + localDomain}
	if public := strings.ToLower(s.site.PublicDomain()); public != "" {
		domains = append(domains, strings.ToLower(project)+"."+public)
	}
	return domains
}

// checkProjectDomain returns Conflict if the server publishes the services of another project below a domain.
func (s *Server) checkProjectDomain(c *apiCall, domain string) error {
	project, _, _ := strings.Cut(domain, ".")
	if strings.EqualFold(project, c.project.Name) || !slices.Contains(s.projectDomains(project), domain) {
		return nil
	}
	switch _, err := s.store.Project(c.ctx, project); {
	case dstack.KindOf(err) == dstack.NotFound:
		return nil
	case err != nil:
		return err
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: "the domain " + domain + " belongs to the server itself, with the services of another project",
		Hint: "choose another domain"}
}

// checkProjectName returns Conflict if the server would publish the services of a new project below the domain of a gateway.
func (s *Server) checkProjectName(c *apiCall, project string) error {
	found, err := s.store.ListGateways(c.ctx)
	if err != nil {
		return err
	}
	for _, domain := range s.projectDomains(project) {
		if slices.ContainsFunc(found, func(g dstack.Gateway) bool { return g.Domain == domain }) {
			return &dstack.Error{Kind: dstack.Conflict, Message: "the services of a project " + project + " would be below " + domain + ", which is the domain of a gateway",
				Hint: "choose another name"}
		}
	}
	return nil
}

// checkRelatedDomains returns Forbidden if a domain is above or below that of a gateway of another project: DNS records,
// cookies and certificates of the one reach the other. A gateway that has the domain already keeps it.
func checkRelatedDomains(c *apiCall, in spec.Gateway, found []dstack.Gateway) error {
	domain := in.DomainName()
	isOwn := func(g dstack.Gateway) bool {
		return g.Project == c.project.ID && g.Name == string(in.Name) && g.Domain == domain
	}
	if domain == "" || c.isGlobalAdmin() || slices.ContainsFunc(found, isOwn) {
		return nil
	}
	for _, g := range found {
		if g.Project == c.project.ID || g.Domain == "" {
			continue
		}
		where := ""
		switch {
		case isBelow(domain, g.Domain):
			where = "below"
		case isBelow(g.Domain, domain):
			where = "above"
		default:
			continue
		}
		return &dstack.Error{Kind: dstack.Forbidden, Message: fmt.Sprintf("only global admins may use the domain %s: it is %s that of a gateway of another project", domain, where),
			Hint: globalAdminHint}
	}
	return nil
}
