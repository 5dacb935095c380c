package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// fleetChangeCommand is one `dstack fleet drain`, `resume` or `delete`.
type fleetChangeCommand struct {
	*app
	yes, json, all bool
	nums           []string // --instance
}

func newFleetDrainCommand(a *app, drain bool) *cobra.Command {
	d := &fleetChangeCommand{app: a}
	c := &cobra.Command{
		Use:   "drain [FLEET] HOST...",
		Short: "Move what runs on hosts elsewhere, and place nothing new there.",
		Example: "dstack fleet drain gpu-box     # or hosts of a fleet, by name or number: basement gpu-box 2\n" +
			"dstack fleet drain basement --all",
	}
	if !drain {
		c.Use, c.Short = "resume [FLEET] HOST...", "Use drained hosts again."
		c.Example = "dstack fleet resume gpu-box\n" +
			"dstack fleet resume basement --all"
	}
	c.Args = expectArgs(1, -1, "the name of a host, or of a fleet and its hosts")
	c.RunE = func(c *cobra.Command, args []string) error { return d.drain(c.Context(), args, drain) }
	c.ValidArgsFunction = a.completeFleets
	c.Flags().BoolVar(&d.all, "all", false, "all hosts of the fleet")
	addOutputFlag(c, &d.json)
	a.addProjectFlags(c)
	return c
}

func (d *fleetChangeCommand) drain(ctx context.Context, names []string, drain bool) error {
	client, project, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	fleets, err := client.FleetViews(ctx, project)
	if err != nil {
		return err
	}
	view, hosts, err := findFleetOfHosts(fleets, names)
	if err != nil {
		return err
	}
	if d.all == (len(hosts) > 0) {
		return invalidInput("name hosts of the fleet, or all: --all", "it takes hosts or --all")
	}
	nums, err := findHosts(view, hosts)
	if err != nil {
		return err
	}
	view, err = client.DrainFleet(ctx, project, api.DrainRequest{Name: view.Name, InstanceNums: nums, Drain: drain})
	if err != nil {
		return err
	}
	others := "hosts"
	if view.IsRented {
		others = "machines"
	}
	for _, m := range listMachines(view) {
		switch {
		case len(nums) > 0 && !slices.Contains(nums, m.num):
		case !drain:
			d.printInfo(" %s is used again", cleanLine(m.name))
		case len(m.replicas) > 0:
			d.printInfo(" %s is draining; these move to other %s with room: %s", cleanLine(m.name), others, strings.Join(cleanNames(m.replicas), ", "))
		default:
			d.printInfo(" %s is drained", cleanLine(m.name))
		}
	}
	if d.json {
		return d.printJSON(view)
	}
	return nil
}

// findFleetOfHosts returns the fleet that names mean, and the hosts among them: the first name may be that of a fleet.
// Without one, all are hosts of the same fleet.
func findFleetOfHosts(fleets []api.FleetView, names []string) (fleet api.FleetView, hosts []string, err error) {
	var known []string
	var having []api.FleetView
	for _, f := range fleets {
		if f.Name == names[0] {
			return f, names[1:], nil
		}
		known = append(known, f.Name)
		for _, m := range listMachines(f) {
			known = append(known, m.name)
			if m.name == names[0] || m.address == names[0] {
				having = append(having, f)
			}
		}
	}
	shown := cleanLine(names[0])
	switch len(having) {
	case 1:
		return having[0], names, nil
	case 0:
		return fleet, nil, &dstack.Error{Kind: dstack.NotFound, Hint: didYouMean(names[0], known, "list them: dstack fleet list"),
			Message: fmt.Sprintf("there is no fleet and no host `%s`", shown)}
	default:
		return fleet, nil, invalidInput(fmt.Sprintf("name the fleet, too: %s %s", cleanLine(having[0].Name), shown),
			"several fleets have a host `%s`", shown)
	}
}

// findHosts returns the numbers of hosts that are given by name or number.
func findHosts(view api.FleetView, hosts []string) ([]int, error) {
	machines := listMachines(view)
	var names []string
	for _, m := range machines {
		names = append(names, m.name)
	}
	var nums []int
	for _, wanted := range hosts {
		i := slices.IndexFunc(machines, func(m namedMachine) bool { return m.name == wanted || m.address != "" && m.address == wanted })
		if i < 0 {
			i = slices.IndexFunc(machines, func(m namedMachine) bool { return strconv.Itoa(m.num) == wanted })
		}
		if i < 0 {
			return nil, &dstack.Error{Kind: dstack.NotFound, Hint: didYouMean(wanted, names, "list them: dstack fleet get "+view.Name),
				Message: fmt.Sprintf("fleet %s has no host `%s`", cleanLine(view.Name), cleanLine(wanted))}
		}
		nums = append(nums, machines[i].num)
	}
	return nums, nil
}

func newFleetDeleteCommand(a *app) *cobra.Command {
	d := &fleetChangeCommand{app: a}
	c := &cobra.Command{
		Use:   "delete FLEET [HOST...]",
		Short: "Delete a fleet on which nothing runs, or only some hosts of it.",
		Example: "dstack fleet delete basement\n" +
			"dstack fleet delete basement gpu-box -y     # this host only, by name or number",
		Aliases: []string{"rm"},
		Args:    expectArgs(1, -1, "the name of a fleet"),
		RunE: func(c *cobra.Command, args []string) error {
			return d.delete(c.Context(), args[0], slices.Concat(args[1:], d.nums))
		},
		ValidArgsFunction: a.completeFleets,
	}
	c.Flags().StringArrayVarP(&d.nums, "instance", "i", nil, "only the host with this `NUMBER`; repeatable")
	c.Flags().BoolVarP(&d.yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &d.json)
	a.addProjectFlags(c)
	return c
}

func (d *fleetChangeCommand) delete(ctx context.Context, name string, hosts []string) error {
	client, project, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	view, err := client.FleetView(ctx, project, name)
	if err != nil {
		return d.suggestFleet(ctx, client, project, name, err)
	}
	nums, err := findHosts(view, hosts)
	if err != nil {
		return err
	}
	if !d.yes {
		question := "Delete the fleet " + name + "?"
		if len(hosts) > 0 {
			question = "Remove " + joinNames(hosts) + " from the fleet " + name + "?"
		}
		if agreed, err := d.confirm(ctx, question); err != nil || !agreed {
			return err
		}
	}
	if err := client.DeleteFleet(ctx, project, name, nums...); err != nil {
		return err
	}
	left, err := d.waitUntilGone(ctx, client, project, name, nums)
	if err != nil {
		return err
	}
	results := []secretResult{{name, statusDeleted}}
	if len(hosts) > 0 {
		results = nil
		for _, h := range hosts {
			results = append(results, secretResult{h, statusDeleted})
		}
	}
	for _, r := range results {
		if left {
			d.printInfo(" %s leaves as soon as nothing runs there", cleanLine(r.Name))
		} else {
			d.printInfo(" %s is deleted", cleanLine(r.Name))
		}
	}
	if d.json {
		return d.printJSON(results)
	}
	return nil
}

// maxDeleteWait is how long `dstack fleet delete` waits until the hosts are gone.
const maxDeleteWait = 10 * time.Second

// waitUntilGone waits a little until a fleet, or the hosts of it, are gone. It reports whether they are still there.
func (d *fleetChangeCommand) waitUntilGone(ctx context.Context, client *api.Client, project, name string, nums []int) (left bool, err error) {
	err = d.withProgress(func() string { return "deleting" }, func() error {
		for until := time.Now().Add(maxDeleteWait); ; {
			view, err := client.FleetView(ctx, project, name)
			if dstack.KindOf(err) == dstack.NotFound {
				left = false
				return nil
			}
			if err != nil {
				return err
			}
			left = len(nums) == 0 || slices.ContainsFunc(listMachines(view), func(m namedMachine) bool { return slices.Contains(nums, m.num) })
			if !left || time.Now().After(until) {
				return nil
			}
			if err := loop.Sleep(ctx, fleetPoll); err != nil {
				return err
			}
		}
	})
	return left, err
}
