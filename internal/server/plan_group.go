package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// groupPlan is the plan of a group of replicas: where they can be placed.
type groupPlan struct {
	name         string
	spec         dstack.RunSpec     // as the replicas run it
	limit        int                // how many offers of each cloud are looked for; 0: maxPreviewPlacements
	placements   []dstack.Placement // the first ones, best first
	unavailable  []dstack.Placement // machines to rent that would suit if they could be had
	rejections   []dstack.Rejection // some, the nearest to suit first
	totals       api.Totals
	advice       string // what to do if there is no placement; empty: unknown
	portConflict string // why the replicas cannot share their machines' ports; empty: they can
	mustRecreate bool   // no machine has capacity for a new replica beside the existing ones
	hasMachines  bool   // there is any machine
	notes        []string
	failed       []string    // notes about backends that did not answer
	pin          *dstack.Pin // the machines that have its volumes; nil: it mounts none
}

// The most offers that a plan lists. It counts them all.
const (
	maxPlanPlacements = 1000
	maxPlanRejections = 100
)

// placeGroup finds placements for a group. existing is the unfinished run with the name of the
// plan; nil: none.
func (s *Server) placeGroup(c *apiCall, g *groupPlan, existing *store.RunDetails, used map[dstack.InstanceID]dstack.Allocation) error {
	need := job.BuildRequirements(g.spec)
	need.IsGlobalAdmin, need.Pin = c.isGlobalAdmin(), g.pin
	offers, more, failed := s.collectOffers(c.ctx, c.project, need, cmp.Or(g.limit, maxPreviewPlacements))
	room, full, err := s.collectFleetRoom(c, need, &more)
	if err != nil {
		return err
	}
	offers = append(offers, room...)
	unusable := append(full, s.backends.ListUnusable(c.ctx, c.project)...)
	g.hasMachines, g.failed = len(offers) > 0 || len(unusable) > 0, failed
	offers, left, err := s.addRented(c, existing, offers)
	if err != nil {
		return err
	}
	if existing != nil {
		need.Run = existing.Run.ID
		g.mustRecreate = placement.Rank(need, offers, used).Suitable() == 0
		used = placement.ReleaseAllocations(used, existing.Replicas)
	}
	left = placement.MergeRefused(left)
	ranking := placement.Rank(need, offers, used)
	ranking.MergeZones()
	g.placements, g.rejections = ranking.Placements(maxPlanPlacements), ranking.Rejections(maxPlanRejections)
	g.unavailable = ranking.Unavailable(maxPlanRejections)
	g.rejections = slices.Concat(g.rejections, left[:min(len(left), maxPlanRejections)], unusable)
	g.totals = api.Totals{Placements: ranking.Suitable() + more.Suitable, Rejections: ranking.Rejected() + len(left) + len(unusable) + more.Unsuited,
		HighestPrice: max(ranking.HighestPrice(), more.HighestPrice)}
	if len(g.placements) == 0 {
		g.advice = cmp.Or(placement.AdviseRefused(need, left), placement.Advise(need, offers, used))
	}
	return nil
}

// OfferLimiter returns the offers that did not fail lately and that a project may rent, and why the others are left out. run
// is the run that they are for; empty: none yet.
type OfferLimiter func(
	ctx context.Context, project dstack.ProjectID, run dstack.RunID, offers []dstack.Offer,
) (allowed []dstack.Offer, rejected []dstack.Rejection, err error)

func allowOffers(
	_ context.Context, _ dstack.ProjectID, _ dstack.RunID, offers []dstack.Offer,
) (allowed []dstack.Offer, rejected []dstack.Rejection, err error) {
	return offers, nil, nil
}

// addRented adds the rented machines of the project that run nothing to the offers of its backends. left says why offers
// are left out: they failed lately, or nothing may be rented.
func (s *Server) addRented(c *apiCall, existing *store.RunDetails, offers []dstack.Offer) (all []dstack.Offer, left []dstack.Rejection, err error) {
	idle, err := s.store.IdleInstances(c.ctx, c.project.ID)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range idle {
		all = append(all, placement.NewIdleOffer(i))
	}
	var run dstack.RunID
	if existing != nil {
		run = existing.Run.ID
	}
	return s.limitOffers(c.ctx, c.project.ID, run, append(all, offers...))
}

// countSharedPorts returns how many replicas listen on the port of the configuration at once: of
// all groups that do not let it be chosen for them.
func countSharedPorts(rs dstack.RunSpec) (replicas int) {
	for _, name := range rs.Configuration.GroupNames() {
		if group, _ := rs.ForGroup(name); !job.MayChoosePort(group) {
			replicas += group.Configuration.Replicas.Min
		}
	}
	return max(replicas, 1)
}

// rejectSharedPorts rejects all placements of a group if more replicas share the port than there
// are machines, and plain processes would run on them: they share the ports of their machine, so
// a machine takes only one replica.
func (g *groupPlan) rejectSharedPorts(replicas int) {
	if len(g.placements) >= replicas || len(g.placements) == 0 || job.MayChoosePort(g.spec) {
		return
	}
	for _, one := range g.placements {
		if !one.Offer.Engine.SharesPorts {
			return
		}
	}
	g.portConflict = fmt.Sprintf("%d replicas want port %d on one machine: plain processes share its ports",
		replicas, g.spec.Configuration.Port.Container)
	for _, one := range g.placements {
		g.rejections = append(g.rejections, dstack.Rejection{Offer: one.Offer, Constraint: dstack.ConstraintSharedPort, Reason: g.portConflict,
			Edits: []dstack.Edit{{Field: "port", Value: "auto"}}, Help: "write port: auto"})
	}
	g.placements = nil
	g.totals = api.Totals{Rejections: g.totals.Placements + g.totals.Rejections}
	g.advice = sharedPortAdvice
}

const sharedPortAdvice = "let dstack choose the ports with port: auto, use one replica, or Docker"

const noMachines = "no machine is configured for this project"

// buildNotes lists what the user should know before applying a plan.
func (g *groupPlan) buildNotes() []string {
	notes := []string{}
	switch {
	case !g.hasMachines && len(g.failed) > 0: // the notes of these backends say why
		return notes
	case !g.hasMachines:
		return append(notes, noMachines)
	}
	if len(g.placements) == 0 || g.placements[0].Offer.Engine.Containers {
		return notes
	}
	conf := g.spec.Configuration
	notes = append(notes, "plain processes: commands run on the machine itself, without a container around them; "+
		"a program that listens on all addresses is open to the network")
	if g.placements[0].Offer.Engine.ShowsServer {
		notes = append(notes, "plain processes: this machine cannot hide the server's folder from the commands, with its "+
			"database and keys")
	}
	if conf.Replicas.Max > len(g.placements) && conf.Replicas.Max > 1 && !job.MayChoosePort(g.spec) {
		notes = append(notes, fmt.Sprintf("replicas: plain processes share a machine's ports, so only %d of %s can run at once",
			len(g.placements), conf.Replicas))
	}
	if conf.Python != "" {
		notes = append(notes, fmt.Sprintf("python %s: plain processes use the machine's own Python", conf.Python))
	}
	if conf.NVCC != nil && *conf.NVCC {
		notes = append(notes, "nvcc: plain processes use the CUDA tools of the machine")
	}
	if conf.Resources.ShmSize != nil {
		notes = append(notes, "resources.shm_size: plain processes use the shared memory of the machine")
	}
	return notes
}

// joinNotes returns the notes of all groups, each once. A note that concerns only some groups
// names them.
func joinNotes(groups []groupPlan) []string {
	joined := []string{}
	for _, g := range groups {
		for _, note := range g.notes {
			var names []string
			for _, other := range groups {
				if slices.Contains(other.notes, note) {
					names = append(names, other.name)
				}
			}
			if len(names) < len(groups) {
				note = "group " + strings.Join(names, ", ") + ": " + note
			}
			if !slices.Contains(joined, note) {
				joined = append(joined, note)
			}
		}
	}
	return joined
}

// maxPreviewPlacements is how many offers a preview lists, unless the caller asks for another number.
const maxPreviewPlacements = 100

// preview returns the plan as the command line shows it, with at most limit placements.
func (g *groupPlan) preview(limit int) api.GroupPreview {
	conf := g.spec.Configuration
	preview := api.GroupPreview{Group: g.name, Min: conf.Replicas.Min, Max: conf.Replicas.Max, Resources: conf.Resources.String(),
		Placements: []api.Placement{}, Rejections: []api.Rejection{}, Advice: g.advice, Totals: g.totals}
	for _, one := range g.placements[:min(limit, len(g.placements))] {
		offer := v018.BuildOffer(one)
		offer.Backend = one.Offer.Backend // published clients call ssh remote
		preview.Placements = append(preview.Placements, api.Placement{Offer: offer, Free: one.Free, PriceSource: one.Offer.PriceSource})
	}
	for _, one := range g.rejections {
		offer := v018.BuildOffer(dstack.Placement{Offer: one.Offer})
		offer.Backend, offer.Availability = one.Offer.Backend, "not_available"
		preview.Rejections = append(preview.Rejections, api.Rejection{Offer: offer, Reason: one.Reason, Constraint: string(one.Constraint),
			Wanted: one.Wanted, Has: one.Has, Edits: one.Edits, WaitsFor: one.WaitsFor, Help: one.Help})
	}
	return preview
}

// checkCapacity returns an error if a group that may have replicas has no placement, unless the
// configuration lets the run wait for capacity.
func (p runPlan) checkCapacity() error {
	for _, g := range p.groups {
		if len(p.groups) > 1 && g.spec.Configuration.Replicas.Max == 0 {
			continue
		}
		if err := g.checkCapacity(p); err != nil {
			return err
		}
	}
	return nil
}

// maxNamedRejections is how many rejections an error names.
const maxNamedRejections = 5

func (g *groupPlan) checkCapacity(p runPlan) error {
	prefix := ""
	if len(p.spec.Configuration.Groups) > 0 {
		prefix = "group " + g.name + ": "
	}
	if len(g.placements) > 0 {
		return nil
	}
	if g.portConflict != "" {
		return &dstack.Error{Kind: dstack.Invalid, Message: prefix + g.portConflict,
			Hint: sharedPortAdvice}
	}
	if slices.ContainsFunc(g.rejections, placement.IsForGlobalAdmins) {
		return newProcessForbiddenError()
	}
	events, _ := spec.Merge(p.spec.Configuration, p.spec.Profile).RetryRule()
	if slices.Contains(events, spec.EventNoCapacity) {
		return nil
	}
	reasons := make([]string, 0, len(g.rejections)+len(p.notes))
	for _, one := range g.rejections[:min(len(g.rejections), maxNamedRejections)] {
		reasons = append(reasons, one.Offer.Type+": "+one.String())
	}
	if more := g.totals.Rejections - len(reasons); more > 0 && len(reasons) > 0 {
		reasons = append(reasons, fmt.Sprintf("%d more", more))
	}
	if len(reasons) == 0 {
		reasons = p.notes
	}
	return &dstack.Error{Kind: dstack.NoCapacity, Message: prefix + "no machine suits: " + strings.Join(reasons, " · "),
		Hint: g.advice}
}
