package placement

import (
	"fmt"
	"slices"

	"dstack/internal/dstack"
)

// compareMounts returns why a machine does not suit the volumes and folders that a replica mounts.
func compareMounts(need dstack.Requirements, o dstack.Offer) (why []string) {
	if need.Pin != nil && (o.OwnedInstance == "" || !slices.Contains(need.Pin.Machines, o.OwnedInstance)) {
		why = append(why, need.Pin.Reason)
	}
	if need.HostPath != "" && !need.IsGlobalAdmin && o.OwnedInstance != "" && !o.IsRemote {
		why = append(why, fmt.Sprintf("it is the server's own machine, of which only global admins may mount folders such as %s", need.HostPath))
	}
	return why
}

// adviseMounts returns what a user can do if no machine suits because of the volumes.
func adviseMounts(need dstack.Requirements, offers []dstack.Offer) (lines []string) {
	if need.Pin != nil && need.Pin.Advice != "" {
		lines = append(lines, need.Pin.Advice)
	}
	if need.HostPath != "" && !need.IsGlobalAdmin && !slices.ContainsFunc(offers, func(o dstack.Offer) bool { return o.IsRemote }) {
		lines = append(lines, "ask a global admin to apply the service, or use a volume in place of "+need.HostPath)
	}
	return lines
}
