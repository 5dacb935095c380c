package placement

import (
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// matcher checks offers for the constraints of one replica.
type matcher struct {
	need        dstack.Requirements
	gpus        *gpuMatcher // nil: no GPU is asked for
	constraints []constraint
	hardware    int // how many of constraints do not depend on what others hold of a machine
	volumeUse   volumeUse
}

// constraint is one of the constraints that every offer is checked for.
type constraint struct {
	name    dstack.Constraint
	applies func(m *matcher) bool // whether any offer can fail it; nil: always
	fails   func(m *matcher, o *dstack.Offer, held *dstack.Allocation) bool
	explain func(m *matcher, o *dstack.Offer, held *dstack.Allocation) explanation
	// isForScheduler says that the scheduler of a cluster checks it where it chooses the node: see
	// dstack.Offer.AnyNode.
	isForScheduler bool
	isForShared    bool // only an existing machine that replicas share can fail it, so others need no check
}

// rejects reports whether an offer fails the constraint.
func (c *constraint) rejects(m *matcher, o *dstack.Offer, held *dstack.Allocation) bool {
	return (!c.isForScheduler || !o.AnyNode) && c.fails(m, o, held)
}

// leaveToScheduler marks constraints that the scheduler of a cluster checks.
func leaveToScheduler(constraints ...constraint) []constraint {
	for i := range constraints {
		constraints[i].isForScheduler = true
	}
	return constraints
}

// explanation says why an offer fails a constraint, and what helps.
type explanation struct {
	wanted, has string
	reason      string   // both in words
	edit        *edit    // after which the offer satisfies the constraint; nil: no change of the configuration helps
	waitsFor    []string // who holds what is missing
	help        string   // what else helps, for the user; empty: nothing
}

// edit is a change of the configuration, and what it does to the requirements.
type edit struct {
	field, value string
	relax        func(need *dstack.Requirements)
}

// fixedConstraints is every constraint but what others leave of a machine, which is checked last. They are in the order in
// which offers are checked: what the user excludes, what the machine is, and what it has.
func (m *matcher) fixedConstraints() []constraint {
	all := filterConstraints()
	all = append(all, machineConstraints()...)
	all = append(all, mountConstraints()...)
	all = append(all, leaveToScheduler(m.sizeConstraints()...)...)
	return append(all, gpuConstraint())
}

func newMatcher(need dstack.Requirements) *matcher {
	m := &matcher{need: need, gpus: newGPUMatcher(need.Resources.GPU)}
	m.addConstraints(m.fixedConstraints())
	m.hardware = len(m.constraints)
	m.addConstraints(append(leaveToScheduler(m.freeConstraints()...), availabilityConstraint()))
	return m
}

func (m *matcher) addConstraints(all []constraint) {
	for _, c := range all {
		if c.applies == nil || c.applies(m) {
			m.constraints = append(m.constraints, c)
		}
	}
}

// isOnlyTooDear reports whether an offer that fails the highest price satisfies all that is checked after that.
func (m *matcher) isOnlyTooDear(o *dstack.Offer, held *dstack.Allocation, first int) bool {
	for i := first + 1; i < len(m.constraints); i++ {
		if m.constraints[i].rejects(m, o, held) {
			return false
		}
	}
	return true
}

// findFailure returns the first constraint that an offer fails, as an index of
// m.constraints; -1: it suits.
func (m *matcher) findFailure(o *dstack.Offer, held *dstack.Allocation) int {
	isShared := o.IsShared()
	for i := range m.constraints {
		c := &m.constraints[i]
		if (isShared || !c.isForShared) && c.rejects(m, o, held) {
			return i
		}
	}
	return -1
}

// explain returns the rejection of an offer whose first failed constraint is known. What
// helps covers the later constraints that the offer fails, too.
func (m *matcher) explain(o *dstack.Offer, held *dstack.Allocation, first int) dstack.Rejection {
	why := m.constraints[first].explain(m, o, held)
	r := dstack.Rejection{Offer: *o, Constraint: m.constraints[first].name, Wanted: why.wanted, Has: why.has, Reason: why.reason}
	relaxed, ignored := m, map[dstack.Constraint]bool{}
	for range 2 * len(m.constraints) { // each round satisfies or ignores one
		switch {
		case why.edit != nil:
			need := relaxed.need
			why.edit.relax(&need)
			relaxed = newMatcher(need)
			relaxed.volumeUse = m.volumeUse
			r.Edits = setEdit(r.Edits, dstack.Edit{Field: why.edit.field, Value: why.edit.value})
		case len(why.waitsFor) > 0:
			r.WaitsFor = appendNew(r.WaitsFor, why.waitsFor)
			ignored[relaxed.constraints[first].name] = true
		default: // nothing that is known here makes it suit
			r.Edits, r.WaitsFor, r.Help = nil, nil, why.help
			return r
		}
		first = slices.IndexFunc(relaxed.constraints, func(c constraint) bool { return !ignored[c.name] && c.rejects(relaxed, o, held) })
		if first < 0 {
			break
		}
		why = relaxed.constraints[first].explain(relaxed, o, held)
	}
	r.Help = describeHelp(r.Edits, r.WaitsFor)
	return r
}

// setEdit adds an edit to a list that has one edit for each field.
func setEdit(edits []dstack.Edit, e dstack.Edit) []dstack.Edit {
	for i := range edits {
		if edits[i].Field == e.Field {
			edits[i] = e
			return edits
		}
	}
	return append(edits, e)
}

// appendNew appends the names that are not in a list yet.
func appendNew(list, names []string) []string {
	for _, name := range names {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// maxNamedHolders is how many holders a text names.
const maxNamedHolders = 3

// describeHelp says which changes make an offer suit, and for whom it has to wait.
func describeHelp(edits []dstack.Edit, waitsFor []string) string {
	var written, removed []string
	for _, e := range edits {
		field := strings.TrimPrefix(e.Field, "resources.")
		if e.Value == "" {
			removed = append(removed, field)
		} else {
			written = append(written, field+": "+e.Value)
		}
	}
	var parts []string
	if len(written) > 0 {
		parts = append(parts, "write "+strings.Join(written, " and "))
	}
	if len(removed) > 0 {
		parts = append(parts, "remove "+strings.Join(removed, " and "))
	}
	help := strings.Join(parts, " and ")
	if len(waitsFor) == 0 {
		return help
	}
	waits := "waits for " + strings.Join(waitsFor[:min(len(waitsFor), maxNamedHolders)], ", ")
	if len(waitsFor) > maxNamedHolders {
		waits += " and others"
	}
	if help == "" {
		return waits
	}
	return help + ", then it " + waits
}
