//go:build !linux

package main

// claimFromEarlierVersion is not supported here: the sockets of a process that does not hand them over cannot be copied.
func (d *daemon) claimFromEarlierVersion() error { return nil }
