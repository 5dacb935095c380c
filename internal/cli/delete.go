package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func newDeleteCommand(a *app) *cobra.Command {
	var file string
	var yes, asJSON bool
	c := &cobra.Command{
		Use:     "delete RUN... | -f FILE",
		Aliases: []string{"destroy"},
		Short:   "Delete finished runs and their logs.",
		Example: "dstack delete llama31\n" +
			"dstack delete -f service.dstack.yml -y",
		RunE: func(c *cobra.Command, args []string) error {
			if name, ok := a.findVolumeToDelete(file); ok && len(args) == 0 {
				return (&volumeDeleteCommand{app: a, yes: yes, json: asJSON}).run(c.Context(), []string{name})
			}
			if name, ok := a.findGatewayToDelete(file); ok && len(args) == 0 {
				return (&gatewayDeleteCommand{app: a, yes: yes, json: asJSON}).run(c.Context(), []string{name})
			}
			names, err := a.namesToDelete(file, args)
			if err != nil {
				return err
			}
			return a.deleteRuns(c.Context(), names, yes, asJSON)
		},
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().StringVarP(&file, "file", "f", "", "the run, the gateway, or the volume with its data, of this configuration `FILE`")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

// findVolumeToDelete returns the name of the volume in a file; ok is false if the file has none.
func (a *app) findVolumeToDelete(file string) (name string, ok bool) {
	if file == "" {
		return "", false
	}
	source, err := a.readSource(file)
	if err != nil || !isVolumeFile(source) {
		return "", false
	}
	conf, err := spec.ParseConfiguration(source.name, source.text)
	volume, isVolume := conf.(*spec.Volume)
	if err != nil || !isVolume || volume.Name == "" {
		return "", false
	}
	return string(volume.Name), true
}

// findGatewayToDelete returns the name of the gateway in a file; ok is false if the file has none.
func (a *app) findGatewayToDelete(file string) (name string, ok bool) {
	if file == "" {
		return "", false
	}
	source, err := a.readSource(file)
	if err != nil || spec.FindType(source.text) != "gateway" {
		return "", false
	}
	conf, err := spec.ParseConfiguration(source.name, source.text)
	gateway, isGateway := conf.(*spec.Gateway)
	if err != nil || !isGateway || gateway.Name == "" {
		return "", false
	}
	return string(gateway.Name), true
}

func (a *app) namesToDelete(file string, args []string) ([]string, error) {
	switch {
	case file == "" && len(args) == 0:
		return nil, invalidInput("see: dstack delete --help", "dstack delete needs the name of a run, or -f FILE")
	case file == "":
		return args, nil
	case len(args) > 0:
		return nil, invalidInput("leave one of them out", "dstack delete needs names or a file, not both")
	}
	source, err := a.readSource(file)
	if err != nil {
		return nil, err
	}
	service, err := spec.ParseService(source.name, source.text)
	if err != nil {
		return nil, err
	}
	if service.Name == "" {
		return nil, invalidInput("name the run: dstack delete RUN", "%s names no run", source.name)
	}
	return []string{string(service.Name)}, nil
}

func (a *app) deleteRuns(ctx context.Context, names []string, yes, asJSON bool) error {
	client, project, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, name := range names {
		view, err := client.GetRunView(ctx, project, api.RunViewRequest{RunName: name})
		if err != nil {
			return a.suggestRun(ctx, client, project, name, err)
		}
		if !view.Status.IsFinished() {
			return &dstack.Error{Kind: dstack.Conflict, Message: "cannot delete " + name + ": it is " + string(view.Status),
				Hint: "first: dstack stop " + name}
		}
	}
	if !yes {
		agreed, err := a.confirm(ctx, "Delete "+strings.Join(names, ", ")+"?")
		if err != nil || !agreed {
			return err
		}
	}
	if err := client.Delete(ctx, project, names); err != nil {
		return err
	}
	results := make([]runResult, 0, len(names))
	for _, name := range names {
		a.printInfo(" %s is deleted", name)
		results = append(results, runResult{name, statusDeleted})
	}
	if asJSON {
		return a.printJSON(results)
	}
	return nil
}
