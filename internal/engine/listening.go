package engine

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
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

// ParseListeners returns the TCP listeners in the text of /proc/net/tcp and tcp6 of a machine with the byte order of this one.
func ParseListeners(text io.Reader) []dstack.Listener {
	return toListeners(parseSockets(text), func(listeningSocket) bool { return true })
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

// parseSockets returns the listening sockets in the text of /proc/PID/net/tcp or tcp6.
func parseSockets(text io.Reader) (all []listeningSocket) {
	for lines := bufio.NewScanner(text); lines.Scan(); {
		if s, listens := parseSocket(lines.Text()); listens {
			all = append(all, s)
		}
	}
	return all
}

// isLittleEndian says in which order the kernel prints the bytes of an address.
var isLittleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// parseSocket parses a line of /proc/PID/net/tcp or tcp6. It returns false for sockets
// that do not listen.
func parseSocket(line string) (listeningSocket, bool) {
	const stateListen = "0A" // TCP_LISTEN in include/net/tcp_states.h
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != stateListen {
		return listeningSocket{}, false
	}
	host, port, _ := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return listeningSocket{}, false
	}
	for word := range slices.Chunk(raw, 4) { // each is a number in the order of the machine
		if isLittleEndian {
			slices.Reverse(word)
		}
	}
	addr, isAddr := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil || !isAddr {
		return listeningSocket{}, false
	}
	return listeningSocket{netip.AddrPortFrom(addr, uint16(number)), f[9]}, true
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
