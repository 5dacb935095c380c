package cli

import (
	"fmt"
	"strconv"
	"strings"

	"dstack/internal/api"
	"dstack/internal/gpu"
	"dstack/internal/human"
)

// formatPrice returns a price in dollars: $0, $0.24, $0.0312.
func formatPrice(price float64) string {
	if price == 0 {
		return "$0"
	}
	return "$" + strings.TrimSuffix(strconv.FormatFloat(price, 'f', priceDecimals(price), 64), ".00")
}

// priceDecimals returns two decimals, or four for prices below 10 cents.
func priceDecimals(price float64) int {
	if price < 0.1 {
		return 4
	}
	return 2
}

// formatHardware returns the hardware of a machine: 16 cpu, 64GB, 1×L4 24GB. That of a host that was never reached is
// not known.
func formatHardware(r api.Resources) string {
	if r.CPUs == 0 && r.MemoryMiB == 0 && len(r.GPUs) == 0 {
		return "-"
	}
	var parts []string
	if r.CPUs > 0 {
		parts = append(parts, fmt.Sprintf("%d cpu", r.CPUs))
	}
	if r.MemoryMiB > 0 {
		parts = append(parts, human.Gigabytes(r.MemoryMiB))
	}
	for i := 0; i < len(r.GPUs); {
		n := 1
		for i+n < len(r.GPUs) && r.GPUs[i+n] == r.GPUs[i] {
			n++
		}
		parts = append(parts, fmt.Sprintf("%d×%s", n, gpu.Title(r.GPUs[i].Name, r.GPUs[i].MemoryMiB)))
		i += n
	}
	return cleanLine(strings.Join(parts, ", "))
}
