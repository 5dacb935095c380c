package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/backend"
	"dstack/internal/decide/job"
	"dstack/internal/decide/placement"
	"dstack/internal/decide/volume"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// runPlan is the plan of a run: where its replicas can be placed, and what the
// user should know.
type runPlan struct {
	spec     dstack.RunSpec
	name     string      // empty: one will be generated
	groups   []groupPlan // in the order of the configuration; one for a service without groups
	notes    []string
	existing *store.RunDetails // the unfinished run with the same name; nil: none
}

// planRun checks a spec and finds placements for it. A backend that does not
// answer gives a note, not an error.
func (s *Server) planRun(c *apiCall, rs dstack.RunSpec) (runPlan, error) {
	if rs.Profile.PoolName == api.DefaultPool { // the 0.18.10 client submits what getPlan returned
		rs.Profile.PoolName = ""
	}
	p := runPlan{spec: rs, name: findRunName(rs)}
	if err := checkSpec(rs, p.name); err != nil {
		return p, err
	}
	if err := s.checkServiceGateway(c, rs.Configuration.Gateway); err != nil {
		return p, err
	}
	template, templateNotes, err := s.resolveTemplate(c.ctx, rs.Configuration)
	if err != nil {
		return p, err
	}
	p.spec.Template = template
	if err := s.store.PinSecrets(c.ctx, c.project.ID, &p.spec); err != nil {
		return p, err
	}
	if err := s.findArchives(c, &p.spec); err != nil {
		return p, err
	}
	if err := s.fetchCheckout(c, &p.spec); err != nil {
		return p, err
	}
	used, err := s.store.Allocations(c.ctx, c.project.ID)
	if err != nil {
		return p, err
	}
	if err := s.findExisting(c, &p); err != nil { // after Allocations: its replicas include all that hold something there
		return p, err
	}
	volumes, err := s.readMountedVolumes(c, p.spec.Configuration)
	if err != nil {
		return p, err
	}
	shared := countSharedPorts(p.spec)
	for _, name := range p.spec.Configuration.GroupNames() {
		group := groupPlan{name: name}
		group.spec, _ = p.spec.ForGroup(name)
		group.pin = volume.FindPlannedPin(group.spec.Configuration, volumes)
		if err := s.placeGroup(c, &group, p.existing, used); err != nil {
			return p, err
		}
		group.rejectSharedPorts(shared)
		group.notes = append(group.buildNotes(), group.failed...)
		p.groups = append(p.groups, group)
	}
	p.notes = append(joinNotes(p.groups), templateNotes...)
	p.notes = append(p.notes, volume.Notes(p.spec.Configuration, volumes)...)
	if check, ok := job.ModelCheckOf(rs.Configuration); ok {
		p.notes = append(p.notes, check.Describe())
	}
	p.notes = append(p.notes, s.describeImages(c.ctx, c.project.ID, p.groups)...)
	return p, nil
}

func findRunName(rs dstack.RunSpec) string {
	if rs.RunName != nil && *rs.RunName != "" {
		return *rs.RunName
	}
	return string(rs.Configuration.Name)
}

// checkSpec returns an error if a spec can run on no machine: an invalid name,
// unsupported fields, commands and variables that no process can be started with,
// references that nothing replaces, an unknown repo type, or variables without a
// value.
func checkSpec(rs dstack.RunSpec, name string) error {
	if name != "" {
		if err := spec.CheckName(name); err != nil {
			return wire.Error{Msg: formatNameError(name), Err: toInvalidError(err)}
		}
	}
	if problems := spec.Unsupported(&rs.Configuration, rs.Profile); len(problems) > 0 {
		return newUnsupportedError(problems)
	}
	if problems := rs.Configuration.LaunchProblems(); len(problems) > 0 {
		return newLaunchError(problems)
	}
	if problems := spec.CheckReferences(&rs.Configuration, rs.Profile); len(problems) > 0 {
		return newProblemsError(problems)
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
	if message, hint, ok := spec.CheckPortVariable(rs.Configuration); !ok {
		return &dstack.Error{Kind: dstack.Invalid, Message: message, Hint: hint}
	}
	if len(open) > 0 {
		names := strings.Join(open, ", ")
		return wire.Error{Msg: "not all variables are resolved: " + names, Err: &dstack.Error{Kind: dstack.Invalid,
			Message: "these environment variables have no value: " + names,
			Hint:    "set them in the environment of dstack apply, or with -e NAME=VALUE"}}
	}
	return nil
}

// formatNameError returns the message of 0.18.10 for an invalid name. It is
// empty for the name gateway, which 0.18.10 accepts.
func formatNameError(name string) string {
	if name == "gateway" {
		return ""
	}
	return "Resource name should match regex '^[a-z][a-z0-9-]{1,40}$'"
}

// toInvalidError turns a spec.Problem, or any other error, into an error of
// kind Invalid.
func toInvalidError(err error) error {
	if p, ok := errors.AsType[spec.Problem](err); ok {
		return &dstack.Error{Kind: dstack.Invalid, Message: p.Message, Hint: p.Hint}
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: err.Error()}
}

// newProblemsError returns one error for all problems of a configuration,
// with their places.
func newProblemsError(problems spec.Problems) error {
	texts := make([]string, 0, len(problems))
	for _, p := range problems {
		texts = append(texts, p.Path+": "+p.Message)
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: strings.Join(texts, "; "), Hint: problems[0].Hint}
}

// newUnsupportedError returns one error for all unsupported features of a spec.
func newUnsupportedError(problems spec.Problems) error {
	const prefix = "not supported yet: "
	features := make([]string, 0, len(problems))
	hint := ""
	for _, p := range problems {
		features = append(features, strings.TrimPrefix(p.Message, prefix))
		if hint == "" {
			hint = p.Hint
		}
	}
	if hint == "" {
		hint = "remove it for now"
	}
	return &dstack.Error{Kind: dstack.Unsupported, Message: prefix + strings.Join(features, ", "), Hint: hint}
}

// newLaunchError returns one error for all commands and variables that no process can be
// started with.
func newLaunchError(problems spec.Problems) error {
	messages := make([]string, 0, len(problems))
	for _, p := range problems {
		messages = append(messages, p.Message)
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: strings.Join(messages, "; "), Hint: problems[0].Hint}
}

// findExisting sets p.existing to the unfinished run with the name of the plan.
func (s *Server) findExisting(c *apiCall, p *runPlan) error {
	if p.name == "" {
		return nil
	}
	found, err := s.store.NamedRunDetails(c.ctx, c.project.ID, p.name)
	if dstack.KindOf(err) == dstack.NotFound || err == nil && found.Run.Status.IsFinished() {
		return nil
	}
	if err == nil {
		p.existing = &found
	}
	return err
}

// collectOffers returns the offers of all backends of a project, of those of a cloud at most limit, how many more there are,
// and notes: for each backend that did not answer, and of those that did.
func (s *Server) collectOffers(
	ctx context.Context, project dstack.Project, need dstack.Requirements, limit int,
) (all []dstack.Offer, more backend.MoreOffers, notes []string) {
	need.Project = project.ID
	found := s.backends.Offers(ctx, project.Name, need, limit)
	for _, b := range found.Unanswered {
		if skipped, ok := s.unanswered.Admit(b.Key, b.Err.Error(), time.Now()); ok {
			s.log.Warn("a backend did not answer", "backend", b.Key, "err", b.Err, "not_logged", skipped)
		}
		notes = append(notes, describeUnanswered(b))
	}
	for _, b := range found.Missing {
		notes = append(notes, describeMissing(b))
	}
	return found.Offers, found.More, append(notes, found.Notes...)
}

// describeUnanswered says why a backend has no offers, and what to do about it.
func describeUnanswered(b backend.UnansweredBackend) string {
	known, ok := errors.AsType[*dstack.Error](b.Err)
	if !ok || known.Hint == "" {
		return fmt.Sprintf("the backend %s did not answer: %s", b.Key, b.Err)
	}
	return fmt.Sprintf("the backend %s cannot be used: %s (%s)", b.Key, known.Message, known.Hint)
}

// describeMissing says why a region of a backend has no offers, and what to do about it.
func describeMissing(b backend.UnansweredBackend) string {
	if known, ok := errors.AsType[*dstack.Error](b.Err); ok && known.Hint != "" {
		return fmt.Sprintf("a region of the backend %s cannot be used: %s (%s)", b.Key, known.Message, known.Hint)
	}
	return fmt.Sprintf("a region of the backend %s cannot be used: %s", b.Key, b.Err)
}

// getPlan returns the plan of a run.
func (s *Server) getPlan(c *apiCall, in api.RunSpecRequest) (wire.PlanAnswer, error) {
	p, err := s.planRun(c, in.RunSpec)
	if err != nil {
		return wire.PlanAnswer{}, err
	}
	return s.answerPlan(c, p), nil
}

func (s *Server) answerPlan(c *apiCall, p runPlan) wire.PlanAnswer {
	answer := wire.PlanAnswer{Project: c.project.Name, User: c.user.Name, Spec: p.spec}
	for _, g := range p.groups {
		answer.Groups = append(answer.Groups, wire.GroupPlan{Group: g.name, Spec: g.spec, Placements: slices.Concat(g.placements, g.unavailable),
			Total: g.totals.Placements + len(g.unavailable), HighestPrice: g.totals.HighestPrice})
	}
	if p.existing != nil {
		existing := s.answerRun(c, *p.existing)
		answer.Existing = &existing
	}
	return answer
}

// previewRun returns the plan of a run with everything that the user is shown
// before applying it. It is no error if no machine fits.
func (s *Server) previewRun(c *apiCall, in api.RunSpecRequest) (api.Preview, error) {
	p, err := s.planRun(c, in.RunSpec)
	if err != nil {
		return api.Preview{}, err
	}
	preview := api.Preview{Plan: v018.BuildPlan(s.answerPlan(c, p)), Notes: p.notes, Changes: []api.Change{}}
	for i, g := range p.groups {
		group := g.preview(maxPreviewPlacements)
		if i == 0 {
			preview.Placements, preview.Rejections, preview.Advice, preview.Totals = group.Placements, group.Rejections, group.Advice, group.Totals
		}
		if len(p.spec.Configuration.Groups) > 0 {
			preview.Groups = append(preview.Groups, group)
		}
	}
	urls := s.urlsFor(c)
	if p.existing != nil {
		view := buildRunView(*p.existing, urls)
		preview.Existing = &view
		preview.Changes = p.listChanges()
		preview.Strategy = combineStrategies(preview.Changes)
	}
	if p.name != "" {
		preview.Publication = buildPublication(urls, c.project.Name, p.name, p.spec.Configuration)
		if at := preview.Publication; at != nil && !p.spec.Configuration.HTTPS && strings.HasPrefix(at.URL, "https:") {
			preview.Notes = append(slices.Clone(preview.Notes), "https: false has no effect: the gateway "+at.Gateway+" serves all names with TLS; certificate: null in its configuration turns that off")
		}
		preview.URL = urls.Run(c.project.Name, p.name, string(p.spec.Configuration.Gateway))
	}
	if p.spec.Configuration.Model != nil {
		preview.ModelURL = urls.Models(c.project.Name, string(p.spec.Configuration.Gateway))
	}
	return preview, nil
}

func codeHash(rs dstack.RunSpec) string {
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

// newProcessForbiddenError returns the error for a user who may not run plain processes,
// where no machine has containers.
func newProcessForbiddenError() error {
	return &dstack.Error{Kind: dstack.Forbidden,
		Message: "only global admins may run services as plain processes: they have the rights of the server's own user",
		Hint:    placement.AdviceForGlobalAdmins}
}

// checkMayPlace returns an error if the caller's role alone leaves no machine for a
// spec. It ignores what other replicas hold.
func (s *Server) checkMayPlace(c *apiCall, rs dstack.RunSpec) error {
	if c.isGlobalAdmin() {
		return nil
	}
	for _, name := range rs.Configuration.GroupNames() {
		group, _ := rs.ForGroup(name)
		need := job.BuildRequirements(group)
		offers, _, _ := s.collectOffers(c.ctx, c.project, need, maxPreviewPlacements)
		ranking := placement.Rank(need, offers, nil)
		if ranking.Suitable() == 0 && slices.ContainsFunc(ranking.Rejections(maxPlanRejections), placement.IsForGlobalAdmins) {
			return newProcessForbiddenError()
		}
	}
	return nil
}
