package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// applyManyCommand is one `dstack apply` of several files: all are checked and planned
// together, confirmed once and then submitted in order. Their output is not followed.
// Fleets, volumes and gateways come first, because services run on hosts, mount volumes and are published by gateways.
type applyManyCommand struct {
	*app
	flags     applyFlags
	client    *api.Client
	project   string
	fleets    []*applyFleetCommand
	applied   []*api.FleetView // of fleets, after they were applied
	volumes   []*applyVolumeCommand
	created   []*api.Volume // of volumes, after they were applied
	gateways  []*applyGatewayCommand
	published []*api.GatewayView // of gateways, after they were applied
	runs      []*plannedRun      // in the order of the files
}

// plannedRun is one file of an applyManyCommand.
type plannedRun struct {
	*applyCommand
	first   *plannedRun // whose folder it shares; nil: it has uploads of its own
	preview api.Preview
	view    *api.RunView // the submitted or unchanged run; nil: not submitted yet
}

// hasSeveralFiles reports whether -f names several files, or a folder of files.
func (a *app) hasSeveralFiles(files []string) bool {
	return len(files) > 1 || len(files) == 1 && files[0] != "-" && a.isFolder(files[0])
}

func (m *applyManyCommand) run(ctx context.Context, args []string) error {
	if err := m.readFiles(ctx, args); err != nil {
		return err
	}
	client, project, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	m.client, m.project = client, project
	if yes, err := m.applyFleets(ctx); err != nil || !yes {
		return err
	}
	if yes, err := m.applyVolumes(ctx); err != nil || !yes {
		return err
	}
	if yes, err := m.applyGateways(ctx); err != nil || !yes {
		return err
	}
	if len(m.runs) == 0 {
		return m.printApplied()
	}
	if err := m.createArchive(ctx); err != nil {
		return err
	}
	defer m.closeArchives()
	if err := m.plan(ctx); err != nil {
		return err
	}
	if yes, err := m.confirmAll(ctx); err != nil || !yes {
		return err
	}
	if err := m.submitAll(ctx); err != nil {
		return err
	}
	return m.finish(ctx)
}

// readFiles reads all files, and reports the problems of all of them at once.
func (m *applyManyCommand) readFiles(ctx context.Context, args []string) error {
	names, err := m.listFiles(ctx)
	if err != nil {
		return err
	}
	var problems spec.Problems
	if m.flags.name != "" {
		problems = append(problems, flagProblem("--name", "write the names into the files", "it does not fit several files"))
	}
	if len(args) > 0 {
		problems = append(problems, flagProblem("--", "write them into the files", "arguments do not fit several files"))
	}
	byName := map[string]string{} // the file of each run
	flags := m.flags
	flags.name = ""
	for _, name := range names {
		if file, err := m.readSource(name); err == nil {
			fleet, err := m.readFleet(file, &flags)
			problems = appendNew(problems, asFileProblems(name, err))
			if fleet != nil {
				m.fleets = append(m.fleets, fleet)
			}
			if fleet != nil || err != nil {
				continue
			}
			gateway, err := m.readGateway(file, &flags)
			problems = appendNew(problems, asFileProblems(name, err))
			if gateway != nil {
				problems = append(problems, gateway.findContradictions(m.gateways)...)
				m.gateways = append(m.gateways, gateway)
			}
			if gateway != nil || err != nil {
				continue
			}
			volume, err := m.readVolume(file, &flags)
			problems = appendNew(problems, asFileProblems(name, err))
			if volume != nil {
				problems = append(problems, volume.findSameName(m.volumes)...)
				m.volumes = append(m.volumes, volume)
			}
			if volume != nil || err != nil {
				continue
			}
		}
		job := &applyCommand{runWatcher: runWatcher{app: m.app, waitFlags: flags.waitFlags}, flags: flags, file: name, otherFiles: names}
		err := job.readSpec(nil)
		problems = appendNew(problems, asFileProblems(name, err))
		m.runs = append(m.runs, &plannedRun{applyCommand: job})
		if job.request == nil || job.request.service.Name == "" {
			continue
		}
		run := string(job.request.service.Name)
		if first, taken := byName[run]; taken {
			file := job.request.file
			problems = append(problems, spec.Locate(file.name, file.text, spec.Problems{{Path: "name",
				Message: fmt.Sprintf("`%s` is also the name in %s", run, first), Hint: "give each service a name of its own"}})...)
		}
		byName[run] = name
	}
	if len(problems) == 0 {
		return nil
	}
	return problemsError(problems)
}

// applyFleets applies the fleets of all files, and follows the checks of their hosts. A host that cannot be used is an
// error. It returns false if the user does not want one of them.
func (m *applyManyCommand) applyFleets(ctx context.Context) (bool, error) {
	for _, f := range m.fleets {
		view, err := f.apply(ctx, m.client, m.project)
		if err != nil {
			m.printErrors([]error{&fileError{f.file.name, err}})
			m.printInfo("no run was submitted")
			return false, &reportedError{err}
		}
		if view == nil {
			return false, nil
		}
		m.applied = append(m.applied, view)
	}
	return true, nil
}

// applyVolumes applies the volumes of all files, and waits until they are active. It returns false if the user does not
// want one of them.
func (m *applyManyCommand) applyVolumes(ctx context.Context) (bool, error) {
	for _, v := range m.volumes {
		created, err := v.apply(ctx, m.client, m.project)
		if err != nil {
			m.printErrors([]error{&fileError{v.file.name, err}})
			m.printInfo("no run was submitted")
			return false, &reportedError{err}
		}
		if created == nil {
			return false, nil
		}
		m.created = append(m.created, created)
	}
	return true, nil
}

// applyGateways applies the gateways of all files, and waits until they serve. A gateway that cannot serve is an error. It
// returns false if the user does not want one of them.
func (m *applyManyCommand) applyGateways(ctx context.Context) (bool, error) {
	for _, g := range m.gateways {
		view, err := g.apply(ctx, m.client, m.project)
		if err != nil {
			m.printErrors([]error{&fileError{g.file.name, err}})
			m.printInfo("no run was submitted")
			return false, &reportedError{err}
		}
		if view == nil {
			return false, nil
		}
		m.published = append(m.published, view)
	}
	return true, nil
}

// printApplied prints the volumes and runs as JSON if -o asks for it.
func (m *applyManyCommand) printApplied() error {
	if !m.flags.json {
		return nil
	}
	applied := []any{}
	for _, f := range m.applied {
		applied = append(applied, f)
	}
	for _, v := range m.created {
		applied = append(applied, v)
	}
	for _, g := range m.published {
		applied = append(applied, g)
	}
	for _, run := range m.listApplied() {
		applied = append(applied, run)
	}
	return m.printJSON(applied)
}

// listFiles returns the names of all files: as given, and by name within a folder.
func (m *applyManyCommand) listFiles(ctx context.Context) ([]string, error) {
	var names []string
	for _, given := range m.flags.files {
		if given == "-" || !m.isFolder(given) {
			names = append(names, given)
			continue
		}
		found, err := m.findConfigurations(ctx, given)
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(name string) bool { return !isConfigurationName(filepath.Base(name)) }) // profiles
		if len(found) == 0 {
			return nil, invalidInput("name the file itself", "there is no *.dstack.yml in %s", given)
		}
		names = append(names, found...)
	}
	for i, name := range names {
		if slices.ContainsFunc(names[:i], func(other string) bool { return m.isSameFile(name, other) }) {
			return nil, invalidInput("name it once", "%s is given twice", name)
		}
	}
	return names, nil
}

func (m *applyManyCommand) isSameFile(one, other string) bool {
	return filepath.Clean(m.resolvePath(one)) == filepath.Clean(m.resolvePath(other))
}

// asFileProblems returns an error of readSpec as problems.
func asFileProblems(name string, err error) spec.Problems {
	if err == nil {
		return nil
	}
	if problems, ok := errors.AsType[spec.Problems](err); ok {
		return problems
	}
	if known, ok := errors.AsType[*dstack.Error](err); ok {
		if flag, message, found := strings.Cut(known.Message, ": "); found && strings.HasPrefix(flag, "--") {
			return spec.Problems{flagProblem(flag, known.Hint, "%s", message)}
		}
		message := known.Message
		if reason, found := strings.CutPrefix(message, "cannot read "+name+": "); found {
			message = "it cannot be read: " + reason
		}
		return spec.Problems{{File: name, Message: message, Hint: known.Hint}}
	}
	return spec.Problems{{File: name, Message: err.Error()}}
}

// appendNew appends the problems that are not in the list: those of flags and of the profile
// show for each file.
func appendNew(list, more spec.Problems) spec.Problems {
	for _, p := range more {
		isKnown := func(known spec.Problem) bool {
			return known.File == p.File && known.Path == p.Path && known.Message == p.Message &&
				known.Line == p.Line && known.Col == p.Col
		}
		if !slices.ContainsFunc(list, isKnown) {
			list = append(list, p)
		}
	}
	return list
}

// createArchive packs the current folder once for all runs that need it, and the files that
// the others name.
func (m *applyManyCommand) createArchive(ctx context.Context) error {
	var first *plannedRun
	for _, r := range m.runs {
		r.client, r.project = m.client, m.project
		if first == nil || r.request.service.UploadsNamedFiles() {
			if err := r.createArchive(ctx); err != nil {
				return err
			}
			if r.archive != nil {
				first = r
			}
			continue
		}
		r.first = first // and upload, once the first plan has printed it
		r.spec.RepoID, r.spec.RepoData, r.spec.RepoCodeHash = first.spec.RepoID, first.spec.RepoData, first.spec.RepoCodeHash
	}
	return nil
}

func (m *applyManyCommand) closeArchives() {
	for _, r := range m.runs {
		if r.first == nil {
			r.closeArchives()
		}
	}
}

// plan prints the plan of each run. Its error is of all runs that cannot be applied; then none
// is.
func (m *applyManyCommand) plan(ctx context.Context) error {
	var failures []error
	for _, r := range m.runs {
		r.client, r.project = m.client, m.project
		var err error
		if r.preview, err = r.fetchPreview(ctx); err != nil && (ctx.Err() != nil || dstack.KindOf(err) == dstack.Unavailable) {
			return err
		}
		if err == nil {
			r.printPlan(r.preview)
			if r.first != nil {
				r.upload = r.first.upload // the runs share the folder; only the first plan prints it
			}
			err = r.checkCapacity(r.preview)
		}
		if err != nil {
			failures = append(failures, &fileError{r.file, err})
			continue
		}
		if r.isUnchanged() {
			r.view = r.preview.Existing
			m.printInfo(" %s runs already and nothing changed; restart it with --force", r.view.Name)
			m.printInfo("")
		}
	}
	if len(failures) > 0 && len(m.runs) > 1 {
		m.printErrors(failures)
		m.printInfo("nothing was submitted")
		return &reportedError{worstError(failures)}
	}
	return errors.Join(failures...)
}

// fileError is an error about one of several files.
type fileError struct {
	file string
	error
}

func (e *fileError) Unwrap() error { return e.error }

func (r *plannedRun) isUnchanged() bool {
	return r.preview.Existing != nil && len(r.preview.Changes) == 0 && !r.flags.force
}

// printErrors prints errors, with the files that they are about.
func (m *applyManyCommand) printErrors(list []error) {
	for _, err := range list {
		if about, ok := errors.AsType[*fileError](err); ok {
			m.printInfo("%s", m.err.paint(bold, cleanLine(about.file)))
			err = about.error
		}
		m.printError(err, m.verbose)
		m.printInfo("")
	}
}

// worstError returns the error whose exit status is the worst: 1, then 2, 4, 3 and 5.
func worstError(list []error) error {
	order := []int{ExitTimeout, ExitRolledBack, ExitNoCapacity, ExitInvalid, ExitFailed}
	return slices.MaxFunc(list, func(one, other error) int {
		return slices.Index(order, exitCode(one)) - slices.Index(order, exitCode(other))
	})
}

// confirmAll asks once for all runs, unless -y is set or nothing is to be submitted.
func (m *applyManyCommand) confirmAll(ctx context.Context) (bool, error) {
	var submit, change []string
	for _, r := range m.runs {
		switch {
		case r.view != nil:
		case r.preview.Existing != nil:
			change = append(change, r.runTitle(r.preview))
		default:
			submit = append(submit, r.runTitle(r.preview))
		}
	}
	if m.flags.yes || len(submit)+len(change) == 0 {
		return true, nil
	}
	question := "Submit " + joinNames(submit)
	switch {
	case len(submit) == 0:
		question = "Change " + joinNames(change)
	case len(change) > 0:
		question += ", and change " + joinNames(change)
	}
	yes, err := m.confirm(ctx, question+"?")
	if err == nil && !yes {
		m.printInfo("nothing was submitted")
	}
	return yes, err
}

// joinNames joins names as in a sentence.
func joinNames(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// submitAll submits the runs in order, and stops at the first failure. It then says which were
// submitted and which were not.
func (m *applyManyCommand) submitAll(ctx context.Context) error {
	uploaded := map[*plannedRun]bool{}
	for i, r := range m.runs {
		if r.view != nil {
			continue
		}
		var view api.RunView
		var err error
		leader := cmp.Or(r.first, r)
		if uploaded[leader] {
			view, err = r.submitSpec(ctx, r.preview)
		} else {
			r.archive = leader.archive
			view, err = r.submitRun(ctx, r.preview)
		}
		if err != nil {
			m.printErrors([]error{&fileError{r.file, err}})
			m.printProgress(i)
			if m.flags.json {
				err = errors.Join(m.printApplied(), err)
			}
			return &reportedError{err}
		}
		uploaded[leader], r.view = true, &view
	}
	return nil
}

// printProgress says which runs were submitted when run number failed was not.
func (m *applyManyCommand) printProgress(failed int) {
	var done, unchanged, open []string
	for i, r := range m.runs {
		switch name := r.runTitle(r.preview); {
		case i >= failed && r.view == nil:
			open = append(open, name)
		case r.isUnchanged():
			unchanged = append(unchanged, name)
		default:
			done = append(done, name)
		}
	}
	for _, group := range []struct {
		title string
		names []string
	}{{"submitted", done}, {"unchanged", unchanged}, {"not submitted", open}} {
		if len(group.names) > 0 {
			m.printInfo(" %s: %s", group.title, strings.Join(group.names, ", "))
		}
	}
}

// listApplied returns the runs that were submitted or are unchanged.
func (m *applyManyCommand) listApplied() []appliedRun {
	applied := []appliedRun{}
	for _, r := range m.runs {
		if r.view != nil {
			applied = append(applied, appliedRun{*r.view, r.upload})
		}
	}
	return applied
}

// finish waits for all runs if --wait asks for that, and prints them.
func (m *applyManyCommand) finish(ctx context.Context) error {
	var failures []error
	if m.flags.wait != "" {
		failures = m.waitForAll(ctx)
	}
	if m.flags.json {
		if err := m.printApplied(); err != nil {
			return err
		}
	} else {
		m.printSummary()
	}
	if len(failures) == 0 {
		return nil
	}
	m.printErrors(failures)
	return &reportedError{worstError(failures)}
}

// waitForAll waits until each run is ready or has failed, for --timeout in all.
func (m *applyManyCommand) waitForAll(ctx context.Context) []error {
	limited, cancel := context.WithTimeoutCause(ctx, m.flags.timeout, errWaitTimeout)
	defer cancel()
	var failures []error
	for _, r := range m.runs {
		submitted := *r.view
		// While another run was waited for, this one has gone on.
		now, err := m.client.GetRunView(ctx, m.project, api.RunViewRequest{RunName: submitted.Name, RunID: string(submitted.ID)})
		if err == nil {
			began := time.Now()
			now, err = r.waitForRevision(limited, now, submitted.Revision)
			if err == nil {
				m.printInfo(" %s%s", describeRun(now), formatWait(time.Since(began)))
			}
		}
		if now.Name != "" {
			r.view = &now
		}
		if ctx.Err() != nil {
			m.printInfo("detached; the runs keep running: dstack ps")
			return append(failures, &dstack.Error{Kind: dstack.Conflict, Message: "interrupted before all runs were ready"})
		}
		if err != nil {
			failures = append(failures, &fileError{r.file, err})
		}
	}
	return failures
}

func formatWait(waited time.Duration) string {
	if waited < time.Second {
		return ""
	}
	return " after " + human.Duration(waited.Round(time.Second))
}

// printSummary prints a line for each run.
func (m *applyManyCommand) printSummary() {
	t := &table{head: []string{"NAME", "REVISION", "STATUS", "URL"}, movable: []int{3}}
	for _, v := range m.listApplied() {
		t.rows = append(t.rows, []string{cleanLine(v.Name), fmt.Sprint(v.Revision), cleanLine(string(v.Status)), cleanLine(v.URL)})
	}
	t.writeTo(m.out)
	m.printInfo("")
	m.printInfo("  %s  dstack ps -w", m.err.paint(bold, "watch"))
	m.printInfo("  %s   dstack logs NAME -f", m.err.paint(bold, "logs"))
}
