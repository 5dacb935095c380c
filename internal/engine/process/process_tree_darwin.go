package process

import (
	"errors"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// becomeReaper does nothing here: launchd takes orphans.
func becomeReaper() error { return nil }

// bootID names the present start of the machine: process numbers are only good
// within one.
func bootID() string {
	at, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return ""
	}
	return strconv.FormatInt(at.Sec, 10)
}

// startTime says when a process was born; empty when there is none of that number.
func startTime(pid int) string {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || int(info.Proc.P_pid) != pid {
		return ""
	}
	at := info.Proc.P_starttime
	return strconv.FormatInt(at.Sec*1e6+int64(at.Usec), 10)
}

// signalTree reaches a leader's group. Whoever left it for one of their own is
// out of reach on this system.
func signalTree(_, leader int, sig syscall.Signal) { _ = syscall.Kill(-leader, sig) }

// isGroupEmpty says that nobody is left in the leader's group.
func isGroupEmpty(leader int) bool {
	err := syscall.Kill(-leader, 0)
	return errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EPERM) // EPERM: only zombies are left
}

// blockForks does nothing here: making a socket takes the same lock on this
// system. The port is looked at more than once anyway.
func blockForks() (allow func()) { return func() {} }
