package engine

import (
	"cmp"
	"net/netip"
	"os"
	"slices"
	"time"

	"dstack/internal/dstack"
)

// Times between two readings of an attempt's listeners. An attempt gets some seconds
// to open its port before they are read at all.
const (
	listenersDelay         = 3 * time.Second
	listenersInterval      = 2 * time.Second
	listenersReadyInterval = time.Minute
)

// maxListeners limits the listeners in a report.
const maxListeners = 16

// MayReadListeners reports whether the listeners of an attempt are to be read now, which
// takes some time. ready says that its port is open; readAt is when they were last read.
func MayReadListeners(startedAt, readAt, now time.Time, ready bool) bool {
	switch {
	case ready:
		return now.Sub(readAt) >= listenersReadyInterval
	default:
		return now.Sub(startedAt) >= listenersDelay && now.Sub(readAt) >= listenersInterval
	}
}

// ListenersOfNamespace returns the TCP listeners in the network namespace of a process.
// ok is false if they cannot be read.
func ListenersOfNamespace(pid int) (found []dstack.Listener, ok bool) {
	sockets, ok := readListeningSockets(pid)
	return toListeners(sockets, func(listeningSocket) bool { return true }), ok
}

// ListenersOfProcesses returns the TCP listeners that any of the processes holds. ok is
// false if they cannot be read.
func ListenersOfProcesses(pids []int) (found []dstack.Listener, ok bool) {
	if len(pids) == 0 {
		return nil, false
	}
	sockets, ok := readListeningSockets(pids[0])
	if !ok {
		return nil, false
	}
	held := map[string]bool{}
	for _, pid := range pids {
		addSocketInodes(pid, held)
	}
	return toListeners(sockets, func(s listeningSocket) bool { return held[s.inode] }), true
}

// HasListener reports whether a TCP socket of this process's network namespace listens on a
// port, at any address. It is false where the sockets cannot be read.
func HasListener(port int) bool {
	sockets, _ := readListeningSockets(os.Getpid())
	return slices.ContainsFunc(sockets, func(s listeningSocket) bool { return int(s.address.Port()) == port })
}

// listeningSocket is a TCP socket that listens.
type listeningSocket struct {
	address netip.AddrPort
	inode   string
}

// dockerDNS is the address of the name server that Docker runs inside of containers.
var dockerDNS = netip.MustParseAddr("127.0.0.11")

// toListeners returns the selected sockets as sorted listeners without duplicates.
func toListeners(sockets []listeningSocket, isSelected func(listeningSocket) bool) []dstack.Listener {
	var found []dstack.Listener
	for _, s := range sockets {
		addr := s.address.Addr().Unmap()
		l := dstack.Listener{Host: addr.String(), Port: int(s.address.Port())}
		if addr != dockerDNS && isSelected(s) && !slices.Contains(found, l) {
			found = append(found, l)
		}
	}
	slices.SortFunc(found, func(a, b dstack.Listener) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Host, b.Host))
	})
	return found[:min(len(found), maxListeners)]
}
