package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"dstack/internal/api"
)

// elapsed is a length of time for people: 48s, 1m 52s, 2h 5m, 3d 4h.
func elapsed(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d/time.Second))
	case d < time.Hour:
		return two(d, time.Minute, "m", time.Second, "s")
	case d < 24*time.Hour:
		return two(d, time.Hour, "h", time.Minute, "m")
	}
	return two(d, 24*time.Hour, "d", time.Hour, "h")
}

func two(d, large time.Duration, l string, small time.Duration, s string) string {
	text := fmt.Sprintf("%d%s", d/large, l)
	if rest := d % large / small; rest > 0 {
		text += fmt.Sprintf(" %d%s", rest, s)
	}
	return text
}

// age is elapsed in its largest unit: 48s, 2h, 5d.
func age(d time.Duration) string {
	text, _, _ := strings.Cut(elapsed(d), " ")
	return text
}

// gigabytes writes a size as users do: 24GB, 0.5GB.
func gigabytes(mib int64) string {
	if mib >= 10<<10 {
		return fmt.Sprintf("%dGB", (mib+512)/1024)
	}
	return strconv.FormatFloat(float64(int64(float64(mib)/1024*10+0.5))/10, 'f', -1, 64) + "GB"
}

// bytesOf writes a number of bytes: 812B, 3KB, 12MB.
func bytesOf(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%dB", n)
	case n < 1<<20:
		return fmt.Sprintf("%dKB", n>>10)
	case n < 10<<20:
		return fmt.Sprintf("%.1fMB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%dMB", n>>20)
}

func dollars(price float64) string {
	if price == 0 {
		return "$0"
	}
	return "$" + strings.TrimSuffix(strconv.FormatFloat(price, 'f', decimals(price), 64), ".00")
}

// decimals keeps cents, and of prices below a cent what tells them apart.
func decimals(price float64) int {
	if price < 0.1 {
		return 4
	}
	return 2
}

// hardware is what a machine has: 16 cpu, 64GB, 1×L4 24GB.
func hardware(r api.Resources) string {
	parts := []string{fmt.Sprintf("%d cpu", r.CPUs), gigabytes(r.MemoryMiB)}
	for i := 0; i < len(r.GPUs); {
		n := 1
		for i+n < len(r.GPUs) && r.GPUs[i+n] == r.GPUs[i] {
			n++
		}
		parts = append(parts, fmt.Sprintf("%d×%s %s", n, r.GPUs[i].Name, gigabytes(r.GPUs[i].MemoryMiB)))
		i += n
	}
	return cleanLine(strings.Join(parts, ", "))
}
