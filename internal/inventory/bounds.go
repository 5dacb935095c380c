package inventory

import (
	"fmt"
	"strings"
	"unicode"

	"dstack/internal/dstack"
)

// Bounds of what a machine says about itself. A host may belong to anyone, and print anything.
const (
	maxOutput   = 1 << 20
	maxCPUs     = 1 << 16
	maxSizeMiB  = 1 << 40 // of memory and disks
	maxGPUs     = 256
	maxWarnings = 32
	maxText     = 300 // bytes of a name or a warning
)

// limitGPUs keeps a report about GPUs within the bounds.
func limitGPUs(r GPUReport) GPUReport {
	if n := len(r.GPUs); n > maxGPUs {
		r.GPUs = r.GPUs[:maxGPUs]
		r.Warnings = append([]string{fmt.Sprintf("it lists %d GPUs, of which only the first %d are used", n, maxGPUs)}, r.Warnings...)
	}
	r.Warnings = r.Warnings[:min(len(r.Warnings), maxWarnings)]
	for i, w := range r.Warnings {
		r.Warnings[i] = limitText(w)
	}
	r.DriverVersion = limitText(r.DriverVersion)
	for i := range r.GPUs {
		r.GPUs[i] = limitGPU(r.GPUs[i])
	}
	return r
}

func limitGPU(g dstack.GPU) dstack.GPU {
	g.ID, g.Name = limitText(g.ID), limitText(g.Name)
	g.MemoryMiB = min(max(g.MemoryMiB, 0), maxSizeMiB)
	return g
}

// limitText returns the beginning of a text, without control characters.
func limitText(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) {
			return ' '
		}
		return c
	}, text)
}
