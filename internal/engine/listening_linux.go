package engine

import (
	"os"
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
		all = append(all, parseSockets(f)...)
		_ = f.Close()
	}
	return all, ok
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
