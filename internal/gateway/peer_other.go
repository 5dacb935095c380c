//go:build !linux

package gateway

import "syscall"

const tellsHangUps = false

// hungUp cannot be told here.
func hungUp(syscall.RawConn) bool { return false }
