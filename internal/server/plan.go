package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// runPlan is what a run would need and where it could go.
type runPlan struct {
	spec         dstack.RunSpec
	name         string // empty: one will be made up
	placements   []dstack.Placement
	rejections   []dstack.Rejection
	notes        []string
	existing     *store.RunDetails // the unfinished run of this name
	mustRecreate bool              // no machine has room for it beside what runs of it
}

// planRun checks a run and looks for machines. A backend that does not answer
// is a note, never an error.
func (s *Server) planRun(c *request, rs dstack.RunSpec) (runPlan, error) {
	p := runPlan{spec: rs, name: findRunName(rs)}
	if err := checkSpec(rs, p.name); err != nil {
		return p, err
	}
	if err := s.findExisting(c, &p); err != nil {
		return p, err
	}
	template, templateNotes, err := s.resolveTemplate(c.ctx, rs.Configuration)
	if err != nil {
		return p, err
	}
	p.spec.Template = template
	used, err := s.store.Allocations(c.ctx, c.project.ID)
	if err != nil {
		return p, err
	}
	offers, failed := s.collectOffers(c.ctx, c.project.Name, job.BuildRequirements(rs))
	if p.existing != nil {
		beside, _ := placement.RankOffers(job.BuildRequirements(rs), offers, used)
		p.mustRecreate = len(beside) == 0
		used = placement.ReleaseAllocations(used, p.existing.Replicas)
	}
	places, misfits := placement.RankOffers(job.BuildRequirements(rs), offers, used)
	p.placements, p.rejections = limitSharedPorts(places, misfits, max(rs.Configuration.Replicas.Min, 1), rs.Configuration.Port.Container)
	p.notes = append(append(buildNotes(p, offers), failed...), templateNotes...)
	return p, nil
}

func findRunName(rs dstack.RunSpec) string {
	if rs.RunName != nil && *rs.RunName != "" {
		return *rs.RunName
	}
	return string(rs.Configuration.Name)
}

// checkSpec finds what no machine could change.
func checkSpec(rs dstack.RunSpec, name string) error {
	if name != "" {
		if err := spec.CheckName(name); err != nil {
			return wire.Error{Msg: referenceNameError(name), Err: toInvalidError(err)}
		}
	}
	if problems := spec.Unsupported(&rs.Configuration, rs.Profile); len(problems) > 0 {
		return newUnsupportedError(problems)
	}
	if err := checkRepoType(rs.RepoData); err != nil {
		return err
	}
	var open []string
	for _, v := range rs.Configuration.Env {
		if v.Open {
			open = append(open, v.Name)
		}
	}
	if len(open) > 0 {
		return wire.Error{Msg: "not all variables are resolved: " + strings.Join(open, ", "), Err: &dstack.Error{Kind: dstack.Invalid,
			Message: "these environment variables have no value: " + strings.Join(open, ", "),
			Hint:    "set them where you apply, or give them with -e NAME=VALUE"}}
	}
	return nil
}

// referenceNameError is what the reference says of a name, where it would refuse it too.
func referenceNameError(name string) string {
	if name == "gateway" {
		return ""
	}
	return "Resource name should match regex '^[a-z][a-z0-9-]{1,40}$'"
}

func toInvalidError(err error) error {
	if p, ok := errors.AsType[spec.Problem](err); ok {
		return &dstack.Error{Kind: dstack.Invalid, Message: p.Message, Hint: p.Hint}
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: err.Error()}
}

// newUnsupportedError tells of everything that nothing acts on yet, at once.
func newUnsupportedError(problems spec.Problems) error {
	const prefix = "not supported yet: "
	said := make([]string, 0, len(problems))
	hint := ""
	for _, p := range problems {
		said = append(said, strings.TrimPrefix(p.Message, prefix))
		if hint == "" {
			hint = p.Hint
		}
	}
	if hint == "" {
		hint = "leave this out for now"
	}
	return &dstack.Error{Kind: dstack.Unsupported, Message: prefix + strings.Join(said, ", "), Hint: hint}
}

func (s *Server) findExisting(c *request, p *runPlan) error {
	if p.name == "" {
		return nil
	}
	run, err := s.store.Run(c.ctx, c.project.ID, p.name)
	if dstack.KindOf(err) == dstack.NotFound || err == nil && run.Status.IsFinished() {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := s.store.RunDetails(c.ctx, run.ID)
	if err == nil && len(found) == 1 {
		p.existing = &found[0]
	}
	return err
}

// limitSharedPorts finds the machines on which the replicas would be in each other's
// way: plain processes share the ports of their machine, so each such machine
// takes one replica.
func limitSharedPorts(places []dstack.Placement, misfits []dstack.Rejection, replicas, port int) ([]dstack.Placement, []dstack.Rejection) {
	room := 0
	for _, p := range places {
		if !p.Offer.Engine.SharesPorts {
			return places, misfits
		}
		room++
	}
	if room >= replicas || room == 0 {
		return places, misfits
	}
	for _, p := range places {
		misfits = append(misfits, dstack.Rejection{Offer: p.Offer, Reason: sharedPortReason(replicas, port)})
	}
	return nil, misfits
}

func sharedPortReason(replicas, port int) string {
	return fmt.Sprintf("%d replicas want port %d on one machine: plain processes share its ports", replicas, port)
}

// collectOffers asks all backends of a project at once.
func (s *Server) collectOffers(ctx context.Context, project string, need dstack.Requirements) (all []dstack.Offer, failed []string) {
	all, silent := s.backends.Offers(ctx, project, need)
	for _, b := range silent {
		s.log.Warn("a backend did not answer", "backend", b.Key, "err", b.Err)
		failed = append(failed, fmt.Sprintf("the backend %s did not answer: %s", b.Key, b.Err))
	}
	return all, failed
}

// buildNotes is what a person should know before saying yes.
func buildNotes(p runPlan, offers []dstack.Offer) []string {
	notes := []string{}
	if len(offers) == 0 {
		return append(notes, "no machine is configured for this project")
	}
	if len(p.placements) == 0 || p.placements[0].Offer.Engine.Containers {
		return notes
	}
	conf := p.spec.Configuration
	notes = append(notes, "plain processes: commands run on the machine itself, without a container around them")
	if conf.Replicas.Max > len(p.placements) && conf.Replicas.Max > 1 {
		notes = append(notes, fmt.Sprintf("replicas: plain processes share a machine's ports, so only %d of %s can run at once", len(p.placements), conf.Replicas))
	}
	if conf.Python != "" {
		notes = append(notes, fmt.Sprintf("python %s: plain processes use the machine's own Python", conf.Python))
	}
	if conf.NVCC != nil && *conf.NVCC {
		notes = append(notes, "nvcc: plain processes use what the machine has")
	}
	if conf.Resources.ShmSize != nil {
		notes = append(notes, "resources.shm_size: plain processes have the machine's own shared memory")
	}
	return notes
}

// getPlan answers as the reference. The run comes back as it was given, for
// that is what its client submits then.
func (s *Server) getPlan(c *request, in api.RunSpecRequest) (api.RunPlan, error) {
	p, err := s.planRun(c, in.RunSpec)
	if err != nil {
		return api.RunPlan{}, err
	}
	return p.toWire(c), nil
}

func (p runPlan) toWire(c *request) api.RunPlan {
	return wire.BuildPlan(c.project.Name, c.user.Name, p.spec, p.placements)
}

// previewRun is a plan with what a person wants to know. It changes nothing,
// and having no machine is not an error of it.
func (s *Server) previewRun(c *request, in api.RunSpecRequest) (api.Preview, error) {
	p, err := s.planRun(c, in.RunSpec)
	if err != nil {
		return api.Preview{}, err
	}
	show := api.Preview{Plan: p.toWire(c), Placements: []api.Placement{}, Rejections: []api.Rejection{}, Notes: p.notes, Changes: []api.Change{}}
	for _, place := range p.placements {
		show.Placements = append(show.Placements, api.Placement{Offer: wire.BuildOffer(place), Free: place.Free})
	}
	for _, m := range p.rejections {
		offer := wire.BuildOffer(dstack.Placement{Offer: m.Offer})
		offer.Availability = "not_available"
		show.Rejections = append(show.Rejections, api.Rejection{Offer: offer, Reason: m.Reason})
	}
	if p.existing != nil {
		view := buildRunView(*p.existing, s.urls)
		show.Existing = &view
		show.Changes = p.listChanges()
		show.Strategy = overallStrategy(show.Changes)
	}
	if p.name != "" {
		show.URL = s.urls.serviceURL(c.project.Name, p.name) + "/"
	}
	if p.spec.Configuration.Model != nil {
		show.ModelURL = s.urls.modelsURL(c.project.Name)
	}
	return show, nil
}

func codeHashOf(rs dstack.RunSpec) string {
	if rs.RepoCodeHash == nil {
		return ""
	}
	return *rs.RepoCodeHash
}

func shortHash(hash string) string {
	if len(hash) > 8 {
		return hash[:8]
	}
	return hash
}

// checkCapacity says whether a run may be accepted: somewhere it fits, or it was told
// to wait for room.
func (p runPlan) checkCapacity() error {
	if len(p.placements) > 0 {
		return nil
	}
	conf := p.spec.Configuration
	for _, m := range p.rejections {
		if m.Reason == sharedPortReason(conf.Replicas.Min, conf.Port.Container) {
			return &dstack.Error{Kind: dstack.Invalid, Message: m.Reason,
				Hint: "ask for one replica, or run it where Docker is: engine: docker in the server's config.yml"}
		}
	}
	events, _ := spec.Merge(conf, p.spec.Profile).RetryRule()
	if slices.Contains(events, spec.EventNoCapacity) {
		return nil
	}
	said := make([]string, 0, len(p.rejections)+len(p.notes))
	for _, m := range p.rejections {
		said = append(said, m.Offer.Type+": "+m.Reason)
	}
	if len(said) == 0 {
		said = p.notes
	}
	return &dstack.Error{Kind: dstack.NoCapacity, Message: "no machine suits: " + strings.Join(said, " · "),
		Hint: "ask for less, or add retry: {on_events: [no-capacity]} to wait for room"}
}
