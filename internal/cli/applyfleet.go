package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/human"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

const (
	fleetPoll           = 500 * time.Millisecond // between two requests for a fleet whose hosts are checked
	defaultCheckTimeout = 3 * time.Minute        // of the checks of all hosts
)

// applyFleetCommand is one `dstack apply` of a fleet.
type applyFleetCommand struct {
	*app
	flags   *applyFlags
	file    sourceFile
	fleet   *spec.Fleet
	profile *spec.Profile // for rented machines; nil: there is none
	notes   spec.Problems
	client  *api.Client
	project string
}

// fleetFlags are the flags of `dstack apply` that fit a fleet.
var fleetFlags = []string{"file", "name", "yes", "force", "detach", "wait", "timeout", "env", "env-file", "output", "project", "verbose", "no-color"}

// readFleet returns the command for a file if it is the configuration of a fleet; nil: it is of another type, or has
// problems that the command for that type reports.
func (a *app) readFleet(file sourceFile, flags *applyFlags) (*applyFleetCommand, error) {
	if spec.FindType(file.text) != "fleet" {
		return nil, nil
	}
	c, err := spec.ParseConfiguration(file.name, file.text)
	if err != nil {
		return nil, err
	}
	fleet := c.(*spec.Fleet) // as FindType says
	var problems spec.Problems
	if flags.name != "" {
		fleet.Name = spec.Text(flags.name)
		if err := spec.CheckFleetName(flags.name); err != nil {
			problems = append(problems, flagProblem("--name", "use lowercase letters, digits and dashes", "%v", err))
		}
	}
	for _, flag := range flags.given {
		if !slices.Contains(fleetFlags, flag) && (flag != "profile" || fleet.SSH != nil) {
			problems = append(problems, flagProblem("--"+flag, "leave it out", "it does not fit a fleet"))
		}
	}
	profile, profileProblems := a.chooseFleetProfile(*fleet, flags.profile)
	problems = append(problems, profileProblems...)
	given, variableProblems := a.readVariables(flags)
	inFile, elsewhere := a.locateUnresolved(given, fleet.ResolveEnv(given.list, a.env))
	located := append(fleet.Unsupported(), inFile...)
	if fleet.SSH != nil {
		located = append(located, a.readSSHAliases().fillIn(fleet.SSH)...)
	}
	problems = slices.Concat(spec.Locate(file.name, file.text, located), problems, variableProblems, elsewhere)
	if len(problems) > 0 {
		return nil, problemsError(problems)
	}
	notes := spec.Locate(file.name, file.text, append(fleet.FindNotes(spec.WrittenFields(file.text)), spec.FindDialect(file.text).Notes()...))
	return &applyFleetCommand{app: a, flags: flags, file: file, fleet: fleet, profile: profile, notes: notes}, nil
}

// chooseFleetProfile returns the profile of a fleet of rented machines; nil: it has none. A fleet of hosts needs none.
func (a *app) chooseFleetProfile(f spec.Fleet, name string) (*spec.Profile, spec.Problems) {
	if f.SSH != nil {
		return nil, nil
	}
	chosen, problems := a.chooseProfile(name)
	if len(problems) > 0 || chosen.file.name == "" {
		return nil, problems
	}
	return &chosen.Profile, nil
}

func (f *applyFleetCommand) run(ctx context.Context) error {
	client, project, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	view, err := f.apply(ctx, client, project)
	if view == nil {
		return err
	}
	if f.flags.json {
		if err := f.printJSON(view); err != nil {
			return err
		}
	}
	return err
}

// apply shows what it would change, asks, applies the fleet and follows the checks of its hosts. It returns nil if nothing
// was applied, and the fleet also along with an error.
func (f *applyFleetCommand) apply(ctx context.Context, client *api.Client, project string) (*api.FleetView, error) {
	f.client, f.project = client, project
	preview, err := client.PreviewFleet(ctx, project, *f.fleet, f.profile)
	if err != nil {
		return nil, err
	}
	keys := &identities{app: f.app}
	if f.fleet.SSH != nil {
		problems, err := keys.addKeys(ctx, f.fleet.SSH, preview.Hosts)
		if err != nil {
			return nil, err
		}
		if len(problems) > 0 {
			return nil, problemsError(spec.Locate(f.file.name, f.file.text, problems))
		}
	}
	f.printPlan(preview)
	for _, note := range keys.notes {
		f.printNote(note)
	}
	if isFleetUnchanged(preview) && !f.flags.force {
		if preview.Rented != nil {
			f.printInfo(" %s exists and nothing changed; try to rent what is missing at once with --force", cleanLine(preview.Name))
			return f.finishRental(*preview.Current)
		}
		f.printInfo(" %s exists and nothing changed; check its hosts again with --force", cleanLine(preview.Name))
		return f.finish(*preview.Current)
	}
	if !f.flags.yes {
		question := "Create the fleet?"
		if preview.Current != nil {
			question = "Apply?"
		}
		if yes, err := f.confirm(ctx, question); err != nil || !yes {
			if err == nil {
				f.printInfo("nothing was applied")
			}
			return nil, err
		}
	}
	view, err := client.ApplyFleet(ctx, project, *f.fleet, f.profile)
	if err != nil {
		return nil, err
	}
	switch {
	case f.flags.detach && view.IsRented:
		f.printInfo(" %s is applied; see its machines come up: dstack fleet get %s", cleanLine(view.Name), cleanLine(view.Name))
		return &view, nil
	case f.flags.detach:
		f.printInfo(" %s is applied; see what its checks find: dstack fleet get %s", cleanLine(view.Name), cleanLine(view.Name))
		return &view, nil
	case view.IsRented:
		return f.followRental(ctx, view)
	}
	return f.followChecks(ctx, view)
}

// isFleetUnchanged reports whether applying would change nothing.
func isFleetUnchanged(preview api.FleetPreview) bool {
	return preview.Current != nil && !preview.IsChanged && !preview.Current.IsDeleting &&
		!slices.ContainsFunc(preview.Hosts, func(h api.HostChange) bool { return h.Action != api.HostKept })
}

// printPlan prints what applying the fleet would change.
func (f *applyFleetCommand) printPlan(preview api.FleetPreview) {
	name := preview.Name
	if name == "" {
		name = "with a new name"
	}
	f.printInfo(" fleet %s · project %s · as %s", f.err.paint(bold, cleanLine(name)), cleanLine(preview.Project), cleanLine(preview.User))
	if preview.Rented != nil {
		f.printRentedPlan(preview)
	} else {
		f.printHosts(preview)
	}
	if len(f.notes) > 0 {
		f.printNotes(f.notes)
		f.printInfo("")
	}
}

// printHosts prints which hosts are added, kept and removed.
func (f *applyFleetCommand) printHosts(preview api.FleetPreview) {
	f.printInfo("")
	t := &table{head: []string{"", "HOST", "ADDRESS", "THROUGH", ""}, movable: []int{3}, wrapsLast: true}
	signs := map[api.HostAction]string{api.HostAdded: "+", api.HostRemoved: "-", api.HostKept: " "}
	for _, h := range preview.Hosts {
		what := map[api.HostAction]string{api.HostAdded: "added", api.HostKept: "stays", api.HostRemoved: "removed"}[h.Action]
		if len(h.Replicas) > 0 {
			what += "; what runs there moves: " + strings.Join(cleanNames(h.Replicas), ", ")
		}
		t.rows = append(t.rows, []string{signs[h.Action], cleanLine(h.Name), cleanLine(h.User + "@" + h.Address), orDash(h.Jump), what})
	}
	t.writeTo(f.err)
	f.printInfo("")
}

// followChecks shows what the check of each host finds, until all are checked.
func (f *applyFleetCommand) followChecks(ctx context.Context, view api.FleetView) (*api.FleetView, error) {
	timeout := f.flags.timeout
	if timeout == 0 || f.flags.wait == "ready" && timeout == defaultWaitTimeout {
		timeout = defaultCheckTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeout, errWaitTimeout)
	defer cancel()
	began := time.Now()
	board := &hostBoard{screen: f.screen, region: liveRegion{to: f.err}, printed: map[string]bool{}}
	for {
		open := board.update(view, time.Since(began))
		if open == 0 {
			return f.finish(view)
		}
		err := loop.Sleep(limited, fleetPoll)
		if err == nil {
			var next api.FleetView
			if next, err = f.client.FleetView(limited, f.project, view.Name); err == nil {
				view = next
			}
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			board.region.clear()
			f.printInfo("detached; the checks go on: dstack fleet get %s", cleanLine(view.Name))
			return &view, &dstack.Error{Kind: dstack.Conflict, Message: "interrupted before all hosts were checked"}
		case limited.Err() != nil:
			board.region.clear()
			return &view, &dstack.Error{Kind: dstack.Timeout, Hint: "the checks go on; see: dstack fleet get " + view.Name,
				Message: fmt.Sprintf("%s not checked after %s: %s", human.CountOf(open, "host is", "hosts are"), human.Duration(timeout), strings.Join(board.openHosts(view), ", "))}
		default:
			board.region.clear()
			return &view, err
		}
	}
}

// finish returns the fleet, with an error if a host cannot be used.
func (f *applyFleetCommand) finish(view api.FleetView) (*api.FleetView, error) {
	var failed []string
	total := 0
	for _, h := range view.Hosts {
		if h.IsLeaving {
			continue
		}
		total++
		if h.Status == api.HostStatusFailed || h.Status == api.HostStatusUnreachable {
			failed = append(failed, h.Name)
		}
	}
	if len(failed) > 0 {
		return &view, &dstack.Error{Kind: dstack.NoCapacity, Message: fmt.Sprintf("%d of %s cannot be used: %s", len(failed),
			human.Count(total, "host"), strings.Join(failed, ", ")),
			Hint: "correct it; each host is checked again by itself, or at once: dstack apply --force\nsee: dstack fleet get " + view.Name}
	}
	f.printInfo("")
	f.printInfo(" %s is ready with %s", cleanLine(view.Name), human.Count(total, "host"))
	return &view, nil
}

// hostBoard shows the checks of hosts: one line for each, which stays when the check has ended.
type hostBoard struct {
	*screen
	region  liveRegion
	printed map[string]bool // IDs of hosts
}

// update prints the hosts whose check has ended since, and shows the others. It returns how many are left.
func (b *hostBoard) update(view api.FleetView, passed time.Duration) int {
	b.region.clear()
	width := 0
	for _, h := range view.Hosts {
		width = max(width, len(cleanLine(h.Name)))
	}
	var lines []string
	for _, h := range view.Hosts {
		switch {
		case h.IsLeaving:
		case h.IsChecked:
			if !b.printed[h.ID] {
				b.printed[h.ID] = true
				b.printHost(h, width)
			}
		default:
			lines = append(lines, fmt.Sprintf("   %s  checking %s", padRight(cleanLine(h.Name), width), b.err.paint(dim, human.Duration(passed.Round(time.Second)))))
		}
	}
	if b.err.terminal {
		b.region.draw(lines)
	}
	return len(lines)
}

// openHosts returns the names of the hosts that are not checked.
func (b *hostBoard) openHosts(view api.FleetView) (names []string) {
	for _, h := range view.Hosts {
		if !h.IsChecked && !h.IsLeaving {
			names = append(names, cleanLine(h.Name))
		}
	}
	return names
}

// printHost prints what the check of a host found.
func (b *hostBoard) printHost(h api.HostView, width int) {
	name := "   " + padRight(cleanLine(h.Name), width) + "  "
	blank := strings.Repeat(" ", lipgloss.Width(name))
	if h.Status == api.HostStatusFailed || h.Status == api.HostStatusUnreachable {
		b.printLabeled(name+"failed  ", red, cleanLine(h.Step+": "+h.Message))
		if h.Hint != "" {
			b.printLabeled(blank+"try     ", bold, cleanLine(h.Hint))
		}
		return
	}
	b.printLabeled(name+"ready   ", green, describeFound(h.Found))
	for _, w := range h.Warnings {
		b.printLabeled(blank+"note    ", yellow, cleanLine(w))
	}
}

// describeFound describes what a check found in one line.
func describeFound(f api.HostFound) string {
	parts := []string{"SSH"}
	if f.DockerVersion != "" {
		access := map[string]string{"socket": "", "stdio": " (docker system dial-stdio)", "sudo stdio": " (with sudo)"}[f.DockerAccess]
		parts = append(parts, "Docker "+cleanLine(f.DockerVersion)+access)
	}
	if f.CPUs > 0 {
		parts = append(parts, fmt.Sprintf("%d cpu", f.CPUs), human.Gigabytes(f.MemoryMiB), human.Gigabytes(f.DiskMiB)+" disk")
	}
	return strings.Join(append(parts, describeGPUs(f)), ", ")
}

// describeGPUs describes the GPUs of a host: 2×L4 24GB (driver 570.1).
func describeGPUs(f api.HostFound) string {
	if len(f.GPUs) == 0 {
		return "no GPU"
	}
	names := make([]string, len(f.GPUs))
	for i, g := range f.GPUs {
		names[i] = gpu.Title(cleanLine(g.Name), g.MemoryMiB)
	}
	text := human.CountEach(names, "×")
	if f.DriverVersion != "" {
		text += " (driver " + cleanLine(f.DriverVersion) + ")"
	}
	return text
}
