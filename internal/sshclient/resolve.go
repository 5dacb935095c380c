package sshclient

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"dstack/internal/dstack"
)

// resolve returns an address of a host behind this jump host with an IP address instead of its name. It asks the jump host,
// as OpenSSH's ProxyJump does, and where that cannot run commands, the resolver of this machine.
func (c *Client) resolve(ctx context.Context, address string) (string, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", stepFailure(dstack.Invalid, dstack.HostStepConnect, err, fmt.Sprintf("the address %q has no port", address), "")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return address, nil
	}
	output, runErr := c.Run(ctx, "getent ahosts "+quoteWord(name), nil)
	if runErr == nil && output.ExitCode == 0 {
		found, _, _ := strings.Cut(strings.TrimSpace(string(output.Stdout)), " ")
		if _, err := netip.ParseAddr(found); err == nil {
			return net.JoinHostPort(found, port), nil
		}
	}
	if runErr != nil && dstack.KindOf(runErr) != dstack.Unsupported {
		return "", runErr
	}
	found, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil || len(found) == 0 {
		return "", stepFailure(dstack.Unavailable, dstack.HostStepConnect, err,
			fmt.Sprintf("the name of %s cannot be resolved on the jump host %s, nor on this machine", address, c.name()),
			"give an address")
	}
	return net.JoinHostPort(found[0], port), nil
}
