//go:build !linux

package gateway

import "syscall"

// keepsConns is false: here all requests go through http.Transport, which reads from connections that it keeps.
const keepsConns = false

// quietCheck is not supported here.
type quietCheck struct{ check func(uintptr) }

func (*quietCheck) run(syscall.RawConn) bool { return false }
func (*quietCheck) peek(uintptr)             {}

// unacknowledged is not supported here.
func unacknowledged(syscall.RawConn) int { return 0 }
