package process

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// becomeReaper makes orphans of this process's descendants its children, so
// that none gets out of sight.
func becomeReaper() error {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		return errno
	}
	return nil
}

// bootID names the present start of the machine: process numbers are only good
// within one.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// startTime says when a process was born; empty when there is none of that number.
func startTime(pid int) string {
	f, ok := statOf(pid)
	if !ok {
		return ""
	}
	return f[19]
}

// statOf returns the fields of /proc/<pid>/stat from the state on.
func statOf(pid int) ([]string, bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	return fields, len(fields) > 19
}

// signalTree reaches a leader's group, and whoever left that group for one of
// their own: those of the leader's session, and all that descend from keeper.
func signalTree(keeper, leader int, sig syscall.Signal) {
	_ = syscall.Kill(-leader, sig)
	for _, pid := range strays(keeper, leader) {
		_ = syscall.Kill(pid, sig)
	}
}

// isGroupEmpty says that nobody is left in the leader's group.
func isGroupEmpty(leader int) bool {
	return errors.Is(syscall.Kill(-leader, 0), syscall.ESRCH)
}

func strays(keeper, leader int) []int {
	type relation struct{ parent, group, session int }
	all := map[int]relation{}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if f, ok := statOf(pid); ok && f[0] != "Z" {
			parent, _ := strconv.Atoi(f[1])
			group, _ := strconv.Atoi(f[2])
			session, _ := strconv.Atoi(f[3])
			all[pid] = relation{parent, group, session}
		}
	}
	var out []int
	for pid, r := range all {
		related := r.session == leader
		for up, steps := r.parent, 0; !related && up > 1 && steps < len(all); up, steps = all[up].parent, steps+1 {
			related = up == keeper
		}
		if related && r.group != leader {
			out = append(out, pid)
		}
	}
	return out
}

// blockForks keeps this program from forking until the returned function is
// called: until a fork has become another program, it holds our sockets.
func blockForks() (allow func()) {
	syscall.ForkLock.RLock()
	return syscall.ForkLock.RUnlock
}
