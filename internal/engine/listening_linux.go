package engine

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// readListeningSockets reads the listening TCP sockets of the network namespace of a
// process. ok is false if there is no such process, or it may not be read.
func readListeningSockets(pid int) (all []listeningSocket, ok bool) {
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/" + name)
		if err != nil {
			continue // a kernel without IPv6 has no tcp6
		}
		ok = true
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if s, listens := parseSocket(lines.Text()); listens {
				all = append(all, s)
			}
		}
		_ = f.Close()
	}
	return all, ok
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

// addSocketInodes adds the inodes of the sockets that a process holds.
func addSocketInodes(pid int, held map[string]bool) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		target, err := os.Readlink(dir + "/" + entry.Name())
		if inode, isSocket := strings.CutPrefix(target, "socket:["); err == nil && isSocket {
			held[strings.TrimSuffix(inode, "]")] = true
		}
	}
}
