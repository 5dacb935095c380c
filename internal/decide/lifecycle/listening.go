package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/dstack"
)

// port returns the port on which the replica has to listen.
func (seen ReplicaFacts) port() int {
	configured := seen.Run.Spec.Configuration.Port.Container
	if seen.Report == nil {
		return configured
	}
	return cmp.Or(seen.Report.Port, configured)
}

// runsInContainer reports whether the replica has a network of its own.
func (seen ReplicaFacts) runsInContainer() bool {
	return seen.Instance != nil && seen.Instance.Offer.Engine.Containers
}

// explainClosedPort says where the replica listens instead of at its port, as far as
// its listeners show. It is empty if they explain nothing.
func (seen ReplicaFacts) explainClosedPort() dstack.Reason {
	port := seen.port()
	var atPort, others []string
	onlyLocal := true
	for _, l := range seen.Report.Listening {
		if l.Port == port {
			atPort = append(atPort, l.Host)
			onlyLocal = onlyLocal && l.IsLoopback()
		} else if text := strconv.Itoa(l.Port); !slices.Contains(others, text) {
			others = append(others, text)
		}
	}
	switch {
	case len(atPort) > 0 && onlyLocal && seen.runsInContainer():
		return dstack.Reason(fmt.Sprintf("it listens only on %s inside the container, not on all addresses: "+
			"start it with --host 0.0.0.0", joinSome(atPort)))
	case len(atPort) > 0 && !onlyLocal && !seen.runsInContainer() && !listensOnAll(atPort):
		return dstack.Reason(fmt.Sprintf("it listens on %s, not on 127.0.0.1: start it with --host 127.0.0.1",
			joinSome(atPort)))
	case len(atPort) == 0 && len(others) > 0:
		return dstack.Reason(fmt.Sprintf("it listens on %s, not on %d", joinSome(others), port))
	default:
		return ""
	}
}

// listensOnAll reports whether one of the hosts stands for all addresses.
func listensOnAll(hosts []string) bool {
	return slices.Contains(hosts, "0.0.0.0") || slices.Contains(hosts, "::")
}

// joinSome joins at most three values: 18091, 18093 and others.
func joinSome(values []string) string {
	const most = 3
	if len(values) > most {
		return strings.Join(values[:most], ", ") + " and others"
	}
	if n := len(values); n > 1 {
		return strings.Join(values[:n-1], ", ") + " and " + values[n-1]
	}
	return strings.Join(values, "")
}

// warnOfOpenListeners says which sockets of a process other machines can reach past the
// gateway. It is empty for containers, whose ports only the server's machine can reach.
func (seen ReplicaFacts) warnOfOpenListeners() dstack.Reason {
	if seen.runsInContainer() || seen.Report == nil {
		return ""
	}
	var open []string
	for _, l := range seen.Report.Listening {
		if l.IsLoopback() {
			continue
		}
		host := l.Host
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		open = append(open, host+":"+strconv.Itoa(l.Port))
	}
	if len(open) == 0 {
		return ""
	}
	return dstack.Reason(fmt.Sprintf("listens on %s, open to the network without a token; "+
		"let it listen on 127.0.0.1", joinSome(open)))
}
