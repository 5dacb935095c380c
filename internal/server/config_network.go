package server

import (
	"fmt"
	"net/netip"
	"time"

	"dstack/internal/human"
	"dstack/internal/spec"
	"dstack/internal/strictyaml"
)

const (
	// DefaultDrainTimeout is how long a server that stops finishes its requests, unless its configuration says.
	DefaultDrainTimeout = 30 * time.Second
	maxDrainTimeout     = time.Hour
	// DefaultTakeOverDrainTimeout is how long a replaced server finishes its requests, unless its configuration says.
	DefaultTakeOverDrainTimeout = time.Hour
	maxTakeOverDrainTimeout     = 24 * time.Hour
	maxTrustedProxies           = 100
)

// readDrainTimeout reads how long a server that stops, or was replaced, finishes its requests.
func (r *configReader) readDrainTimeout(n *strictyaml.Node, most time.Duration) *time.Duration {
	limit := human.ExactDuration(most)
	hint := "write a duration from 0s to " + limit + ", such as 90s"
	if !n.IsScalar() || n.Kind == strictyaml.Bool {
		r.Add(n, n.Describe()+" is not a duration", hint)
		return nil
	}
	seconds, err := spec.ParseDuration(n.Text)
	timeout := time.Duration(seconds) * time.Second
	switch {
	case err != nil:
		r.Add(n, n.Describe()+" is not a duration", hint)
		return nil
	case timeout > most:
		r.Add(n, n.Describe()+" is longer than "+limit, hint)
		return nil
	}
	return &timeout
}

// readTrustedProxies reads a list of addresses and networks. It never returns nil, which means that there is no list.
func (r *configReader) readTrustedProxies(n *strictyaml.Node) []netip.Prefix {
	proxies := []netip.Prefix{}
	items, _ := r.ReadItems(n, "`trusted_proxies`")
	if len(items) > maxTrustedProxies {
		r.Add(n, fmt.Sprintf("`trusted_proxies` has more than %d items", maxTrustedProxies), "write networks instead of addresses")
		return proxies
	}
	for _, item := range items {
		text, ok := r.ReadText(item)
		if !ok {
			continue
		}
		if proxy, ok := r.parseProxy(item, text); ok {
			proxies = append(proxies, proxy)
		}
	}
	return proxies
}

// parseProxy parses an address or a network. The network must begin at its first address: otherwise it is unclear whether
// the address or the network is meant.
func (r *configReader) parseProxy(n *strictyaml.Node, text string) (netip.Prefix, bool) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), true
	}
	network, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		r.Add(n, n.Describe()+" is neither an address nor a network",
			"write an address such as 10.0.0.5 or ::1, or a network such as 10.0.0.0/8")
		return network, false
	case network.Masked() != network:
		r.Add(n, n.Describe()+" is not the first address of its network",
			fmt.Sprintf("write the network %s, or the address %s", network.Masked(), network.Addr()))
		return network, false
	case network.Addr().Is4In6():
		r.Add(n, n.Describe()+" is an IPv4 network in the form of IPv6", "write it as an IPv4 network")
		return network, false
	}
	return network, true
}
