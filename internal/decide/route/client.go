package route

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxHops is how many trusted proxies the server follows towards the client.
const maxHops = 32

// Proxies decide who the client of a request is. The headers that proxies add
// count only where a trusted proxy sent them: every client can send them, too.
type Proxies struct {
	Trusted []netip.Prefix
	Site    Site
}

// Request is what a connection tells about a request.
type Request struct {
	Peer   netip.Addr          // of the connection; zero: not known
	IsTLS  bool                // the connection itself
	Host   string              // of the Host header
	Header map[string][]string // by canonical name
}

// Client is the sender of a request, behind the trusted proxies.
type Client struct {
	Address netip.Addr   // zero: not known
	Origin  Origin       // of the URL that it used; the host is empty, or that of an untrusted Host header
	Hops    []netip.Addr // the trusted proxies between it and the server, the nearest to the server last
}

// claim is what proxies say about the client of a request. The lists have one
// item for each hop, the nearest to the server last.
type claim struct {
	addresses           []netip.Addr // zero items: not known
	scheme, host, ports []string     // of the same length as addresses, or of another
}

// ClientOf decides who the client of a request is. Beginning at the server, it
// passes the trusted proxies; the first address that is none is the client's.
// What is before that in the headers was said by the client, and is not used.
func (p Proxies) ClientOf(r Request) Client {
	c := Client{Address: plainAddress(r.Peer), Origin: Origin{Scheme: "http", Host: r.Host}}
	if r.IsTLS {
		c.Origin.Scheme = "https"
	}
	if !p.isTrusted(c.Address) {
		return c
	}
	said := readClaim(r.Header)
	at := len(said.addresses)
	for at > 0 && said.addresses[at-1].IsValid() && p.isTrusted(c.Address) && len(c.Hops) < maxHops {
		at--
		c.Hops = append(c.Hops, c.Address)
		c.Address = said.addresses[at]
	}
	slices.Reverse(c.Hops)
	c.Origin = p.originOf(c.Origin, said, at)
	return c
}

// IsTrusted reports whether the headers of a peer count.
func (p Proxies) IsTrusted(peer netip.Addr) bool { return p.isTrusted(plainAddress(peer)) }

func (p Proxies) isTrusted(address netip.Addr) bool {
	return slices.ContainsFunc(p.Trusted, func(network netip.Prefix) bool { return network.Contains(address) })
}

// originOf returns the origin of the URL that the client at a position of a
// claim used. received is that of the connection.
func (p Proxies) originOf(received Origin, said claim, at int) Origin {
	o := received
	if host := itemFor(said.host, said, at); IsValidHost(host) {
		o.Host = host
	}
	switch lowerASCII(itemFor(said.scheme, said, at)) {
	case "https", "wss":
		o.Scheme = "https"
	case "http", "ws":
		o.Scheme = "http"
	default:
		o.Scheme = p.Site.Scheme(o.Scheme, o.Host)
	}
	if len(said.host) > 0 { // it has the port; most proxies pass what clients send as X-Forwarded-Port
		return o
	}
	port, err := strconv.ParseUint(itemFor(said.ports, said, at), 10, 16)
	if err == nil && port > 0 && o.Host != "" && portOf(o.Host) == "" && strconv.Itoa(int(port)) != defaultPort(o.Scheme) {
		o.Host += ":" + strconv.Itoa(int(port))
	}
	return o
}

// itemFor returns the item of a list for a position of a claim. A list of
// another length cannot be matched: its last item is what the nearest proxy
// said.
func itemFor(list []string, said claim, at int) string {
	switch {
	case len(list) == 0:
		return ""
	case len(list) == len(said.addresses) && at < len(list):
		return list[at]
	default:
		return list[len(list)-1]
	}
}

// readClaim reads the headers of proxies. Forwarded counts only without the
// others: most proxies set only those, and pass what clients send as Forwarded.
func readClaim(header map[string][]string) claim {
	said := claim{scheme: listItems(header["X-Forwarded-Proto"]), host: listItems(header["X-Forwarded-Host"]),
		ports: listItems(header["X-Forwarded-Port"])}
	values := listItems(header["X-Forwarded-For"])
	if len(values) == 0 && len(said.scheme) == 0 && len(said.host) == 0 {
		return parseForwarded(strings.Join(header["Forwarded"], ","))
	}
	for _, value := range values {
		said.addresses = append(said.addresses, parseNode(value))
	}
	return said
}

// listItems returns the items of a header that is a list. Empty items have no
// meaning.
func listItems(lines []string) []string {
	var items []string
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if item = strings.Trim(item, " \t"); item != "" {
				items = append(items, item)
			}
		}
	}
	return items
}

// parseNode parses an address with an optional port; the address of IPv6 may
// have brackets. It returns zero for anything else, such as unknown.
func parseNode(text string) netip.Addr {
	if address, err := netip.ParseAddr(text); err == nil {
		return plainAddress(address)
	}
	if pair, err := netip.ParseAddrPort(text); err == nil {
		return plainAddress(pair.Addr())
	}
	var host, port string
	var hasPort bool
	if strings.HasPrefix(text, "[") {
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return netip.Addr{}
		}
		host, port = text[1:end], text[end+1:]
		port, hasPort = strings.CutPrefix(port, ":")
		if !hasPort && port != "" {
			return netip.Addr{}
		}
	} else if host, port, hasPort = strings.Cut(text, ":"); !hasPort {
		return netip.Addr{}
	}
	// RFC 7239 allows ports that are no numbers: for=192.0.2.43:_hidden
	if hasPort && (port == "" || strings.Trim(lowerASCII(port), "abcdefghijklmnopqrstuvwxyz0123456789._-") != "") {
		return netip.Addr{}
	}
	address, err := netip.ParseAddr(host)
	if err != nil || strings.HasPrefix(text, "[") && address.Is4() {
		return netip.Addr{}
	}
	return plainAddress(address)
}

// plainAddress returns an address without a zone, and an IPv4 address as such.
func plainAddress(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// AddressText returns the client's address, or unknown.
func (c Client) AddressText() string { return addressText(c.Address) }

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return a.String()
}

// Port returns the port of the URL that the client used.
func (c Client) Port() string {
	if port := portOf(c.Origin.Host); len(port) > 1 {
		return port[1:]
	}
	return defaultPort(c.Origin.Scheme)
}

// ForwardedFor returns the header X-Forwarded-For for whoever is next.
func (c Client) ForwardedFor() string {
	text := c.AddressText()
	for _, hop := range c.Hops {
		text += ", " + addressText(hop)
	}
	return text
}

// Forwarded returns the header of RFC 7239 for whoever is next. host must not
// contain quotes.
func (c Client) Forwarded() string {
	text := "for=" + nodeText(c.Address) + `;host="` + c.Origin.Host + `";proto=` + c.Origin.Scheme
	for _, hop := range c.Hops {
		text += ", for=" + nodeText(hop)
	}
	return text
}

func nodeText(a netip.Addr) string {
	if a.Is6() {
		return `"[` + a.String() + `]"`
	}
	return addressText(a)
}
