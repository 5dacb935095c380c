package server

import (
	"net"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/origin"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
	"dstack/internal/sshserver"
)

// urlsFor returns the URLs of runs and models that work for the caller.
func (s *Server) urlsFor(c *apiCall) route.URLs {
	return s.site.URLs(origin.ReaderOf(c.r, s.proxies)).WithGateways(s.listPublished(c.ctx), now())
}

// buildRunURLs returns the URLs of a run in the wire format. A URL by name has no trailing
// slash, as in 0.18.10. One by path needs it, so that relative links work.
func buildRunURLs(urls route.URLs, run dstack.Run) wire.RunURLs {
	choice := string(run.Spec.Configuration.Gateway)
	service := urls.RunForPrograms(run.Project, run.Name, choice)
	if service != urls.RunByPath(run.Project, run.Name) {
		service = strings.TrimSuffix(service, "/")
	}
	return wire.RunURLs{Service: service, Models: urls.Models(run.Project, choice)}
}

// buildPublication returns where a gateway publishes a run; nil: none does.
func buildPublication(urls route.URLs, project, name string, conf spec.Service) *api.Publication {
	p := urls.Publication(project, name, string(conf.Gateway))
	if p == nil {
		return nil
	}
	return &api.Publication{Gateway: p.Gateway, URL: p.URL, Missing: string(p.Missing)}
}

// runURLsFor returns the URLs of a run, and the address of its jobs for SSH, that work for the caller.
func (s *Server) runURLsFor(c *apiCall, run dstack.Run) wire.RunURLs {
	urls := buildRunURLs(s.urlsFor(c), run)
	urls.SSH = s.sshAddressFor(c, run)
	return urls
}

// SSHListener is the listener of the SSH server.
type SSHListener struct {
	Port    int  // 0: there is no SSH server
	IsLocal bool // only clients on this machine reach it
}

// sshAddressFor returns the address of the SSH server for the caller: its host is the one that the caller used for the
// API. It is zero if the key of the run opens nothing, or the caller cannot reach the SSH server.
func (s *Server) sshAddressFor(c *apiCall, run dstack.Run) wire.SSHAddress {
	if s.ssh.Port == 0 || run.Spec.SSHKeyPub == "" {
		return wire.SSHAddress{}
	}
	reader := origin.ReaderOf(c.r, s.proxies)
	if _, ok := sshserver.ParseKey(run.Spec.SSHKeyPub); !ok || s.ssh.IsLocal && !reader.IsLocal {
		return wire.SSHAddress{}
	}
	host := reader.Origin.Host
	if host == "" {
		host = s.site.Server.Host
	}
	return wire.SSHAddress{Host: trimPort(host), Port: s.ssh.Port}
}

// trimPort returns a host without its port, and an IPv6 address without brackets.
func trimPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// buildModelView returns the addresses of a run's model.
func buildModelView(urls route.URLs, run dstack.Run) *api.ModelView {
	m := run.Spec.Configuration.Model
	if m == nil {
		return nil
	}
	base := urls.Models(run.Project, string(run.Spec.Configuration.Gateway))
	return &api.ModelView{Name: m.Name, BaseURL: base, URL: strings.TrimSuffix(base, route.APIPath),
		PathURL: urls.ModelsByPath(run.Project)}
}
