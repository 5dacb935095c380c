package gateway

// PublishedNames returns the names below the domains of gateways that have something to serve, sorted: those of runs, and
// those of the models of projects.
func (g *Gateway) PublishedNames() []string {
	index := g.index()
	if index == nil {
		return nil
	}
	return index.PublishedNames()
}

// Publishes reports whether a name below the domain of a gateway has something to serve.
func (g *Gateway) Publishes(name string) bool {
	at, destination := g.index().FindGateway(name)
	return at != nil && (destination.Models || g.index().Run(destination) != nil)
}
