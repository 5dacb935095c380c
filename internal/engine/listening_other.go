//go:build !linux

package engine

// readListeningSockets reports that listening sockets cannot be read on this system.
func readListeningSockets(int) ([]listeningSocket, bool) { return nil, false }

func addSocketInodes(int, map[string]bool) {}
