//go:build !linux

package gateway

import "syscall"

const canDetectHangUp = false

// hasHungUp is not supported here.
func hasHungUp(syscall.RawConn) bool { return false }
