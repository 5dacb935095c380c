package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// defaultRentTimeout is how long `dstack apply` waits for the machines of a fleet.
const defaultRentTimeout = 20 * time.Minute

// maxShownOffers is how many offers the plan of a fleet shows.
const maxShownOffers = 3

// namedMachine is a host or a rented machine of a fleet, as the user names it.
type namedMachine struct {
	name, address string
	num           int
	replicas      []string
}

// listMachines returns the hosts and the rented machines of a fleet.
func listMachines(f api.FleetView) (all []namedMachine) {
	for _, h := range f.Hosts {
		all = append(all, namedMachine{h.Name, h.Address, h.Num, h.Replicas})
	}
	for _, m := range f.Machines {
		all = append(all, namedMachine{m.Name, "", m.Num, m.Replicas})
	}
	return all
}

// printRentedPlan prints which machines a fleet would rent.
func (f *applyFleetCommand) printRentedPlan(preview api.FleetPreview) {
	plan := preview.Rented
	f.printInfo(" %s", describeNodes(*f.fleet))
	switch {
	case plan.Add > 0 && plan.Total > 0:
		text := "rents " + human.Count(plan.Add, "machine")
		if price := plan.Placements[0].Offer.Price; price > 0 {
			text += fmt.Sprintf(", from %s an hour in all", formatPrice(price*float64(plan.Add)))
		}
		f.printInfo(" %s", text)
	case plan.Remove > 0:
		f.printInfo(" gives %s back as soon as nothing runs there", human.Count(plan.Remove, "machine"))
	}
	f.printInfo("")
	if plan.Total > 0 {
		shown := plan.Placements[:min(len(plan.Placements), maxShownOffers)]
		placementsTable(shown).writeTo(f.err)
		if plan.Total > len(shown) {
			f.printInfo(" %s", f.err.paint(dim, fmt.Sprintf("and %s", human.CountOf(plan.Total-len(shown), "other offer", "other offers"))))
		}
		f.printInfo("")
	} else {
		f.printLabeled(" note  ", yellow, "no machine to rent suits; the fleet gets its machines when there are some")
		for _, r := range plan.Rejections[:min(len(plan.Rejections), maxShownOffers)] {
			f.printInfo("       %s", formatRejection(r))
		}
		f.printInfo("")
	}
	for _, note := range plan.Notes {
		f.printLabeled(" note  ", yellow, cleanLine(note))
	}
}

// describeNodes says how many machines a fleet has, and where.
func describeNodes(f spec.Fleet) string {
	least, target, most, isLimited := f.NodeCounts()
	text := human.Count(least, "machine") + " kept ready"
	if target > least {
		text += fmt.Sprintf(", %d at first", target)
	}
	switch {
	case !isLimited:
		text += ", more when runs need them"
	case most > least:
		text += fmt.Sprintf(", up to %d when runs need them", most)
	}
	if f.Placement == "cluster" {
		text += ", all in one zone with a fast network between them"
	}
	return text
}

// followRental shows how the machines of a fleet come up, until all are there or none is left to wait for.
func (f *applyFleetCommand) followRental(ctx context.Context, view api.FleetView) (*api.FleetView, error) {
	timeout := f.flags.timeout
	if timeout == 0 || f.flags.wait == "ready" && timeout == defaultWaitTimeout {
		timeout = defaultRentTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeout, errWaitTimeout)
	defer cancel()
	region := liveRegion{to: f.err}
	printed := map[string]bool{}
	for {
		region.clear()
		open := f.printReadyMachines(view, printed)
		if len(open) == 0 {
			return f.finishRental(view)
		}
		if f.err.terminal {
			region.draw(open)
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
			continue
		case ctx.Err() != nil:
			err = &dstack.Error{Kind: dstack.Conflict, Message: "interrupted before all machines were there"}
			f.printInfo("detached; the machines are rented all the same: dstack fleet get %s", cleanLine(view.Name))
		case limited.Err() != nil:
			err = &dstack.Error{Kind: dstack.Timeout, Hint: "they are waited for; see: dstack fleet get " + view.Name,
				Message: fmt.Sprintf("%s not there after %s", human.CountOf(len(open), "machine is", "machines are"), human.Duration(timeout))}
		}
		region.clear()
		return &view, err
	}
}

// printReadyMachines prints the machines that became usable since, and returns a line for each that is waited for.
func (f *applyFleetCommand) printReadyMachines(view api.FleetView, printed map[string]bool) (open []string) {
	for _, m := range view.Machines {
		text := fmt.Sprintf("   %s  ", cleanLine(m.Name))
		switch m.Status {
		case api.MachineStatusProvisioning:
			open = append(open, text+"provisioning "+f.err.paint(dim, describeMachine(m)+" "+cleanLine(m.Message)))
		case api.MachineStatusTerminating:
		case api.MachineStatusIdle, api.MachineStatusBusy, api.MachineStatusUnreachable, api.MachineStatusDraining, api.MachineStatusDrained:
			if !printed[m.ID] {
				printed[m.ID] = true
				f.printLabeled(text+"ready   ", green, describeMachine(m))
			}
		}
	}
	if s := view.Shortage; s != nil && !s.IsFinal {
		line := "   " + human.CountOf(s.Missing, "machine is", "machines are") + " still to be rented"
		if s.Reason != "" {
			line += ": " + cleanLine(s.Reason)
		}
		open = append(open, line)
	}
	return open
}

// finishRental returns the fleet, with an error if it has fewer machines than it should.
func (f *applyFleetCommand) finishRental(view api.FleetView) (*api.FleetView, error) {
	if s := view.Shortage; s != nil && s.IsFinal {
		return &view, &dstack.Error{Kind: dstack.NoCapacity, Message: fmt.Sprintf("%s cannot be rented: %s", human.Count(s.Missing, "machine"), cleanLine(s.Reason)),
			Hint: "it is tried again by itself; see: dstack fleet get " + view.Name}
	}
	usable := 0
	for _, m := range view.Machines {
		if m.Status != api.MachineStatusProvisioning && m.Status != api.MachineStatusTerminating {
			usable++
		}
	}
	f.printInfo("")
	f.printInfo(" %s is ready with %s", cleanLine(view.Name), human.Count(usable, "machine"))
	return &view, nil
}

// describeMachine describes a rented machine: g6.xlarge in aws us-east-1a, spot, $0.4 an hour.
func describeMachine(m api.MachineView) string {
	text := cleanLine(m.Type) + " in " + describePlace(m)
	if m.Spot {
		text += ", spot"
	}
	return text + ", " + formatPrice(m.Price) + " an hour"
}

func describePlace(m api.MachineView) string {
	place := m.Region
	if m.Zone != "" {
		place = m.Zone
	}
	return cleanLine(strings.TrimSpace(m.Backend + " " + place))
}

// rentedRow returns the row of a rented machine in the table of fleets, whose columns rentedColumns lists.
func rentedRow(fleet string, m api.MachineView, verbose bool, now time.Time) []string {
	resources := "-"
	if m.CPUs > 0 {
		resources = fmt.Sprintf("%d cpu, %s, %s disk", m.CPUs, human.Gigabytes(m.MemoryMiB), human.Gigabytes(m.DiskMiB))
	}
	gpus := "-"
	if len(m.GPUs) > 0 {
		gpus = describeGPUs(api.HostFound{GPUs: m.GPUs})
	}
	market := ""
	if m.Spot {
		market = " spot"
	}
	row := []string{fleet, cleanLine(m.Name), cleanLine(string(m.Status)), describePlace(m), cleanLine(m.Type), gpus, resources, formatPrice(m.Price) + market}
	if verbose {
		row = slices.Insert(row, 1, strconv.Itoa(m.Num))
		return append(row, orDash(strings.Join(cleanNames(m.Replicas), ", ")), human.Age(now.Sub(m.Since)))
	}
	return append(row, human.Age(now.Sub(m.Since)))
}

// rentedNotes returns the notes below the row of a rented machine.
func rentedNotes(m api.MachineView) [][]string {
	if m.Message == "" {
		return nil
	}
	return [][]string{{cleanLine(m.Message)}}
}

// shortageNote returns the note below a fleet that has too few machines.
func shortageNote(f api.FleetView) [][]string {
	s := f.Shortage
	if s == nil {
		return nil
	}
	text := human.CountOf(s.Missing, "machine is", "machines are") + " missing"
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return [][]string{{cleanLine(text)}}
}

// rentedTable returns the table of fleets that rent their machines: a row for each machine.
func rentedTable(views []api.FleetView, verbose bool, now time.Time) *table {
	t := &table{head: []string{"FLEET", "MACHINE", "STATUS", "WHERE", "TYPE", "GPU", "RESOURCES", "PRICE", "AGE"}, movable: []int{8, 6, 5}, shrinkable: []int{1, 0}}
	if verbose {
		t.head = []string{"FLEET", "#", "MACHINE", "STATUS", "WHERE", "TYPE", "GPU", "RESOURCES", "PRICE", "RUNS", "AGE"}
		t.movable, t.shrinkable = []int{10, 9, 7, 6}, []int{2, 0}
	}
	statusColumn := slices.Index(t.head, "STATUS")
	for _, f := range views {
		name := cleanLine(f.Name)
		if f.IsDeleting {
			name += " (deleting)"
		}
		if len(f.Machines) == 0 {
			t.rows = append(t.rows, append([]string{name}, slices.Repeat([]string{"-"}, len(t.head)-1)...))
		}
		for _, m := range f.Machines {
			t.rows = append(t.rows, rentedRow(name, m, verbose, now))
			t.rows = append(t.rows, rentedNotes(m)...)
			name = ""
		}
		t.rows = append(t.rows, shortageNote(f)...)
	}
	t.style = func(row, column int) (textStyle, bool) {
		if column != statusColumn || len(t.rows[row]) <= column {
			return 0, false
		}
		return machinePaint(t.rows[row][column])
	}
	return t
}

// machinePaint returns the style of the status of a rented machine.
func machinePaint(status string) (textStyle, bool) {
	switch api.MachineStatus(status) {
	case api.MachineStatusIdle, api.MachineStatusBusy:
		return green, true
	case api.MachineStatusUnreachable:
		return red, true
	case api.MachineStatusProvisioning, api.MachineStatusDraining, api.MachineStatusDrained, api.MachineStatusTerminating:
		return yellow, true
	}
	return 0, false
}

// splitRented returns the fleets of hosts, and those whose machines are rented.
func splitRented(views []api.FleetView) (hosts, rented []api.FleetView) {
	for _, f := range views {
		if f.IsRented {
			rented = append(rented, f)
		} else {
			hosts = append(hosts, f)
		}
	}
	return hosts, rented
}
