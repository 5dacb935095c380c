// Package access decides whether a caller may make an API call.
package access

import "dstack/internal/dstack"

// Level is the permission that a call requires.
type Level string

// The levels (spec §4.3). Global admins have all of them.
const (
	LevelNone         Level = "none"   // no token is required
	LevelUser         Level = "auth"   // any valid token
	LevelMember       Level = "member" // membership in the project
	LevelProjectAdmin Level = "admin"  // role admin in the project
	LevelGlobalAdmin  Level = "gadmin" // global role admin

	// LevelGatewayProcess is that of gateway processes, whose credentials open nothing else. No user has it.
	LevelGatewayProcess Level = "gateway"
)

// Caller is the user who makes a call. The zero value is an unauthenticated
// caller.
type Caller struct {
	Known bool
	Role  dstack.Role // the global role
}

// Project is the project that a call concerns, and the caller's role in it.
type Project struct {
	Exists bool
	Member bool
	Role   dstack.Role // valid only if Member is true
}

// Decision is the result of an access check.
type Decision string

// The decisions.
const (
	Allowed Decision = "allowed"
	Unknown Decision = "unknown" // the caller must authenticate
	Denied  Decision = "denied"  // the caller lacks the permission
	Hidden  Decision = "hidden"  // respond as if the project did not exist
)

// Allow decides whether a caller may make a call of a level. Callers that are not
// members get the same decision whether or not the project exists: Hidden for
// level Member, Denied for level Admin. Unknown levels are Denied.
func Allow(level Level, caller Caller, p Project) Decision {
	if level == LevelNone {
		return Allowed
	}
	if !caller.Known {
		return Unknown
	}
	isGlobalAdmin := caller.Role == dstack.RoleAdmin
	switch level {
	case LevelUser:
		return Allowed
	case LevelMember:
		return allowIf(p.Exists && (isGlobalAdmin || p.Member), Hidden)
	case LevelProjectAdmin:
		return allowIf(p.Exists && (isGlobalAdmin || p.Member && p.Role == dstack.RoleAdmin), Denied)
	case LevelGlobalAdmin:
		return allowIf(isGlobalAdmin, Denied)
	case LevelNone:
		return Allowed
	case LevelGatewayProcess:
		return Denied
	default:
		return Denied
	}
}

func allowIf(ok bool, otherwise Decision) Decision {
	if ok {
		return Allowed
	}
	return otherwise
}
