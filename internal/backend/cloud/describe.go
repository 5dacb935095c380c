package cloud

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// maxNamedRegions is how many regions a line names.
const maxNamedRegions = 4

// Describe describes the account in one line for the start message.
func (b *Backend) Describe() string {
	where := b.Key
	switch n := len(b.Regions); {
	case n == 0:
		where += ": all regions"
	case n <= maxNamedRegions:
		where += ": " + strings.Join(b.Regions, ", ")
	default:
		where += ": " + human.Count(n, "region")
	}
	switch err, wasMade := b.access.get(); {
	case len(b.unusableRegions()) > 0:
		unusable := b.unusableRegions()
		for _, region := range slices.Sorted(maps.Keys(unusable)) {
			where += "; " + region + " cannot be used: " + describeError(unusable[region])
		}
		return where
	case err != nil:
		return where + ": cannot be used: " + describeError(err)
	case !wasMade:
		return where + ", not checked yet"
	default:
		return where
	}
}

// describeError returns an error and what to do in one line.
func describeError(err error) string {
	if e, ok := errors.AsType[*dstack.Error](err); ok && e.Hint != "" {
		return fmt.Sprintf("%s (%s)", e.Message, e.Hint)
	}
	return err.Error()
}

// ListRegions returns the regions that the configuration lets the backend use; empty: all.
func (b *Backend) ListRegions() []string { return b.Regions }
