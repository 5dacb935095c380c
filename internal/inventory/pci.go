package inventory

import (
	"strconv"
	"strings"
)

// pciDevice is a display or 3D controller on the PCI bus.
type pciDevice struct {
	bus     string // such as 0000:83:00.0
	vendor  string // 0x10de: NVIDIA, 0x1002: AMD
	device  string
	driver  string // of the kernel; none: it has no driver
	vramMiB int64  // 0: the driver does not say
	node    string // its render node; empty: it has none
}

// readPCI reads the section pci of a script.
func readPCI(s sections) []pciDevice {
	text, _ := s.first("pci")
	var devices []pciDevice
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 6 {
			continue
		}
		bytes, _ := strconv.ParseInt(f[4], 10, 64)
		d := pciDevice{bus: strings.ToLower(f[0]), vendor: f[1], device: f[2], driver: f[3], vramMiB: bytes >> 20}
		if f[5] != "none" {
			d.node = f[5]
		}
		devices = append(devices, d)
	}
	return devices
}
