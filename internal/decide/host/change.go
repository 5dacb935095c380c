package host

import (
	"fmt"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// DescribeChange describes to the user how a host changed from one check to the next; empty:
// nothing worth telling changed.
func DescribeChange(before, after dstack.HostCheck) string {
	switch {
	case after.Status == dstack.HostReady && before.Status != dstack.HostReady:
		return "ready: " + DescribeFacts(after.Found)
	case after.Status == dstack.HostReady && describeHardware(before.Found) != describeHardware(after.Found):
		return "its hardware changed from " + describeHardware(before.Found) + " to " + describeHardware(after.Found)
	case after.Status == dstack.HostReady, after.Status == dstack.HostPending:
		return ""
	case after.Status == before.Status && after.Step == before.Step && after.Message == before.Message:
		return ""
	case after.Status == dstack.HostUnreachable:
		return "does not answer: " + after.Message
	default:
		return fmt.Sprintf("failed (%s): %s", after.Step, after.Message)
	}
}

// DescribeFacts describes what a check found in one line: Docker 28.2.2, 8 cpu, 32GB,
// 100GB disk, 2×L4 24GB.
func DescribeFacts(f dstack.HostFacts) string {
	text := "Docker " + f.DockerVersion
	if f.DockerAccess == dstack.DockerSudoStdio {
		text += " through sudo"
	}
	return text + ", " + describeHardware(f)
}

// describeHardware leaves out what changes all the time: the free disk.
func describeHardware(f dstack.HostFacts) string {
	h := f.Hardware
	parts := []string{fmt.Sprintf("%d cpu", h.CPUs), human.Gigabytes(h.MemoryMiB)}
	if len(h.GPUs) == 0 {
		return strings.Join(append(parts, "no GPU"), ", ")
	}
	for i := 0; i < len(h.GPUs); {
		n := i + 1
		for n < len(h.GPUs) && h.GPUs[n].Name == h.GPUs[i].Name && h.GPUs[n].MemoryMiB == h.GPUs[i].MemoryMiB {
			n++
		}
		parts = append(parts, fmt.Sprintf("%d×%s %s", n-i, h.GPUs[i].Name, human.Gigabytes(h.GPUs[i].MemoryMiB)))
		i = n
	}
	return strings.Join(parts, ", ")
}
