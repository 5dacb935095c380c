package route

import (
	"strings"

	"dstack/internal/dstack"
)

// RunLimitID returns the ID that stands for all limits of a run, and with which those
// of its callers begin.
func RunLimitID(run dstack.RunID) dstack.LimitID { return dstack.LimitID("run/" + string(run) + "/") }

// KeyLimitID is RunLimitID for a key for callers.
func KeyLimitID(key string) dstack.LimitID { return dstack.LimitID("key/" + key + "/") }

// LimitOwner returns the run or the key that a limit belongs to; neither for a
// malformed ID.
func LimitOwner(id dstack.LimitID) (run dstack.RunID, key dstack.CallerKeyID) {
	kind, rest, _ := strings.Cut(string(id), "/")
	owner, _, _ := strings.Cut(rest, "/")
	switch kind {
	case "run":
		return dstack.RunID(owner), ""
	case "key":
		return "", dstack.CallerKeyID(owner)
	}
	return "", ""
}
