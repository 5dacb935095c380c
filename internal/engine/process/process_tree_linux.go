package process

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// becomeReaper makes this process adopt the orphans among its descendants, so that it
// can find and wait for all of them.
func becomeReaper() error {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER in linux/prctl.h
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		return errno
	}
	return nil
}

// bootID identifies the current boot of the machine. Process numbers are valid only
// within one boot.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// startTime returns the start time of a process, in a format of the system's own; empty
// if no process has that number.
func startTime(pid int) string {
	f, ok := readProcStat(pid)
	if !ok {
		return ""
	}
	return f[19]
}

// readProcStat returns the fields of /proc/PID/stat that follow the command name; the
// first is the state. It returns false if there is no such process.
func readProcStat(pid int) ([]string, bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	return fields, len(fields) > 19
}

// signalTree sends a signal to the leader's process group, and to processes that have
// left the group but are in the leader's session or descend from the keeper.
func signalTree(keeper, leader int, sig syscall.Signal) {
	_ = syscall.Kill(-leader, sig)
	for _, pid := range findStrays(keeper, leader) {
		_ = syscall.Kill(pid, sig)
	}
}

// isGroupEmpty reports whether no process is left in the leader's process group.
func isGroupEmpty(leader int) bool {
	return errors.Is(syscall.Kill(-leader, 0), syscall.ESRCH)
}

// findStrays returns the processes outside of the leader's group that are in its session
// or descend from the keeper.
func findStrays(keeper, leader int) []int { return listRelated(keeper, leader, false) }

// listTree returns the processes of the leader's group and session, and those that
// descend from the keeper.
func listTree(keeper, leader int) []int { return listRelated(keeper, leader, true) }

// listRelated returns the processes that are in the leader's session or descend from the
// keeper, with or without those of the leader's group.
func listRelated(keeper, leader int, withGroup bool) []int {
	type relation struct{ parent, group, session int }
	all := map[int]relation{}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if f, ok := readProcStat(pid); ok && f[0] != "Z" {
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
		if related && (withGroup || r.group != leader) {
			out = append(out, pid)
		}
	}
	return out
}

// blockForks prevents this process from forking until unblock is called. Between fork and
// exec, a child holds copies of this process's sockets.
func blockForks() (unblock func()) {
	syscall.ForkLock.RLock()
	return syscall.ForkLock.RUnlock
}
