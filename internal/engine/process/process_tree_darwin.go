package process

import (
	"errors"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// becomeReaper does nothing on macOS, where launchd adopts orphans.
func becomeReaper() error { return nil }

// bootID identifies the current boot of the machine. Process numbers are valid only
// within one boot.
func bootID() string {
	at, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return ""
	}
	return strconv.FormatInt(at.Sec, 10)
}

// startTime returns the start time of a process, in a format of the system's own; empty
// if no process has that number.
func startTime(pid int) string {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || int(info.Proc.P_pid) != pid {
		return ""
	}
	at := info.Proc.P_starttime
	return strconv.FormatInt(at.Sec*1e6+int64(at.Usec), 10)
}

// signalTree sends a signal to the leader's process group. On macOS it cannot find
// descendants that have left the group.
func signalTree(_, leader int, sig syscall.Signal) { _ = syscall.Kill(-leader, sig) }

// isGroupEmpty reports whether no process is left in the leader's process group.
func isGroupEmpty(leader int) bool {
	err := syscall.Kill(-leader, 0)
	return errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EPERM) // EPERM: only zombies are left
}

// blockForks does nothing on macOS, where creating a socket takes the same lock.
// waitForFreePort checks the port more than once anyway.
func blockForks() (unblock func()) { return func() {} }

// listTree returns the leader only: macOS shows a process's sockets to no other program
// without lsof, so nothing reads them.
func listTree(_, leader int) []int { return []int{leader} }
