package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

func newApplyCommand(a *app) *cobra.Command {
	job := &applyCommand{runWatcher: runWatcher{app: a}}
	c := &cobra.Command{
		Use:   "apply [flags] [-- ARGUMENT...]",
		Short: "Show the plan of a configuration, then run it.",
		Example: "dstack apply -f service.dstack.yml\n" +
			"dstack apply -f services/ -y --wait ready --timeout 10m -o json   # all files of a folder, in a script",
		Args: func(c *cobra.Command, args []string) error {
			if at := c.ArgsLenAtDash(); at != 0 && len(args) > 0 {
				hint := "name the file with -f, and put arguments of the commands after --"
				return invalidInput(hint, "unexpected argument `%s`", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := job.flags.validate(c.Flags()); err != nil {
				return err
			}
			job.waitFlags = job.flags.waitFlags
			if a.hasSeveralFiles(job.flags.files) {
				return (&applyManyCommand{app: a, flags: job.flags}).run(c.Context(), args)
			}
			if len(job.flags.files) > 0 {
				job.file = job.flags.files[0]
			}
			if done, err := a.applyOther(c.Context(), job.file, &job.flags, args); done || err != nil {
				return err
			}
			return job.run(c.Context(), args)
		},
	}
	job.flags.addTo(c)
	a.addProjectFlags(c)
	return c
}

// applyOther applies a file that is not the configuration of a service. done is false if it is one, or if it cannot be
// read, which the command for services reports.
func (a *app) applyOther(ctx context.Context, name string, flags *applyFlags, args []string) (done bool, err error) {
	file, err := a.readSource(name)
	if err != nil {
		return false, nil //nolint:nilerr // reported with the other problems of the command
	}
	fleet, err := a.readFleet(file, flags)
	if err != nil {
		return false, err
	}
	if fleet != nil {
		if len(args) > 0 {
			return true, invalidInput("leave them out", "arguments do not fit a fleet")
		}
		return true, fleet.run(ctx)
	}
	gateway, err := a.readGateway(file, flags)
	if err != nil {
		return false, err
	}
	if gateway != nil {
		if len(args) > 0 {
			return true, invalidInput("leave them out", "arguments do not fit a gateway")
		}
		return true, gateway.run(ctx)
	}
	volume, err := a.readVolume(file, flags)
	if volume == nil || err != nil {
		return false, err
	}
	if len(args) > 0 {
		return true, invalidInput("leave them out", "arguments do not fit a volume")
	}
	return true, volume.run(ctx)
}

// applyCommand is one `dstack apply`, from the file to the running service.
type applyCommand struct {
	runWatcher
	flags applyFlags
	file  string // its name; empty: the default file
	// otherFiles are the other configurations of the same command.
	otherFiles []string
	request    *runRequest
	spec       dstack.RunSpec
	archive    *archive    // of the folder; nil: the configuration names what is uploaded
	named      []namedFile // of `files`
	repo       *namedRepo  // of `repos`; nil: none
}

func (j *applyCommand) run(ctx context.Context, args []string) error {
	if err := j.readSpec(args); err != nil {
		return err
	}
	client, project, err := j.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	j.client, j.project = client, project
	if err := j.createArchive(ctx); err != nil {
		return err
	}
	defer j.closeArchives()

	view, err := j.planAndApply(ctx)
	if err != nil || view == nil {
		return err
	}
	return j.watchRun(ctx, *view)
}

// readSpec reads the specification of the run. It reports all problems at once,
// before the first request to the server.
func (j *applyCommand) readSpec(args []string) error {
	request, err := j.readRequest(j.file, &j.flags, args)
	j.request = request // also if it has problems; nil if the file cannot be read
	if err != nil {
		return err
	}
	j.spec = dstack.RunSpec{
		WorkingDir:        ".",
		ConfigurationPath: request.file.name,
		Configuration:     *request.service,
		Profile:           request.profile.Profile,
	}
	if name := string(request.service.Name); name != "" {
		j.spec.RunName = &name
	}
	return nil
}

// createArchive packs what the run needs: the files that the configuration names, or
// without such the current folder.
func (j *applyCommand) createArchive(ctx context.Context) error {
	dir, err := filepath.EvalSymlinks(j.dir)
	if err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: "cannot find the current folder", Hint: "change to another folder"}
	}
	excluded := []string{filepath.Join(j.home, ".dstack")}
	// Configurations are compared field by field. As a part of the code, each
	// change of one would replace all replicas, also those of other files.
	excluded = append(excluded, j.resolvePath(j.request.file.name))
	for _, pattern := range []string{"*.dstack.yml", "*.dstack.yaml", ".dstack.yml", ".dstack.yaml"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern)) // the only error is a malformed pattern
		excluded = append(excluded, found...)
	}
	for _, name := range j.otherFiles {
		excluded = append(excluded, j.resolvePath(name))
	}
	for _, name := range j.flags.envFiles { // secrets of the environment, not of the code
		excluded = append(excluded, j.resolvePath(name))
	}
	for i, name := range excluded {
		if real, err := filepath.EvalSymlinks(name); err == nil {
			excluded[i] = real
		}
	}
	if j.request.service.UploadsNamedFiles() {
		if err := j.withProgress(func() string { return "packing files" }, func() error { return j.packNamedFiles(ctx, excluded) }); err != nil {
			return err
		}
		return j.registerRepo(ctx)
	}
	repo := newLocalRepo(dir)
	j.spec.RepoID, j.spec.RepoData = repo.RepoID, repo.RepoInfo
	return j.withProgress(func() string { return "packing " + dir }, func() (err error) {
		if j.archive, err = archiveFolder(ctx, dir, j.gitEnvironment(), excluded...); err == nil {
			j.spec.RepoCodeHash = &j.archive.Hash
			j.upload = newUploadView(j.archive)
		}
		return err
	})
}

// planAndApply prints the plan, asks for confirmation and applies. It returns
// nil if there is nothing to report or to wait for.
func (j *applyCommand) planAndApply(ctx context.Context) (*api.RunView, error) {
	preview, err := j.fetchPreview(ctx)
	if err != nil {
		return nil, err
	}
	j.printPlan(preview)
	if known := preview.Existing; known != nil && len(preview.Changes) == 0 && !j.flags.force {
		j.printInfo(" %s runs already and nothing changed; restart it with --force", known.Name)
		if j.waitFlags.detach && !j.waitFlags.json { // nothing is submitted
			j.printFollowUps(known.Name)
			return nil, nil
		}
		return known, nil
	}
	if err := j.checkCapacity(preview); err != nil {
		return nil, err
	}
	if yes, err := j.confirmApply(ctx, preview); err != nil || !yes {
		return nil, err
	}
	view, err := j.submitRun(ctx, preview)
	return &view, err
}

// fetchPreview asks the server what applying would do.
func (j *applyCommand) fetchPreview(ctx context.Context) (preview api.Preview, err error) {
	err = j.withProgress(func() string { return "looking for machines" }, func() (err error) {
		preview, err = j.client.Preview(ctx, j.project, j.spec)
		return err
	})
	return preview, err
}

// maxNamedRejections is how many machines that do not suit an error names.
const maxNamedRejections = 10

// checkCapacity returns an error if no machine suits a new run and its retry
// policy does not let it wait for one.
func (j *applyCommand) checkCapacity(preview api.Preview) error {
	events, _ := spec.Merge(j.spec.Configuration, j.spec.Profile).RetryRule()
	if preview.Existing != nil || slices.Contains(events, spec.EventNoCapacity) {
		return nil
	}
	placements, rejections, advice, of := preview.Placements, preview.Rejections, preview.Advice, ""
	totals := preview.Totals
	for _, group := range preview.Groups {
		if len(group.Placements) == 0 && group.Max > 0 {
			placements, rejections, advice, of = nil, group.Rejections, group.Advice, " group "+cleanLine(group.Group)
			totals = group.Totals
			break
		}
		placements = group.Placements
	}
	if len(placements) > 0 {
		return nil
	}
	report := &failureReport{err: &dstack.Error{Kind: dstack.NoCapacity,
		Message: fmt.Sprintf("cannot run %s: no machine suits%s", j.runTitle(preview), of),
		Hint:    cmp.Or(advice, "ask for less: see `resources` in the configuration")}}
	for _, m := range rejections[:min(len(rejections), maxNamedRejections)] {
		report.reasons = append(report.reasons, formatRejection(m))
	}
	if more := max(totals.Rejections, len(rejections)) - len(report.reasons); more > 0 {
		report.reasons = append(report.reasons, fmt.Sprintf("%d more do not suit: see dstack offer -f %s", more, j.request.file.name))
	}
	if len(rejections) == 0 {
		report.reasons = []string{"project " + j.project + " has no machine now"}
		report.err.Hint = "see the notes above; machines come from fleets, and from the backends in the server's config.yml"
	}
	return report
}

// confirmApply asks for confirmation, unless -y is set.
func (j *applyCommand) confirmApply(ctx context.Context, preview api.Preview) (bool, error) {
	if j.flags.yes {
		return true, nil
	}
	question := "Submit " + j.runTitle(preview) + "?"
	if preview.Existing != nil {
		question = "Apply?"
	}
	yes, err := j.confirm(ctx, question)
	if err == nil && !yes {
		j.printInfo("nothing was submitted")
	}
	return yes, err
}

// closeArchives removes the archives.
func (j *applyCommand) closeArchives() {
	if j.archive != nil {
		_ = j.archive.Close()
	}
	for _, f := range j.named {
		_ = f.archive.Close()
	}
}

// submitRun registers the folder, uploads the code and applies the run.
func (j *applyCommand) submitRun(ctx context.Context, preview api.Preview) (api.RunView, error) {
	if j.request.service.UploadsNamedFiles() {
		if err := errors.Join(j.uploadNamedFiles(ctx), j.uploadChanges(ctx, preview)); err != nil {
			return api.RunView{}, err
		}
		return j.submitSpec(ctx, preview)
	}
	repo := api.InitRepo{RepoID: j.spec.RepoID, RepoInfo: j.spec.RepoData}
	if err := j.client.InitRepo(ctx, j.project, repo); err != nil {
		return api.RunView{}, err
	}
	if err := j.uploadCode(ctx); err != nil {
		return api.RunView{}, err
	}
	return j.submitSpec(ctx, preview)
}

// submitSpec applies the run, whose code is at the server.
func (j *applyCommand) submitSpec(ctx context.Context, preview api.Preview) (api.RunView, error) {
	revision := 0
	if preview.Existing != nil {
		revision = preview.Existing.Revision
	}
	var view api.RunView
	err := j.withProgress(func() string { return "submitting" }, func() (err error) {
		view, err = j.client.Apply(ctx, j.project, j.spec, revision)
		return err
	})
	return view, err
}

// uploadCode uploads the archive and shows the progress.
func (j *applyCommand) uploadCode(ctx context.Context) error {
	var sent atomic.Int64
	describe := func() string {
		return fmt.Sprintf("uploading %s, %s of %s", human.Count(j.archive.Files, "file"),
			human.Bytes(sent.Load()), human.Bytes(j.archive.Size))
	}
	return j.withProgress(describe, func() error {
		return j.client.UploadCode(ctx, j.project, j.spec.RepoID,
			api.Upload{Hash: j.archive.Hash, Size: j.archive.Size, Body: countingReader{j.archive.newReader(), &sent}})
	})
}

// countingReader counts the bytes that are read through it.
type countingReader struct {
	io.Reader
	count *atomic.Int64
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.count.Add(int64(n))
	return n, err
}
