package cli

import (
	"context"
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

func applyCommand(a *app) *cobra.Command {
	job := &applying{staying: staying{app: a}}
	c := &cobra.Command{
		Use:   "apply [flags] [-- ARGUMENT...]",
		Short: "Show what a configuration would run where, then run it.",
		Example: "dstack apply -f service.dstack.yml\n" +
			"dstack apply -f service.dstack.yml -y --wait ready --timeout 10m -o json   # in a script",
		Args: func(c *cobra.Command, args []string) error {
			if at := c.ArgsLenAtDash(); at != 0 && len(args) > 0 {
				return invalid("name the file with -f, and put arguments for the commands behind --", "dstack apply does not understand `%s`", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := job.flags.check(c.Flags()); err != nil {
				return err
			}
			job.after = job.flags.afterFlags
			return job.run(c.Context(), args)
		},
	}
	job.flags.add(c)
	a.projectFlags(c)
	return c
}

// applying is one apply, from the file to the running service.
type applying struct {
	staying
	flags   applyFlags
	request *request
	spec    dstack.RunSpec
	code    *parcel
}

func (j *applying) run(ctx context.Context, args []string) error {
	if err := j.readSpec(args); err != nil {
		return err
	}
	client, project, err := j.remote(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	j.client, j.project = client, project
	if err := j.packFolder(ctx); err != nil {
		return err
	}
	defer j.code.Close()

	view, err := j.decide(ctx)
	if err != nil || view == nil {
		return err
	}
	return j.stay(ctx, *view)
}

// readSpec reads what is asked for. All that is wrong is reported at once,
// and before anybody is asked anything.
func (j *applying) readSpec(args []string) error {
	request, err := j.readRequest(&j.flags, args)
	if err != nil {
		return err
	}
	j.request = request
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

// packFolder packs the folder that the user is in.
func (j *applying) packFolder(ctx context.Context) error {
	dir, err := filepath.EvalSymlinks(j.dir)
	if err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "cannot find the folder you are in", Hint: "go to another one"}
	}
	away := []string{filepath.Join(j.home, ".dstack")}
	// A change of the file is a change of what it says, and told as such. Were
	// it among the code, too, no change could be made in place.
	away = append(away, j.path(j.request.file.name))
	for _, name := range j.flags.envFiles { // what is in them is for the run's environment only
		away = append(away, j.path(name))
	}
	for i, name := range away {
		if real, err := filepath.EvalSymlinks(name); err == nil {
			away[i] = real
		}
	}
	repo := repoOf(dir)
	j.spec.RepoID, j.spec.RepoData = repo.RepoID, repo.RepoInfo
	return j.working(func() string { return "packing " + dir }, func() (err error) {
		if j.code, err = pack(ctx, dir, away...); err == nil {
			j.spec.RepoCodeHash = &j.code.Hash
		}
		return err
	})
}

// decide shows the plan, asks, and applies. A nil view: the user said no.
func (j *applying) decide(ctx context.Context) (*api.RunView, error) {
	var preview api.Preview
	err := j.working(func() string { return "looking for machines" }, func() (err error) {
		preview, err = j.client.Preview(ctx, j.project, j.spec)
		return err
	})
	if err != nil {
		return nil, err
	}
	j.showPlan(preview)
	if known := preview.Existing; known != nil && len(preview.Changes) == 0 && !j.flags.force {
		j.say(" %s runs already, and nothing changed%s", known.Name, "; start it anew with --force")
		return known, nil
	}
	if err := j.capacity(preview); err != nil {
		return nil, err
	}
	if yes, err := j.mayGo(ctx, preview); err != nil || !yes {
		return nil, err
	}
	view, err := j.submit(ctx, preview)
	return &view, err
}

// capacity refuses what no machine suits, unless it may wait for one.
func (j *applying) capacity(preview api.Preview) error {
	events, _ := spec.Merge(j.spec.Configuration, j.spec.Profile).RetryRule()
	if len(preview.Placements) > 0 || preview.Existing != nil || slices.Contains(events, spec.EventNoCapacity) {
		return nil
	}
	refused := &verdict{err: &dstack.Error{Kind: dstack.NoCapacity,
		Message: fmt.Sprintf("cannot run %s: no machine suits", j.title(preview)),
		Hint:    "ask for less, or let it wait for a machine: --retry"}}
	for _, m := range preview.Rejections {
		refused.why = append(refused.why, misfit(m))
	}
	if len(preview.Rejections) == 0 {
		refused.why = []string{"project " + j.project + " has no machine"}
		refused.err.Hint = "look at the backends in the server's config.yml"
	}
	return refused
}

// mayGo asks, unless -y said so.
func (j *applying) mayGo(ctx context.Context, preview api.Preview) (bool, error) {
	if j.flags.yes {
		return true, nil
	}
	question := "Submit " + j.title(preview) + "?"
	if preview.Existing != nil {
		question = "Apply?"
	}
	yes, err := j.confirm(ctx, question)
	if err == nil && !yes {
		j.say("nothing was submitted")
	}
	return yes, err
}

// submit hands the folder in, and then the run.
func (j *applying) submit(ctx context.Context, preview api.Preview) (api.RunView, error) {
	repo := api.InitRepo{RepoID: j.spec.RepoID, RepoInfo: j.spec.RepoData}
	if err := j.client.InitRepo(ctx, j.project, repo); err != nil {
		return api.RunView{}, err
	}
	if err := j.upload(ctx); err != nil {
		return api.RunView{}, err
	}
	revision := 0
	if preview.Existing != nil {
		revision = preview.Existing.Revision
	}
	var view api.RunView
	err := j.working(func() string { return "submitting" }, func() (err error) {
		view, err = j.client.Apply(ctx, j.project, j.spec, revision)
		return err
	})
	return view, err
}

func (j *applying) upload(ctx context.Context) error {
	var sent atomic.Int64
	words := func() string {
		return fmt.Sprintf("uploading %d files, %s of %s", j.code.Files, human.Bytes(sent.Load()), human.Bytes(j.code.Size))
	}
	return j.working(words, func() error {
		return j.client.UploadCode(ctx, j.project, j.spec.RepoID,
			api.Upload{Hash: j.code.Hash, Size: j.code.Size, Body: counted{j.code.content(), &sent}})
	})
}

// counted is a reader that tells how far it is.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}
