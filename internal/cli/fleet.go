package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
)

func newFleetCommand(a *app) *cobra.Command {
	list := newFleetListCommand(a)
	c := &cobra.Command{
		Use:   "fleet",
		Short: "List, show, drain and delete fleets; dstack apply creates them.",
		Example: "dstack apply -f fleet.dstack.yml     # type: fleet, with ssh_config or nodes\n" +
			"dstack fleet list -v",
		Args: unknownCommand,
		RunE: list.RunE,
	}
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(list, newFleetGetCommand(a), newFleetDrainCommand(a, true), newFleetDrainCommand(a, false), newFleetDeleteCommand(a))
	return c
}

// fleetListCommand is one `dstack fleet list` or `dstack fleet get`.
type fleetListCommand struct {
	*app
	client      *api.Client
	project     string
	names       []string
	details     bool // as with --verbose
	watch, json bool
}

func newFleetListCommand(a *app) *cobra.Command {
	l := &fleetListCommand{app: a}
	c := &cobra.Command{
		Use:   "list",
		Short: "List the fleets of a project and their machines.",
		Example: "dstack fleet list\n" +
			"dstack fleet list -v --watch     # with what runs on the hosts, until Ctrl-C",
		Aliases: []string{"ls"},
		Args:    expectArgs(0, 0, "no arguments"),
		RunE:    func(c *cobra.Command, _ []string) error { return l.run(c.Context()) },
	}
	l.addFlags(c)
	return c
}

func newFleetGetCommand(a *app) *cobra.Command {
	l := &fleetListCommand{app: a}
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Show a fleet: its hosts or rented machines, and what runs on them.",
		Example: "dstack fleet get basement\n" +
			"dstack fleet get basement -o json",
		Args: expectArgs(1, 1, "the name of a fleet"),
		RunE: func(c *cobra.Command, args []string) error {
			l.names, l.details = args, true
			return l.run(c.Context())
		},
		ValidArgsFunction: a.completeFleets,
	}
	l.addFlags(c)
	return c
}

func (l *fleetListCommand) addFlags(c *cobra.Command) {
	c.Flags().BoolVarP(&l.watch, "watch", "w", false, "update the list until Ctrl-C")
	addOutputFlag(c, &l.json)
	l.addProjectFlags(c)
}

func (l *fleetListCommand) run(ctx context.Context) (err error) {
	if l.client, l.project, err = l.connect(ctx); err != nil {
		return err
	}
	defer l.client.Close()
	if l.watch {
		return l.watchFleets(ctx)
	}
	views, err := l.listFleets(ctx)
	if err != nil {
		return err
	}
	return l.printFleets(views)
}

// listFleets returns the named fleet or, without a name, all.
func (l *fleetListCommand) listFleets(ctx context.Context) ([]api.FleetView, error) {
	if len(l.names) == 0 {
		return l.client.FleetViews(ctx, l.project)
	}
	view, err := l.client.FleetView(ctx, l.project, l.names[0])
	if err != nil {
		return nil, l.suggestFleet(ctx, l.client, l.project, l.names[0], err)
	}
	return []api.FleetView{view}, nil
}

// suggestFleet turns the error of an unknown fleet into one that suggests a name. Other errors pass unchanged.
func (a *app) suggestFleet(ctx context.Context, client *api.Client, project, name string, err error) error {
	if dstack.KindOf(err) != dstack.NotFound {
		return err
	}
	known, listErr := client.FleetViews(ctx, project)
	if listErr != nil {
		return listErr
	}
	names := make([]string, 0, len(known))
	for _, f := range known {
		names = append(names, f.Name)
	}
	return &dstack.Error{Kind: dstack.NotFound, Cause: err, Hint: didYouMean(name, names, "list them: dstack fleet list"),
		Message: fmt.Sprintf("there is no fleet `%s` in project %s", cleanLine(name), cleanLine(project))}
}

func (l *fleetListCommand) printFleets(views []api.FleetView) error {
	switch {
	case l.json && len(l.names) > 0:
		return l.printJSON(views[0])
	case l.json:
		return l.printJSON(orEmpty(views))
	case len(views) == 0:
		l.printInfo("no fleets in project %s; create one: dstack apply -f fleet.dstack.yml", cleanLine(l.project))
		return nil
	}
	for i, t := range fleetTables(views, l.verbose || l.details, time.Now()) {
		if i > 0 {
			fmt.Fprintln(l.out)
		}
		t.writeTo(l.out)
	}
	return nil
}

// watchFleets prints the list again whenever it changes, until Ctrl-C.
func (l *fleetListCommand) watchFleets(ctx context.Context) error {
	region := liveRegion{to: l.out}
	var previous []byte
	for {
		views, err := l.listFleets(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		present, err := json.Marshal(withoutTimes(views))
		switch {
		case err != nil:
			return fmt.Errorf("compare the list: %w", err)
		case l.out.terminal && !l.json:
			var lines []string
			for _, t := range fleetTables(views, l.verbose || l.details, time.Now()) {
				lines = append(lines, t.lines(l.out)...)
			}
			region.draw(append(lines, l.out.paint(dim, " Ctrl-C to quit")))
		case bytes.Equal(present, previous):
		case l.json:
			err = json.NewEncoder(l.out).Encode(orEmpty(views))
		default:
			err = l.printFleets(views)
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

// withoutTimes returns fleets without the times of checks, which change all the time.
func withoutTimes(views []api.FleetView) []api.FleetView {
	copied := slices.Clone(views)
	for i := range copied {
		copied[i].Hosts = slices.Clone(copied[i].Hosts)
		for k := range copied[i].Hosts {
			copied[i].Hosts[k].CheckedAt, copied[i].Hosts[k].NextCheckAt = nil, nil
		}
	}
	return copied
}

// fleetTables returns the tables of fleets: one of those with hosts, and one of those whose machines are rented.
func fleetTables(views []api.FleetView, verbose bool, now time.Time) (tables []*table) {
	hosts, rented := splitRented(views)
	if len(hosts) > 0 {
		tables = append(tables, hostsTable(hosts, verbose, now))
	}
	if len(rented) > 0 {
		tables = append(tables, rentedTable(rented, verbose, now))
	}
	return tables
}

// hostsTable returns the table of fleets of hosts: a row for each host.
func hostsTable(views []api.FleetView, verbose bool, now time.Time) *table {
	t := &table{head: []string{"FLEET", "HOST", "STATUS", "GPU", "RESOURCES", "AGE"}, movable: []int{5, 4}, shrinkable: []int{1, 0}}
	if verbose {
		t.head = []string{"FLEET", "#", "HOST", "STATUS", "ADDRESS", "GPU", "RESOURCES", "DOCKER", "RUNS", "CHECKED"}
		t.movable, t.shrinkable = []int{8, 7, 4, 9, 6}, []int{2, 0}
	}
	statusColumn := slices.Index(t.head, "STATUS")
	for _, f := range views {
		name := cleanLine(f.Name)
		if f.IsDeleting {
			name += " (deleting)"
		}
		if len(f.Hosts) == 0 {
			t.rows = append(t.rows, append([]string{name}, slices.Repeat([]string{"-"}, len(t.head)-1)...))
		}
		for _, h := range f.Hosts {
			t.rows = append(t.rows, fleetRow(name, h, verbose, now))
			t.rows = append(t.rows, hostNotes(h, verbose)...)
			name = ""
		}
	}
	t.style = func(row, column int) (textStyle, bool) {
		if column != statusColumn {
			return 0, false
		}
		return hostPaint(t.rows[row][column])
	}
	return t
}

func fleetRow(fleet string, h api.HostView, verbose bool, now time.Time) []string {
	resources := "-"
	if h.Found.CPUs > 0 {
		resources = fmt.Sprintf("%d cpu, %s, %s disk", h.Found.CPUs, human.Gigabytes(h.Found.MemoryMiB), human.Gigabytes(h.Found.DiskMiB))
	}
	gpus := describeGPUs(h.Found)
	if h.Found.CPUs == 0 || len(h.Found.GPUs) == 0 {
		gpus = "-"
	}
	if !verbose {
		return []string{fleet, cleanLine(h.Name), cleanLine(string(h.Status)), gpus, resources, human.Age(now.Sub(h.Since))}
	}
	address := h.User + "@" + h.Address
	if h.Jump != "" {
		address += " through " + h.Jump
	}
	checked := "-"
	if h.CheckedAt != nil {
		checked = human.Age(now.Sub(*h.CheckedAt)) + " ago"
	}
	return []string{fleet, strconv.Itoa(h.Num), cleanLine(h.Name), cleanLine(string(h.Status)), cleanLine(address), gpus, resources,
		orDash(h.Found.DockerVersion), orDash(strings.Join(cleanNames(h.Replicas), ", ")), checked}
}

// hostNotes returns the notes below the row of a host.
func hostNotes(h api.HostView, verbose bool) (notes [][]string) {
	if h.Message != "" {
		notes = append(notes, []string{cleanLine(h.Step + ": " + h.Message)})
	}
	if h.Hint != "" {
		notes = append(notes, []string{"try: " + cleanLine(h.Hint)})
	}
	if verbose {
		for _, w := range h.Warnings {
			notes = append(notes, []string{cleanLine(w)})
		}
		if h.HostKey != "" {
			notes = append(notes, []string{"host key " + cleanLine(h.HostKey)})
		}
	}
	return notes
}

// hostPaint returns the style of the status of a host.
func hostPaint(status string) (textStyle, bool) {
	switch api.HostStatus(status) {
	case api.HostStatusIdle, api.HostStatusBusy:
		return green, true
	case api.HostStatusFailed, api.HostStatusUnreachable:
		return red, true
	case api.HostStatusChecking, api.HostStatusDraining, api.HostStatusDrained, api.HostStatusLeaving:
		return yellow, true
	}
	return 0, false
}

// completeFleets completes the names of fleets.
func (a *app) completeFleets(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeoutCause(c.Context(), 2*time.Second, errors.New("the shell waits"))
	defer cancel()
	client, project, err := a.newClient()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	views, err := client.FleetViews(ctx, project)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, f := range views {
		if len(args) == 0 {
			names = append(names, f.Name)
		} else if f.Name == args[0] {
			for _, m := range listMachines(f) {
				names = append(names, m.name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
