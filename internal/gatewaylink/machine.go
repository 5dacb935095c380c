package gatewaylink

import (
	"os"
	"strings"
)

// MachineID identifies this machine since its last boot, and the network namespace of this process: two processes
// with the same one reach the same loopback addresses. It is empty where the system does not tell.
func MachineID() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	network, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + "/" + network
}
