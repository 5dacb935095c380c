package placement

import (
	"fmt"

	"dstack/internal/dstack"
)

// onlyGlobalAdmins is why a machine without containers does not suit another user. Its
// processes have the rights of the server's own user: they can read what belongs to it.
const onlyGlobalAdmins = "it runs plain processes with the server's own rights, which only global admins may use"

// installDocker is what helps where only containers suit.
const installDocker = "install Docker there to use containers"

// IsForGlobalAdmins reports whether an offer is rejected because the user is no global
// admin.
func IsForGlobalAdmins(r dstack.Rejection) bool { return r.Constraint == dstack.ConstraintRights }

// machineConstraints are what a machine must be, whatever it has.
func machineConstraints() []constraint {
	return []constraint{
		{name: dstack.ConstraintUsable,
			fails: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) bool { return o.Unusable != "" },
			explain: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
				return explanation{has: o.Unusable, reason: o.Unusable}
			}},
		{name: dstack.ConstraintDraining,
			fails: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) bool { return o.IsDraining },
			explain: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
				if o.IsManaged {
					return explanation{has: "cordoned", reason: "it is cordoned", help: "run kubectl uncordon " + o.Type}
				}
				return explanation{has: "draining", reason: "it is being drained"}
			}},
		containerConstraint(dstack.ConstraintRights, func(m *matcher) bool { return !m.need.IsGlobalAdmin },
			func(*matcher) string { return onlyGlobalAdmins }),
		containerConstraint(dstack.ConstraintImage, func(m *matcher) bool { return m.need.NeedsImage },
			func(*matcher) string { return "it runs plain processes, and `image` needs containers" }),
		containerConstraint(dstack.ConstraintWorkingDir, func(m *matcher) bool { return m.need.OuterDir != "" },
			func(m *matcher) string {
				return fmt.Sprintf("it runs plain processes, and the `working_dir` %s is a folder of a container", m.need.OuterDir)
			}),
		containerConstraint(dstack.ConstraintFiles, func(m *matcher) bool { return m.need.OuterPath != "" },
			func(m *matcher) string {
				return fmt.Sprintf("it runs plain processes, which have no files outside of their folder, and %s is outside", m.need.OuterPath)
			}),
	}
}

// containerConstraint is a constraint that only machines with containers satisfy.
func containerConstraint(name dstack.Constraint, applies func(m *matcher) bool, reason func(m *matcher) string) constraint {
	return constraint{name: name, applies: applies,
		fails: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) bool { return !o.Engine.Containers },
		explain: func(m *matcher, _ *dstack.Offer, _ *dstack.Allocation) explanation {
			return explanation{wanted: "containers", has: "plain processes", reason: reason(m), help: installDocker}
		},
	}
}
