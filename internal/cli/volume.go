package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
)

func newVolumeCommand(a *app) *cobra.Command {
	list := newVolumeListCommand(a)
	c := &cobra.Command{
		Use:   "volume",
		Short: "List, show and delete volumes; dstack apply creates them.",
		Example: "dstack apply -f volume.dstack.yml     # type: volume\n" +
			"dstack volume list -v",
		Args: unknownCommand,
		RunE: list.RunE,
	}
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(list, newVolumeGetCommand(a), newVolumeDeleteCommand(a))
	return c
}

// volumeListCommand is one `dstack volume list`.
type volumeListCommand struct {
	*app
	watch, json bool
}

func newVolumeListCommand(a *app) *cobra.Command {
	l := &volumeListCommand{app: a}
	c := &cobra.Command{
		Use:   "list",
		Short: "List the volumes of a project.",
		Example: "dstack volume list\n" +
			"dstack volume list -v --watch     # with reasons, until Ctrl-C",
		Aliases: []string{"ls"},
		Args:    expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, project, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if l.watch {
				return l.watchVolumes(c.Context(), client, project)
			}
			volumes, err := client.ListVolumes(c.Context(), project)
			if err != nil {
				return err
			}
			return l.printVolumes(volumes, project)
		},
	}
	c.Flags().BoolVarP(&l.watch, "watch", "w", false, "update the list until Ctrl-C")
	addOutputFlag(c, &l.json)
	a.addProjectFlags(c)
	return c
}

func (l *volumeListCommand) printVolumes(volumes []api.Volume, project string) error {
	switch {
	case l.json:
		return l.printJSON(orEmpty(volumes))
	case len(volumes) == 0:
		l.printInfo("no volumes in project %s; create one: dstack apply -f volume.dstack.yml", cleanLine(project))
		return nil
	}
	volumesTable(volumes, l.verbose, time.Now()).writeTo(l.out)
	return nil
}

// watchVolumes prints the list again whenever it changes, until Ctrl-C.
func (l *volumeListCommand) watchVolumes(ctx context.Context, client *api.Client, project string) error {
	region := liveRegion{to: l.out}
	var previous []byte
	for {
		volumes, err := client.ListVolumes(ctx, project)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		present, err := json.Marshal(orEmpty(volumes))
		switch {
		case err != nil:
			return fmt.Errorf("compare the list: %w", err)
		case l.out.terminal && !l.json:
			lines := volumesTable(volumes, l.verbose, time.Now()).lines(l.out)
			region.draw(append(lines, l.out.paint(dim, " Ctrl-C to quit")))
		case bytes.Equal(present, previous):
		case l.json:
			_, err = l.out.Write(append(present, '\n'))
		default:
			err = l.printVolumes(volumes, project)
		}
		if err != nil {
			return err
		}
		previous = present
		if loop.Sleep(ctx, watchInterval) != nil {
			return nil
		}
	}
}

func volumesTable(volumes []api.Volume, verbose bool, now time.Time) *table {
	t := &table{head: []string{"NAME", "HOST", "SIZE", "STATUS", "USED BY", "CREATED"}, movable: []int{5}, shrinkable: []int{4, 0, 1}}
	if verbose {
		t.head = append(t.head, "BACKEND", "DATA")
	}
	for _, v := range volumes {
		row := []string{cleanLine(v.Name), orDash(volumePlace(v)), volumeSize(v), cleanLine(string(v.State)),
			orDash(strings.Join(cleanNames(v.UsedBy), ", ")), human.Age(now.Sub(v.CreatedAt.Time))}
		if verbose {
			data := ""
			if v.VolumeID != nil {
				data = *v.VolumeID
			}
			row = append(row, backendTitle(v), orDash(data))
		}
		t.rows = append(t.rows, row)
		if v.Reason != "" {
			t.rows = append(t.rows, []string{cleanLine(v.Reason)})
		}
		if v.Warning != "" && verbose {
			t.rows = append(t.rows, []string{cleanLine(v.Warning)})
		}
	}
	return t
}

// backendTitle returns the backend of a volume as in configurations.
func backendTitle(v api.Volume) string {
	if v.Configuration.Backend == "remote" {
		return "ssh"
	}
	return cleanLine(v.Configuration.Backend)
}

// volumeSize returns the size of a volume, with a mark if nothing enforces it.
func volumeSize(v api.Volume) string {
	size := v.Configuration.Size
	switch {
	case (v.Configuration.IsInCluster() || v.Configuration.IsInCloud()) && v.EnforcedMiB > 0:
		return human.Gigabytes(v.EnforcedMiB)
	case v.External || size == nil:
		return "-"
	case v.VolumeID != nil && v.EnforcedMiB == 0:
		return fmt.Sprintf("%gGB, not enforced", float64(*size))
	}
	return fmt.Sprintf("%gGB", float64(*size))
}

// volumePlace returns where a volume is: its machine, or its cluster, with the nodes that can mount it if not all can.
func volumePlace(v api.Volume) string {
	if v.Place == "" {
		return v.Host
	}
	return v.Host + ", " + v.Place
}

func newVolumeGetCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Show a volume: where it is, its status and the runs that use it.",
		Example: "dstack volume get data\n" +
			"dstack volume get data -o json",
		Args: expectArgs(1, 1, "the name of a volume"),
		RunE: func(c *cobra.Command, args []string) error {
			client, project, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			volume, err := client.Volume(c.Context(), project, args[0])
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printJSON(volume)
			}
			a.printVolume(volume, time.Now())
			return nil
		},
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

func (a *app) printVolume(v api.Volume, now time.Time) {
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(a.out, "%-9s %s\n", label, cleanLine(value))
		}
	}
	place := volumePlace(v)
	if v.Fleet != "" {
		place += " of the fleet " + v.Fleet
	}
	hostLabel, existingLabel, ownLabel := "host", "folder", "data"
	if v.Configuration.IsInCluster() {
		hostLabel, existingLabel, ownLabel = "cluster", "claim", "claim"
	}
	line("name", v.Name)
	line("status", describeVolume(v)+", for "+human.Duration(now.Sub(v.Since)))
	line(hostLabel, place)
	line("backend", backendTitle(v))
	line("size", volumeSize(v))
	if v.VolumeID != nil {
		line(map[bool]string{true: existingLabel, false: ownLabel}[v.External], *v.VolumeID)
	}
	line("access", strings.Join(v.AccessModes, ", "))
	line("used by", strings.Join(v.UsedBy, ", "))
	line("created", human.Age(now.Sub(v.CreatedAt.Time))+" by "+v.User)
	line("note", v.Warning)
}

// volumeDeleteCommand is one `dstack volume delete`.
type volumeDeleteCommand struct {
	*app
	yes, json bool
}

// volumeResult is an element of the JSON of `dstack volume delete`.
type volumeResult struct {
	Name   string `json:"name"`
	Status string `json:"status"` // statusDeleted, or deleting
	Reason string `json:"reason,omitempty"`
}

func newVolumeDeleteCommand(a *app) *cobra.Command {
	d := &volumeDeleteCommand{app: a}
	c := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Delete volumes and their data, which no unfinished run uses.",
		Example: "dstack volume delete data\n" +
			"dstack volume delete data cache -y -o json",
		Args: expectArgs(1, -1, "the name of a volume"),
		RunE: func(c *cobra.Command, args []string) error {
			slices.Sort(args)
			return d.run(c.Context(), slices.Compact(args))
		},
	}
	c.Flags().BoolVarP(&d.yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &d.json)
	a.addProjectFlags(c)
	return c
}

func (d *volumeDeleteCommand) run(ctx context.Context, names []string) error {
	client, project, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	volumes, err := client.ListVolumes(ctx, project)
	if err != nil {
		return err
	}
	question, err := d.ask(names, volumes, project)
	if err != nil {
		return err
	}
	if !d.yes {
		if yes, err := d.confirm(ctx, question); err != nil || !yes {
			return err
		}
	}
	err = d.withProgress(func() string { return "deleting " + strings.Join(names, ", ") },
		func() error { return client.DeleteVolumes(ctx, project, names) })
	if err != nil {
		return err
	}
	left, err := client.ListVolumes(ctx, project)
	if err != nil {
		return err
	}
	return d.printDeleted(names, left)
}

// ask returns the question before the deletion. It fails if a volume does not exist, or runs use it.
func (d *volumeDeleteCommand) ask(names []string, volumes []api.Volume, project string) (string, error) {
	var known, kept, lost []string
	byName := map[string]api.Volume{}
	for _, v := range volumes {
		known, byName[v.Name] = append(known, v.Name), v
	}
	for _, name := range names {
		v, ok := byName[name]
		switch {
		case !ok:
			return "", &dstack.Error{Kind: dstack.NotFound, Hint: didYouMean(name, known, "list them: dstack volume list"),
				Message: fmt.Sprintf("there is no volume `%s` in project %s", cleanLine(name), cleanLine(project))}
		case len(v.UsedBy) > 0:
			return "", &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("cannot delete %s: it is used by %s", name, strings.Join(v.UsedBy, ", ")),
				Hint: "first: dstack stop " + strings.Join(v.UsedBy, " ")}
		case v.External:
			kept = append(kept, name)
		default:
			lost = append(lost, name)
		}
	}
	if len(lost) == 0 {
		return "Forget " + joinNames(kept) + "? Their data stays as it is.", nil
	}
	return "Delete " + joinNames(append(lost, kept...)) + " and the data of " + joinNames(lost) + "?", nil
}

// printDeleted prints which volumes are gone, and which wait for their machine.
func (d *volumeDeleteCommand) printDeleted(names []string, left []api.Volume) error {
	results := make([]volumeResult, 0, len(names))
	for _, name := range names {
		at := slices.IndexFunc(left, func(v api.Volume) bool { return v.Name == name && v.State == dstack.VolumeDeleting })
		if at < 0 {
			d.printInfo(" %s is deleted", cleanLine(name))
			results = append(results, volumeResult{Name: name, Status: statusDeleted})
			continue
		}
		d.printInfo(" %s is being deleted: %s", cleanLine(name), cleanLine(left[at].Reason))
		results = append(results, volumeResult{name, string(dstack.VolumeDeleting), left[at].Reason})
	}
	if d.json {
		return d.printJSON(results)
	}
	return nil
}
