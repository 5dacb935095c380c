// Package fleet decides which hosts a fleet has after its configuration was applied.
package fleet

import (
	"slices"
	"time"

	"dstack/internal/dstack"
)

// MergeHosts returns the hosts of a fleet after wanted was applied: kept and new
// ones, and those that leave.
func MergeHosts(known, wanted []dstack.Host, nextNum int, newID func() dstack.InstanceID, now time.Time) []dstack.Host {
	matches := MatchHosts(known, wanted)
	var next []dstack.Host
	for i, h := range wanted {
		h.AppliedAt = now
		if was := matches[i]; was != nil {
			h.ID, h.Num, h.CreatedAt, h.IsDraining = was.ID, was.Num, was.CreatedAt, was.IsDraining
			h.Login = keepLogin(was.Login, h.Login)
			h.Check = startCheck(was.Check, now)
			if h.Jump != nil && was.Jump != nil && h.Jump.Address == was.Jump.Address {
				h.Jump = new(keepLogin(*was.Jump, *h.Jump))
			}
		} else {
			h.ID, h.Num, h.CreatedAt, h.IsDraining = newID(), nextNum, now, false
			h.Check = startCheck(dstack.HostCheck{}, now)
			h.Login.HostKey = ""
			nextNum++
		}
		if h.Jump != nil && h.Jump.HostKey == "" {
			h.Jump = new(pinJump(*h.Jump, known))
		}
		h.IsLeaving = false
		next = append(next, h)
	}
	for _, h := range known {
		if !slices.ContainsFunc(next, func(kept dstack.Host) bool { return kept.ID == h.ID }) {
			h.IsLeaving = true
			next = append(next, h)
		}
	}
	return next
}

// MatchHosts returns for each wanted host the known one that it is, or nil. The
// address and the user identify a host, and the jump host where several have both.
func MatchHosts(known, wanted []dstack.Host) []*dstack.Host {
	matches, taken := make([]*dstack.Host, len(wanted)), map[dstack.InstanceID]bool{}
	for _, hasSameJump := range []bool{true, false} {
		for i, h := range wanted {
			for k := range known {
				was := &known[k]
				if matches[i] == nil && !taken[was.ID] && was.Login.Address == h.Login.Address && was.Login.User == h.Login.User &&
					(!hasSameJump || jumpAddress(*was) == jumpAddress(h)) {
					matches[i], taken[was.ID] = was, true
				}
			}
		}
	}
	return matches
}

func jumpAddress(h dstack.Host) string {
	if h.Jump == nil {
		return ""
	}
	return h.Jump.Address
}

// keepLogin returns how to log in to a known server: with its pinned key unless
// the fingerprints exclude it, and with the private key that it has if next has none.
func keepLogin(was, next dstack.SSHLogin) dstack.SSHLogin {
	if next.PrivateKey == "" && next.User == was.User {
		next.PrivateKey = was.PrivateKey
	}
	next.HostKey = was.HostKey
	if len(next.Fingerprints) > 0 && !slices.Contains(next.Fingerprints, dstack.HostKeyFingerprint(was.HostKey)) {
		next.HostKey = ""
	}
	return next
}

// pinJump returns a jump host with the key that is pinned for other hosts behind it.
func pinJump(jump dstack.SSHLogin, known []dstack.Host) dstack.SSHLogin {
	jump.HostKey = ""
	for _, h := range known {
		if h.Jump != nil && h.Jump.Address == jump.Address && h.Jump.HostKey != "" &&
			(len(jump.Fingerprints) == 0 || slices.Contains(jump.Fingerprints, dstack.HostKeyFingerprint(h.Jump.HostKey))) {
			jump.HostKey = h.Jump.HostKey
		}
	}
	return jump
}

// startCheck returns a check that is due at once, with what was found before.
func startCheck(was dstack.HostCheck, now time.Time) dstack.HostCheck {
	if was.Status == "" {
		return dstack.HostCheck{Status: dstack.HostPending, Since: now}
	}
	was.NextAt = time.Time{}
	return was
}
