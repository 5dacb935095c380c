package server

import (
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/origin"
	"dstack/internal/server/wire"
)

// urlsFor returns the URLs of runs and models that work for the caller.
func (s *Server) urlsFor(c *apiCall) route.URLs { return s.site.URLs(origin.ReaderOf(c.r, s.proxies)) }

// buildRunURLs returns the URLs of a run in the wire format. A URL by name has no trailing
// slash, as in 0.18.10. One by path needs it, so that relative links work.
func buildRunURLs(urls route.URLs, run dstack.Run) wire.RunURLs {
	service := urls.RunForPrograms(run.Project, run.Name)
	if service != urls.RunByPath(run.Project, run.Name) {
		service = strings.TrimSuffix(service, "/")
	}
	return wire.RunURLs{Service: service, Models: urls.Models(run.Project)}
}

// buildModelView returns the addresses of a run's model.
func buildModelView(urls route.URLs, run dstack.Run) *api.ModelView {
	m := run.Spec.Configuration.Model
	if m == nil {
		return nil
	}
	base := urls.Models(run.Project)
	return &api.ModelView{Name: m.Name, BaseURL: base, URL: strings.TrimSuffix(base, route.APIPath),
		PathURL: urls.ModelsByPath(run.Project)}
}
