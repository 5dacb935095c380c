// Package access decides who may do what.
package access

import "dstack/internal/dstack"

// Level is what a call asks of its caller.
type Level string

// Every level there is (spec §4.3). Global admins pass them all.
const (
	None        Level = "none"   // nobody is asked
	Auth        Level = "auth"   // somebody known
	Member      Level = "member" // of the project
	Admin       Level = "admin"  // of the project
	GlobalAdmin Level = "gadmin"
)

// Caller is who asks. The zero value is nobody known.
type Caller struct {
	Known bool
	Role  dstack.Role // over everything
}

// Project is where something is asked for, as the caller stands to it.
type Project struct {
	Exists bool
	Member bool
	Role   dstack.Role // of the caller in it; only where Member
}

// Decision is the answer.
type Decision string

// Every decision there is.
const (
	Allowed Decision = "allowed"
	Unknown Decision = "unknown" // say who you are first
	Denied  Decision = "denied"
	Hidden  Decision = "hidden" // answer as if there were no such project
)

// Allow decides. To a stranger a project looks the same whether it exists or
// not: hidden from calls of members, denied to calls of project admins. A
// level that is not known is denied.
func Allow(level Level, who Caller, p Project) Decision {
	if level == None {
		return Allowed
	}
	if !who.Known {
		return Unknown
	}
	overall := who.Role == dstack.RoleAdmin
	switch level {
	case Auth:
		return Allowed
	case Member:
		return allowIf(p.Exists && (overall || p.Member), Hidden)
	case Admin:
		return allowIf(p.Exists && (overall || p.Member && p.Role == dstack.RoleAdmin), Denied)
	case GlobalAdmin:
		return allowIf(overall, Denied)
	case None:
		return Allowed
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
