package cloud

import (
	"maps"
	"slices"
	"strings"
)

// RegionErrors say why regions of an account cannot be used, by their names. An error of CheckAccess has them as a cause if
// other regions can be used.
type RegionErrors map[string]error

// Error returns the errors of all regions.
func (e RegionErrors) Error() string {
	var messages []string
	for _, region := range slices.Sorted(maps.Keys(e)) {
		messages = append(messages, region+": "+e[region].Error())
	}
	return strings.Join(messages, "; ")
}
