package human

import (
	"fmt"
	"strconv"
	"strings"
)

// Bytes returns a number of bytes in powers of 1024, cut off: 812B, 3KB, 1.5MB,
// 8MB, 12MB. Below 10MB it keeps one decimal, unless that is 0.
func Bytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%dB", n)
	case n < 1<<20:
		return fmt.Sprintf("%dKB", n>>10)
	case n < 10<<20:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n*10>>20)/10), ".0") + "MB"
	}
	return fmt.Sprintf("%dMB", n>>20)
}

// ImageBytes returns a number of bytes in powers of 1000, the way container
// registries print the size of an image: 3kB, 12MB, 8.1GB.
func ImageBytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1fGB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%dMB", n/1e6)
	}
	return fmt.Sprintf("%dkB", max(1, n/1e3))
}

// Gigabytes returns a number of MiB in the unit of a configuration: 24GB,
// 0.5GB. Below 10GB it keeps one decimal.
func Gigabytes(mib int64) string {
	if mib >= 10<<10 {
		return fmt.Sprintf("%dGB", (mib+512)/1024)
	}
	return strconv.FormatFloat(float64(int64(float64(mib)/1024*10+0.5))/10, 'f', -1, 64) + "GB"
}
