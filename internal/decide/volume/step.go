// Package volume decides the next step of a volume, which machine or cluster a new volume is on, and what the volumes of a
// service mean for its replicas.
package volume

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// Action is what a pass does with a volume.
type Action string

// The actions. Each may be repeated.
const (
	NoAction Action = ""
	Create   Action = "create" // on its machine or in its cluster; an external volume is only looked for
	Check    Action = "check"  // whether its machine or cluster still has it
	Delete   Action = "delete" // the volume and its data
)

// Result is what an action found.
type Result struct {
	Created       dstack.Volume // with Create; of a cluster or a cloud also with Check, and with the status and reason there
	IsListed      bool          // with Check: the machine has the volume; of a cluster or a cloud also with Create and Delete
	IsMachineGone bool          // the machine does not belong to any fleet, or any backend, any more
	Err           error
}

// Step is the next state of a volume.
type Step struct {
	To       dstack.VolumeStatus
	Reason   dstack.Reason
	Action   Action
	Due      time.Time // zero: not before it is marked due
	Failures int
	IsGone   bool           // the volume does not exist any more
	Created  *dstack.Volume // the machine has it now; with ExternalID, SizeMiB, Warning, Reach, Zone and Price
}

const (
	checkInterval = time.Minute
	minBackoff    = time.Second
	maxBackoff    = time.Minute
)

// Decide decides the next step of a volume, before its action. It fails on an unknown status.
func Decide(v dstack.Volume, now time.Time) (Step, error) {
	step := Step{To: v.Status, Reason: v.Reason, Failures: v.Failures}
	switch v.Status {
	case dstack.VolumeSubmitted: // the intent is saved before the first action
		step.To, step.Reason, step.Due = dstack.VolumeProvisioning, dstack.Reason("is created "+describePlace(v)), now
	case dstack.VolumeProvisioning:
		if step.Action = Create; hasOwnData(v) { // it was applied again, and must not begin without its data
			step.Action = Check
		}
	case dstack.VolumeActive, dstack.VolumeFailed:
		if hasOwnData(v) {
			step.Action = Check
		} else if v.IsExternal && isOfBackend(v) {
			step.Action = Create
		}
	case dstack.VolumeDeleting:
		step.Action = Delete
	default:
		return Step{}, fmt.Errorf("volume %s has the unknown status %q", v.ID, v.Status)
	}
	return step, nil
}

// hasOwnData reports whether a volume was created on its machine, which can tell if it still exists. An external folder
// is looked for when it is mounted.
func hasOwnData(v dstack.Volume) bool { return !v.IsExternal && v.ExternalID != "" }

// ApplyAgain returns a failed volume as it is when its configuration is applied again: it is created, or looked for if it
// was created before, on the machine or in the cluster that now has the name. ok is false if there is nothing to do.
func ApplyAgain(v dstack.Volume, machine dstack.Offer) (again dstack.Volume, ok bool) {
	if v.Status != dstack.VolumeFailed {
		return v, false
	}
	v.Status, v.Reason, v.Failures = dstack.VolumeSubmitted, "applied again", 0
	v.Backend, v.Instance, v.Machine, v.Fleet, v.Host, v.Region = machine.Key, machine.OwnedInstance, machine.Type, machine.Fleet, machine.Host, machine.Region
	return v, true
}

// After returns the step with what its action found.
func (s Step) After(v dstack.Volume, found Result, now time.Time) Step {
	if isOfBackend(v) {
		return s.afterInBackend(v, found, now)
	}
	switch s.Action {
	case Create:
		return s.afterCreate(v, found, now)
	case Check:
		return s.afterCheck(v, found, now)
	case Delete:
		return s.afterDelete(v, found, now)
	case NoAction:
		return s
	}
	return s
}

func (s Step) afterCreate(v dstack.Volume, found Result, now time.Time) Step {
	switch {
	case found.IsMachineGone:
		return s.fail(goneReason(v))
	case found.Err == nil:
		s.To, s.Reason, s.Failures, s.Created = dstack.VolumeActive, "", 0, &found.Created
		if hasOwnData(found.Created) {
			s.Due = now.Add(checkInterval)
		}
		return s
	case isFinal(found.Err):
		return s.fail(describe(found.Err))
	}
	return s.retry(v, "waits for "+v.Machine+": "+describe(found.Err), now)
}

func (s Step) afterCheck(v dstack.Volume, found Result, now time.Time) Step {
	switch {
	case found.IsMachineGone:
		s = s.fail(goneReason(v))
	case found.Err != nil:
		return s.retry(v, fmt.Sprintf("%s does not answer: %s", v.Machine, describe(found.Err)), now)
	case !found.IsListed:
		s = s.fail(fmt.Sprintf("its data is lost: %s does not have %s any more; delete the volume and apply it again to begin without data",
			v.Machine, v.ExternalID))
	default:
		s.To, s.Reason, s.Failures = dstack.VolumeActive, "", 0
	}
	s.Due = now.Add(checkInterval)
	return s
}

func (s Step) afterDelete(v dstack.Volume, found Result, now time.Time) Step {
	switch {
	case found.Err == nil || found.IsMachineGone: // the data stays on a machine that left
		s.IsGone = true
		return s
	case dstack.KindOf(found.Err) == dstack.Conflict:
		return s.retry(v, describe(found.Err), now)
	}
	return s.retry(v, fmt.Sprintf("its deletion waits for %s: %s", v.Machine, describe(found.Err)), now)
}

func (s Step) fail(reason string) Step {
	s.To, s.Reason, s.Failures, s.Due = dstack.VolumeFailed, dstack.Reason(reason), 0, time.Time{}
	return s
}

// retry repeats the action after a pause that doubles with each failure.
func (s Step) retry(v dstack.Volume, reason string, now time.Time) Step {
	s.Reason, s.Failures = dstack.Reason(reason), v.Failures+1
	s.Due = now.Add(min(minBackoff<<min(v.Failures, 10), maxBackoff))
	return s
}

func goneReason(v dstack.Volume) string {
	return fmt.Sprintf("%s is not among the machines of this server any more; the data stays on it: add it again and apply the volume again", v.Machine)
}

// isFinal reports whether a failed creation fails again whenever it is tried.
func isFinal(err error) bool {
	switch dstack.KindOf(err) {
	case dstack.Invalid, dstack.NotFound, dstack.Conflict, dstack.Unsupported, dstack.Forbidden:
		return true
	default:
		return false
	}
}

// describe returns the message of an error, with its hint.
func describe(err error) string {
	text := human.PlainFailure(err.Error())
	if e, ok := errors.AsType[*dstack.Error](err); ok && e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// CheckDeletion returns an error if runs still need the volume.
func CheckDeletion(v dstack.Volume) error {
	if len(v.Runs) == 0 {
		return nil
	}
	what := "the run " + v.Runs[0] + " uses it"
	if len(v.Runs) > 1 {
		what = "the runs " + joinNames(v.Runs) + " use it"
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("cannot delete the volume %s: %s", v.Name, what),
		Hint: "stop first: dstack stop " + strings.Join(v.Runs, " ")}
}
