package gitrepo

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// metadataAddresses are services of clouds that give credentials to every program of a
// machine. The other addresses of that kind are link-local.
var metadataAddresses = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
}

// embeddingPrefixes have the IPv6 addresses that networks translate to the IPv4 address in
// them. Of 64:ff9b:1::/48, networks use parts; most have the address at the end.
var embeddingPrefixes = []struct {
	prefix netip.Prefix
	at     int // the first byte of the IPv4 address
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

// findAddress resolves the host of a repository, and returns the address that the server
// connects to. Users choose the host, so it must not be one of the server's own machine,
// where MayUseLoopback is not set, and never a link-local one.
func findAddress(ctx context.Context, host string, mayUseLoopback bool) (netip.Addr, error) {
	if _, err := netip.ParseAddr(host); err != nil && isNumeric(host) { // other programs read 127.1 and 0x7f000001 as addresses
		return netip.Addr{}, &dstack.Error{Kind: dstack.Invalid, Hint: hintUnreachable,
			Message: fmt.Sprintf("the server does not read repositories from %s: it is neither a name nor an address", host)}
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, &dstack.Error{Kind: dstack.Unavailable, Cause: err, Hint: hintUnreachable,
			Message: "the server cannot reach the repository: " + human.DescribeFailure(err)}
	}
	var refused netip.Addr
	for _, address := range addresses {
		address = address.Unmap()
		if isAllowed(address, mayUseLoopback) {
			return address, nil
		}
		refused = address
	}
	return netip.Addr{}, &dstack.Error{Kind: dstack.Invalid, Hint: hintUnreachable,
		Message: fmt.Sprintf("the server does not read repositories from %s: its address %s is %s", host, refused, describeRefused(refused))}
}

// numericPattern is of hosts that some programs read as an address: their last part is a
// number.
var numericPattern = regexp.MustCompile(`^(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?$`)

func isNumeric(host string) bool {
	return strings.Contains(host, ":") || numericPattern.MatchString(host)
}

func isAllowed(a netip.Addr, mayUseLoopback bool) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return a.IsLoopback() && mayUseLoopback
	}
	if !a.IsGlobalUnicast() {
		return false
	}
	bytes := a.As16()
	for _, e := range embeddingPrefixes {
		if e.prefix.Contains(a) && !isAllowed(netip.AddrFrom4([4]byte(bytes[e.at:e.at+4])), false) {
			return false
		}
	}
	for _, m := range metadataAddresses {
		if a == m {
			return false
		}
	}
	return true
}

func describeRefused(a netip.Addr) string {
	if a.IsLoopback() {
		return "the server's own machine, which only global admins may use"
	}
	return "not one of another machine"
}

// formatResolve returns git's setting that makes it connect to the address that was
// checked, and to no other.
func formatResolve(l Location, address netip.Addr) string {
	text := address.String()
	if address.Is6() {
		text = "[" + text + "]"
	}
	return strings.ToLower(l.Host) + ":" + l.port() + ":" + text
}
