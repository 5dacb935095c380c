package route

import (
	"strings"

	"dstack/internal/dstack"
)

// addGateways indexes the gateways of a table by domain. Of two with one domain, which the server does not
// allow, the first counts.
func (x *Index) addGateways(gateways []Gateway) {
	for i := range gateways {
		g := &gateways[i]
		if domain := lowerASCII(g.Domain); x.gateways[domain] == nil && domain != "" {
			x.gateways[domain] = g
		}
		if x.gatewayIDs[g.ID] == nil {
			x.gatewayIDs[g.ID] = g
		}
	}
	for i := range gateways {
		x.addEarlier(&gateways[i])
	}
}

// addEarlier indexes the domains that a gateway had. A gateway that has one now goes first.
func (x *Index) addEarlier(g *Gateway) {
	for _, e := range g.Earlier {
		domain := lowerASCII(e.Domain)
		known := x.gateways[domain]
		switch {
		case domain == "":
		case known == nil:
			there := *g
			there.Domain, there.IsPlain = domain, e.IsPlain
			x.gateways[domain] = &there
		case known.ID == g.ID && lowerASCII(g.Domain) != domain: // served both ways
			known.IsPlain = known.IsPlain || e.IsPlain
		}
	}
}

// Gateway returns the gateway with an ID, or nil.
func (x *Index) Gateway(id dstack.GatewayID) *Gateway {
	if x == nil {
		return nil
	}
	return x.gatewayIDs[id]
}

// FindGateway returns the gateway with the longest domain that a Host header is below, and what the host names
// there: <run>.<domain>, and gateway.<domain> for the models of the gateway's project. For a domain that a gateway had before,
// the gateway is as it was there. The destination is empty
// for names that are further below the domain. nil: it is below no domain.
func (x *Index) FindGateway(host string) (*Gateway, Destination) {
	if x == nil || len(x.gateways) == 0 {
		return nil, Destination{}
	}
	host, ok := trimPort(host)
	if !ok {
		return nil, Destination{}
	}
	host = lowerASCII(strings.TrimSuffix(host, "."))
	label, domain, isBelow := strings.Cut(host, ".")
	for isFirst := true; isBelow; isFirst = false {
		if g := x.gateways[domain]; g != nil {
			return g, g.destination(label, isFirst)
		}
		_, domain, isBelow = strings.Cut(domain, ".")
	}
	return nil, Destination{}
}

// destination returns what a label below the domain names.
func (g *Gateway) destination(label string, isDirectlyBelow bool) Destination {
	switch {
	case label == "" || !isDirectlyBelow:
		return Destination{Gateway: g.ID}
	case label == ModelsLabel:
		return Destination{Project: g.Project, Models: true, Gateway: g.ID}
	}
	return Destination{Project: g.Project, Run: label, Gateway: g.ID}
}

// ByHost returns what a Host header names: at one of the gateways in the table, or below the domain of the site,
// whichever domain is longer; see Site.ByHost. Where both have the same domain, <run>.<domain> is the gateway's
// and <run>.<project>.<domain> the site's. The host of the server itself belongs to the API, wherever it is.
func (x *Index) ByHost(s Site, host string) (Destination, bool) {
	g, atGateway := x.FindGateway(host)
	if g == nil {
		return s.ByHost(host)
	}
	if s.IsServer(host) {
		return Destination{}, false
	}
	atSite, ok := s.ByHost(host)
	length := len(s.publicDomain())
	switch {
	case !ok || length < len(g.Domain):
		return atGateway, true
	case length == len(g.Domain) && !atGateway.IsEmpty():
		return atGateway, true
	}
	return atSite, true
}

// IsServer reports whether a Host header is that of the server itself.
func (s Site) IsServer(host string) bool {
	name, ok := trimPort(host)
	server := s.serverName()
	return ok && server != "" && equalASCII(strings.TrimSuffix(name, "."), server)
}

// IsAt reports whether a run is published at a gateway; empty: at the addresses of the server itself, where all
// runs are.
func (r *Route) IsAt(id dstack.GatewayID) bool { return id == "" || r.Gateway == "" || r.Gateway == id }
