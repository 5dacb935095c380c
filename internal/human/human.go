// Package human formats durations, counts and sizes for people, and finds the
// candidate nearest to a misspelled word.
package human

import (
	"fmt"
	"strconv"
	"strings"
)

// Count returns a number and its noun: 1 replica, 3 replicas. The plural of
// the noun is formed with an s.
func Count(n int, noun string) string {
	return CountOf(n, noun, noun+"s")
}

// CountOf is Count for phrases with a plural of their own: 1 request waits,
// 3 requests wait.
func CountOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// CountEach counts equal names, in the order in which they first occur. times stands
// between a number and its name: 2×L4, 1×A10G.
func CountEach(names []string, times string) string {
	counts, order := map[string]int{}, []string{}
	for _, name := range names {
		if counts[name] == 0 {
			order = append(order, name)
		}
		counts[name]++
	}
	for i, name := range order {
		order[i] = strconv.Itoa(counts[name]) + times + name
	}
	return strings.Join(order, ", ")
}

// ShortNumber abbreviates a number: 950, 1.2k, 12k, 3.4M.
func ShortNumber(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0fk", float64(n)/1e3)
	case n >= 1e3:
		return fmt.Sprintf("%.1fk", float64(n)/1e3)
	}
	return strconv.FormatInt(n, 10)
}
